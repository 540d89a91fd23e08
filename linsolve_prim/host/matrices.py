"""Values on a pattern as SciPy's matrices."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..sparse.pattern import SparsityPattern


def csr_of(pattern: SparsityPattern, values: np.ndarray) -> sp.csr_matrix:
    """The matrix by rows; nothing is copied."""
    return _filled(pattern, sp.csr_matrix, pattern.shape, values)


def csc_of_transpose(pattern: SparsityPattern, values: np.ndarray) -> sp.csc_matrix:
    """Aᵀ by columns: the same three arrays as A by rows, so that nothing is converted."""
    return _filled(pattern, sp.csc_matrix, pattern.shape[::-1], values)


def _filled(pattern: SparsityPattern, kind: Any, shape: tuple[int, int], values: np.ndarray) -> Any:
    """A matrix with these values. SciPy checks the indices once for a pattern, not for each matrix."""

    def make() -> Any:
        nothing = np.zeros(pattern.nnz, np.int8)
        found = kind((nothing, pattern.indices, pattern.indptr), shape=shape)
        found.has_canonical_format = True
        return found

    matrix = object.__new__(kind)  # as `copy.copy` does it, in a tenth of the time
    matrix.__dict__ |= pattern.cached(kind, make).__dict__
    matrix.data = values
    return matrix


def in_double(x: np.ndarray) -> np.ndarray:
    """The same in float64 or complex128."""
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)


def residual_is_small(
    pattern: SparsityPattern, values: np.ndarray, x: np.ndarray, b: np.ndarray, transpose: bool
) -> np.ndarray:
    """Whether ‖b − Ax‖ ≤ ε^½·‖b‖, for each right-hand side: a library that errs gets no further."""
    return solves((csc_of_transpose if transpose else csr_of)(pattern, values), x, b, 1 / 2)


def solves(matrix: Any, x: np.ndarray, b: np.ndarray, power: float) -> np.ndarray:
    """Whether ‖b − Ax‖ ≤ ε^power·‖b‖, for each of the right-hand sides `(k, n)`."""
    with np.errstate(all="ignore"):
        if len(b) == 1:  # a quarter of the time for a small one
            ((rhs,), (solution,)) = b, x
            small = _norm(rhs - matrix @ solution) <= _epsilon(b.dtype) ** power * _norm(rhs)
            return np.array([small])
        residual = np.linalg.norm(b - (matrix @ x.T).T, axis=1)
        return residual <= _epsilon(b.dtype) ** power * np.linalg.norm(b, axis=1)


def _norm(x: np.ndarray) -> float:
    return math.sqrt(np.vdot(x, x).real)


_epsilon = functools.cache(lambda dtype: float(np.finfo(dtype).eps))


def all_finite(x: np.ndarray) -> bool:
    """Whether no element is NaN or infinite."""
    # The square of the norm tells in a third of the time of a small `isfinite(x).all()`; it may overflow.
    return math.isfinite(np.vdot(x, x).real) or bool(np.isfinite(x).all())


def all_true(x: np.ndarray) -> bool:
    """`x.all()` of Booleans, in a sixth of the time for a few."""
    return np.count_nonzero(x) == x.size


def address_of(x: np.ndarray) -> int:
    """Where the elements of an array begin, for a library that takes pointers."""
    return int(x.__array_interface__["data"][0])  # half the time of `x.ctypes.data`
