"""DIA: one array for each diagonal. Products are shifts, multiplications and sums, without indices.

The same arrays serve the transposed product: diagonal d is shifted the other way.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .pattern import SparsityPattern

_MISSING = 255


class Dia(NamedTuple):
    """Where the entries of each diagonal are among the values.

    An entry of row i has the slot `starts[i] + ranks[d][i]`: a byte for each entry and not four, as
    the arrays are read in every product. Diagonals whose slots lie evenly need no array at all.
    """

    offsets: tuple[int, ...]
    shape: tuple[int, int]
    starts: np.ndarray  # (m,)
    ranks: tuple[np.ndarray | tuple[int, int], ...]  # bytes (b − a,), or (first slot, step)


def span(offset: int, shape: tuple[int, int]) -> tuple[int, int]:
    """The rows [a, b) in which the diagonal j = i + offset lies inside of the matrix."""
    m, n = shape
    return max(0, -offset), min(m, n - offset)


def make(pattern: SparsityPattern) -> Dia:
    """The layout of a pattern with fewer than 255 diagonals."""
    offsets = pattern.diagonals()
    m, _ = pattern.shape
    starts = pattern.indptr[:-1]
    ranks = np.full((len(offsets), m), _MISSING, np.uint8)
    which = np.searchsorted(offsets, pattern.indices.astype(np.int64) - pattern.rows)
    ranks[which, pattern.rows] = np.arange(pattern.nnz) - starts[pattern.rows]
    found: list[np.ndarray | tuple[int, int]] = []
    for row_ranks, offset in zip(ranks, offsets):
        a, b = span(offset, pattern.shape)
        rank = row_ranks[a:b].copy()
        found.append(_evenly(starts[a:b].astype(np.int64) + rank, rank) or rank)
    return Dia(offsets, pattern.shape, starts, tuple(found))


def _evenly(slots: np.ndarray, rank: np.ndarray) -> tuple[int, int] | None:
    """`(first, step)` if all slots are there, and equally far from each other."""
    if np.any(rank == _MISSING):
        return None
    steps = np.diff(slots)
    step = int(steps[0]) if len(steps) else 1
    return (int(slots[0]), step) if np.all(steps == step) else None


def _diagonals(layout: Dia, values: Array) -> list[Array]:
    """`(B, b − a)` for each diagonal, zero where it has no entry."""
    # Behind the barrier XLA does not know that indices are constants, and does not compute with them
    # when it compiles, which takes longer than the program runs.
    starts = jax.lax.optimization_barrier(jnp.asarray(layout.starts))
    found = []
    for rank, offset in zip(layout.ranks, layout.offsets):
        a, b = span(offset, layout.shape)
        if isinstance(rank, tuple):
            first, step = rank
            found.append(values[:, first : first + step * (b - a - 1) + 1 : step])
            continue
        known = jax.lax.optimization_barrier(jnp.asarray(rank))
        slots = starts[a:b] + known.astype(starts.dtype)
        # slots of missing entries may be past the end: a gather clamps them, and they are not used
        entries = values.at[:, slots].get(mode="promise_in_bounds", wrap_negative_indices=False)
        found.append(jnp.where(known != _MISSING, entries, jnp.zeros((), values.dtype)))
    return found


def product(layout: Dia, transpose: bool, values: Array, x: Array) -> Array:
    """`(B, nnz)` and `(B, K, n)` to `(B, K, m)`; with `transpose`, `(B, K, m)` to `(B, K, n)`."""
    m, n = layout.shape
    total = None
    for entries, offset in zip(_diagonals(layout, values), layout.offsets):
        a, b = span(offset, layout.shape)
        if transpose:
            term, before, size = entries[:, None] * x[..., a:b], a + offset, n
        else:
            term, before, size = entries[:, None] * x[..., a + offset : b + offset], a, m
        padded = jnp.pad(term, ((0, 0), (0, 0), (before, size - before - (b - a))))
        total = padded if total is None else total + padded
    if total is None:
        return jnp.zeros((*x.shape[:2], n if transpose else m), x.dtype)
    return total
