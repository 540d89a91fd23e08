"""An operator as values on a static pattern, which is how host libraries take it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array

from ...host.packing import RunTimePattern, pack
from ...operators import AbstractLinearOperator, TaggedLinearOperator
from ...sparse.full import full_pattern
from ...sparse.operator import SparseLinearOperator
from ...sparse.pattern import SparsityPattern
from ...sparse.triplets import TripletLinearOperator


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


# ---- By columns, as most libraries take a matrix ---------------------------------------------------


class Columns(NamedTuple):
    """Entries of a square pattern in the order of columns: their rows and columns, and their slots."""

    size: int
    rows: np.ndarray
    columns: np.ndarray
    indptr: np.ndarray
    slots: np.ndarray

    def matrix(self, data: np.ndarray) -> sp.csc_matrix:
        """With `data` in this order, `values[slots]`."""
        return sp.csc_matrix((data, self.rows, self.indptr), shape=(self.size, self.size))


def all_columns(pattern: SparsityPattern) -> Columns:
    """All entries, A by columns."""
    of = pattern.T
    return Columns(of.shape[0], of.indices, of.rows, of.indptr, pattern.transpose_order)


def lower_columns(pattern: SparsityPattern) -> Columns:
    """Those on and below the diagonal, for libraries that take one triangle. Made once for a pattern."""

    def make() -> Columns:
        size, rows, columns, indptr, slots = all_columns(pattern)
        lower = rows >= columns
        ends = np.cumsum(np.bincount(columns[lower], minlength=size))
        indptr = np.concatenate([[0], ends]).astype(indptr.dtype)
        return Columns(size, rows[lower], columns[lower], indptr, slots[lower])

    return pattern.cached("lower columns", make)
