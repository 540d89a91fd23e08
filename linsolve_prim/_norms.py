"""Norms of pytrees, differentiable at zero (the gradient there is zero, not NaN)."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._tree import tree_dot, tree_real_dtype, tree_size


def sum_squares(x: PyTree[Array]) -> Array:
    """Σ |xᵢ|².

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.internal.sum_squares((jnp.array([3.0]), jnp.array([4.0]))))
        25.0
    """
    return tree_dot(x, x).real


@jax.custom_jvp
def _two_norm(x: PyTree[Array]) -> Array:
    if tree_size(x) == 1:  # no squaring, so no underflow
        (leaf,) = [leaf for leaf in jax.tree.leaves(x) if leaf.size == 1]
        return jnp.abs(jnp.reshape(leaf, ()))
    return jnp.sqrt(sum_squares(x))


@_two_norm.defjvp
def _two_norm_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    norm = _two_norm(x)
    flat = (norm == 0) | jnp.isinf(norm)
    safe = jnp.where(flat, 1, norm)
    direction = jax.tree.map(lambda a: a / safe.astype(a.dtype), x)
    return norm, jnp.where(flat, 0, tree_dot(direction, dx).real)


def two_norm(x: PyTree[Array]) -> Array:
    """√Σ |xᵢ|².

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.internal.two_norm((jnp.array([3.0]), jnp.array([4.0]))))
        5.0
    """
    return _two_norm(x)


def rms_norm(x: PyTree[Array]) -> Array:
    """√(Σ |xᵢ|² / n); 0 for an empty tree.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.internal.rms_norm(jnp.array([2.0, -2.0, 2.0])))
        2.0
    """
    size = tree_size(x)
    if size == 0:
        return jnp.zeros((), tree_real_dtype(x))
    return two_norm(x) / math.sqrt(size)


@jax.custom_jvp
def _zero_gradient_at_zero(x: Array) -> Array:
    return x


@_zero_gradient_at_zero.defjvp
def _zero_gradient_at_zero_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return x, jnp.where(x == 0, 0, dx)


def max_norm(x: PyTree[Array]) -> Array:
    """max |xᵢ|; 0 for an empty tree.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.internal.max_norm({"p": jnp.array([3.0, -4.0]), "q": jnp.array(1.0)}))
        4.0
    """
    maxima = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(x) if leaf.size > 0]
    if not maxima:
        return jnp.zeros((), tree_real_dtype(x))
    with jax.numpy_dtype_promotion("standard"):  # leaves may differ in precision
        return _zero_gradient_at_zero(functools.reduce(jnp.maximum, maxima))


def power_of_two(size: Array) -> Array:
    """A power of two within a factor 2 of `size`; 1 for 0, NaN and infinity."""
    info = jnp.finfo(size.dtype)
    ordinary = (size > 0) & jnp.isfinite(size)
    clipped = jnp.clip(jnp.where(ordinary, size, 1), float(info.tiny) * 4, float(info.max) / 4)
    return jax.lax.reduce_precision(clipped, exponent_bits=int(info.nexp), mantissa_bits=0)
