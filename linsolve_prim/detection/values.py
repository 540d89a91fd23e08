"""The entries of a linear function on a pattern, by few products with it: JAX throughout.

Whatever the function captures may be traced: entries are differentiated and batched like any
product, and so to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._tree import ravel, tree_dtype, unravel
from .._types import Structure
from ..operators import FunctionLinearOperator
from ..operators.closure import ClosedFunction
from ..operators.linearity import split_affine
from ..operators.program import primitive_names
from ..sparse.pattern import SparsityPattern
from .colouring import Colouring, colouring

#: Numbers that are computed at a time: in one batch of products, and by a loop over batches, from
#: which entries are picked at once (64 MiB and 256 MiB in float64).
_BATCH, _BLOCK = 1 << 23, 1 << 25


def entries(
    closed: ClosedFunction, structure: Structure, pattern: SparsityPattern
) -> tuple[Array, Array]:
    """`(values, offset)` with f(x) = Ax + offset, of shapes `(nnz,)` and `(m,)`.

    `closed` is affine, takes what has the given structure, and A has no entry outside of `pattern`.
    """
    linear, offset = split_affine(closed, structure)
    out_structure = closed.out_structure()
    dtype = tree_dtype((structure, out_structure))
    values = _entries(linear, structure, out_structure, pattern, _plan(closed, pattern))
    if offset is None:
        return values.astype(dtype), jnp.zeros(pattern.shape[0], dtype)
    return values.astype(dtype), ravel(offset, out_structure).astype(dtype)


def _plan(closed: ClosedFunction, pattern: SparsityPattern) -> Colouring:
    hidden = {"custom_vjp_call", "custom_vjp_call_jaxpr", "stop_gradient"}  # no transpose, or zero
    dtypes = {var.aval.dtype for var in closed.program.jaxpr.outvars}
    dtypes |= {structure.dtype for structure in closed.signature.structures}
    # that of a function from real to complex numbers forgets an imaginary part
    exact = len(dtypes) == 1 and hidden.isdisjoint(primitive_names(closed.program.jaxpr))
    return colouring(pattern, exact)


def count_products(closed: ClosedFunction, pattern: SparsityPattern) -> int:
    """How many products with the function (or its transpose) `entries` takes."""
    plan = _plan(closed, pattern)
    return plan.count + len(plan.apart)


def _entries(
    linear: Callable[[Any], Any],
    structure: Structure,
    out_structure: Structure,
    pattern: SparsityPattern,
    plan: Colouring,
) -> Array:
    rows, columns = pattern.rows, pattern.indices
    in_dtype, out_dtype = tree_dtype(structure), tree_dtype(out_structure)
    if pattern.nnz == 0:
        return jnp.zeros(0, out_dtype)

    def product(colour: Array) -> Array:
        probe = (plan.colours == colour).astype(in_dtype)
        return ravel(linear(unravel(probe, structure)), out_structure)

    is_apart = np.zeros(pattern.shape[0], bool)
    is_apart[plan.apart] = True
    apart = is_apart[rows]
    near, far = np.flatnonzero(~apart), np.flatnonzero(apart)
    parts = _picked(product, plan.colours[columns[near]], rows[near], plan.count, pattern.shape)
    slots = [near[k] for _, k in parts]
    values = [value for value, _ in parts]
    if len(far):
        transposed = FunctionLinearOperator(linear, structure).transpose()
        number = np.zeros(pattern.shape[0], np.int32)
        number[plan.apart] = np.arange(len(plan.apart))

        def row(k: Array) -> Array:
            probe = jnp.zeros(pattern.shape[0], out_dtype).at[jnp.asarray(plan.apart)[k]].set(1)
            return ravel(transposed.mv(unravel(probe, out_structure)), structure)

        lines = _picked(row, number[rows[far]], columns[far], len(plan.apart), pattern.shape)
        slots += [far[k] for _, k in lines]
        values += [value.astype(out_dtype) for value, _ in lines]
    order = np.concatenate(slots)
    if np.array_equal(order, np.arange(len(order))):
        return jnp.concatenate(values) if len(values) > 1 else values[0]
    where = np.empty_like(order)
    where[order] = np.arange(len(order))
    return _at(jnp.concatenate(values), where)


def _picked(
    product: Callable[[Array], Array],
    number: np.ndarray,
    place: np.ndarray,
    count: int,
    shape: tuple[int, int],
) -> list[tuple[Array, np.ndarray]]:
    """`product(number[k])[place[k]]` for all k, in parts: `(values, which k)`."""
    size = max(*shape, 1)
    block, batch = max(1, _BLOCK // size), max(1, _BATCH // size)
    parts = []
    for first in range(0, count, block):
        numbers = np.arange(first, min(first + block, count), dtype=np.int32)
        here = np.flatnonzero((number >= first) & (number < first + block))
        products = _products(product, jnp.asarray(numbers), batch)
        index = (number[here] - first).astype(np.int64) * products.shape[1] + place[here]
        parts.append((_at(products.reshape(-1), index), here))
    return parts


def _products(product: Callable[[Array], Array], numbers: Array, batch: int) -> Array:
    """`product` of each number: so many at a time, or one by one where JAX knows no batch of them."""
    try:
        if len(numbers) <= batch:
            return jax.vmap(product)(numbers)
        return jax.lax.map(product, numbers, batch_size=batch)
    except NotImplementedError:  # from the rules of a primitive, such as `lax.ragged_dot`
        return jax.lax.map(product, numbers)


def _at(x: Array, index: np.ndarray) -> Array:
    """`x[index]` for indices that are in range and differ. (At most `_BLOCK` + one product large.)"""
    index = index.astype(np.int32)
    return x.at[index].get(mode="promise_in_bounds", unique_indices=True)
