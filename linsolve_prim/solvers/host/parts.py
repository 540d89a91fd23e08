"""An operator as values on a static pattern, which is how host libraries take it."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...host.packing import RunTimePattern, pack
from ...operators import AbstractLinearOperator, TaggedLinearOperator
from ...sparse.operator import SparseLinearOperator
from ...sparse.pattern import SparsityPattern
from ...sparse.triplets import TripletLinearOperator


@functools.lru_cache(maxsize=64)
def _full(rows: int, columns: int) -> SparsityPattern:
    indptr = np.arange(rows + 1) * columns
    indices = np.tile(np.arange(columns), rows)
    return SparsityPattern(indptr, indices, (rows, columns))


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
    return jnp.reshape(matrix, -1), _full(*matrix.shape)
