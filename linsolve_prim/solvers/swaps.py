"""From LAPACK's row exchanges to where each row went.

`getrf` tells its exchanges one by one: step k exchanged rows k and swaps[k] ≥ k. Row i of the matrix is
in the end row places[i] of LU. XLA's loops cost more than what is in them for small matrices, and
`jax.lax.linalg.lu` has one with two scatters for each step; so what is here are straight lines.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._varying import vary_like, varying_axes

_FEW = 12  # rows; 16 would have places in `_packed`


def _unrolled(swaps: Array) -> int:
    """How many exchanges are made in one trip of the loop.

    Of a loop with less than 1 KiB XLA makes one kernel on CPU, which is compiled faster if it is short;
    of any other each trip is a call of one. [measured: benchmarks/dense.py]
    """
    return 2 if 2 * swaps.size * swaps.dtype.itemsize < 1000 else 8


@jax.custom_batching.custom_vmap
def places_of(swaps: Array) -> Array:
    """The places to which LAPACK's exchanges, `(n,)` or a batch `(..., n)`, brought rows 0 … n−1.

    A = LU[places], and LU = A[p] for the inverse p of that permutation.
    """
    if swaps.ndim > 1 or swaps.shape[-1] > _FEW:
        return _followed(swaps)
    return _packed(swaps)


@places_of.def_vmap
def _places_of_batch(axis_size: int, in_batched: list[bool], swaps: Array) -> tuple[Array, bool]:
    del axis_size, in_batched
    return places_of(swaps), True


def _packed(swaps: Array) -> Array:
    """The exchanges, undone on 0 … n−1 in two words: of each number two bits in each.

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
    for k in reversed(range(n - 1)):
        place, partner = word(2 * k), jax.lax.index_in_dim(twice, k, keepdims=False)
        both = left(word(1), place) | left(word(1), partner)
        low, high = (
            x ^ ((right(x, place) ^ right(x, partner)) & three) * both for x in (low, high)
        )
    places = jnp.arange(n, dtype=jnp.uint32) * word(2)
    read = lambda x: right(jnp.broadcast_to(x, (n,)), places) & three
    return (read(low) | left(read(high), jnp.full((n,), 2, jnp.uint32))).astype(swaps.dtype)


def _followed(swaps: Array) -> Array:
    """All rows are followed through the exchanges at once: a chain of selections."""
    n, unrolled = swaps.shape[-1], _unrolled(swaps)
    partners = swaps
    if n % unrolled:  # exchanges of rows that do not exist do nothing
        widths = [(0, 0, 0)] * (swaps.ndim - 1) + [(0, -n % unrolled, 0)]
        partners = jax.lax.pad(swaps, jnp.asarray(-1, swaps.dtype), widths)

    # (what `jnp` and operators do takes ten times as long to trace)
    def exchange(place: Array, step: Array, partner: Array) -> Array:
        step = jax.lax.broadcast(step, place.shape)
        partner = jax.lax.broadcast_in_dim(partner, place.shape, tuple(range(place.ndim)))
        moved = jax.lax.select(jax.lax.eq(place, partner), step, place)
        return jax.lax.select(jax.lax.eq(place, step), partner, moved)

    def block(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        start, place = carry
        here = jax.lax.dynamic_slice_in_dim(partners, start, unrolled, axis=-1)
        for k in range(unrolled):
            step = jax.lax.add(start, start.dtype.type(k))
            place = exchange(place, step, jax.lax.slice_in_dim(here, k, k + 1, axis=-1))
        return jax.lax.add(start, start.dtype.type(unrolled)), place

    place = jax.lax.broadcasted_iota(swaps.dtype, swaps.shape, swaps.ndim - 1)
    carry = (jnp.asarray(0, swaps.dtype), vary_like(place, varying_axes(swaps)))
    more = lambda carry: jax.lax.lt(carry[0], carry[0].dtype.type(n))
    return jax.lax.while_loop(more, block, carry)[1]
