"""Whether a minimiser is one: what is asked of a point, whoever found it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_all_finite, tree_axpy, tree_real_dtype
from .._types import complex_to_real_dtype
from ..results import REASONS, RESULTS
from .stationary import Stationary

_TRIALS = 16  # steps along the gradient, each a quarter of the one before
_ROUNDING = 10.0  # units of rounding of f that count as no decrease


def default_atol(dtype: Any) -> float:
    """What `atol=None` stands for: 1e-5 (SciPy's `gtol`), or 1e-3 in single and half precision."""
    return 1e-5 if jnp.finfo(complex_to_real_dtype(dtype)).bits == 64 else 1e-3


def no_longer_falls(
    problem: Stationary,
    x: PyTree[Array],
    loss: Array,
    gradient: PyTree[Array],
    slack: Array | float = 0.0,
) -> Array:
    """Whether no step along −∇f, of 16 lengths, lowers f by more than its rounding and `slack`."""
    size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    extent = jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(x)))
    longest = jnp.maximum(extent, 1).astype(size.dtype) / jnp.where(size > 0, size, 1)

    def at(k: Array) -> Array:
        t = longest * 0.25**k
        return problem.loss(problem.project(tree_axpy(-t, gradient, x)))

    losses = jax.lax.map(at, jnp.arange(_TRIALS, dtype=longest.dtype))
    eps = float(jnp.finfo(loss.dtype).eps)
    least = _ROUNDING * eps * jnp.abs(loss) + jnp.asarray(slack, loss.dtype)
    return ~jnp.any(losses < loss - least)


def judge(
    problem: Stationary,
    x: PyTree[Array],
    goal: Array,
    *,
    claimed: Array,
    spent: Array,
    by_gradient: bool,
) -> tuple[RESULTS, dict[str, Any]]:
    """The result of a minimisation, from where it ended, and statistics.

    `claimed`: the method's own verdict. A method that sees gradients (`by_gradient`) has succeeded
    only if the gradient is small, or f no longer falls along it. The claim of one that does not is
    believed if a step along the gradient lowers f by no more than ten times the tolerance.
    `spent`: whether it ran out of steps.
    """
    loss, gradient = jax.value_and_grad(problem.loss)(x)
    size = problem.measure(x, gradient).astype(tree_real_dtype(x))
    small = size <= goal
    finite = jnp.isfinite(loss) & tree_all_finite(x)
    slack = 0.0 if by_gradient else 10 * goal * jnp.maximum(jnp.abs(loss), 1).astype(goal.dtype)
    level = jax.lax.cond(
        small | ~finite | spent,
        lambda: jnp.array(False),
        lambda: no_longer_falls(problem, x, loss, gradient, slack),
    )
    level = level & (claimed | by_gradient)
    good = finite & (small | level)
    failure = RESULTS.where(spent, RESULTS.max_steps_reached, RESULTS.stagnation)
    failure = RESULTS.where(finite, failure, RESULTS.diverged)
    result = RESULTS.where(good, RESULTS.successful, failure)
    reason = REASONS.rounding if by_gradient else REASONS.claimed
    reason = REASONS.where(small, REASONS.gradient, reason)
    stats = {
        "loss": loss,
        "gradient_norm": size,
        "reason": REASONS.where(good, reason, REASONS.failed),
    }
    return result, stats
