"""What learned solvers report: the steps that they took, and the residual that those left."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_all_finite, tree_sub, tree_zeros
from .._types import Options
from .._varying import vary_like
from ..operators import AbstractLinearOperator
from ..results import REASONS, RESULTS
from ..solvers.krylov.base import read_guess
from ..solvers.krylov.vectors import mesh_axes, safe_norm


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


def begun(
    operator: AbstractLinearOperator, vector: PyTree[Array], options: Options, parameters: Any
) -> tuple[PyTree[Array], PyTree[Array]]:
    """Where to start, which is zero or the initial guess among the options, and its residual.

    Inside `shard_map` both vary over all mesh axes that the steps, with their parameters, may vary over.
    """
    guess = read_guess(operator, options)
    axes = mesh_axes(operator, vector, guess, parameters)
    if guess is None:
        return vary_like((tree_zeros(operator.in_structure()), vector), axes)
    return vary_like((guess, tree_sub(vector, operator.mv(guess))), axes)


def ratio(a: Array, b: Array) -> Array:
    """a/b, and 0 where b is 0: there is nothing left to do."""
    ok = b != 0
    return jnp.where(ok, a / jnp.where(ok, b, 1), 0)
