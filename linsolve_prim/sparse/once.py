"""What keeps XLA from computing an operand or a product once for each use of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._varying import vary_like, vary_together, varying_axes


def alone(compute: Callable[..., Array], *args: Any) -> Array:
    """`compute(*args)`, computed once and written to memory.

    On CPU, XLA fuses sums of products and gathers into what uses them, and so computes them once for
    each use: a product in CG twice, for ⟨p, Ap⟩ and for the residual; what is gathered once for each
    entry [measured]. It removes an `optimization_barrier` before it fuses, but keeps a conditional
    whose outcome it does not know.
    """

    def in_a_branch(*args: Any) -> Array:
        out = jax.eval_shape(compute, *args)
        axes = varying_axes(args)
        never = lambda *args: vary_like(_anything(out, args), axes)
        always = jax.lax.optimization_barrier(jnp.array(True))
        return jax.lax.cond(always, lambda *args: vary_like(compute(*args), axes), never, *args)

    return jax.lax.platform_dependent(*args, cpu=in_a_branch, default=compute)


#: Zeros are a kernel to compile, in about the time in which so many bytes are copied 10³ times.
_COPIED = 1 << 16


def _anything(like: Any, args: Any) -> Array:
    """An array of a shape and dtype: if it is small, an argument that is like it.

    That is no kernel to compile, but the conditional then writes where its argument is, of which XLA
    makes a copy.
    """
    zeros = lambda: jnp.zeros(like.shape, like.dtype)
    if like.size * like.dtype.itemsize > _COPIED:
        return zeros()
    same = (a for a in jax.tree.leaves(args) if (a.shape, a.dtype) == (like.shape, like.dtype))
    found = next(same, None)
    return zeros() if found is None else found


def once(x: Array, before: int = 0, after: int = 0) -> Array:
    """x, with zeros before and after along its last axis, as an array in memory."""

    def padded(x: Array) -> Array:
        # (Concatenation copies memory; `pad` is a loop over entries.)
        zeros = lambda width: jnp.zeros((*x.shape[:-1], width), x.dtype)
        return jnp.concatenate(vary_together(zeros(before), x, zeros(after)), axis=-1)

    return alone(padded, x)


def lean(array: Array, count: int | None = None) -> Array:
    """`(B, K, n)` without axes of length 1; entries `(B, n)` such that they multiply the like of it."""
    shape = array.shape
    if count is not None and shape[0] > 1 and count > 1:
        return array[:, None]
    return array.reshape([size for size in shape[:-1] if size != 1] + [shape[-1]])
