"""From LAPACK's row exchanges to a permutation.

`getrf` tells its exchanges one by one: step k exchanged rows k and swaps[k] ≥ k. The permutation p with
A[p] = LU is what they do to 0, 1, 2, …  XLA's loops cost more than what is in them for small matrices,
and `jax.lax.linalg.lu` has one with two scatters for each step; so what is here are straight lines.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._varying import vary_like, varying_axes

_FEW = 12  # rows; 16 would have places in `_packed`
_UNROLLED = 8  # exchanges to one kernel


@jax.custom_batching.custom_vmap
def permutation_of(swaps: Array, given: Array) -> Array:
    """The permutation p with A[p] = LU of LAPACK's exchanges, of shape `(n,)` or a batch `(..., n)`.

    `given` is what `jax.lax.linalg.lu` says, which is the fastest for one matrix of middling size.
    [measured: benchmarks/dense.py]
    """
    n = swaps.shape[-1]
    if swaps.ndim > 1 or n > 32:
        return _followed_back(swaps)
    return _packed(swaps) if n <= _FEW else given


@permutation_of.def_vmap
def _permutation_batch(
    axis_size: int, in_batched: list[bool], swaps: Array, given: Array
) -> tuple[Array, bool]:
    del axis_size, in_batched  # the two come from one factorization
    return permutation_of(swaps, given), True


def _packed(swaps: Array) -> Array:
    """The exchanges, done on 0 … n−1 in two words: of each number two bits in each.

    Numbers are exchanged by x ← x ⊕ (d·2²ᵏ + d·2²ᵖ) with d = xₖ ⊕ xₚ. All of it is arithmetic on
    scalars, so that XLA makes one kernel of it, and counts it as little work: CPU programs of more than
    1000 operations go to another thread, which costs more than the solve.
    """
    n = swaps.shape[0]
    word = lambda value: jnp.asarray(value, jnp.uint32)
    twice = swaps.astype(jnp.uint32) * word(2)
    low = word(sum((i & 3) << 2 * i for i in range(n)))
    high = word(sum((i >> 2) << 2 * i for i in range(n)))
    right, left, three = jax.lax.shift_right_logical, jax.lax.shift_left, word(3)
    for k in range(n - 1):
        place, partner = word(2 * k), jax.lax.index_in_dim(twice, k, keepdims=False)
        both = left(word(1), place) | left(word(1), partner)
        low, high = (
            x ^ ((right(x, place) ^ right(x, partner)) & three) * both for x in (low, high)
        )
    places = jnp.arange(n, dtype=jnp.uint32) * word(2)
    read = lambda x: right(jnp.broadcast_to(x, (n,)), places) & three
    return (read(low) | left(read(high), jnp.full((n,), 2, jnp.uint32))).astype(swaps.dtype)


def _followed_back(swaps: Array) -> Array:
    """Which row came to stand here? The exchanges backwards, for all rows at once.

    That is a chain of selections, 8 exchanges to a kernel.
    """
    n = swaps.shape[-1]
    rows = jnp.arange(n, dtype=swaps.dtype)
    rows = vary_like(jnp.broadcast_to(rows, swaps.shape), varying_axes(swaps))

    def undo(row: Array, step: Any, partner: Array) -> Array:
        # (`jnp.where` would be a function of its own in the program, each time)
        step = (
            jax.lax.full_like(row, step)
            if isinstance(step, int)
            else jnp.broadcast_to(step, row.shape)
        )
        partner = jax.lax.broadcast_in_dim(partner, row.shape, tuple(range(row.ndim)))
        moved = jax.lax.select(jax.lax.eq(row, partner), step, row)
        return jax.lax.select(jax.lax.eq(row, step), partner, moved)

    def undo_block(i: Array, row: Array) -> Array:
        start = jnp.asarray(n - (i + 1) * _UNROLLED, row.dtype)
        partners = jax.lax.dynamic_slice_in_dim(swaps, start, _UNROLLED, axis=-1)
        for k in reversed(range(_UNROLLED)):
            row = undo(row, start + k, jax.lax.slice_in_dim(partners, k, k + 1, axis=-1))
        return row

    blocks, rest = divmod(n, _UNROLLED)
    if blocks:
        rows = jax.lax.fori_loop(0, blocks, undo_block, rows)
    for k in reversed(range(rest)):
        rows = undo(rows, k, jax.lax.slice_in_dim(swaps, k, k + 1, axis=-1))
    return rows
