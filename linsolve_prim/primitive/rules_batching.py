"""Batching a solve: a `vmap` outside becomes a `vmap` of `solver.compute` inside.

What is not batched stays so. A batch of right-hand sides with one shared matrix is therefore one
factorization (the state is not batched), and JAX's own rule makes one matrix-matrix triangular
solve of `compute`'s matrix-vector solves.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .call import Level, SolveCall
from .definition import bind


def batching_rule(
    axis_data: Any, operands: Any, dims: Any, *, call: SolveCall, program: Any
) -> tuple[Any, Any]:
    batched = tuple(d is not None for d in dims)
    if not any(batched):  # JAX asks rules of this kind even then
        out = jax.tree.leaves(bind(call, operands, unwrap=False, lane=program.lane))
        return out, [None] * len(out)
    moved = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims)]
    level = Level(axis_data.size, batched, axis_data.name, axis_data.spmd_name)
    out = jax.tree.leaves(bind(call.under(level), moved, unwrap=False, lane=program))
    return out, [0] * len(out)
