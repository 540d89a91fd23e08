"""What the two solvers for sparse triangular matrices share, the one on the device and SciPy's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._norms import max_norm, two_norm
from .._tree import tree_add, tree_sub
from ..operators import (
    AbstractLinearOperator,
    has_unit_diagonal,
    is_lower_triangular,
    is_upper_triangular,
)
from ..results import REASONS, RESULTS
from ..sparse.operator import SparseLinearOperator
from ..sparse.pattern import SparsityPattern


def is_lower(
    operator: AbstractLinearOperator,
    pattern: SparsityPattern,
    solver: str,
    lower: bool | None,
    unit_diagonal: bool,
) -> bool:
    """Whether an operator with this pattern is lower (else upper) triangular; `lower` if it is given.

    **Raises** `ValueError` if it is neither, if it has entries in the other triangle, or if its
    diagonal is stored, or missing, against what `unit_diagonal` (or the tag of that name) says.
    """
    rows, columns = pattern.rows, pattern.indices
    if lower is None:
        if not (is_lower_triangular(operator) or is_upper_triangular(operator)):
            raise ValueError(
                f"operator: `{solver}` needs a triangular operator, and neither the pattern nor the "
                "tags say that it is one. Use `tril`/`triu`, or `SuperLU()`."
            )
        lower = is_lower_triangular(operator)
    if np.any(columns > rows if lower else columns < rows):
        side, other = ("lower", "above") if lower else ("upper", "below")
        raise ValueError(
            f"operator: is to be {side} triangular, but has entries {other} the diagonal. Take "
            f"`{'tril' if lower else 'triu'}(operator)` first."
        )
    if has_unit_diagonal(operator) and not (unit_diagonal or pattern.has_full_diagonal()):
        raise ValueError(
            "operator: is tagged with a unit diagonal, but does not store it. Store the ones, or "
            f"use `{solver}(unit_diagonal=True)`, which solves with A + I."
        )
    if unit_diagonal and np.any(rows == columns):
        raise ValueError(
            "operator: stores diagonal entries, but `unit_diagonal=True` says that they are one "
            "and are not read, so they would get no gradient. Leave them out of the pattern."
        )
    return lower


def judge_plus_identity(
    operator: SparseLinearOperator,
    x: PyTree[Array],
    vector: PyTree[Array],
    result: RESULTS,
    tolerance: Any,
) -> tuple[RESULTS, dict[str, Any]]:
    """The verdict, and its statistics, on a solution of (A + I)x = b, from the true residual."""
    size = max_norm(vector)
    size = jnp.where((size > 0) & jnp.isfinite(size), size, 1)  # no square over- or underflows
    norm = lambda tree: size * two_norm(jax.tree.map(lambda a: a / size.astype(a.dtype), tree))
    r_norm, b_norm = norm(tree_sub(vector, tree_add(operator.mv(x), x))), norm(vector)
    fits = r_norm <= tolerance(b_norm)
    untrue = RESULTS.where(jnp.isfinite(r_norm), RESULTS.inaccurate, RESULTS.singular)
    result = RESULTS.where((result == RESULTS.successful) & ~fits, untrue, result)
    reason = REASONS.where(b_norm == 0, REASONS.zero_rhs, REASONS.direct)
    stats = {
        "residual_norm": r_norm,
        "relative_residual": r_norm / jnp.where(b_norm > 0, b_norm, 1),
        "reason": REASONS.where(result == RESULTS.successful, reason, REASONS.failed),
    }
    return result, stats


def turned(values: Array, pattern: SparsityPattern, transposed: bool) -> SparseLinearOperator:
    """A or Aᵀ, of which the values are those of A."""
    operator = SparseLinearOperator(values, pattern)
    return operator.transpose() if transposed else operator
