"""What the thirteen functions know about sums, products and multiples of operators."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array

from .._tree import tree_add, tree_neg, tree_scale
from .._types import structure_equal
from . import functions as fns
from .algebra import (
    AddLinearOperator,
    ComposedLinearOperator,
    DivLinearOperator,
    MulLinearOperator,
    NegLinearOperator,
)
from .base import AbstractLinearOperator
from .dense import diagonal_by_products, materialise_by_products, tridiagonal_by_products

_SHAPES = (fns.is_diagonal, fns.is_tridiagonal, fns.is_lower_triangular, fns.is_upper_triangular)
_DEFINITE = (fns.is_positive_semidefinite, fns.is_negative_semidefinite)
_EVERY = (
    AddLinearOperator,
    ComposedLinearOperator,
    NegLinearOperator,
    MulLinearOperator,
    DivLinearOperator,
)


# ---- Rebuilding: f(A + B) from f(A) and f(B) -----------------------------------------------------


def _operands(operator: AbstractLinearOperator) -> tuple[AbstractLinearOperator, ...]:
    if isinstance(operator, (AddLinearOperator, ComposedLinearOperator)):
        return operator.operator1, operator.operator2
    return (operator.operator,)


def _rebuild(transform: Callable, operator: AbstractLinearOperator) -> AbstractLinearOperator:
    operands = [transform(x) for x in _operands(operator)]
    if isinstance(operator, (MulLinearOperator, DivLinearOperator)):
        return type(operator)(*operands, operator.scalar, sign=operator.sign)
    return type(operator)(*operands)


def _materialise(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    if fns.is_diagonal(operator) or fns.is_tridiagonal(operator):
        return materialise_by_products(operator)
    return _rebuild(fns.materialise, operator)


def _conj(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    if isinstance(operator, (MulLinearOperator, DivLinearOperator)):
        scalar = operator.scalar.conj()
        return type(operator)(fns.conj(operator.operator), scalar, sign=operator.sign)
    return _rebuild(fns.conj, operator)


for _cls in _EVERY:
    fns.linearise.register(_cls, lambda operator: _rebuild(fns.linearise, operator))
    fns.materialise.register(_cls, _materialise)
    fns.conj.register(_cls, _conj)


# ---- Structure -----------------------------------------------------------------------------------


def _all_operands(predicate: Callable) -> Callable[[AbstractLinearOperator], bool]:
    return lambda operator: all(predicate(x) for x in _operands(operator))


def _never(operator: AbstractLinearOperator) -> bool:
    return False


for _predicate in (fns.is_symmetric, *_SHAPES):
    for _cls in (AddLinearOperator, NegLinearOperator, MulLinearOperator, DivLinearOperator):
        _predicate.register(_cls, _all_operands(_predicate))
for _predicate in _DEFINITE:
    _predicate.register(AddLinearOperator, _all_operands(_predicate))
    _predicate.register(ComposedLinearOperator, _never)
for _predicate in (fns.is_diagonal, fns.is_lower_triangular, fns.is_upper_triangular):
    _predicate.register(ComposedLinearOperator, _all_operands(_predicate))
for _cls in (AddLinearOperator, NegLinearOperator, MulLinearOperator, DivLinearOperator):
    fns.has_unit_diagonal.register(_cls, _never)


@fns.is_symmetric.register(ComposedLinearOperator)
def _is_symmetric(operator: ComposedLinearOperator) -> bool:
    """Diagonal operators commute; of others it is not known."""
    same = structure_equal(operator.in_structure(), operator.out_structure())
    return same and fns.is_diagonal(operator)


@fns.is_tridiagonal.register(ComposedLinearOperator)
def _is_tridiagonal(operator: ComposedLinearOperator) -> bool:
    one, two = operator.operator1, operator.operator2
    return (fns.is_diagonal(one) and fns.is_tridiagonal(two)) or (
        fns.is_tridiagonal(one) and fns.is_diagonal(two)
    )


@fns.has_unit_diagonal.register(ComposedLinearOperator)
def _has_unit_diagonal(operator: ComposedLinearOperator) -> bool:
    """The diagonal of a product of triangular matrices is the product of their diagonals."""
    triangular = fns.is_lower_triangular(operator) or fns.is_upper_triangular(operator)
    sizes = {x.in_size() for x in _operands(operator)} | {operator.out_size()}
    units = all(fns.has_unit_diagonal(x) for x in _operands(operator))
    return units and triangular and len(sizes) == 1


def _register_definite(predicate: Any, opposite: Any) -> None:
    """−A and sA are definite if A is, with the sign that the scalar gives."""

    def scaled(operator: MulLinearOperator | DivLinearOperator) -> bool:
        if operator.sign == 1:
            return predicate(operator.operator)
        if operator.sign == -1:
            return opposite(operator.operator)
        # 0·A is the zero operator, which is both; A/0 is nothing
        square = structure_equal(operator.in_structure(), operator.out_structure())
        return operator.sign == 0 and isinstance(operator, MulLinearOperator) and square

    predicate.register(MulLinearOperator, scaled)
    predicate.register(DivLinearOperator, scaled)
    predicate.register(NegLinearOperator, lambda operator: opposite(operator.operator))


_register_definite(*_DEFINITE)
_register_definite(*reversed(_DEFINITE))


# ---- Entries -------------------------------------------------------------------------------------


def _register_entries(entries: Any) -> None:
    """The diagonals of a sum or a multiple are those of its operands, summed or multiplied."""

    @entries.register(AddLinearOperator)
    def _add(operator: AddLinearOperator):
        return tree_add(entries(operator.operator1), entries(operator.operator2))

    @entries.register(NegLinearOperator)
    def _neg(operator: NegLinearOperator):
        return tree_neg(entries(operator.operator))

    @entries.register(MulLinearOperator)
    def _mul(operator: MulLinearOperator):
        return tree_scale(operator.scalar, entries(operator.operator))

    @entries.register(DivLinearOperator)
    def _div(operator: DivLinearOperator):
        divide = lambda a: a / operator.scalar.astype(a.dtype)
        return jax.tree.map(divide, entries(operator.operator))


_register_entries(fns.diagonal)
_register_entries(fns.tridiagonal)


def _is_square_diagonal(operator: AbstractLinearOperator) -> bool:
    return fns.is_diagonal(operator) and operator.in_size() == operator.out_size()


@fns.diagonal.register(ComposedLinearOperator)
def _diagonal(operator: ComposedLinearOperator) -> Array:
    """diag(DB) = d ∘ diag(B) for a diagonal D."""
    one, two = operator.operator1, operator.operator2
    if _is_square_diagonal(one) or _is_square_diagonal(two):
        first, second = fns.diagonal(one), fns.diagonal(two)
        size = min(first.size, second.size)
        return first[:size] * second[:size]
    return diagonal_by_products(operator)


@fns.tridiagonal.register(ComposedLinearOperator)
def _tridiagonal(operator: ComposedLinearOperator) -> tuple[Array, Array, Array]:
    """D scales the rows of a matrix from the left, and its columns from the right."""
    one, two = operator.operator1, operator.operator2
    if operator.in_size() == operator.out_size():
        if _is_square_diagonal(one):
            d, (main, lower, upper) = fns.diagonal(one), fns.tridiagonal(two)
            return d * main, d[1:] * lower, d[:-1] * upper
        if _is_square_diagonal(two):
            d, (main, lower, upper) = fns.diagonal(two), fns.tridiagonal(one)
            return d * main, d[:-1] * lower, d[1:] * upper
    return tridiagonal_by_products(operator)
