"""Vector-space operations on pytrees of arrays: a pytree is one long vector."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from ._types import Structure, common_dtype, complex_to_real_dtype, default_floating_dtype

HIGHEST = jax.lax.Precision.HIGHEST


def _dot(a: ArrayLike, b: ArrayLike) -> Array:
    with jax.numpy_dtype_promotion("standard"):
        return jnp.dot(jnp.ravel(jnp.conj(a)), jnp.ravel(b), precision=HIGHEST)


def tree_dot(x: PyTree[ArrayLike], y: PyTree[ArrayLike]) -> Array:
    """⟨x, y⟩ = Σ conj(xᵢ) yᵢ over two pytrees of the same structure.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> x, y = (jnp.array([1j]), jnp.array([2.0])), (jnp.array([1j]), jnp.array([3.0]))
        >>> print(lp.internal.tree_dot(x, y))
        (7+0j)
    """
    x_leaves, x_def = jax.tree.flatten(x)
    y_leaves, y_def = jax.tree.flatten(y)
    if x_def != y_def:
        raise ValueError(f"tree_dot: both trees must have one structure; got {x_def} and {y_def}")
    if not x_leaves:
        return jnp.zeros((), default_floating_dtype())
    dots = [_dot(a, b) for a, b in zip(x_leaves, y_leaves)]
    with jax.numpy_dtype_promotion("standard"):  # leaves may differ in precision
        return functools.reduce(jnp.add, dots)


def tree_add(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, x, y)


def tree_sub(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, x, y)


def tree_neg(x: PyTree) -> PyTree:
    return jax.tree.map(jnp.negative, x)


def tree_scale(alpha: ArrayLike, x: PyTree) -> PyTree:
    """alpha·x; each leaf keeps its dtype."""
    return jax.tree.map(lambda a: _cast(alpha, a) * a, x)


def tree_axpy(alpha: ArrayLike, x: PyTree, y: PyTree) -> PyTree:
    """alpha·x + y; each leaf keeps the dtype of y's."""
    return jax.tree.map(lambda a, b: _cast(alpha, b) * a + b, x, y)


def _cast(alpha: ArrayLike, leaf: Array) -> Array:
    alpha = jnp.asarray(alpha)
    if jnp.iscomplexobj(alpha) and not jnp.iscomplexobj(leaf):
        alpha = alpha.real
    return alpha.astype(leaf.dtype)


def tree_conj(x: PyTree) -> PyTree:
    return jax.tree.map(jnp.conj, x)


def tree_zeros(structure: Structure) -> PyTree[Array]:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), structure)


def tree_where(pred: ArrayLike, x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(pred, a, b), x, y)


def tree_size(x: PyTree) -> int:
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(x))


def tree_dtype(x: PyTree) -> jnp.dtype:
    """The dtype that holds every leaf."""
    leaves = jax.tree.leaves(x)
    if not leaves:
        return default_floating_dtype()
    return common_dtype(*[leaf.dtype for leaf in leaves])


def tree_real_dtype(x: PyTree) -> jnp.dtype:
    return complex_to_real_dtype(tree_dtype(x))


def tree_all_finite(x: PyTree) -> Array:
    """Whether every inexact entry is finite."""
    leaves = [a for a in jax.tree.leaves(x) if jnp.issubdtype(a.dtype, jnp.inexact)]
    flags = [jnp.all(jnp.isfinite(a)) for a in leaves]
    return functools.reduce(jnp.logical_and, flags, jnp.array(True))


def ravel(x: PyTree[Array], structure: Structure | None = None) -> Array:
    """One long vector, leaf after leaf in the tree's own order, in the common dtype."""
    dtype = tree_dtype(x if structure is None else structure)
    leaves = [jnp.reshape(leaf, -1).astype(dtype) for leaf in jax.tree.leaves(x)]
    if len(leaves) == 1:
        return leaves[0]
    return jnp.concatenate(leaves) if leaves else jnp.zeros((0,), dtype)


def unravel(vector: Array, structure: Structure) -> PyTree[Array]:
    """The inverse of `ravel`; complex entries that fall into a real leaf lose their imaginary part."""
    leaves, treedef = jax.tree.flatten(structure)
    out, start = [], 0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        part = jax.lax.slice_in_dim(vector, start, start + size).reshape(leaf.shape)
        if jnp.iscomplexobj(part) and not jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            part = part.real
        out.append(part.astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(treedef, out)
