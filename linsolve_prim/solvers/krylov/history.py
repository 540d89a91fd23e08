"""The residual norms and iterates of a solve, if they are asked for: arrays of static length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

# `check_history` says more than a run-time type checker.
if TYPE_CHECKING:
    History = bool | str
else:
    History = Any


class Trail(NamedTuple):
    """Entry k is what was there after k steps. Both have the length `max_steps + 1`."""

    norms: Array
    iterates: PyTree[Array] | None


def check_history(history: Any, max_steps: Any) -> None:
    """Refuse what is no choice of a history."""
    if history not in (False, True, "x"):
        raise ValueError(
            f"history: must be False, True (residual norms) or 'x' (iterates too); got {history!r}."
        )
    if history == "x" and max_steps is None:
        raise ValueError(
            "history: 'x' keeps max_steps + 1 iterates, so `max_steps` must be given. Pass for "
            "example `max_steps=100`."
        )


def new_trail(history: Any, max_steps: int, norm: Array, x: PyTree[Array]) -> Trail | None:
    """An empty trail with its entry 0, or `None` if none is kept."""
    if not history:
        return None
    length = max_steps + 1
    fill = lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype).at[0].set(leaf)
    return Trail(fill(norm), jax.tree.map(fill, x) if history == "x" else None)


def record(trail: Trail, index: Array, norm: Array, x: PyTree[Array] | None, where: Array) -> Trail:
    """Write one entry, if `where`."""

    def put(rows: Array, row: Array) -> Array:
        return rows.at[index].set(jnp.where(where, row, rows[index]), mode="drop")

    iterates = None
    if trail.iterates is not None:
        iterates = jax.tree.map(put, trail.iterates, x)
    return Trail(put(trail.norms, norm), iterates)


def statistics(trail: Trail, steps: Array, unit: Array) -> dict[str, Any]:
    """In the user's units; what follows the last step repeats it."""
    last = jnp.minimum(jnp.arange(trail.norms.shape[0], dtype=steps.dtype), steps)
    scaled = lambda rows: rows[last] * unit.astype(rows.dtype)
    stats: dict[str, Any] = {"history": scaled(trail.norms), "history_length": steps + 1}
    if trail.iterates is not None:
        stats["iterates"] = jax.tree.map(scaled, trail.iterates)
    return stats
