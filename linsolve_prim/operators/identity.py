"""`IdentityLinearOperator`: x itself, reshaped, cut or padded."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import ravel, tree_dtype, unravel
from .._types import Structure, sentinel, structure_equal, structure_str
from ..errors import StructureError
from . import functions as fns
from .base import AbstractLinearOperator
from .structures import PackedStructure, inexact_structure, pack, unpack


class IdentityLinearOperator(AbstractLinearOperator):
    """The operator x ↦ x on pytrees of one structure.

    With another output structure its matrix is `jnp.eye(out_size, in_size)`: the raveled input is
    cut or padded with zeros, and put into the output's shapes and dtypes.

    **Raises** `StructureError` for a vector of another structure.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.IdentityLinearOperator(jnp.zeros(2), jnp.zeros(3)).mv(jnp.ones(2)))
        [1. 1. 0.]
    """

    input_structure: PackedStructure = eqx.field(static=True)
    output_structure: PackedStructure = eqx.field(static=True)

    def __init__(self, input_structure: PyTree, output_structure: Any = sentinel):
        """**Arguments**: pytrees of `jax.ShapeDtypeStruct` (or of arrays, for their shapes and
        dtypes). `output_structure` is by default the same as `input_structure`.
        """
        self.input_structure = pack(inexact_structure(input_structure))
        if output_structure is sentinel:
            self.output_structure = self.input_structure
        else:
            self.output_structure = pack(inexact_structure(output_structure))

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        structure = self.in_structure()
        if not structure_equal(vector, structure):
            raise StructureError(
                "vector: must have the operator's input structure "
                f"{structure_str(structure)}; got {structure_str(vector)}. Cast or reshape it, or "
                "build the identity for this structure."
            )
        if self.input_structure == self.output_structure:
            return vector
        flat = ravel(vector)
        missing = self.out_size() - flat.size
        if missing > 0:
            flat = jnp.pad(flat, (0, missing))
        return unravel(flat, self.out_structure())

    def as_matrix(self) -> Array:
        return jnp.eye(self.out_size(), self.in_size(), dtype=_dtype(self))

    def transpose(self) -> IdentityLinearOperator:
        if self.input_structure == self.output_structure:
            return self
        return IdentityLinearOperator(self.out_structure(), self.in_structure())

    def in_structure(self) -> Structure:
        return unpack(self.input_structure)

    def out_structure(self) -> Structure:
        return unpack(self.output_structure)

    @property
    def tags(self) -> frozenset[object]:
        return frozenset()


def _dtype(operator: IdentityLinearOperator) -> Any:
    return tree_dtype((operator.in_structure(), operator.out_structure()))


def _yes(operator: IdentityLinearOperator) -> bool:
    return True


def _keeps_structure(operator: IdentityLinearOperator) -> bool:
    return operator.input_structure == operator.output_structure


for _predicate in (
    fns.is_diagonal,
    fns.is_tridiagonal,
    fns.is_lower_triangular,
    fns.is_upper_triangular,
    fns.has_unit_diagonal,
):
    _predicate.register(IdentityLinearOperator, _yes)
for _predicate in (fns.is_symmetric, fns.is_positive_semidefinite):
    _predicate.register(IdentityLinearOperator, _keeps_structure)


@fns.materialise.register(IdentityLinearOperator)
@fns.conj.register(IdentityLinearOperator)
def _unchanged(operator: IdentityLinearOperator) -> IdentityLinearOperator:
    return operator


@fns.diagonal.register(IdentityLinearOperator)
def _diagonal(operator: IdentityLinearOperator) -> Array:
    return jnp.ones(min(operator.in_size(), operator.out_size()), _dtype(operator))


@fns.tridiagonal.register(IdentityLinearOperator)
def _tridiagonal(operator: IdentityLinearOperator) -> tuple[Array, Array, Array]:
    diagonal = _diagonal(operator)
    zeros = jnp.zeros(max(diagonal.size - 1, 0), diagonal.dtype)
    return diagonal, zeros, zeros
