"""Norms without overflow or underflow, and loops that also run inside `jax.shard_map`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two, two_norm
from ..._static import split
from ..._tree import tree_where
from ..._varying import vary_like, varying_axes


def tree_divide(x: PyTree[Array], scalar: Array) -> PyTree[Array]:
    """x / scalar for a real scalar; each leaf keeps its dtype."""

    def divide(a: Array) -> Array:
        s = scalar.astype(a.real.dtype)
        # Complex division would square the divisor.
        return jax.lax.complex(a.real / s, a.imag / s) if jnp.iscomplexobj(a) else a / s

    return jax.tree.map(divide, x)


def normalise(x: PyTree[Array]) -> tuple[PyTree[Array], Array]:
    """`(x/‖x‖, ‖x‖)`; zero stays zero, and NaN or infinity give a norm that is not finite."""
    unit = power_of_two(max_norm(x))
    scaled = tree_divide(x, unit)
    norm = two_norm(scaled)
    return tree_divide(scaled, jnp.where(norm > 0, norm, 1)), norm * unit


def tree_zeros_like(x: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(jnp.zeros_like, x)


def safe_norm(x: PyTree[Array]) -> Array:
    """‖x‖₂ where squares may overflow or underflow."""
    return normalise(x)[1]


def mesh_axes(*trees: PyTree[Any]) -> frozenset:
    """The `shard_map` axes over which any array in these pytrees varies."""
    arrays, _ = split(trees)
    return varying_axes(arrays)


@jax.custom_batching.custom_vmap
def _any_lane(flag: Array) -> Array:
    """Whether a flag is set in any lane of the `vmap`s around: one flag, without their axes."""
    return flag


@_any_lane.def_vmap
def _any_lane_of_batch(axis_size: int, in_batched: Any, flag: Array) -> tuple[Array, bool]:
    return _any_lane(jnp.any(flag, axis=0) if in_batched[0] else flag), False


@jax.custom_batching.custom_vmap
def in_lane(active: Array) -> Array:
    """True; under `vmap`, in each lane what is given: for steps that hold a lane still themselves."""
    return jnp.ones_like(active)


@in_lane.def_vmap
def _in_lane_of_batch(axis_size: int, in_batched: Any, active: Array) -> tuple[Array, bool]:
    return active, in_batched[0]


@jax.custom_batching.custom_vmap
def frozen(active: Array, new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
    """`new`; under `vmap`, in lanes that are not active, `old`."""
    return new


@frozen.def_vmap
def _frozen_in_batch(
    axis_size: int, in_batched: Any, active: Array, new: PyTree[Array], old: PyTree[Array]
) -> tuple[PyTree[Array], PyTree[bool]]:
    axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
    choose = lambda active, new, old: tree_where(active, new, old)
    chosen = jax.vmap(choose, in_axes=axes, axis_size=axis_size)(active, new, old)
    return chosen, jax.tree.map(lambda _: True, new)


def while_loop(
    cond: Callable[[Any], Array],
    body: Callable[[Any], Any],
    init: Any,
    axes: frozenset,
    freeze: Callable[[Array, Any, Any], Any] = frozen,
) -> Any:
    """`jax.lax.while_loop` in which a lane of a `vmap` stands still once its own condition fails.

    So does JAX's, by choosing between the old and the new carry in every step, all of it. Here
    `freeze(active, new, old)` may let through what need not be chosen, such as a basis of which
    each step writes one vector: then that is not copied. For that the loop's condition is one for all
    lanes, and what is the same in all of them (a counter) stays so.

    Inside `shard_map` a carry must have one type in all steps, but counters start as constants: so
    the whole carry varies over the given mesh axes from the start.
    """

    def step(c: Any) -> Any:
        return vary_like(freeze(cond(c), body(c), c), axes)

    return jax.lax.while_loop(lambda c: _any_lane(cond(c)), step, vary_like(init, axes))
