"""Substitution with a sparse triangular matrix, by SciPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Array, PyTree

from ..._types import Options
from ...host.matrices import csr_of
from ...host.tasks import Refused
from ...operators import AbstractLinearOperator, conj
from ...results import RESULTS
from ...sparse.pattern import SparsityPattern
from ..sparse_triangular import is_lower, judge_plus_identity, turned
from .base import AbstractHostSolver
from .parts import sparse_parts


class _Factor(NamedTuple):
    matrix: sp.csr_matrix
    transposed: sp.csr_matrix


class SpSolveTriangular(AbstractHostSolver):
    """Forward or back substitution by `scipy.sparse.linalg.spsolve_triangular`.

    - `lower`: by default what the operator's pattern or tags say. If given, the other triangle must
      have no entries.
    - `unit_diagonal`: what is solved with is A + I, where the diagonal of A must not be stored: for
      factors that are kept without their ones. (`unit_diagonal_tag` says something else: that the
      stored diagonal holds ones.)

    A zero on the diagonal gives `RESULTS.singular`.

    **Raises** `ValueError` for an operator that is not triangular.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 0.0], [1.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([2.0, 9.0]), lp.SpSolveTriangular()).round(3))
        [1. 2.]
    """

    lower: bool | None = None
    unit_diagonal: bool = False

    def specialize(self, operator: AbstractLinearOperator) -> SpSolveTriangular:
        _, pattern = sparse_parts(operator)
        lower = is_lower(operator, pattern, "SpSolveTriangular", self.lower, self.unit_diagonal)
        return SpSolveTriangular(lower, self.unit_diagonal)

    def checks_residual(self) -> bool:
        return self.unit_diagonal  # of A + I, which the operator does not know of

    def compute(
        self, state: Any, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        x, result, stats = super().compute(state, vector, options)
        if not self.unit_diagonal:
            return x, result, stats
        values, _, _, static = state
        flags = static.value
        operator = turned(values, flags.task.pattern, flags.transposed)
        operator = conj(operator) if flags.conjugated else operator
        result, judged = judge_plus_identity(operator, x, vector, result, self.tolerance)
        return x, result, {**stats, **judged}

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        if not self.unit_diagonal:
            slots = pattern.diagonal_slots()
            if np.any(slots == pattern.nnz) or np.any(values[slots] == 0):
                raise Refused("singular", "zero on the diagonal of a triangular matrix")
        matrix = csr_of(pattern, values)
        return _Factor(matrix, matrix.T.tocsr())

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        matrix = factor.transposed if transpose else factor.matrix
        return spla.spsolve_triangular(
            matrix, b.T, lower=self.lower != transpose, unit_diagonal=self.unit_diagonal
        ).T

    def nbytes(self, factor: Any) -> int:
        return 2 * (factor.matrix.data.nbytes + factor.matrix.indices.nbytes)
