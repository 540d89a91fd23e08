"""DIA: one array for each diagonal. Products are shifts, multiplications and sums, without indices.

The slice of the vector that a diagonal multiplies is padded where it is read: a loop over rows tests
where it is, and nothing is written that is longer by a few zeros. That takes 10 to 40 % less time than
to pad the vector ahead [benchmarks/sparse_products.py].

A single product (`product`) does not pack first: each entry is read among the values where it is
multiplied. To pack is to read all values once for each diagonal, and to write them; that alone takes
four times as long as the product.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .once import lean
from .pattern import SparsityPattern


class Dia(NamedTuple):
    """Where the entries of each diagonal j = i + offset of a matrix of this shape are.

    - `evenly`: for each diagonal `(first, step)`, if on all of them the entries lie evenly among the
      values, and none is missing in the rows in which the diagonal is inside of the matrix; else None.
    - `slots`: where the entry of each row is among the values, `(D, m)`; −1 where there is none.
    - `bits`: `(⌈D / 8⌉, m)`, uint8: bit k % 8 of row k // 8 says whether diagonal k has an entry. No
      rows if none is missing inside of the matrix. (One array of bits is read in less time than an
      array of flags for each diagonal.)

    What holds for one diagonal only is not made use of: loops in which some of the diagonals are
    tested, and others not, take three times as long, as LLVM does not vectorise them. [measured]
    """

    offsets: tuple[int, ...]
    shape: tuple[int, int]
    evenly: tuple[tuple[int, int], ...] | None
    slots: np.ndarray
    bits: np.ndarray


class Packed(NamedTuple):
    """For each diagonal its entries `(B, m)`, and `Dia.bits`. Without bits entries are zero outside."""

    entries: list[Array]
    bits: Array


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
    inside = [row[slice(*span(k, shape))] for row, k in zip(slots, offsets)]
    found = [step for step in map(_evenly, inside) if step is not None]
    evenly = tuple(found) if len(found) == len(offsets) else None
    bits = np.zeros((0, shape[0]), np.uint8)
    if any(row.min(initial=0) < 0 for row in inside):
        bits = np.packbits(slots >= 0, axis=0, bitorder="little")
    return Dia(offsets, shape, evenly, slots, bits)


def _evenly(slots: np.ndarray) -> tuple[int, int] | None:
    """`(first, step)` if all slots are there, and equally far from each other."""
    steps = np.diff(slots)
    step = int(steps[0]) if len(steps) else 1
    if slots.min() < 0 or step < 1 or np.any(steps != step):
        return None
    return int(slots[0]), step


def turned(x: Array) -> Array:
    """`(B, K, n)` as `apply` takes it: as it is."""
    return x


turned_back = turned


def pack(layout: Dia, values: Array, by_rows: bool = False) -> Packed:
    """The values `(B, nnz)` as `apply` takes them.

    With `by_rows` they are read once, into one array. That is what a product with several vectors
    wants; where products follow in a loop, they shall find each diagonal in a piece.
    """
    diagonals = range(len(layout.offsets))
    bits = jax.lax.optimization_barrier(jnp.asarray(layout.bits))
    if layout.evenly is not None:
        return Packed([_spread(layout, k, values) for k in diagonals], bits)
    # Behind the barrier XLA does not know that indices are constants, and does not compute with
    # them when it compiles, which takes longer than the program runs.
    slots = jax.lax.optimization_barrier(jnp.asarray(layout.slots))
    if by_rows:
        table = _get(values, slots.T)
        entries = [table[:, :, k] for k in diagonals]
    else:
        entries = [_get(values, slots[k]) for k in diagonals]
    if len(bits) == 0:
        entries = [jnp.where(slots[k] >= 0, entries[k], _zero(values)) for k in diagonals]
    return Packed(entries, bits)


def apply(layout: Dia, packed: Packed, x: Array) -> Array:
    """From what `pack` returned and `(B, K, n)` to `(B, K, m)`."""
    terms = []
    for k, entries in enumerate(packed.entries):
        term = lean(entries, x.shape[1]) * _shifted(layout, k, lean(x))
        if len(packed.bits):
            there = (packed.bits[k // 8] & np.uint8(1 << k % 8)) != 0
            term = jnp.where(there, term, _zero(x))
        terms.append(term)
    return _sum(terms).reshape(*x.shape[:2], layout.shape[0])


def product(layout: Dia, values: Array, x: Array) -> Array:
    """From the values `(B, nnz)` and `(B, K, n)` to `(B, K, m)`."""
    if x.shape[1] > 1 or layout.evenly is not None:
        return apply(layout, pack(layout, values, by_rows=True), x)
    slots = jax.lax.optimization_barrier(jnp.asarray(layout.slots))
    terms = []
    for k, at in enumerate(slots):
        term = lean(_get(values, at), 1) * _shifted(layout, k, lean(x))
        terms.append(jnp.where(at >= 0, term, _zero(x)))
    return _sum(terms).reshape(*x.shape[:2], layout.shape[0])


def _sum(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _zero(array: Array) -> Array:
    return jnp.zeros((), array.dtype)


def _get(values: Array, slots: Array) -> Array:
    return values.at[:, slots].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _spread(layout: Dia, k: int, values: Array) -> Array:
    """The entries `(B, m)` of a diagonal on which they lie evenly, and zeros around them."""
    assert layout.evenly is not None
    first, step = layout.evenly[k]
    a, b = span(layout.offsets[k], layout.shape)
    entries = values[:, first : first + step * (b - a - 1) + 1 : step]
    return jnp.pad(entries, ((0, 0), (a, layout.shape[0] - b)))


def _shifted(layout: Dia, k: int, x: Array) -> Array:
    """x[..., i + offset] for each row i; zero where that is outside of x."""
    offset, m = layout.offsets[k], layout.shape[0]
    a, b = span(offset, layout.shape)
    part = jax.lax.slice_in_dim(x, a + offset, b + offset, axis=x.ndim - 1)
    return jnp.pad(part, [(0, 0)] * (x.ndim - 1) + [(a, m - b)])
