"""The columns of a matrix, which is how most libraries take it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from ...host.parts import packed_parts as packed_parts, sparse_parts as sparse_parts
from ...sparse.pattern import SparsityPattern


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
