"""RSLab, a supernodal sparse solver in Rust."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from ...host.available import require
from ...operators import AbstractLinearOperator, is_positive_semidefinite
from ...sparse.pattern import SparsityPattern
from .base import AbstractSymbolicSolver
from .parts import Columns, all_columns, lower_columns
from .superlu import GENERAL, SuperLU

#: Pivots that are too small are raised to this part of ‖A‖ if the plain factorization refuses; a few
#: steps of refinement then make up for it.
_PERTURBATION = 1e-8
_REFINEMENTS = 5

#: Nested dissection is worth its time (about that of 4·10⁴ operations for each unknown) where minimum
#: degree and fill leave more to do than this: in 3-D, and hardly ever in 2-D. [measured: 700² takes
#: 1.4 s to analyse instead of 7.4, and then as long to factorize; 40³ half as long with it]
_WORK_FOR_DISSECTION = 40_000
_NEVER = 1 << 62


def _race(n: int) -> dict[str, Any]:
    """rslab's own choice of the best ordering, with dissection where it pays for few factorizations."""
    work = max(1_250_000_000, _WORK_FOR_DISSECTION * n)
    return {"race_nd_min_work": work, "race_eager_nd_min_nnz": _NEVER}


class _Factor(NamedTuple):
    factor: Any
    refine: int


class RSLab(AbstractSymbolicSolver):
    """Supernodal LDLᵀ (for real operators tagged positive definite) or LU, by `rslab` (MIT).

    Fast, above all in three dimensions, and its symbolic analysis is made once for a pattern. It
    pivots within supernodes only, so a matrix that it refuses is tried again with perturbed pivots and
    iterative refinement, and what still has a bad residual goes to `SuperLU`.

    - `ordering`: as for `rslab.analyze`: "amd", "amf", "metis" or "rcm"; "auto" tries several, and
      nested dissection ("metis") if the others leave much work. For many factorizations of a large
      2-D mesh, "metis" may save a tenth of each.
    - `threads`: of one factorization.

    **Raises** `ImportError`, with the remedy, if `rslab` is not installed.

    `(n, n)`, all four dtypes.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), lp.RSLab()).round(3))
        [1. 2.]
    """

    ordering: str = "auto"
    threads: int = 1
    symmetric: bool | None = None
    releases_gil: ClassVar[bool] = True
    keeps_values: ClassVar[bool] = False

    def __check_init__(self) -> None:
        require("RSLab", "rslab")  # here, and not in a callback: its importing thread must live on

    def specialize(self, operator: AbstractLinearOperator) -> RSLab:
        symmetric = self.symmetric
        if symmetric is None:
            real = not jnp.issubdtype(operator.in_structure().dtype, jnp.complexfloating)
            symmetric = real and is_positive_semidefinite(operator)
        return RSLab(self.ordering, self.threads, symmetric)

    def _columns(self, pattern: SparsityPattern) -> Columns:
        """A (not Aᵀ, whose solves take one right-hand side at a time), or its lower triangle."""
        return lower_columns(pattern) if self.symmetric else all_columns(pattern)

    def _matrix(self, pattern: SparsityPattern, values: np.ndarray) -> sp.csc_matrix:
        columns = self._columns(pattern)
        return columns.matrix(values[columns.slots])

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        path = "ldlt" if self.symmetric else "lu"
        auto = self.ordering == "auto"
        settings = _race(pattern.shape[0]) if auto else {"ordering": self.ordering}
        return require("RSLab", "rslab").analyze(
            self._matrix(pattern, values), path=path, threads=self.threads, **settings
        )

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        try:
            return _Factor(analysis.factor(values[self._columns(pattern).slots]), 0)
        except RuntimeError:
            if self.symmetric:
                raise
        perturbed = require("RSLab", "rslab").lu(
            self._matrix(pattern, values), preconditioner=_PERTURBATION, threads=self.threads
        )
        return _Factor(perturbed, _REFINEMENTS)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        lu, refine = factor
        if transpose and not self.symmetric:
            return np.stack([lu.solve_transpose(row) for row in b])
        if len(b) == 1:
            return lu.solve(b[0], refine=refine)[None]
        if refine:
            return np.stack([lu.solve(row, refine=refine) for row in b])
        return lu.solve_many(b.T).T

    def nbytes(self, factor: Any) -> int:
        return int(factor.factor.heap_bytes)

    def fallback(self) -> SuperLU:
        return GENERAL
