"""What can be asked of an operator or done to it: thirteen generic functions.

Each is a `functools.singledispatch`, open to operators written elsewhere:
`linsolve_prim.is_symmetric.register(MyOperator)`. The defaults stand here and follow from an
operator's `mv`, `transpose`, structures and (if it has them) `tags`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jaxtyping import Array

from . import tags as t

if TYPE_CHECKING:
    from .base import AbstractLinearOperator


def _tags(operator: AbstractLinearOperator) -> frozenset[Any]:
    tags: Any = getattr(operator, "tags", frozenset())
    return t.as_tags(tags)


def is_real(operator: AbstractLinearOperator) -> bool:
    """Whether neither input nor output is complex."""
    from .._tree import tree_dtype

    structures = (operator.in_structure(), operator.out_structure())
    return not jnp.issubdtype(tree_dtype(structures), jnp.complexfloating)


@functools.singledispatch
def is_symmetric(operator: AbstractLinearOperator) -> bool:
    """Whether A = Aᵀ is promised. (Definite operators are Hermitian: symmetric only if real.)"""
    tags = _tags(operator)
    if t.symmetric_tag in tags or t.diagonal_tag in tags:
        return True
    definite = t.positive_semidefinite_tag in tags or t.negative_semidefinite_tag in tags
    return definite and is_real(operator)


@functools.singledispatch
def is_diagonal(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be diagonal (as every 1×1 operator is)."""
    return t.diagonal_tag in _tags(operator) or (operator.in_size() == operator.out_size() == 1)


@functools.singledispatch
def is_tridiagonal(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be tridiagonal."""
    tags = _tags(operator)
    return t.tridiagonal_tag in tags or t.diagonal_tag in tags


@functools.singledispatch
def has_unit_diagonal(operator: AbstractLinearOperator) -> bool:
    """Whether every diagonal entry of A is promised to be one."""
    return t.unit_diagonal_tag in _tags(operator)


@functools.singledispatch
def is_lower_triangular(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be lower triangular."""
    tags = _tags(operator)
    return t.lower_triangular_tag in tags or t.diagonal_tag in tags


@functools.singledispatch
def is_upper_triangular(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be upper triangular."""
    tags = _tags(operator)
    return t.upper_triangular_tag in tags or t.diagonal_tag in tags


@functools.singledispatch
def is_positive_semidefinite(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be Hermitian with xᴴAx ≥ 0."""
    return t.positive_semidefinite_tag in _tags(operator)


@functools.singledispatch
def is_negative_semidefinite(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be Hermitian with xᴴAx ≤ 0."""
    return t.negative_semidefinite_tag in _tags(operator)


@functools.singledispatch
def linearise(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The same operator with its products made cheap: a Jacobian evaluates its function once."""
    return operator


@functools.singledispatch
def materialise(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The same operator held as arrays in memory, instead of as a function. O(n) products, once."""
    from .dense import materialise_by_products

    return materialise_by_products(operator)


@functools.singledispatch
def conj(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The elementwise conjugate, conj(A): x ↦ conj(A conj(x)). A itself if it is real."""
    from .conjugate import ConjLinearOperator

    return operator if is_real(operator) else ConjLinearOperator(operator)


@functools.singledispatch
def diagonal(operator: AbstractLinearOperator) -> Array:
    """The diagonal of A, of shape `(min(out_size, in_size),)`; one product if A is diagonal."""
    from .dense import diagonal_by_products

    return diagonal_by_products(operator)


@functools.singledispatch
def tridiagonal(operator: AbstractLinearOperator) -> tuple[Array, Array, Array]:
    """`(diagonal, lower, upper)` of A, of sizes n, n-1, n-1; three products if A is tridiagonal."""
    from .dense import tridiagonal_by_products

    return tridiagonal_by_products(operator)


def promises_hermitian(operator: AbstractLinearOperator) -> bool:
    """Whether what is promised of an operator implies A = Aᴴ."""
    definite = is_positive_semidefinite(operator) or is_negative_semidefinite(operator)
    return definite or (is_real(operator) and is_symmetric(operator))
