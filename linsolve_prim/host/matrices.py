"""Values on a pattern as SciPy's matrices."""

from __future__ import annotations

import copy
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

    matrix = copy.copy(pattern.cached(kind, make))
    matrix.data = values
    return matrix


def in_double(x: np.ndarray) -> np.ndarray:
    """The same in float64 or complex128."""
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)
