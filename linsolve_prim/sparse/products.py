"""y = Ax for A given by a pattern and values, as a pair of *bilinear primitives*.

With v the values, e = (i, j) the entries of the pattern and k a right-hand side:

    sparse_mv:     y[k, i] = Σ_{e = (i, j)} v[e] x[k, j]
    sparse_outer:  g[e]    = Σ_k l[k, i] x[k, j]          for each e = (i, j)

Both are linear in each of their two operands, and each is the derivative of the other: for a
cotangent c of y, that of v is `sparse_outer(c, x)` and that of x is `sparse_mv` with the transposed
pattern; the cotangent of l is `sparse_mv(g, x)`. So derivatives of every order are these two again,
and what a gradient has to remember is x, with n numbers, where gathers and sums that are
differentiated one by one remember x[j] for each entry.

Shapes are canonical: v `(B, nnz)`, x `(B, K, n)`, y `(B, K, m)`. B is a batch of matrices, K are
right-hand sides that share a matrix; every nest of `vmap`s ends in one of the two.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from .._varying import vary_together
from . import layouts
from .once import once
from .pattern import SparsityPattern

sparse_mv_p = Primitive("sparse_mv")
sparse_outer_p = Primitive("sparse_outer")


def sparse_mv(
    values: Array, x: Array, *, pattern: SparsityPattern, transpose: bool = False
) -> Array:
    """`(B, nnz)` and `(B, K, n)` of one dtype to `(B, K, m)`; with `transpose`, Aᵀx: m to n."""
    return sparse_mv_p.bind(*vary_together(values, x), pattern=pattern, transpose=transpose)


def sparse_outer(
    left: Array, x: Array, *, pattern: SparsityPattern, transpose: bool = False
) -> Array:
    """`(B, K, m)` and `(B, K, n)` of one dtype to `(B, nnz)`: Σₖ lₖxₖᵀ where A has entries.

    With `transpose`, Σₖ xₖlₖᵀ, of `(B, K, n)` and `(B, K, m)`: the order of the operands is that of
    rows and columns of Aᵀ.
    """
    return sparse_outer_p.bind(*vary_together(left, x), pattern=pattern, transpose=transpose)


# ---- Types ---------------------------------------------------------------------------------------

# Outputs are made from an operand's type, which says over which axes of a mesh it varies: under
# `shard_map` a fresh type would forget them, and gradients would silently lack a `psum`.


def _mv_type(values: Any, x: Any, *, pattern: SparsityPattern, transpose: bool) -> Any:
    size = pattern.shape[1 if transpose else 0]
    return x.update(shape=(*x.shape[:2], size), weak_type=False)


def _outer_type(left: Any, x: Any, *, pattern: SparsityPattern, transpose: bool) -> Any:
    return x.update(shape=(x.shape[0], pattern.nnz), weak_type=False)


# ---- Evaluation ----------------------------------------------------------------------------------


def _mv(values: Array, x: Array, *, pattern: SparsityPattern, transpose: bool) -> Array:
    return layouts.product(pattern, transpose, values, x)


def _outer(left: Array, x: Array, *, pattern: SparsityPattern, transpose: bool) -> Array:
    return layouts.outer(pattern, transpose, once(left), once(x))


# ---- Derivatives ---------------------------------------------------------------------------------


def _flip(parameters: dict[str, Any]) -> dict[str, Any]:
    return {**parameters, "transpose": not parameters["transpose"]}


def _mv_to_values(ct: Array, values: Any, x: Array, **parameters: Any) -> Array:
    return sparse_outer(ct, x, **parameters)


def _mv_to_x(ct: Array, values: Array, x: Any, **parameters: Any) -> Array:
    return sparse_mv(values, ct, **_flip(parameters))


def _outer_to_left(ct: Array, left: Any, x: Array, **parameters: Any) -> Array:
    return sparse_mv(ct, x, **parameters)


def _outer_to_x(ct: Array, left: Array, x: Any, **parameters: Any) -> Array:
    return sparse_mv(ct, left, **_flip(parameters))


# ---- vmap ----------------------------------------------------------------------------------------


def _size(args: Any, dims: Any) -> int:
    return next(a.shape[d] for a, d in zip(args, dims) if d is not None)


def _to_front(array: Array, dim: int | None, size: int) -> Array:
    """The new axis merged with B."""
    if dim is None:
        array = jnp.broadcast_to(array[None], (size, *array.shape))
    else:
        array = jnp.moveaxis(array, dim, 0)
    return array.reshape(size * array.shape[1], *array.shape[2:])


def _mv_batching(args: Any, dims: Any, **parameters: Any) -> tuple[Array, int]:
    (values, x), (values_dim, x_dim), size = args, dims, _size(args, dims)
    if values_dim is None:  # more right-hand sides for the same matrices
        x = jnp.moveaxis(x, x_dim, 1)
        batch, _, count, n = x.shape
        y = sparse_mv(values, x.reshape(batch, size * count, n), **parameters)
        return y.reshape(batch, size, count, y.shape[-1]), 1
    y = sparse_mv(_to_front(values, values_dim, size), _to_front(x, x_dim, size), **parameters)
    return y.reshape(size, y.shape[0] // size if size else 0, *y.shape[1:]), 0


def _outer_batching(args: Any, dims: Any, **parameters: Any) -> tuple[Array, int]:
    size = _size(args, dims)
    left, x = (_to_front(a, d, size) for a, d in zip(args, dims))
    g = sparse_outer(left, x, **parameters)
    return g.reshape(size, g.shape[0] // size if size else 0, *g.shape[1:]), 0


# ---- Registration --------------------------------------------------------------------------------


def _register(
    primitive: Primitive, typing: Any, evaluate: Any, transposes: Any, batch: Any
) -> None:
    # Inside of a program, `jit` makes one function of it however often a pattern is multiplied
    # with: its index arrays are written down once.
    compiled = jax.jit(evaluate, static_argnames=("pattern", "transpose"))
    primitive.def_impl(compiled)
    primitive.def_abstract_eval(typing)
    ad.defbilinear(primitive, *transposes)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(compiled, multiple_results=False))


_register(sparse_mv_p, _mv_type, _mv, (_mv_to_values, _mv_to_x), _mv_batching)
_register(sparse_outer_p, _outer_type, _outer, (_outer_to_left, _outer_to_x), _outer_batching)
