"""Sliced ELL: groups of rows with (nearly) the same number of entries, w, as w gathers each.

The gathers are unrolled: column after column, which XLA makes one loop over rows. As one gather of
two axes and a sum it is ten times slower on CPU [measured]. Rows with more than `CHUNK` entries are
cut into chunks of at most that many, whose sums go to their rows by a sorted segment-sum.

After Monakov, Lokhmotov, Avetisyan, "Automatically tuning sparse matrix–vector multiplication for
GPU architectures" (HiPEAC 2010), doi:10.1007/978-3-642-11515-8_10; padding is bounded by grouping
rows, wherever they are, and not by slices of neighbours.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .once import once
from .pattern import SparsityPattern

#: Group widths; rows of other lengths are padded to the next.
_WIDTHS = np.array([0, 1, 2, 4, 8, 16])
CHUNK = 16
#: A single group needs no reordering of rows: worth this much padding. [measured: gathers that are
#: masked cost as much as others; reordering costs about two per row]
_PADDING = 1.5


class Group(NamedTuple):
    """Pieces of rows, padded to one width: `(width, pieces)` slots and columns, −1 where padded."""

    slots: np.ndarray
    columns: np.ndarray


class Ell(NamedTuple):
    """Groups, and how their sums become rows.

    - `rows`: `(m,)`, where in the concatenated sums of groups (short rows first, then long ones)
      each row is; None if there is one group with all rows in order.
    - `long`: the last group's pieces belong to these of the `num_long` long rows, sorted; or None.
    """

    size: int
    groups: tuple[Group, ...]
    rows: np.ndarray | None
    long: np.ndarray | None
    num_long: int


def make(pattern: SparsityPattern, transpose: bool) -> Ell:
    """The layout of A or of Aᵀ; slots are those of A in both cases."""
    of = pattern.T if transpose else pattern
    lengths, starts, m = of.row_lengths, of.indptr[:-1], of.shape[0]
    widest = int(lengths.max(initial=0))

    def group(starts: np.ndarray, lengths: np.ndarray, width: int) -> Group:
        step = np.arange(width, dtype=of.indices.dtype)[:, None]
        own = step < lengths
        slots = np.where(own, starts + step, 0)
        columns = np.where(own, of.indices[slots], -1) if of.nnz else slots
        if transpose:
            slots = pattern.transpose_order[slots] if of.nnz else slots
        return Group(slots, columns)

    if widest <= 2 * CHUNK and m * widest <= _PADDING * of.nnz:
        return Ell(m, (group(starts, lengths, widest),), None, None, 0)

    classes = np.searchsorted(_WIDTHS, lengths)
    order, groups = [], []
    for which, width in enumerate(_WIDTHS):
        members = np.flatnonzero(classes == which)
        if len(members):
            order.append(members)
            groups.append(group(starts[members], lengths[members], int(width)))
    members = np.flatnonzero(classes == len(_WIDTHS))
    long = None
    if len(members):
        order.append(members)
        chunks = -(-lengths[members] // CHUNK)
        long = np.repeat(np.arange(len(members), dtype=of.indices.dtype), chunks)
        first = np.cumsum(chunks) - chunks
        done = (np.arange(len(long)) - first[long]) * CHUNK
        begin = (starts[members][long] + done).astype(of.indices.dtype)
        left = np.minimum(lengths[members][long] - done, CHUNK)
        groups.append(group(begin, left, CHUNK))
    rows = np.empty(m, of.indices.dtype)
    rows[np.concatenate(order) if order else np.zeros(0, int)] = np.arange(m)
    return Ell(m, tuple(groups), rows, long, len(members))


#: For each column of each group its entries, which are there, and their columns in A.
Packed: TypeAlias = list[list[tuple[Array, Array, Array]]]


def pack(layout: Ell, values: Array) -> Packed:
    """Entries in the order in which they are multiplied: for each group `width` arrays `(B, pieces)`."""
    return [
        [_packed(*column, values) for column in zip(group.slots, group.columns)]
        for group in layout.groups
    ]


def _packed(slots: np.ndarray, columns: np.ndarray, values: Array) -> tuple[Array, Array, Array]:
    # XLA would compute with constants when it compiles, which takes longer than the program runs
    known = jax.lax.optimization_barrier(jnp.asarray(columns))
    entries = values.at[:, slots].get(mode="promise_in_bounds", wrap_negative_indices=False)
    return entries, known >= 0, known


def _sums(group: list[tuple[Array, Array, Array]], pieces: int, x: Array) -> Array:
    """`(B, K, pieces)`: of each piece, the products of its entries with x."""
    total = jnp.zeros((*x.shape[:2], pieces), x.dtype)
    for entries, there, columns in group:
        gathered = x.at[:, :, columns].get(mode="promise_in_bounds", wrap_negative_indices=False)
        # padding points to entries that are there, and is not used: they may be infinite
        total += jnp.where(there, entries[:, None] * gathered, jnp.zeros((), x.dtype))
    return total


def apply(layout: Ell, packed: Packed, x: Array) -> Array:
    """From what `pack` returned and `(B, K, n)` to `(B, K, m)`."""
    x = once(x)
    pairs = zip(layout.groups, packed)
    parts = [_sums(columns, group.slots.shape[1], x) for group, columns in pairs]
    if layout.long is not None:
        sums = jnp.zeros((*x.shape[:2], layout.num_long), x.dtype)
        parts[-1] = sums.at[:, :, layout.long].add(
            parts[-1], indices_are_sorted=True, mode="promise_in_bounds"
        )
    if layout.rows is None:
        return parts[0]
    if not parts:
        return jnp.zeros((*x.shape[:2], layout.size), x.dtype)
    joined = jnp.concatenate(parts, axis=2)
    return joined.at[:, :, layout.rows].get(mode="promise_in_bounds")
