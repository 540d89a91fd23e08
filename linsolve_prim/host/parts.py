"""An operator as values on a static pattern, which is how host libraries take it."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from ..operators import AbstractLinearOperator, TaggedLinearOperator
from ..sparse.full import full_pattern
from ..sparse.operator import SparseLinearOperator
from ..sparse.pattern import SparsityPattern
from ..sparse.triplets import TripletLinearOperator
from .packing import RunTimePattern, pack


def packed_parts(
    operator: AbstractLinearOperator,
) -> tuple[Array, SparsityPattern | RunTimePattern]:
    """`(values, pattern)`, or values packed with run-time indices."""
    if isinstance(operator, TaggedLinearOperator):
        return packed_parts(operator.operator)
    if isinstance(operator, TripletLinearOperator):
        packed = pack(operator.values, operator.rows, operator.cols)
        return packed, RunTimePattern(operator.shape, operator.values.shape[0])
    return sparse_parts(operator)


def sparse_parts(operator: AbstractLinearOperator) -> tuple[Array, SparsityPattern]:
    """`(values, pattern)`. What is not sparse is made dense, and has a full pattern."""
    if isinstance(operator, TaggedLinearOperator):
        return sparse_parts(operator.operator)
    if isinstance(operator, SparseLinearOperator):
        return operator.values, operator.pattern
    matrix = operator.as_matrix()
    return jnp.reshape(matrix, -1), full_pattern(*matrix.shape)
