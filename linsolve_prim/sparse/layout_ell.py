"""Sliced ELL: groups of rows with (nearly) the same number of entries, w, as w gathers each.

The gathers are unrolled: column after column, which XLA makes one loop over rows. As one gather of
two axes and a sum it is ten times slower on CPU [measured]. Rows with more than `CHUNK` entries are
cut into chunks of at most that many, whose sums go to their rows by a sorted segment-sum.

Of several vectors, what is gathered is a row of `(n, K)`: their entries lie side by side. As K
vectors `(K, n)` it takes 2 times as long for 8 of them, and 7 times for 64 [measured], as each entry
comes from another line of the cache, and indices are read for each.

After Monakov, Lokhmotov, Avetisyan, "Automatically tuning sparse matrix–vector multiplication for
GPU architectures" (HiPEAC 2010), doi:10.1007/978-3-642-11515-8_10; padding is bounded by grouping
rows, wherever they are, and not by slices of neighbours.

Where few entries are left so, all rows have one width, in order, and each entry that is left of the longer
ones is added to its row: after Bell & Garland, "Implementing sparse matrix-vector
multiplication on throughput-oriented processors" (SC 2009), doi:10.1145/1654059.1654078.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .pattern import SparsityPattern

#: Group widths; rows of other lengths are padded to the next.
_WIDTHS = np.array([0, 1, 2, 4, 8, 16])
CHUNK = 16
#: In gathered entries, of which masked ones cost as much as others: to put a row in its place, and to add
#: one entry that is left of a longer row. [measured: triangles of benchmarks/sparse_products.py]
_REORDERING = 2
_ADDING = 4


class Group(NamedTuple):
    """Pieces of rows, padded to one width.

    - `columns`: `(width, pieces)`, −1 where padded.
    - `slots`: of each entry, `(width, pieces)`; or of the first of each piece, `(pieces,)`, if the
      others follow it. Where there is no entry they say nothing.
    """

    slots: np.ndarray
    columns: np.ndarray


class Ell(NamedTuple):
    """Groups, and how their sums become rows.

    - `rows`: `(m,)`, where in the concatenated sums of groups (short rows first, then long ones)
      each row is; None if there is one group with all rows in order.
    - `long`: the last group's pieces belong to these of the `num_long` long rows, sorted; or None.
    - `longer`: the rows to which the second of two groups adds, sorted; or None. Its pieces are entries.
    """

    size: int
    groups: tuple[Group, ...]
    rows: np.ndarray | None
    long: np.ndarray | None
    num_long: int
    longer: np.ndarray | None = None


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
        if not transpose:
            return Group(starts.astype(of.indices.dtype), columns)
        return Group(pattern.transpose_order[slots] if of.nnz else slots, columns)

    classes = np.searchsorted(_WIDTHS, lengths)
    base = _common_width(lengths, classes)
    if base == widest:
        return Ell(m, (group(starts, lengths, widest),), None, None, 0)
    if base is not None:
        left = np.flatnonzero(np.arange(of.nnz, dtype=of.indices.dtype) - starts[of.rows] >= base)
        rest = group(left.astype(of.indices.dtype), np.ones_like(left), 1)
        first = group(starts, np.minimum(lengths, base), base)
        return Ell(m, (first, rest), None, None, 0, of.rows[left].astype(of.indices.dtype))

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


def _common_width(lengths: np.ndarray, classes: np.ndarray) -> int | None:
    """The width for all rows with which less is done than by groups of rows and their reordering."""
    widest = int(lengths.max(initial=0))
    if widest == 0:
        return 0
    chunks = -(-lengths // CHUNK)
    widths = np.append(_WIDTHS, 0)[classes] + np.where(lengths > CHUNK, chunks * (CHUNK + 1), 0)
    counts = np.bincount(lengths)
    longer = len(lengths) - np.cumsum(counts)  # rows that are longer than 0, 1, …
    left = np.cumsum(longer[::-1])[::-1]  # entries beyond these widths
    own = np.arange(1, min(widest, 2 * CHUNK) + 1)
    costs = len(lengths) * own + _ADDING * left[own]
    best = int(own[costs.argmin()])
    return best if costs.min() <= widths.sum() + _REORDERING * len(lengths) else None


#: For each column of each group its entries, which are there (None: all), and their columns in A.
_Column: TypeAlias = tuple[Array, Array | None, Array]
Packed: TypeAlias = list[list[_Column]]


def pack(layout: Ell, values: Array) -> Packed:
    """Entries in the order in which they are multiplied: for each group `width` arrays `(B, pieces)`."""
    return [_packed(group, values) for group in layout.groups]


def _packed(group: Group, values: Array) -> list[_Column]:
    # XLA would compute with constants when it compiles, which takes longer than the program runs
    slots, columns = jax.lax.optimization_barrier(
        (jnp.asarray(group.slots), jnp.asarray(group.columns))
    )
    found: list[_Column] = []
    full = np.all(
        group.columns >= 0, axis=1
    ).tolist()  # a mask costs up to a tenth [measured: random, 10⁵]
    for k in range(len(group.columns)):
        at = slots[k] if slots.ndim == 2 else slots + np.asarray(k, slots.dtype)
        entries = values.at[:, at].get(mode="promise_in_bounds", wrap_negative_indices=False)
        found.append((entries, None if full[k] else columns[k] >= 0, columns[k]))
    return found


def turned(x: Array) -> Array:
    """`(B, K, n)` as `apply` takes it: `(B, n, K)`, or `(B, n)` if K is 1."""
    return x[:, 0] if x.shape[1] == 1 else jnp.swapaxes(x, 1, 2)


def turned_back(y: Array) -> Array:
    """`(B, m, K)` or `(B, m)` as `(B, K, m)`."""
    return y[:, None] if y.ndim == 2 else jnp.swapaxes(y, 1, 2)


def _sums(group: list[_Column], pieces: int, x: Array) -> Array:
    """`(B, pieces)` or `(B, pieces, K)`: of each piece, the products of its entries with x."""
    each = (lambda a: a) if x.ndim == 2 else (lambda a: a[..., None])
    total = jnp.zeros((x.shape[0], pieces, *x.shape[2:]), x.dtype)
    for entries, there, columns in group:
        gathered = x.at[:, columns].get(mode="promise_in_bounds", wrap_negative_indices=False)
        products = each(entries) * gathered
        if there is not None:  # padding points to others' entries, which may be infinite
            products = jnp.where(each(there), products, jnp.zeros((), x.dtype))
        total += products
    return total


def apply(layout: Ell, packed: Packed, x: Array) -> Array:
    """From what `pack` returned and x, both as `turned` makes them, to Ax likewise."""
    pairs = zip(layout.groups, packed)
    parts = [_sums(columns, group.columns.shape[1], x) for group, columns in pairs]
    if layout.longer is not None:
        # (a scatter takes sums as they are: to gather them takes a kernel more, and a copy)
        return (
            parts[0]
            .at[:, layout.longer]
            .add(parts[1], indices_are_sorted=True, mode="promise_in_bounds")
        )
    if layout.long is not None:
        sums = jnp.zeros((x.shape[0], layout.num_long, *x.shape[2:]), x.dtype)
        parts[-1] = sums.at[:, layout.long].add(
            parts[-1], indices_are_sorted=True, mode="promise_in_bounds"
        )
    if layout.rows is None:
        return parts[0]
    if not parts:
        return jnp.zeros((x.shape[0], layout.size, *x.shape[2:]), x.dtype)
    joined = jnp.concatenate(parts, axis=1)
    return joined.at[:, layout.rows].get(mode="promise_in_bounds")


def product(layout: Ell, values: Array, x: Array) -> Array:
    """`apply` with entries that are read among the values where they are multiplied."""
    return apply(layout, pack(layout, values), x)
