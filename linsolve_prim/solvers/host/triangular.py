"""Substitution with a sparse triangular matrix, by SciPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_add, tree_sub
from ..._types import Options
from ...host.matrices import csr_of
from ...host.tasks import Refused
from ...operators import (
    AbstractLinearOperator,
    conj,
    has_unit_diagonal,
    is_lower_triangular,
    is_upper_triangular,
)
from ...results import REASONS, RESULTS
from ...sparse.operator import SparseLinearOperator
from ...sparse.pattern import SparsityPattern
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
    """

    lower: bool | None = None
    unit_diagonal: bool = False

    def specialize(self, operator: AbstractLinearOperator) -> SpSolveTriangular:
        _, pattern = sparse_parts(operator)
        rows, columns = pattern.rows, pattern.indices
        lower, unit = self.lower, self.unit_diagonal
        if lower is None:
            if not (is_lower_triangular(operator) or is_upper_triangular(operator)):
                raise ValueError(
                    "operator: `SpSolveTriangular` needs a triangular operator, and neither the "
                    "pattern nor the tags say that it is one. Use `tril`/`triu`, or `SuperLU()`."
                )
            lower = is_lower_triangular(operator)
        if np.any(columns > rows if lower else columns < rows):
            side, other = ("lower", "above") if lower else ("upper", "below")
            raise ValueError(
                f"operator: is to be {side} triangular, but has entries {other} the diagonal. Take "
                f"`{'tril' if lower else 'triu'}(operator)` first."
            )
        if has_unit_diagonal(operator) and not (unit or pattern.has_full_diagonal()):
            raise ValueError(
                "operator: is tagged with a unit diagonal, but does not store it. Store the ones, or "
                "use `SpSolveTriangular(unit_diagonal=True)`, which solves with A + I."
            )
        if unit and np.any(rows == columns):
            raise ValueError(
                "operator: stores diagonal entries, but `unit_diagonal=True` says that they are one "
                "and are not read, so they would get no gradient. Leave them out of the pattern."
            )
        return SpSolveTriangular(lower, unit)

    def checks_residual(self) -> bool:
        return self.unit_diagonal  # of A + I, which the operator does not know of

    def compute(
        self, state: Any, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        x, result, stats = super().compute(state, vector, options)
        if not self.unit_diagonal:
            return x, result, stats
        values, _, _, static = state
        operator = SparseLinearOperator(values, static.value.task.pattern)
        operator = operator.transpose() if static.value.transposed else operator
        operator = conj(operator) if static.value.conjugated else operator
        r_norm = two_norm(tree_sub(vector, tree_add(operator.mv(x), x)))
        b_norm = two_norm(vector)
        fits = r_norm <= self.tolerance(b_norm)
        untrue = RESULTS.where(jnp.isfinite(r_norm), RESULTS.inaccurate, RESULTS.singular)
        result = RESULTS.where((result == RESULTS.successful) & ~fits, untrue, result)
        good = result == RESULTS.successful
        stats["residual_norm"] = r_norm
        stats["relative_residual"] = r_norm / jnp.where(b_norm > 0, b_norm, 1)
        reason = REASONS.where(b_norm == 0, REASONS.zero_rhs, REASONS.direct)
        stats["reason"] = REASONS.where(good, reason, REASONS.failed)
        return x, result, stats

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
