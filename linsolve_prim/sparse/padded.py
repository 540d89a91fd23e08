"""`PaddedOperator`: a sparse matrix held row by row in slots, with all that a product reads as leaves.

A `SparseLinearOperator` is a pattern, which is compiled in, and values in the order of that. Where a
program holds many matrices that it only multiplies by (the levels of a multigrid hierarchy), this
costs time when compiling: indices become constants, and layouts unrolled loops. Here columns and
values are arrays `(width, m)` that are passed to the program, and long rows are a loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._varying import vary_together
from ..operators import AbstractLinearOperator, FunctionLinearOperator, conj

#: Up to this width the gathers of a product are written out, which XLA makes one loop over rows.
_WRITTEN_OUT = 16
#: And beyond it so many in each step of a loop.
_IN_A_STEP = 8
#: A slot of a row that is longer than the width costs about as much as so many others. [measured]
_TAIL = 4


class Slots(NamedTuple):
    """Where the entries of a matrix stand: index arrays, of NumPy or of JAX.

    - `slots`: `(width, m)`, the first entries of each row among the values; `nnz` where there is none.
    - `columns`: `(width, m)`, their columns; 0 where there is none.
    - `rows`, `tail_slots`, `tail_columns`: rows that are longer, `(t,)`, and the rest of them,
      `(more, t)`; None if no row is.
    """

    slots: Any
    columns: Any
    rows: Any = None
    tail_slots: Any = None
    tail_columns: Any = None


def slots_of(indptr: np.ndarray, indices: np.ndarray) -> Slots:
    """From compressed rows: `indptr (m + 1,)`, `indices (nnz,)`."""
    starts, lengths = indptr[:-1], np.diff(indptr)
    width = _width(lengths)
    first = _table(starts, np.minimum(lengths, width), width, indices)
    longer = np.flatnonzero(lengths > width)
    if len(longer) == 0:
        return Slots(*first)
    rest = lengths[longer] - width
    tail = _table(starts[longer] + width, rest, int(rest.max()), indices)
    return Slots(*first, longer.astype(np.int32), *tail)


def _width(lengths: np.ndarray) -> int:
    """The width for which padding and tail together are least."""
    counts = np.bincount(lengths, minlength=1)
    widths = np.arange(len(counts))
    longer = len(lengths) - np.cumsum(counts)  # rows that are longer than each width
    cost = widths * len(lengths) + _TAIL * longer * (widths[-1] - widths)
    return max(1, int(np.argmin(cost)))


def _table(
    starts: np.ndarray, lengths: np.ndarray, width: int, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    nnz = len(indices)
    small: Any = np.int32 if nnz < np.iinfo(np.int32).max else np.int64
    step = np.arange(width, dtype=small)[:, None]
    own = step < lengths
    slots = np.where(own, starts.astype(small) + step, small(nnz))
    columns = np.append(indices.astype(small, copy=False), small(0))[slots]
    return slots, columns


class PaddedOperator(AbstractLinearOperator):
    """The operator x ↦ Ax of a sparse matrix `(m, n)`, for products alone.

    - `columns`, `values`: `(width, m)`; values are zero where a row is shorter.
    - `tail`: None, or `(rows (t,), columns (more, t), values (more, t))` of rows that are longer.
    - `other`: Aᵀ in the same form, or None: then it is found by transposing the product, which
      scatters.
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
        if slots.rows is not None:
            rest = pick_slots(values, slots.tail_slots)
            tail = jnp.asarray(slots.rows), jnp.asarray(slots.tail_columns), rest
        return cls(jnp.asarray(slots.columns), pick_slots(values, slots.slots), tail, other, size)

    @classmethod
    def of_scipy(cls, matrix: Any, other: PaddedOperator | None = None) -> PaddedOperator:
        """From a `scipy.sparse.csr_matrix` in canonical order, and perhaps its transpose."""
        slots = slots_of(matrix.indptr, matrix.indices)
        return cls.make(slots, matrix.data, matrix.shape[1], other)

    def row_norms(self) -> Array:
        """The ℓ1 norms of the rows, `(m,)`."""
        sums = jnp.abs(self.values).sum(axis=0)
        if self.tail is None:
            return sums
        rows, _, values = self.tail
        return sums.at[rows].add(jnp.abs(values).sum(axis=0))

    def mv(self, vector: Array) -> Array:
        return _products(self, vector)

    def transpose(self) -> AbstractLinearOperator:
        if self.other is not None:
            alone = PaddedOperator(self.columns, self.values, self.tail, None, self.size)
            return eqx.tree_at(lambda o: o.other, self.other, alone, is_leaf=lambda x: x is None)
        transposed = jax.linear_transpose(self.mv, self.in_structure())
        return FunctionLinearOperator(lambda y: transposed(y)[0], self.out_structure())

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.size,), self.values.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.values.shape[-1:], self.values.dtype)


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
    columns, values, x = vary_together(operator.columns, operator.values, x)
    y = _sums(columns, values, x)
    if operator.tail is not None:
        rows, columns, values = operator.tail
        rest = _sums(columns, values, x)
        rows, rest = vary_together(rows, rest)
        y = y.at[rows].add(rest, indices_are_sorted=True, unique_indices=True)
    return y


def _sums(columns: Array, values: Array, x: Array) -> Array:
    """Σₖ values[k] x[columns[k]], of arrays `(width, m)`: `(m,)`."""
    width = columns.shape[0]
    # In a loop, XLA would take the rows of both out of it as copies; tied to x they stay where they are
    # read. (It drops the barrier before it fuses.)
    columns, values, x = jax.lax.optimization_barrier((columns, values, x))
    term = lambda k: values[k] * x.at[columns[k]].get(mode="promise_in_bounds")
    if width <= _WRITTEN_OUT:
        total = term(0)
        for k in range(1, width):
            total = total + term(k)
        return total
    first = width % _IN_A_STEP or _IN_A_STEP
    total = _sums(columns[:first], values[:first], x)

    def step(i: Array, total: Array) -> Array:
        at = first + i * _IN_A_STEP
        some = lambda part: jax.lax.dynamic_slice_in_dim(part, at, _IN_A_STEP)
        return total + _sums(some(columns), some(values), x)

    return jax.lax.fori_loop(0, (width - first) // _IN_A_STEP, step, total)
