"""Structures as static fields of operators, and the check of a vector against them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._types import Structure, default_floating_dtype, is_inexact, structure_str
from ..errors import StructureError

PackedStructure = tuple[tuple[jax.ShapeDtypeStruct, ...], Any]


def pack(structure: Structure) -> PackedStructure:
    """A structure as a hashable value. (A pytree of the user's own need not be hashable.)"""
    leaves, treedef = jax.tree.flatten(structure)
    return tuple(leaves), treedef


def unpack(packed: PackedStructure) -> Structure:
    """The inverse of `pack`."""
    leaves, treedef = packed
    return jax.tree.unflatten(treedef, leaves)


def inexact_structure(structure: PyTree) -> Structure:
    """Shapes and dtypes of a structure or of arrays; integers become the default float dtype, and double
    precision becomes single where x64 is off, as in arrays."""

    def leaf(a: Any) -> jax.ShapeDtypeStruct:
        if not hasattr(a, "dtype"):
            a = jnp.asarray(a)
        dtype = a.dtype if is_inexact(a) else default_floating_dtype()
        return jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(dtype))

    return jax.tree.map(leaf, structure)


def is_vector(structure: Structure) -> bool:
    """Whether this is the structure of one array with one axis, and not a pytree."""
    return isinstance(structure, jax.ShapeDtypeStruct) and len(structure.shape) == 1


def check_vector(vector: PyTree, structure: Structure) -> None:
    """Refuse a vector whose tree or shapes are not those of an operator's input structure."""
    leaves, treedef = jax.tree.flatten(vector)
    wanted, wanted_treedef = jax.tree.flatten(structure)
    if treedef == wanted_treedef and all(jnp.shape(a) == b.shape for a, b in zip(leaves, wanted)):
        return
    raise StructureError(
        f"vector: must have the operator's input structure {structure_str(structure)}; got "
        f"{structure_str(vector)}. Reshape it, or build the operator for this structure."
    )
