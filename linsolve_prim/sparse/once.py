"""An operand that is read once for each entry, written to memory before that happens."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._varying import vary_together


def once(x: Array, before: int = 0, after: int = 0) -> Array:
    """x, with zeros before and after along its last axis, computed once.

    On CPU, XLA fuses what x is computed from into the gathers of it, and so computes that once for
    each entry: a gradient with a cosine took five times longer [measured]. It removes an
    `optimization_barrier` before it fuses, but keeps a loop whose length it does not know.
    """
    pad = [(0, 0)] * (x.ndim - 1) + [(before, after)]
    copy = functools.partial(_copy_in_a_loop, pad=pad)
    return jax.lax.platform_dependent(x, cpu=copy, default=lambda x: jnp.pad(x, pad))


def _copy_in_a_loop(x: Array, pad: list[tuple[int, int]]) -> Array:
    if x.size == 0:
        return jnp.pad(x, pad)
    start = (0,) * x.ndim
    place = tuple(before for before, _ in pad)
    one = jax.lax.optimization_barrier(jnp.asarray(1, jnp.int32))

    def body(_: Any, out: Array) -> Array:
        return jax.lax.dynamic_update_slice(out, jax.lax.dynamic_slice(x, start, x.shape), place)

    shape = [size + before + after for size, (before, after) in zip(x.shape, pad)]
    out = vary_together(jnp.zeros(shape, x.dtype), x)[0]
    return jax.lax.fori_loop(jnp.asarray(0, jnp.int32), one, body, out)
