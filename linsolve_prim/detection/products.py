"""Products with sparse matrices inside of a function: ours, and those of `jax.experimental.sparse`.

The places of entries are known, also where their values are traced.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .constants import Constant
from .interpret import RULES, Context, Values, everything
from .rows import Rows, pairs


def _own(eqn: Any, values: Values, context: Context) -> Values:
    """`sparse_mv`: of values `(B, nnz)` and x `(B, K, n)`."""
    v, x = values
    return _by_pattern(eqn, v, x, eqn.invars[1].aval.shape, eqn.params["transpose"], context)


def _packed(eqn: Any, values: Values, context: Context) -> Values:
    """`sparse_packed`: of x and constant values, which come packed too."""
    x, v, *_ = values
    return _by_pattern(eqn, v, x, eqn.invars[0].aval.shape, False, context)


def _by_pattern(
    eqn: Any, v: Any, x: Any, shape: tuple[int, ...], transpose: bool, context: Context
) -> Values:
    """y[b, k, i] = Σ v[b, e] x[b, k, j] over the entries e = (i, j)."""
    pattern, (batch, count, n) = eqn.params["pattern"], shape
    to, come = pattern.rows, pattern.indices
    to, come = (come, to) if transpose else (to, come)
    size = batch * count * eqn.outvars[0].aval.shape[-1]
    context.meter.check(batch * count * pattern.nnz)
    lines = np.arange(batch * count)[:, None]
    to = lines * (size // max(len(lines), 1)) + to
    entry = lines // max(count, 1) * pattern.nnz + np.arange(pattern.nnz)
    come = lines * n + come
    return _bilinear([(v, entry), (x, come)], to, size)


def _bilinear(operands: list[Any], to: np.ndarray, size: int) -> Values:
    """The sum of products of elements of two operands, each `(value, which elements)`, where they go."""
    rows = None
    for (one, here), (other, there) in (operands, operands[::-1]):
        if not isinstance(one, Rows):
            continue
        mask = other.nonzero() if isinstance(other, Constant) else None
        keep = np.ones(to.shape, bool) if mask is None else mask.ravel()[there]
        part = one.sums(pairs(to[keep], here[keep], (size, one.size)))
        rows = part if rows is None else rows.union(part)
    return [rows]


def _bcoo(eqn: Any, values: Values, context: Context) -> Values:
    data, indices, x = values
    index = indices.value() if isinstance(indices, Constant) else None
    if index is None or eqn.invars[0].aval.ndim != 1:
        return everything(eqn, values, context)
    return _contracted(eqn, data, index.T, x, context)


def _bcsr(eqn: Any, values: Values, context: Context) -> Values:
    data, *parts, x = values
    columns, indptr = (p.value() if isinstance(p, Constant) else None for p in parts)
    if columns is None or indptr is None or eqn.invars[0].aval.ndim != 1:
        return everything(eqn, values, context)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    padded = np.full(len(columns), len(indptr) - 1)  # out of the matrix, as padding is
    padded[: len(rows)] = rows
    return _contracted(eqn, data, [padded, columns], x, context)


def _contracted(eqn: Any, data: Any, places: Any, x: Any, context: Context) -> Values:
    """A sparse matrix, contracted along one axis with one of x."""
    (own, other), batch = eqn.params["dimension_numbers"]
    shape = eqn.params["lhs_spinfo"].shape
    if len(shape) != 2 or len(own) != 1 or batch != ((), ()):
        return everything(eqn, [data, x], context)
    inside = (places[0] < shape[0]) & (places[1] < shape[1])
    entry = np.flatnonzero(inside)
    free, along = places[1 - own[0]][inside], places[own[0]][inside]
    x_shape = eqn.invars[-1].aval.shape
    numbers = np.moveaxis(np.arange(math.prod(x_shape)).reshape(x_shape), other[0], 0)
    numbers = numbers.reshape(x_shape[other[0]], -1)
    width = numbers.shape[1]
    context.meter.check(len(entry) * width)
    to = free[:, None].astype(np.int64) * width + np.arange(width)
    entry = np.broadcast_to(entry[:, None], to.shape)
    size = math.prod(eqn.outvars[0].aval.shape)
    return _bilinear([(data, entry), (x, numbers[along])], to, size)


def _ragged(eqn: Any, values: Values, context: Context) -> Values:
    """`lax.ragged_dot`: row i of x `(m, k)` by the matrix `(k, n)` of the group that i is in."""
    x, matrices, sizes = values
    counts = sizes.value() if isinstance(sizes, Constant) else None
    dimensions = eqn.params["ragged_dot_dimension_numbers"]
    usual = (
        dimensions.dot_dimension_numbers == (((1,), (1,)), ((), ()))
        and tuple(dimensions.lhs_ragged_dimensions) == (0,)
        and tuple(dimensions.rhs_group_dimensions) == (0,)
    )
    if counts is None or counts.ndim != 1 or not usual or eqn.params["group_offset"] is not None:
        return everything(eqn, values, context)
    (m, k), (_, _, n) = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    context.meter.check(m * k * n)
    group = np.repeat(np.arange(len(counts)), counts)[:m]  # rows after the last group are zero
    i, j, l = np.ix_(np.arange(len(group)), np.arange(k), np.arange(n))
    to, come, entry = np.broadcast_arrays(i * n + l, i * k + j, (group[i] * k + j) * n + l)
    return _bilinear([(x, come), (matrices, entry)], to, m * n)


RULES |= {
    "ragged_dot_general": _ragged,
    "sparse_mv": _own,
    "sparse_packed": _packed,
    "bcoo_dot_general": _bcoo,
    "bcsr_dot_general": _bcsr,
}
