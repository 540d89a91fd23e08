"""How a product with a sparse matrix is computed, chosen from its pattern.

| layout | for | file |
|---|---|---|
| DIA | few diagonals, well filled: stencils, bands | `layout_dia.py` |
| sliced ELL | everything else | `layout_ell.py` |

Both are functions of the values in the order of the pattern. A single product reads each of them where
it is multiplied, in one pass (`product`). For many products the values can be brought into the order
of the layout first (`pack`, `apply`), which halves what a product then takes. Neither scatters entries:
a sorted segment-sum over all of them is up to twice as slow [measured], and only what is left of long
rows takes it.

The exception is Aᵀx for one vector and a matrix without diagonals, on CPU. To bring large values into
the order of Aᵀ means to read them in random order, which takes three times as long as to add products
where they belong, in the order that the values have.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._varying import vary_together
from . import layout_dia, layout_ell
from .once import alone, once
from .pattern import SparsityPattern

_MOST_DIAGONALS = 64
#: As an ELL gather costs about as much as two entries of a diagonal. [benchmarks/sparse_products.py]
_EMPTY_DIAGONALS = 2.0
_UNROLLED = 8
#: Values of so many bytes stay in the cache with the vectors. Then to pack them costs as much as a
#: product, and in a loop, out of which XLA moves it, products are twice as fast. [same benchmark]
_STAYS_IN_CACHE = 1 << 20


def is_dia(pattern: SparsityPattern) -> bool:
    """Whether the diagonals are few, and full enough to be held as arrays."""
    diagonals = len(pattern.diagonals())
    stored = diagonals * min(pattern.shape)
    return diagonals <= _MOST_DIAGONALS and stored <= _EMPTY_DIAGONALS * pattern.nnz


def _is_dia(pattern: SparsityPattern) -> bool:
    return pattern.cached("is dia", lambda: is_dia(pattern))


def _layout(pattern: SparsityPattern, transpose: bool) -> tuple[Any, Any]:
    """The module of the layout that a pattern takes, and the layout."""
    if _is_dia(pattern):
        make = lambda: layout_dia.make(pattern, transpose)
        return layout_dia, pattern.cached(("dia", transpose), make)
    return layout_ell, pattern.cached(
        ("ell", transpose), lambda: layout_ell.make(pattern, transpose)
    )


def pack(pattern: SparsityPattern, transpose: bool, values: Array) -> Any:
    """The values `(B, nnz)` in the order in which products take them: a pytree for `apply`."""
    module, layout = _layout(pattern, transpose)
    return module.pack(layout, values)


def apply(pattern: SparsityPattern, transpose: bool, packed: Any, x: Array) -> Array:
    """`product` with values that were packed before."""
    module, layout = _layout(pattern, transpose)
    compute = functools.partial(module.apply, layout)
    return module.turned_back(alone(compute, packed, module.turned(x)))


def product(pattern: SparsityPattern, transpose: bool, values: Array, x: Array) -> Array:
    """`(B, nnz)` and `(B, K, n)` to `(B, K, m)`; with `transpose`, `(B, K, m)` to `(B, K, n)`."""
    if pattern.nnz == 0 or x.size == 0:
        return jnp.zeros((*x.shape[:2], pattern.shape[1 if transpose else 0]), x.dtype)

    def gathered(values: Array, x: Array) -> Array:
        if x.shape[1] == 1 and pattern.nnz * values.dtype.itemsize <= _STAYS_IN_CACHE:
            return apply(pattern, transpose, pack(pattern, transpose, values), x)
        module, layout = _layout(pattern, transpose)
        compute = functools.partial(module.product, layout)
        return module.turned_back(alone(compute, values, module.turned(x)))

    if transpose and x.shape[:2] == (1, 1) and not _is_dia(pattern):
        added = functools.partial(_added_where_they_belong, pattern)
        return jax.lax.platform_dependent(values, x, cpu=added, default=gathered)
    return gathered(values, x)


def _added_where_they_belong(pattern: SparsityPattern, values: Array, x: Array) -> Array:
    """Aᵀx: `(1, nnz)` and `(1, 1, m)` to `(1, 1, n)`."""
    # behind the barrier, indices are no constants that XLA computes with when it compiles
    rows, columns = jax.lax.optimization_barrier((pattern.rows, pattern.indices))
    mode: Any = {"mode": "promise_in_bounds", "wrap_negative_indices": False}
    terms = values[0] * once(x)[0, 0].at[rows].get(**mode)
    zeros = vary_together(jnp.zeros(pattern.shape[1], x.dtype), terms)[0]
    return zeros.at[columns].add(terms, **mode)[None, None]


def outer(pattern: SparsityPattern, transpose: bool, left: Array, x: Array) -> Array:
    """`(B, K, m)` and `(B, K, n)` to `(B, nnz)`; with `transpose`, `(B, K, n)` and `(B, K, m)`."""
    rows, columns = pattern.rows, pattern.indices
    if transpose:
        rows, columns = columns, rows
    if pattern.nnz == 0:
        return jnp.zeros((x.shape[0], 0), x.dtype)

    def one(k: Any) -> Array:
        at_rows = left[:, k].at[:, rows].get(mode="promise_in_bounds")
        return at_rows * x[:, k].at[:, columns].get(mode="promise_in_bounds")

    # One sum over an axis would write K·nnz products to memory first.
    count = x.shape[1]
    if count <= _UNROLLED:
        return sum((one(k) for k in range(count)), jnp.zeros((x.shape[0], pattern.nnz), x.dtype))
    start = vary_together(jnp.zeros((x.shape[0], pattern.nnz), x.dtype), x)[0]
    return jax.lax.fori_loop(0, count, lambda k, total: total + one(k), start)
