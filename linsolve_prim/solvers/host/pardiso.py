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
from .base import AbstractHostSolver
from .superlu import GENERAL, SuperLU

_SCALED_AND_MATCHED = {10: 1, 12: 1, 7: 2}  # scaling, weighted matching, 2 steps of refinement
_TRANSPOSED = {11: 2}


class _Factor:
    """One handle for A and, made when asked for, one for Aᵀ."""

    def __init__(self, matrix: sp.csr_matrix, kind: int, settings: dict[int, int], both: bool):
        self.matrix, self.kind, self.settings, self.both = matrix, kind, settings, both
        self.lock = threading.Lock()
        self.handles: dict[bool, Any] = {False: self._make(False)}

    def _make(self, transpose: bool) -> Any:
        extra = _TRANSPOSED if transpose else {}
        iparms = {**self.settings, **extra}
        solver = require("PARDISO", "pymklpardiso").PardisoSolver
        return solver(self.matrix, self.kind, iparms=iparms)

    def handle(self, transpose: bool) -> Any:
        transpose = transpose and not self.both
        with self.lock:
            if transpose not in self.handles:
                self.handles[transpose] = self._make(transpose)
            return self.handles[transpose]


class PARDISO(AbstractHostSolver):
    """Supernodal sparse LU or Cholesky by MKL PARDISO (Schenk & Gärtner 2004, FGCS 20(3)).

    Cholesky for operators tagged positive definite, else LU with scaling and weighted matching.
    PARDISO is silent about singular and badly pivoted matrices, so every residual is checked here, and
    what fails goes to `SuperLU`. float32 and complex64 are computed in double precision.
    By the wheel of `py-mkl-pardiso` (Linux on x86-64, Windows).

    **Raises** `ImportError`, with the remedy, if that is not installed.
    """

    definite: bool | None = None
    releases_gil: ClassVar[bool] = True

    def __check_init__(self) -> None:
        require("PARDISO", "pymklpardiso")

    def specialize(self, operator: AbstractLinearOperator) -> PARDISO:
        definite = self.definite
        return PARDISO(is_positive_semidefinite(operator) if definite is None else definite)

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        mkl = require("PARDISO", "pymklpardiso")
        is_complex = np.iscomplexobj(values)
        matrix = csr_of(pattern, in_double(values))
        if self.definite and not is_complex:
            # its ordering of a symmetric matrix loops for ever if diagonal entries are missing
            if np.any(matrix.diagonal() <= 0):
                raise Refused("singular", "a diagonal entry of a definite matrix is not positive")
            upper = sp.csr_matrix(sp.triu(matrix))
            return _Factor(upper, mkl.MTYPE_REAL_SYM_POSDEF, {}, both=True)
        kind = mkl.MTYPE_COMPLEX_NONSYM if is_complex else mkl.MTYPE_REAL_NONSYM
        return _Factor(matrix, kind, _SCALED_AND_MATCHED, both=False)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        rhs = np.array(in_double(b.T), order="F")
        return np.asarray(factor.handle(transpose).solve(rhs)).reshape(b.shape[::-1]).T

    def nbytes(self, factor: Any) -> int:
        return 40 * 8 * factor.matrix.nnz

    def fallback(self) -> SuperLU:
        return GENERAL
