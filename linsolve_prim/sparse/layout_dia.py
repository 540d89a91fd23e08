"""DIA: one array for each diagonal. Products are shifts, multiplications and sums, without indices.

The vector is padded once, so that every diagonal multiplies a slice of it; padding each product
instead takes twice as long [benchmarks/sparse_products.py].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .once import lean, once
from .pattern import SparsityPattern


class Dia(NamedTuple):
    """Where the entries of each diagonal j = i + offset of a matrix of this shape are.

    `slots`: for each diagonal where its entries are among the values, `(m,)`, −1 where there is none;
    or `(first, step)` if they lie evenly in the rows in which the diagonal is inside of the matrix.
    """

    offsets: tuple[int, ...]
    shape: tuple[int, int]
    slots: tuple[np.ndarray | tuple[int, int], ...]

    @property
    def before(self) -> int:
        """By how many zeros the vector is padded in front, so that every slice of it exists."""
        return max(0, -self.offsets[0])

    @property
    def after(self) -> int:
        m, n = self.shape
        return max(0, self.offsets[-1] + m - n)


def span(offset: int, shape: tuple[int, int]) -> tuple[int, int]:
    """The rows [a, b) in which the diagonal j = i + offset lies inside of the matrix."""
    m, n = shape
    return max(0, -offset), min(m, n - offset)


def make(pattern: SparsityPattern, transpose: bool) -> Dia:
    """The layout of A or of Aᵀ; slots are those of A in both cases."""
    rows, columns = pattern.rows, pattern.indices
    shape = pattern.shape
    if transpose:
        rows, columns, shape = columns, rows, shape[::-1]
    sign = -1 if transpose else 1
    offsets = tuple(sorted(sign * offset for offset in pattern.diagonals()))
    which = np.searchsorted(offsets, columns.astype(np.int64) - rows)
    slots = np.full((len(offsets), shape[0]), -1, pattern.indices.dtype)
    slots[which, rows] = np.arange(pattern.nnz)
    evenly = [_evenly(row[slice(*span(k, shape))]) for row, k in zip(slots, offsets)]
    return Dia(offsets, shape, tuple(e or row for e, row in zip(evenly, slots)))


def _evenly(slots: np.ndarray) -> tuple[int, int] | None:
    """`(first, step)` if all slots are there, and equally far from each other."""
    steps = np.diff(slots)
    step = int(steps[0]) if len(steps) else 1
    if slots.min() < 0 or step < 1 or np.any(steps != step):
        return None
    return int(slots[0]), step


def pack(layout: Dia, values: Array) -> list[tuple[Array, Array | None]]:
    """For each diagonal its entries `(B, m)`, and which of them are there (`None`: all, or zero)."""
    found: list[tuple[Array, Array | None]] = []
    m = layout.shape[0]
    for slots, offset in zip(layout.slots, layout.offsets):
        a, b = span(offset, layout.shape)
        if isinstance(slots, tuple):
            first, step = slots
            entries = values[:, first : first + step * (b - a - 1) + 1 : step]
            found.append((jnp.pad(entries, ((0, 0), (a, m - b))), None))
            continue
        full = slots[a:b].min(initial=0) >= 0
        # Behind the barrier XLA does not know that indices are constants, and does not compute with
        # them when it compiles, which takes longer than the program runs.
        known = jax.lax.optimization_barrier(jnp.asarray(slots[a:b] if full else slots))
        entries = values.at[:, known].get(mode="promise_in_bounds", wrap_negative_indices=False)
        if full:  # outside of the matrix the vector is padded with zeros
            found.append((jnp.pad(entries, ((0, 0), (a, m - b))), None))
        else:
            found.append((entries, known >= 0))
    return found


def apply(layout: Dia, packed: Sequence[tuple[Array, Array | None]], x: Array) -> Array:
    """From what `pack` returned and `(B, K, n)` to `(B, K, m)`."""
    (batch, count, _), m = x.shape, layout.shape[0]
    padded = once(lean(x), layout.before, layout.after)
    total = None
    for (entries, there), offset in zip(packed, layout.offsets):
        first = layout.before + offset
        part = jax.lax.slice_in_dim(padded, first, first + m, axis=padded.ndim - 1)
        term = lean(entries, count) * part
        if there is not None:
            term = jnp.where(there, term, jnp.zeros((), x.dtype))
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(batch, count, m)
