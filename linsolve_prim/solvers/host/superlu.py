"""SuperLU, which comes with SciPy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy.sparse.linalg as spla

from ...host.matrices import csc_of_transpose
from ...operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ...sparse.pattern import SparsityPattern
from ..determinant import of_diagonal_on_host, parity_on_host
from .base import AbstractHostSolver

_ORDERINGS = ("NATURAL", "MMD_ATA", "MMD_AT_PLUS_A", "COLAMD")


class SuperLU(AbstractHostSolver):
    """Sparse LU with partial pivoting, by SuperLU (Demmel et al. 1999, SIAM J. Matrix Anal. Appl. 20(3)).

    - `permc_spec`: the ordering of columns, as for `scipy.sparse.linalg.splu`. By default COLAMD, and
      MMD_AT_PLUS_A for definite operators.
    - `symmetric_mode`: diagonal pivots and a symmetric ordering; half the time and memory where the
      diagonal is safe to pivot on. By default for operators that are tagged definite only: on others
      it may take very long.
    - `diag_pivot_thresh`: the diagonal entry is taken as pivot if it is not smaller than this part of
      the column's largest (0 to 1). By default 1, and 0 in symmetric mode.

    All four dtypes. An exactly zero pivot gives `RESULTS.singular`.

    `(n, n)`. **Raises** `StructureError` for an operator that is not square.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[0.0, 2.0], [1.0, 3.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 7.0]), lp.SuperLU()).round(3))
        [1. 2.]
    """

    permc_spec: str | None = None
    symmetric_mode: bool | None = None
    diag_pivot_thresh: float | None = None
    releases_gil: ClassVar[bool] = True
    keeps_values: ClassVar[bool] = False

    def __check_init__(self) -> None:
        if self.permc_spec is not None and self.permc_spec not in _ORDERINGS:
            raise ValueError(
                f"permc_spec: must be None or one of {', '.join(_ORDERINGS)}; got "
                f"{self.permc_spec!r}."
            )
        threshold = self.diag_pivot_thresh
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"diag_pivot_thresh: must be between 0 and 1; got {threshold!r}.")

    def specialize(self, operator: AbstractLinearOperator) -> SuperLU:
        symmetric = self.symmetric_mode
        if symmetric is None:
            symmetric = is_positive_semidefinite(operator) or is_negative_semidefinite(operator)
        ordering = self.permc_spec or ("MMD_AT_PLUS_A" if symmetric else "COLAMD")
        threshold = self.diag_pivot_thresh
        if threshold is None:
            threshold = 0.0 if symmetric else 1.0
        return SuperLU(ordering, symmetric, threshold)

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        options = {"SymmetricMode": True} if self.symmetric_mode else {}
        return spla.splu(
            csc_of_transpose(pattern, values),
            permc_spec=self.permc_spec or "COLAMD",
            diag_pivot_thresh=self.diag_pivot_thresh,
            options=options,
        )

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        return factor.solve(b.T, trans="N" if transpose else "T").T

    def logdet(self, factor: Any) -> tuple[Any, float]:
        sign, log = of_diagonal_on_host(factor.U.diagonal())
        return sign * parity_on_host(factor.perm_r) * parity_on_host(factor.perm_c), log

    def determinant_fallback(self) -> SuperLU | None:
        return None if self == GENERAL else GENERAL

    def nbytes(self, factor: Any) -> int:
        return 70_000 + 12 * factor.nnz  # SuperLU's first allocation is generous


#: For any matrix: whom libraries that refuse one fall back on.
GENERAL = SuperLU("COLAMD", False, 1.0)
