"""`PackedOperator`: a sparse matrix whose values are in the order in which products take them.

A `SparseLinearOperator` packs its values for each product that is written in a program; XLA moves that
out of a loop, but not out of all loops and conditionals around it. Here values are packed once: before
the loops of a Krylov method, or before a program, to which the result is passed.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..operators import AbstractLinearOperator, conj, is_symmetric
from .operator import SparseLinearOperator
from .packed import is_known, packed_arrays, sparse_packed_mv
from .pattern import SparsityPattern


class PackedOperator(AbstractLinearOperator):
    """The operator x ↦ Ax of a sparse matrix `(m, n)`, for products alone.

    - `values`: `(nnz,)`, for what is not packed: products with Aᵀ, and batches of matrices.
    - `packed`: the same, as `layouts.pack` arranges them.
    - `tags`: what is promised about the matrix.
    """

    values: Array
    packed: PyTree[Array]
    pattern: SparsityPattern = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    @classmethod
    def of(cls, matrix: SparseLinearOperator) -> PackedOperator:
        """Of a matrix with an entry, traced or not."""
        packed = packed_arrays(matrix.values, matrix.pattern)
        return cls(matrix.values, packed, matrix.pattern, matrix.tags)

    def mv(self, vector: Array) -> Array:
        return sparse_packed_mv(self.values, self.packed, vector, pattern=self.pattern)

    def transpose(self) -> AbstractLinearOperator:
        if is_symmetric(self):
            return self
        return SparseLinearOperator(self.values, self.pattern, self.tags).transpose()

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.pattern.shape[1:], self.values.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.pattern.shape[:1], self.values.dtype)


@conj.register(PackedOperator)
def _conj(operator: PackedOperator) -> Any:
    flip = lambda x: x.conj() if jnp.iscomplexobj(x) else x
    return jax.tree.map(flip, operator)


def with_products_ahead(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The same operator, for many products: packed if it is a sparse matrix whose values are traced."""
    sparse = isinstance(operator, SparseLinearOperator)
    if sparse and operator.pattern.nnz > 0 and not is_known(operator.values):
        return PackedOperator.of(operator)
    return operator
