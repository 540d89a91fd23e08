"""A line on stderr every few steps of a long solve."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .stopping import Problem

# `check_progress` says more than a run-time type checker.
if TYPE_CHECKING:
    Progress = bool | int
else:
    Progress = Any

_LANES = 3


def check_progress(progress: Any) -> None:
    """Refuse what is no interval."""
    if not isinstance(progress, (bool, int, np.integer)) or progress < 0:
        raise ValueError(
            f"progress: must be False, True or after how many steps a line is written; got "
            f"{progress!r}."
        )


def every(progress: bool | int) -> int:
    """The interval that `progress` stands for."""
    return 10 if progress is True else int(progress)


def shown(method: str, interval: int, problem: Problem) -> Callable[[Array, Array], Array]:
    """`(steps, norm) ↦ norm` that writes a line whenever the number of steps is a multiple of the interval."""

    def write(steps: Any, norm: Any, goal: Any) -> Any:
        # under `vmap` it is asked for in every step, with an axis for the lanes
        due = np.asarray(steps) % interval == 0
        if np.any(due):
            steps, norms = np.broadcast_arrays(steps, norm)
            parts = [f"{s}: {r:.2e}" for s, r in zip(steps.ravel()[:_LANES], norms.ravel())]
            more = " …" if steps.size > _LANES else ""
            sys.stderr.write(f"{method} step {', '.join(parts)}{more} (goal {np.min(goal):.1e})\n")
            sys.stderr.flush()
        return np.zeros(np.shape(norm), np.int32)

    def watch(steps: Array, norm: Array) -> Array:
        def call() -> Array:
            like = jax.ShapeDtypeStruct(norm.shape, jnp.int32)
            told = jax.pure_callback(
                write,
                like,
                steps,
                norm * problem.unit,
                problem.goal * problem.unit,
                vmap_method="broadcast_all",
            )
            return jnp.where(told == 0, norm, 0)

        return jax.lax.cond(steps % interval == 0, call, lambda: norm)

    return watch
