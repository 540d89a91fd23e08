"""From products to entries: the defaults for operators that only have `mv`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._tree import ravel, tree_dtype, unravel
from .._types import Structure, common_dtype, structure_equal
from . import functions as fns, tags as t
from .base import AbstractLinearOperator
from .structures import is_vector

_TAG_OF = {
    fns.is_symmetric: t.symmetric_tag,
    fns.is_diagonal: t.diagonal_tag,
    fns.is_tridiagonal: t.tridiagonal_tag,
    fns.has_unit_diagonal: t.unit_diagonal_tag,
    fns.is_lower_triangular: t.lower_triangular_tag,
    fns.is_upper_triangular: t.upper_triangular_tag,
    fns.is_positive_semidefinite: t.positive_semidefinite_tag,
    fns.is_negative_semidefinite: t.negative_semidefinite_tag,
}


def matrix_of(
    mv: Callable[[PyTree[Array]], PyTree[Array]], in_structure: Structure, out_structure: Structure
) -> Array:
    """The matrix of shape `(out_size, in_size)` of a linear function: its columns are products with
    the unit vectors, all at once under `vmap`. Its dtype is the one that holds every leaf.
    """
    dtype_in = tree_dtype(in_structure)
    eye = jnp.eye(sum(math.prod(s.shape) for s in jax.tree.leaves(in_structure)), dtype=dtype_in)

    def column(unit: Array) -> Array:
        return ravel(mv(unravel(unit, in_structure)), out_structure)

    matrix = jax.vmap(column, out_axes=1)(eye)
    return matrix.astype(tree_dtype((in_structure, out_structure)))


def tags_of(operator: AbstractLinearOperator) -> frozenset[Any]:
    """The operator's own tags, and those that its structure predicates amount to."""
    own = t.as_tags(getattr(operator, "tags", ()))
    return own | {tag for predicate, tag in _TAG_OF.items() if predicate(operator)}


def materialise_by_products(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The operator as arrays, in the smallest form that its structure allows.

    One product if it is diagonal, three if it is tridiagonal (and acts on vectors), else its
    matrix: a `MatrixLinearOperator` between vectors of one dtype, else a `PyTreeLinearOperator`.
    """
    from .diagonal import DiagonalLinearOperator
    from .matrix import MatrixLinearOperator
    from .tridiagonal import TridiagonalLinearOperator

    in_structure, out_structure = operator.in_structure(), operator.out_structure()
    if structure_equal(in_structure, out_structure):
        if fns.is_diagonal(operator):
            diagonal = unravel(fns.diagonal(operator), in_structure)
            return _keep_promises(operator, DiagonalLinearOperator(diagonal))
        if fns.is_tridiagonal(operator) and is_vector(in_structure):
            return _keep_promises(operator, TridiagonalLinearOperator(*fns.tridiagonal(operator)))
    matrix, tags = operator.as_matrix(), tags_of(operator)
    if not structure_equal(in_structure, out_structure):
        # every 1×1 operator is diagonal, but symmetric is only what maps a space to itself
        tags -= {
            t.symmetric_tag,
            t.diagonal_tag,
            t.positive_semidefinite_tag,
            t.negative_semidefinite_tag,
        }
    vectors = is_vector(in_structure) and is_vector(out_structure)
    if vectors and in_structure.dtype == out_structure.dtype:
        return MatrixLinearOperator(matrix, tags)
    return _as_blocks(matrix, in_structure, out_structure, tags)


def _keep_promises(
    operator: AbstractLinearOperator, materialised: AbstractLinearOperator
) -> AbstractLinearOperator:
    """Tag what the new form does not say by its type (e.g. that it is positive semidefinite)."""
    from .tagged import TaggedLinearOperator

    lost = tags_of(operator) - tags_of(materialised)
    return TaggedLinearOperator(materialised, lost) if lost else materialised


def _as_blocks(
    matrix: Array, in_structure: Structure, out_structure: Structure, tags: frozenset[Any]
) -> AbstractLinearOperator:
    """A matrix cut into a pytree of blocks, one for each pair of an output and an input leaf."""
    from .pytree import PyTreeLinearOperator

    columns, in_treedef = jax.tree.flatten(in_structure)
    rows, out_treedef = jax.tree.flatten(out_structure)
    row_ends = np.cumsum([math.prod(row.shape) for row in rows])[:-1]
    column_ends = np.cumsum([math.prod(column.shape) for column in columns])[:-1]

    def block(part: Array, row: jax.ShapeDtypeStruct, column: jax.ShapeDtypeStruct) -> Array:
        dtype = common_dtype(row.dtype, column.dtype)
        if not jnp.issubdtype(dtype, jnp.complexfloating):
            part = part.real
        return part.reshape(*row.shape, *column.shape).astype(dtype)

    strips = [
        in_treedef.unflatten(
            block(part, row, column)
            for part, column in zip(jnp.split(strip, column_ends, axis=1), columns)
        )
        for strip, row in zip(jnp.split(matrix, row_ends, axis=0), rows)
    ]
    blocks = out_treedef.unflatten(strips)
    return PyTreeLinearOperator(blocks, out_structure, tags, input_structure=in_structure)


def diagonal_by_products(operator: AbstractLinearOperator) -> Array:
    """The diagonal: the product with ones if the operator is diagonal, else from its matrix."""
    if not fns.is_diagonal(operator):
        return jnp.diagonal(operator.as_matrix())
    ones = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), operator.in_structure())
    size = min(operator.in_size(), operator.out_size())
    return ravel(operator.mv(ones), operator.out_structure())[:size]


def bands_of(matrix: Array) -> tuple[Array, Array, Array]:
    """`(diagonal, lower, upper)` of a matrix; of its leading square part if it is not square."""
    size = min(matrix.shape)
    square = matrix[:size, :size]
    if size == 0:
        empty = jnp.zeros(0, matrix.dtype)
        return empty, empty, empty
    return jnp.diagonal(square), jnp.diagonal(square, -1), jnp.diagonal(square, 1)


def tridiagonal_by_products(operator: AbstractLinearOperator) -> tuple[Array, Array, Array]:
    """The three diagonals. If the operator is tridiagonal, three products suffice: columns whose
    numbers are equal modulo 3 have no row in common, so one product with their sum shows them all.
    """
    size = operator.in_size()
    if size == 0 or operator.out_size() != size or not fns.is_tridiagonal(operator):
        return bands_of(operator.as_matrix())
    in_structure, out_structure = operator.in_structure(), operator.out_structure()
    index = np.arange(size)
    colour = index % 3
    probes = jnp.asarray(colour == np.arange(3)[:, None], tree_dtype(in_structure))

    def product(probe: Array) -> Array:
        return ravel(operator.mv(unravel(probe, in_structure)), out_structure)

    products = jax.vmap(product)(probes)  # products[k, i] = Σ Aᵢⱼ over the columns j of colour k
    diagonal = products[colour, index]
    lower = products[colour[:-1], index[1:]]
    upper = products[colour[1:], index[:-1]]
    return diagonal, lower, upper
