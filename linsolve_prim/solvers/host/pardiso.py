"""PARDISO of Intel's Math Kernel Library."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from ...host.available import require
from ...host.matrices import csr_of, in_double
from ...host.tasks import Refused
from ...operators import AbstractLinearOperator, is_positive_semidefinite
from ...sparse.pattern import SparsityPattern
from .base import AbstractSymbolicSolver
from .spare import Lent, Spare
from .superlu import GENERAL, SuperLU

_SCALED_AND_MATCHED = {10: 1, 12: 1, 7: 2}  # scaling, weighted matching, 2 steps of refinement
_TRANSPOSED = {11: 2}
_PERTURBED_PIVOTS = 13


class _Handles:
    """PARDISO's handle for A and, made when asked for, one for Aᵀ. They may be filled again."""

    def __init__(self, kind: int, settings: dict[int, int], both: bool):
        self.kind, self.settings, self.both = kind, settings, both
        self.made: dict[bool, Any] = {}

    def fill(self, transpose: bool, matrix: sp.csr_matrix) -> None:
        if transpose not in self.made:
            iparms = {**self.settings, **(_TRANSPOSED if transpose else {})}
            solver = require("PARDISO", "pymklpardiso").PardisoSolver
            self.made[transpose] = solver(matrix, self.kind, iparms=iparms)
            return
        handle = self.made.pop(transpose)  # it does not come back if this fails
        handle.refactor(matrix.data)
        if handle.get_iparm_value(_PERTURBED_PIVOTS) > 0:  # it needs a matching of its own
            handle.factor(matrix.data)
        self.made[transpose] = handle


class _Factor:
    """A matrix, and the handles that were filled with it."""

    def __init__(self, matrix: sp.csr_matrix, lent: Lent):
        self.matrix, self.lent = matrix, lent
        self.filled: set[bool] = set()
        self.lock = threading.Lock()

    def handle(self, transpose: bool) -> Any:
        handles = self.lent.item
        transpose = transpose and not handles.both
        with self.lock:
            if transpose not in self.filled:
                handles.fill(transpose, self.matrix)
                self.filled.add(transpose)
            return handles.made[transpose]


def _size(nnz: int) -> int:
    return 40 * 8 * nnz


class PARDISO(AbstractSymbolicSolver):
    """Supernodal sparse LU or Cholesky by MKL PARDISO (Schenk & Gärtner 2004, FGCS 20(3)).

    Cholesky for operators tagged positive definite, else LU with scaling and weighted matching.
    PARDISO is silent about singular and badly pivoted matrices, so every residual is checked here, and
    what fails goes to `SuperLU`. float32 and complex64 are computed in double precision.
    By the wheel of `py-mkl-pardiso` (Linux on x86-64, Windows).

    **Raises** `ImportError`, with the remedy, if that is not installed.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), lp.PARDISO()).round(3))
        [1. 2.]
    """

    definite: bool | None = None
    releases_gil: ClassVar[bool] = True

    def __check_init__(self) -> None:
        require("PARDISO", "pymklpardiso")

    def specialize(self, operator: AbstractLinearOperator) -> PARDISO:
        definite = self.definite
        return PARDISO(is_positive_semidefinite(operator) if definite is None else definite)

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Spare:
        return Spare()  # of handles, which hold both the analysis and the factors

    def factorize_with(
        self, analysis: Spare, pattern: SparsityPattern, values: np.ndarray
    ) -> _Factor:
        mkl = require("PARDISO", "pymklpardiso")
        is_complex = np.iscomplexobj(values)
        matrix = csr_of(pattern, in_double(values))
        definite = bool(self.definite) and not is_complex
        if definite:
            # its ordering of a symmetric matrix loops for ever if diagonal entries are missing
            if np.any(matrix.diagonal() <= 0):
                raise Refused("singular", "a diagonal entry of a definite matrix is not positive")
            matrix = sp.csr_matrix(sp.triu(matrix))
        handles = analysis.take()
        if handles is None and definite:
            handles = _Handles(mkl.MTYPE_REAL_SYM_POSDEF, {}, both=True)
        elif handles is None:
            kind = mkl.MTYPE_COMPLEX_NONSYM if is_complex else mkl.MTYPE_REAL_NONSYM
            handles = _Handles(kind, _SCALED_AND_MATCHED, both=False)
        factor = _Factor(matrix, analysis.lend(handles))
        factor.handle(False)
        return factor

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        rhs = np.array(in_double(b.T), order="F")
        return np.asarray(factor.handle(transpose).solve(rhs)).reshape(b.shape[::-1]).T

    def nbytes(self, factor: Any) -> int:
        return _size(factor.matrix.nnz)

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        return super().analysis_nbytes(pattern, analysis) + _size(pattern.nnz)

    def fallback(self) -> SuperLU:
        return GENERAL
