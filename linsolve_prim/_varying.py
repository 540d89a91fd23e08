"""`jax.shard_map`'s types: over which mesh axes a value varies.

Operands of a primitive, and the carry of a loop, must agree on that. See "varying manual axes" in
JAX's documentation of `shard_map`; outside of it everything here does nothing.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree


def _axes(x: Any) -> frozenset:
    kind = getattr(jax.typeof(x), "manual_axis_type", None)
    return frozenset(getattr(kind, "varying", frozenset()))


def varying_axes(tree: PyTree) -> frozenset:
    """The mesh axes over which any leaf varies."""
    axes: frozenset = frozenset()
    for leaf in jax.tree.leaves(tree):
        axes |= _axes(leaf)
    return axes


def vary_like(tree: PyTree, axes: frozenset) -> PyTree:
    """The same values, varying (at least) over the given axes."""
    if not axes:
        return tree

    def cast(x: Any) -> Any:
        missing = tuple(sorted(axes - _axes(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def vary_together(*leaves: Any) -> list[Any]:
    """The same arrays, all varying over the union of their axes."""
    return vary_like(list(leaves), varying_axes(leaves))
