"""`PaddedOperator`: a sparse matrix held row by row in slots, with all that a product reads as leaves.

A `SparseLinearOperator` is a pattern, which is compiled in, and values in the order of that. Where a
program holds many matrices that it only multiplies by (the levels of a multigrid hierarchy), this
costs time when compiling: indices become constants, and layouts unrolled loops. Here columns and
values are arrays `(width, m)` that are passed to the program; rows that are much longer than others
are a second, smaller matrix, whose sums are gathered.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._varying import vary_together
from ..operators import AbstractLinearOperator, FunctionLinearOperator, conj

#: Up to this width the gathers of a product are written out, which XLA makes one loop over rows.
_WRITTEN_OUT = 32
#: And beyond it so many in each step of a loop.
_IN_A_STEP = 16
#: A tail costs one more kernel: to compile, and to start. A slot costs about 0.4 ns, so that these are
#: 13 µs, and compilation for each tail 15 ms. [measured]
_TAIL = 32768


#: Rows of which tables are filled at once, so that they stay in the cache: twice as fast. [measured]
_AT_ONCE = 8192


#: Tables of so many entries are `(m, width)`, and their products one sum over an axis. That takes twice
#: as long as gathers that are written out, but is compiled in a fifth of the time. [measured]
_SMALL = 1 << 16


def _is_small(table: Any) -> bool:
    return math.prod(table.shape) <= _SMALL


class Slots(NamedTuple):
    """Where the entries of a matrix stand: index arrays, of NumPy or of JAX.

    - `slots`: `(width, m)`, the first entries of each row among the values; `nnz` where there is none.
    - `columns`: `(width, m)`, their columns; 0 where there is none.
    - `tail_slots`, `tail_columns`: `(more, t + 1)`, the rest of rows that are longer; the last is
      empty. None if no row is.
    - `where`: `(m,)`, which of these belongs to each row; t to those that are not longer.

    Small tables are turned: `(m, width)`, `(t + 1, more)`.
    """

    slots: Any
    columns: Any
    tail_slots: Any = None
    tail_columns: Any = None
    where: Any = None


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory that `jax.device_put` takes as it is on CPU. (It has to lie at multiples of 64 bytes.)"""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(shape)


class _Rows(NamedTuple):
    """Parts of compressed rows: `lengths[i]` entries from number `starts[i]` on, at most `width`."""

    starts: np.ndarray
    lengths: np.ndarray
    width: int

    def tables(self, *entries: np.ndarray) -> list[np.ndarray]:
        """Each `(nnz,)` as `(width, m)`, or `(m, width)` if small; zero where a row is shorter."""
        shape = self.width, len(self.starts)
        if len(entries[0]) == 0:
            tables = [np.zeros(shape, some.dtype) for some in entries]
        else:
            tables = [aligned(shape, some.dtype) for some in entries]
            for first in range(0, shape[1], _AT_ONCE):
                self._fill(tables, entries, slice(first, first + _AT_ONCE))
        return [table.T if _is_small(table) else table for table in tables]

    def _fill(self, tables: list[np.ndarray], entries: Any, some: slice) -> None:
        lengths, place = self.lengths[some], self.starts[some].astype(np.intp)
        everywhere = lengths.min()
        for k in range(self.width):
            there = None if k < everywhere else lengths > k
            for table, given in zip(tables, entries):
                row = table[k, some]
                np.take(given, place, out=row, mode="clip")
                if there is not None:
                    np.copyto(row, 0, where=~there)
            place += 1


class _Split:
    """Rows of `indptr (m + 1,)`, split into a table that starts each of them, and one of the rest.

    - `where`: which row of the rest belongs to each; None if there is no rest.
    """

    def __init__(self, indptr: np.ndarray):
        lengths = np.diff(indptr)
        width = _width(lengths)
        self.where: np.ndarray | None = None
        self._starts = _Rows(indptr[:-1], lengths, width)
        longer = np.flatnonzero(lengths > width)
        if len(longer) == 0:
            return
        rest = np.append(lengths[longer] - width, 0)
        self._rest = _Rows(np.append(indptr[longer] + width, 0), rest, int(rest.max()))
        self.where = np.full(len(lengths), len(longer), np.int32)
        self.where[longer] = np.arange(len(longer), dtype=np.int32)

    def tables(
        self, *entries: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray] | list[None]]:
        """Each of the entries `(nnz,)` as `(width, m)`, and as `(more, t + 1)` if a row is longer."""
        if self.where is None:
            return self._starts.tables(*entries), [None] * len(entries)
        return self._starts.tables(*entries), self._rest.tables(*entries)


def slots_of(indptr: np.ndarray, indices: np.ndarray) -> Slots:
    """From compressed rows: `indptr (m + 1,)`, `indices (nnz,)`."""
    nnz = len(indices)
    small: Any = np.int32 if nnz < np.iinfo(np.int32).max else np.int64
    split = _Split(indptr)

    def none_is_last(table: np.ndarray | None) -> np.ndarray | None:
        return None if table is None else np.where(table == 0, small(nnz), table - small(1))

    numbers = np.arange(1, nnz + 1, dtype=small)
    first, rest = split.tables(numbers, indices.astype(small, copy=False))
    return Slots(none_is_last(first[0]), first[1], none_is_last(rest[0]), rest[1], split.where)


def _width(lengths: np.ndarray) -> int:
    """The width for which padding and tail together are least."""
    m, counts = len(lengths), np.bincount(lengths, minlength=1)
    widths = np.arange(len(counts))
    longer = m - np.cumsum(counts)  # rows that are longer than each width
    tail = np.where(longer > 0, _TAIL + m + longer * (widths[-1] - widths), 0)
    return max(1, int(np.argmin(widths * m + tail)))


class PaddedOperator(AbstractLinearOperator):
    """The operator x ↦ Ax of a sparse matrix `(m, n)`, for products alone.

    - `columns`, `values`: `(width, m)`; values are zero where a row is shorter.
    - `tail`: None, or `(columns (more, t + 1), values (more, t + 1), where (m,))` of rows that are
      longer: see `Slots`.
    - `other`: Aᵀ in the same form, or None: then products with it scatter.
    """

    columns: Array
    values: Array
    tail: tuple[Array, Array, Array] | None
    other: PaddedOperator | None
    size: int = eqx.field(static=True)

    @classmethod
    def make(
        cls,
        slots: Slots,
        values: Array | np.ndarray,
        size: int,
        other: PaddedOperator | None = None,
    ) -> PaddedOperator:
        """From the values `(nnz,)` in the order that `slots` knows; `size` is n.

        Values of NumPy are put in order by NumPy, before anything is compiled.
        """
        tail = None
        if slots.where is not None:
            rest = pick_slots(values, slots.tail_slots)
            tail = jnp.asarray(slots.tail_columns), rest, jnp.asarray(slots.where)
        return cls(jnp.asarray(slots.columns), pick_slots(values, slots.slots), tail, other, size)

    @classmethod
    def of_scipy(cls, matrix: Any, other: PaddedOperator | None = None) -> PaddedOperator:
        """From a `scipy.sparse.csr_matrix` in canonical order, and perhaps its transpose."""
        return jax.device_put(cls.on_host(matrix, other))

    @classmethod
    def on_host(cls, matrix: Any, other: PaddedOperator | None = None) -> PaddedOperator:
        """The same of NumPy arrays, made without JAX (and so on any thread)."""
        split = _Split(matrix.indptr)
        (columns, values), more = split.tables(matrix.indices, matrix.data)
        tail: Any = None if split.where is None else (*more, split.where)
        return cls(columns, values, tail, other, matrix.shape[1])

    def row_norms(self) -> Array:
        """The ℓ1 norms of the rows, `(m,)`."""
        if self.tail is None:
            return _magnitudes(self.values)
        _, values, where = self.tail
        return _magnitudes(self.values) + _magnitudes(values)[where]

    def mv(self, vector: Array) -> Array:
        return _products(self, vector)

    def transpose(self) -> AbstractLinearOperator:
        if self.other is not None:
            alone = PaddedOperator(self.columns, self.values, self.tail, None, self.size)
            return eqx.tree_at(lambda o: o.other, self.other, alone, is_leaf=lambda x: x is None)
        return FunctionLinearOperator(self._added, self.out_structure())

    def _added(self, y: Array) -> Array:
        """Aᵀy, by adding products where they belong."""
        total = vary_together(jnp.zeros(self.size, self.values.dtype), y)[0]
        total = _add(total, self.columns, self.values, y)
        if self.tail is None:
            return total
        columns, values, where = self.tail
        rows = columns.shape[0 if _is_small(columns) else 1]
        rest = vary_together(jnp.zeros(rows, y.dtype), y)[0].at[where].add(y)
        return _add(total, columns, values, rest)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.size,), self.values.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        rows = self.values.shape[0 if _is_small(self.values) else 1]
        return jax.ShapeDtypeStruct((rows,), self.values.dtype)


@conj.register(PaddedOperator)
def _conj(operator: PaddedOperator) -> PaddedOperator:
    flip = lambda x: x.conj() if jnp.iscomplexobj(x) else x
    return jax.tree.map(flip, operator)


def pick_slots(values: Array | np.ndarray, slots: Any) -> Array:
    if isinstance(values, np.ndarray):
        return jnp.asarray(np.append(values, np.zeros((), values.dtype))[slots])
    # behind the barrier, indices are no constants that XLA computes with when it compiles
    known = jax.lax.optimization_barrier(jnp.asarray(slots))
    return values.at[known].get(mode="fill", fill_value=0)


def _products(operator: PaddedOperator, x: Array) -> Array:
    columns, values, tail, x = vary_together(operator.columns, operator.values, operator.tail, x)
    y = _sums(columns, values, x)
    if tail is None:
        return y
    more_columns, more_values, where = tail
    where, rest = jax.lax.optimization_barrier((where, _sums(more_columns, more_values, x)))
    return y + _known(rest, where)


def _sums(columns: Array, values: Array, x: Array) -> Array:
    """Σₖ values[k] x[columns[k]], of tables: `(m,)`."""
    # In a loop, XLA would take the rows of both out of it as copies; tied to x they stay where they are
    # read. (It drops the barrier before it fuses.)
    columns, values, x = jax.lax.optimization_barrier((columns, values, x))
    if _is_small(columns):
        return jnp.sum(values * _known(x, columns), axis=1)
    return _sums_over_columns(columns, values, x)


def _sums_over_columns(columns: Array, values: Array, x: Array) -> Array:
    """Σₖ values[k] x[columns[k]], of tables `(width, m)`: `(m,)`."""
    width = columns.shape[0]
    term = lambda k: values[k] * _known(x, columns[k])
    if width <= _WRITTEN_OUT:
        total = term(0)
        for k in range(1, width):
            total = total + term(k)
        return total
    first = width % _IN_A_STEP or _IN_A_STEP
    total = _sums_over_columns(columns[:first], values[:first], x)

    def step(i: Array, total: Array) -> Array:
        at = first + i * _IN_A_STEP
        some = lambda part: jax.lax.dynamic_slice(
            part, (at, 0), (_IN_A_STEP, part.shape[1]), allow_negative_indices=False
        )
        return total + _sums_over_columns(some(columns), some(values), x)

    return jax.lax.fori_loop(0, (width - first) // _IN_A_STEP, step, total)


def _magnitudes(values: Array) -> Array:
    """Σₖ |values[k]| of a table: `(m,)`. (A sum over the first axis takes ten times as long on CPU.)"""
    if _is_small(values):
        return jnp.abs(values).sum(axis=1)
    if len(values) > _WRITTEN_OUT:
        return jnp.abs(values).sum(axis=0)
    total = jnp.abs(values[0])
    for k in range(1, len(values)):
        total = total + jnp.abs(values[k])
    return total


def _known(x: Array, indices: Array) -> Array:
    """x[indices], of indices that are known to be in bounds: every test of them would be compiled."""
    return x.at[indices].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _add(total: Array, columns: Array, values: Array, y: Array) -> Array:
    """`total` and Σᵢₖ values[k, i] y[i], each where `columns[k, i]` says, of tables."""
    terms = values * (y[:, None] if _is_small(values) else y)
    return total.at[columns].add(terms, mode="promise_in_bounds")
