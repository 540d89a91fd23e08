"""PARDISO of Intel's Math Kernel Library."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np

from ...host import pardiso
from ...host.available import require
from ...host.matrices import all_true, residual_is_small
from ...host.tasks import Refused, Solved
from ...operators import AbstractLinearOperator, is_positive_semidefinite, is_symmetric
from ...operators.functions import promises_hermitian
from ...sparse.pattern import SparsityPattern
from .base import AbstractSymbolicSolver
from .pardiso_module import ByModule
from .superlu import GENERAL, SuperLU

_AUTO = "auto"


class PARDISO(AbstractSymbolicSolver):
    """Supernodal sparse LU, LDLᵀ or Cholesky by MKL PARDISO (Schenk & Gärtner 2004, FGCS 20(3)).

    - `structure`: "auto" (what the operator's tags promise), "definite" (LLᴴ), "hermitian" (LDLᴴ), "symmetric"
      (LDLᵀ) or "general" (LU).

    A matrix needs one factorization, for A and for Aᵀ; a pattern needs one analysis for all its matrices.
    Where a pivot is too small, or a residual is too large, there is a second factorization, with scaling
    and a maximum weight matching. PARDISO is silent about singular matrices, so every residual is checked
    here, and what fails goes to `SuperLU`.
    By the wheel of `py-mkl-pardiso` (Linux on x86-64, Windows), in all four dtypes. (Where the library
    inside of that cannot be called, its module is: in double precision, and with a factorization for Aᵀ.)

    **Raises** `ImportError`, with the remedy, if that is not installed; `ValueError` for another `structure`.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), lp.PARDISO()).round(3))
        [1. 2.]
    """

    structure: str = _AUTO
    releases_gil: ClassVar[bool] = True
    stable: ClassVar[bool] = True  # residuals are looked at here

    def __check_init__(self) -> None:
        known = (_AUTO, *pardiso.STRUCTURES)
        if self.structure not in known:
            raise ValueError(f"structure: must be one of {known}; got {self.structure!r}.")
        require("PARDISO", "pymklpardiso")

    def specialize(self, operator: AbstractLinearOperator) -> PARDISO:
        return self if self.structure != _AUTO else PARDISO(_structure(operator))

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        structure = "general" if self.structure == _AUTO else self.structure
        if pardiso.library() is None:
            return ByModule(pattern, structure)
        return pardiso.Symbolic(pattern.indptr, pattern.indices, structure, values.dtype)

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        if self.structure == "definite" and _diagonal(pattern, values).min() <= 0:
            raise Refused("singular", "a diagonal entry of a definite matrix is not positive")
        return _Factor(analysis, pattern, values)

    def solve(self, factor: _Factor, b: np.ndarray, *, transpose: bool) -> np.ndarray | Solved:
        return factor.solve(b, transpose)

    def nbytes(self, factor: _Factor) -> int:
        return int(factor.numeric.nbytes) + factor.values.nbytes

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        return super().analysis_nbytes(pattern, analysis) + int(analysis.nbytes)

    def fallback(self) -> SuperLU:
        return GENERAL


class _Factor:
    """A matrix and its factor, which is made again, with a matching, if a residual is bad."""

    __slots__ = ("_lock", "analysis", "numeric", "pattern", "values")

    def __init__(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray):
        self.analysis, self.pattern, self.values = analysis, pattern, values
        self.numeric = analysis.factorize(values)
        self._lock = threading.Lock()

    def solve(self, b: np.ndarray, transpose: bool) -> np.ndarray | Solved:
        numeric = self.numeric
        x = numeric.solve(b, transpose=transpose)
        good = residual_is_small(self.pattern, self.values, x, b, transpose)
        if all_true(good):
            return x
        if not numeric.is_matched:
            self._match()
            bad = ~good
            x[bad] = self.numeric.solve(b[bad], transpose=transpose)
            good = residual_is_small(self.pattern, self.values, x, b, transpose)
            if good.all():
                return x
        return Solved(x, ["successful" if one else "singular" for one in good])

    def _match(self) -> None:
        with self._lock:  # the first thread does it for all
            if not self.numeric.is_matched:
                self.numeric = self.analysis.match(self.values)


def _structure(operator: AbstractLinearOperator) -> str:
    if is_positive_semidefinite(operator):
        return "definite"
    if promises_hermitian(operator):
        return "hermitian"
    return "symmetric" if is_symmetric(operator) else "general"


def _diagonal(pattern: SparsityPattern, values: np.ndarray) -> np.ndarray:
    """Without imaginary parts; a zero if an entry is missing."""

    def make() -> np.ndarray:
        return np.flatnonzero(pattern.rows == pattern.indices)

    on = pattern.cached("slots of the diagonal", make)
    return values[on].real if len(on) == pattern.shape[0] else np.zeros(1)
