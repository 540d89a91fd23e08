"""How an operator is held: as arrays, as a sparse matrix, or known by its products only."""

from __future__ import annotations

from ..operators import (
    AbstractLinearOperator,
    AddLinearOperator,
    ComposedLinearOperator,
    ConjLinearOperator,
    DiagonalLinearOperator,
    DivLinearOperator,
    IdentityLinearOperator,
    MatrixLinearOperator,
    MulLinearOperator,
    NegLinearOperator,
    PyTreeLinearOperator,
    TaggedLinearOperator,
    TridiagonalLinearOperator,
)
from ..operators.damped import DampedLinearOperator
from .operator import SparseLinearOperator
from .triplets import TripletLinearOperator


def is_matrix_free(operator: AbstractLinearOperator) -> bool:
    """Whether an operator is known by its products only, so that its matrix costs n of them."""
    held = (
        MatrixLinearOperator,
        PyTreeLinearOperator,
        DiagonalLinearOperator,
        TridiagonalLinearOperator,
        IdentityLinearOperator,
        SparseLinearOperator,
        TripletLinearOperator,
    )
    if isinstance(operator, held):
        return False
    one = TaggedLinearOperator, MulLinearOperator, DivLinearOperator, NegLinearOperator
    if isinstance(operator, (*one, ConjLinearOperator, DampedLinearOperator)):
        return is_matrix_free(operator.operator)
    if isinstance(operator, (AddLinearOperator, ComposedLinearOperator)):
        return is_matrix_free(operator.operator1) or is_matrix_free(operator.operator2)
    return True


def is_sparse_operator(operator: AbstractLinearOperator) -> bool:
    """Whether an operator is a sparse matrix (perhaps with more tags)."""
    if isinstance(operator, TaggedLinearOperator):
        return is_sparse_operator(operator.operator)
    return isinstance(operator, (SparseLinearOperator, TripletLinearOperator))
