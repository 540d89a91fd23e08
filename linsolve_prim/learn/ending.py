"""What learned solvers report: the steps that they took, and the residual that those left."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_all_finite, tree_zeros
from ..operators import AbstractLinearOperator
from ..results import REASONS, RESULTS
from ..solvers.krylov.vectors import safe_norm


def ended(
    operator: AbstractLinearOperator,
    x: PyTree[Array],
    residual: PyTree[Array],
    vector: PyTree[Array],
    steps: int,
) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
    """The result of a fixed number of steps: a success, unless something overflowed."""
    finite = tree_all_finite(x)
    given = tree_all_finite(vector)
    result = RESULTS.where(finite, RESULTS.successful, RESULTS.diverged)
    result = RESULTS.where(given, result, RESULTS.nonfinite_input)
    norm, size = safe_norm(residual), safe_norm(vector)
    stats = {
        "num_steps": jnp.asarray(steps, jnp.int32),
        "residual_norm": norm,
        "relative_residual": norm / jnp.where(size > 0, size, 1),
        "reason": REASONS.where(result == RESULTS.successful, REASONS.steps, REASONS.failed),
    }
    return x, result, stats


def start(operator: AbstractLinearOperator, options: dict[str, Any]) -> PyTree[Array] | None:
    """The initial guess among the options."""
    guess = options.get("y0")
    return options.get("x0") if guess is None else guess


def zeros(operator: AbstractLinearOperator) -> PyTree[Array]:
    return tree_zeros(operator.in_structure())
