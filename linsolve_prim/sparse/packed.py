"""Products with values that are known when the product is traced: packed once, ahead of it.

A product takes values in an order of its own (`layouts.pack`), and to bring them there takes about
as long as to multiply. For a matrix that is no argument of what is being compiled, and in eager
code, that is done once, and kept for as long as the array of values lives.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from .._varying import vary_together
from . import layouts
from .pattern import SparsityPattern
from .products import sparse_mv

#: Operands: x `(1, K, n)`, values `(1, nnz)`, and the arrays of the packed values.
sparse_packed_p = Primitive("sparse_packed")


def is_known(values: Any) -> bool:
    """Whether these are numbers, and not something that is being traced."""
    return isinstance(values, jax.Array) and not isinstance(values, jax.core.Tracer)


def sparse_known_mv(values: Array, x: Array, *, pattern: SparsityPattern) -> Array:
    """`(nnz,)`, not traced, and `(n,)` or `(K, n)` of one dtype to `(m,)` or `(K, m)`."""
    if pattern.nnz == 0 or x.size == 0:
        return jnp.zeros((*x.shape[:-1], pattern.shape[0]), x.dtype)
    with jax.ensure_compile_time_eval():
        arrays, treedef = _packed(values, pattern)
    if is_known(x):
        return _eager(x, *arrays, pattern=pattern, treedef=treedef)
    return _bind(x, *arrays, pattern=pattern, treedef=treedef)


def packed_arrays(values: Array, pattern: SparsityPattern) -> Any:
    """The values `(nnz,)`, at least one, as products take them; kept for values that are known."""
    if not is_known(values):
        return _pack(values[None], pattern=pattern)
    (_, *leaves), treedef = _packed(values, pattern)
    return jax.tree.unflatten(treedef, leaves)


def sparse_packed_mv(values: Array, packed: Any, x: Array, *, pattern: SparsityPattern) -> Array:
    """`sparse_known_mv` with what `packed_arrays` made of the values, traced or not."""
    leaves, treedef = jax.tree.flatten(packed)
    return _bind(x, values[None], *leaves, pattern=pattern, treedef=treedef)


def _bind(x: Array, *arrays: Array, **parameters: Any) -> Array:
    operands = vary_together(x.reshape(1, x.shape[0] if x.ndim == 2 else 1, x.shape[-1]), *arrays)
    y = sparse_packed_p.bind(*operands, **parameters)
    return y.reshape(*x.shape[:-1], y.shape[-1])


_eager = jax.jit(_bind, static_argnames=("pattern", "treedef"))


# By the array's identity, and forgotten with it.
_kept: dict[int, tuple[Any, Any]] = {}


def _packed(values: Array, pattern: SparsityPattern) -> tuple[list[Array], Any]:
    """The values as `(1, nnz)` with the arrays of the packed ones, and how these belong together."""
    key = id(values)
    if key in _kept and _kept[key][0] is pattern:
        return _kept[key][1]
    row = values[None]
    leaves, treedef = jax.tree.flatten(_pack(row, pattern=pattern))
    made = [row, *leaves], treedef
    if key not in _kept:
        weakref.finalize(values, _kept.pop, key, None)
    _kept[key] = pattern, made
    return made


@functools.partial(jax.jit, static_argnames="pattern")
def _pack(values: Array, *, pattern: SparsityPattern) -> Any:
    return layouts.pack(pattern, False, values)


@functools.partial(jax.jit, static_argnames=("pattern", "treedef"))
def _apply(
    x: Array, values: Array, *leaves: Array, pattern: SparsityPattern, treedef: Any
) -> Array:
    return layouts.apply(pattern, False, jax.tree.unflatten(treedef, leaves), x)


def _type(x: Any, values: Any, *leaves: Any, pattern: SparsityPattern, treedef: Any) -> Any:
    return x.update(shape=(*x.shape[:2], pattern.shape[0]), weak_type=False)


def _jvp(primals: Any, tangents: Any, *, pattern: SparsityPattern, treedef: Any) -> Any:
    """The packed arrays are a function of the values, whose tangent so says all of theirs."""
    (x, _, *_), (dx, dvalues, *rest) = primals, tangents
    if type(dvalues) is ad.Zero and any(type(t) is not ad.Zero for t in rest):
        raise NotImplementedError("packed values have no tangent without that of the values")
    y = sparse_packed_p.bind(*primals, pattern=pattern, treedef=treedef)
    dy = ad.Zero(jax.typeof(y).to_tangent_aval())
    if type(dx) is not ad.Zero:
        dy = sparse_packed_p.bind(dx, *primals[1:], pattern=pattern, treedef=treedef)
    if type(dvalues) is not ad.Zero:
        dy = ad.add_tangents(dy, sparse_mv(dvalues, x, pattern=pattern))
    return y, dy


def _transpose(
    ct: Any, x: Any, values: Array, *leaves: Array, pattern: SparsityPattern, treedef: Any
) -> list[Any]:
    rest = [None] * (1 + len(leaves))
    if type(ct) is ad.Zero:
        return [None, *rest]
    return [sparse_mv(values, ct, pattern=pattern, transpose=True), *rest]


def _batching(args: Any, dims: Any, *, pattern: SparsityPattern, treedef: Any) -> tuple[Array, int]:
    (x, values, *leaves), (x_dim, *others) = args, dims
    if any(d is not None for d in others):  # other values in each lane: nothing is known ahead
        mv = functools.partial(sparse_mv, pattern=pattern)
        return jax.vmap(mv, in_axes=(others[0], x_dim))(values, x), 0
    x = jnp.moveaxis(x, x_dim, 1)
    batch, size, count, n = x.shape
    operands = vary_together(x.reshape(batch, size * count, n), values, *leaves)
    y = sparse_packed_p.bind(*operands, pattern=pattern, treedef=treedef)
    return y.reshape(batch, size, count, y.shape[-1]), 1


sparse_packed_p.def_impl(_apply)
sparse_packed_p.def_abstract_eval(_type)
ad.primitive_jvps[sparse_packed_p] = _jvp
ad.primitive_transposes[sparse_packed_p] = _transpose
batching.primitive_batchers[sparse_packed_p] = _batching
mlir.register_lowering(sparse_packed_p, mlir.lower_fun(_apply, multiple_results=False))
