"""Fixed vectors without a pattern, and what products with them tell of an operator."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._tree import tree_dot, tree_size, tree_where
from ..._types import complex_to_real_dtype
from ...operators.functions import promises_hermitian
from .system import System
from .vectors import normalise


def _hash(x: Array) -> Array:
    """A permutation of the 32-bit integers (Wellons, 2018, "lowbias32")."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def fixed_vector(like: PyTree[Array], seed: int | Array = 0) -> PyTree[Array]:
    """Numbers between −1 and 1 (complex: both parts), the same on every machine.

    They come from integers alone, so that they do not depend on how a device rounds.
    """
    salt = _hash(jnp.asarray(seed).astype(jnp.uint32) + jnp.uint32(0x9E3779B9))
    leaves, treedef = jax.tree.flatten(like)
    start = 0

    def real(shape: tuple[int, ...], dtype: jnp.dtype, start: int) -> Array:
        index = jax.lax.iota(jnp.uint32, math.prod(shape)) + jnp.uint32(start % 2**32)
        bits = _hash(index ^ salt) >> 8
        return (bits.astype(jnp.float32) * 2.0**-23 - 1).astype(dtype).reshape(shape)

    out = []
    for leaf in leaves:
        dtype = complex_to_real_dtype(leaf.dtype)
        values = real(leaf.shape, dtype, start)
        if jnp.iscomplexobj(leaf):
            values = jax.lax.complex(values, real(leaf.shape, dtype, start + 2**31))
        out.append(values.astype(leaf.dtype))
        start += math.prod(leaf.shape)
    return jax.tree.unflatten(treedef, out)


def shadow(r: PyTree[Array], cycle: Array) -> PyTree[Array]:
    """The vector that the residuals of a two-sided method are orthogonal to: the first of them.

    In later cycles it is another one, because a second start from the same residual must not break
    down in the same way.
    """
    return tree_where(cycle == 0, r, fixed_vector(r))


def is_skewed(system: System) -> Array | None:
    """Whether ⟨Au, v⟩ ≠ ⟨u, Av⟩, for which two products are spent; `None` if tags promise A = Aᴴ.

    For unit vectors u and v without a pattern both are about ‖A‖_F/n, and ‖Au‖ is about ‖A‖_F/√n:
    the bound allows a relative asymmetry of √ε, as left by careless assembly, and rounding errors.
    """
    if promises_hermitian(system.operator):
        return None
    u, v = (fixed_vector(system.problem.residual, seed) for seed in (1, 2))
    (u, _), (v, _) = normalise(u), normalise(v)
    au, au_norm = normalise(system.apply(u))
    av, av_norm = normalise(system.apply(v))
    top = jnp.maximum(au_norm, av_norm)
    top = jnp.where(top > 0, top, 1)
    left = tree_dot(au, v) * (au_norm / top).astype(system.dtype)
    right = tree_dot(u, av) * (av_norm / top).astype(system.dtype)
    allowed = max((system.eps / max(tree_size(u), 1)) ** 0.5, 10 * system.eps)
    return jnp.abs(left - right) > allowed


#: Products that `is_skewed` takes.
PROBES = 2
