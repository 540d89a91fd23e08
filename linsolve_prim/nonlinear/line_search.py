"""Backtracking along a direction until a norm falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_where
from ..solvers.krylov.vectors import mesh_axes, while_loop

_ARMIJO = 1e-4  # the share of the predicted decrease that is asked for (Dennis and Schnabel, 1983)
_MOST = 30  # halvings: t is then below 1e-9


class Search(NamedTuple):
    x: PyTree[Array]
    f: PyTree[Array]
    norm: Array
    t: Array
    evaluations: Array
    accepted: Array


def backtrack(
    moved: Callable[[Array], tuple[Any, Any, Array]], norm: Array, whole: Array, active: bool
) -> Search:
    """The first t of 1, t₁ < 1, … with ‖F(x + td)‖ ≤ (1 − 10⁻⁴t)‖F(x)‖, and x, F and ‖F‖ there.

    `moved(t)` returns those three. t is reduced by a factor from 0.1 to 0.5, by the parabola
    through ½‖F‖² at both ends and its slope −‖F‖² at the start. If `whole`, or not `active`, the
    whole step is tried only; it counts as accepted if it is finite.
    """
    one = jnp.ones_like(norm)
    falls = lambda t, new: new <= (1 - _ARMIJO * t) * norm
    x, f, new = moved(one)
    count = jnp.ones((), jnp.int32)
    finite = jnp.isfinite(new)
    if not active:
        return Search(x, f, new, one, count, finite)
    first = Search(x, f, new, one, count, jnp.where(whole, finite, falls(one, new)))

    def body(s: Search) -> Search:
        ratio = jnp.where(norm > 0, s.norm / jnp.where(norm > 0, norm, 1), 1)
        # ½(ratio² − 1) = −t + at², minimal at 1/(2a); not a number where F overflowed
        best = s.t**2 / (ratio**2 - 1 + 2 * s.t)
        best = jnp.where(jnp.isfinite(best), best, 0)
        t = jnp.clip(best, 0.1 * s.t, 0.5 * s.t)
        x, f, new = moved(t)
        return Search(x, f, new, t, s.evaluations + 1, falls(t, new))

    going = lambda s: ~s.accepted & ~whole & (s.evaluations <= _MOST)
    last = while_loop(going, body, first, mesh_axes(first))
    # where the whole step was asked for, and F is not finite there, nothing may leak
    return last._replace(norm=tree_where(jnp.isnan(last.norm), jnp.inf * one, last.norm))
