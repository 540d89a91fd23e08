"""The symbolic part of incomplete factorizations: their patterns, and which products go where. NumPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from ..sparse.indices import stable_order
from ..sparse.pattern import SparsityPattern


class Factors(NamedTuple):
    """Where an incomplete factorization of a matrix lives, and what its fixed-point iteration sums.

    - `pattern`: S, with the whole diagonal and the fill that is allowed.
    - `given`: `(nnz of A,)`, the slots in S of the entries of A.
    - `first`, `second`, `target`: terms l(i,k)·u(k,j), k < min(i, j), by the slots in S of l, of u,
      and of the entry (i, j) that they are subtracted from; `target` is sorted.
    """

    pattern: SparsityPattern
    given: np.ndarray
    first: np.ndarray
    second: np.ndarray
    target: np.ndarray


def factors_of(pattern: SparsityPattern, fill: int) -> Factors:
    """For a square pattern and a level of fill. Made once for a pattern."""
    return pattern.cached(("incomplete factors", fill), lambda: _make(pattern, fill))


def _make(pattern: SparsityPattern, fill: int) -> Factors:
    rows, columns = _filled(pattern, fill)
    own = pattern.rows, pattern.indices
    rows, columns = np.concatenate([own[0], rows]), np.concatenate([own[1], columns])
    filled, slots = SparsityPattern.from_coo(rows, columns, pattern.shape)
    return Factors(filled, slots[: pattern.nnz], *_terms(filled))


def _filled(pattern: SparsityPattern, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the entries of level `fill` and below.

    An entry (i, j) has level 0 if it is in A, or on the diagonal; else one more than the least
    lev(i, k) + lev(k, j) with k < min(i, j) (Watts 1981; Saad, "Iterative methods for sparse linear
    systems", section 10.3.3): what strictly lower entries of level a and strictly upper ones of level
    b meet in has level a + b + 1.
    """
    n = pattern.shape[0]
    ones = np.ones(pattern.nnz, np.float32)
    known = sp.csr_array((ones, pattern.indices, pattern.indptr), shape=pattern.shape)
    known = _positions(known + sp.eye_array(n, dtype=np.float32, format="csr"))
    lower, upper = [sp.tril(known, -1, "csr")], [sp.triu(known, 1, "csr")]
    for level in range(1, fill + 1):
        met = sum(lower[a] @ upper[level - 1 - a] for a in range(level))
        new = _positions(met) > known
        known = _positions(known + new)
        lower.append(sp.tril(new, -1, "csr").astype(np.float32))
        upper.append(sp.triu(new, 1, "csr").astype(np.float32))
    coo = known.tocoo()
    return coo.row, coo.col


def _positions(matrix: sp.csr_array) -> sp.csr_array:
    """The same pattern, with ones. (Of positive numbers: no sum is zero, which SciPy would drop.)"""
    out = matrix.tocsr()
    out.sum_duplicates()
    return sp.csr_array((np.ones(out.nnz, np.float32), out.indices, out.indptr), shape=out.shape)


def _terms(pattern: SparsityPattern) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of an entry (i, k) below the diagonal and (k, j) above it, of which (i, j) is in S."""
    rows, columns, n = pattern.rows, pattern.indices, pattern.shape[0]
    lower = np.flatnonzero(columns < rows)
    starts = pattern.diagonal_slots() + 1  # in each row, of what is above the diagonal
    counts = (pattern.indptr[1:] - starts)[columns[lower]]
    ends = np.cumsum(counts, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    which = np.repeat(np.arange(len(lower)), counts)
    first = lower[which]
    second = starts[columns[first]] + np.arange(total) - (ends - counts)[which]
    keys = rows.astype(np.int64) * n + columns
    wanted = rows[first].astype(np.int64) * n + columns[second]
    target = np.minimum(np.searchsorted(keys, wanted), pattern.nnz - 1)
    found = np.flatnonzero(keys[target] == wanted)
    order = found[stable_order(target[found], pattern.nnz)]
    small = lambda x: x[order].astype(pattern.indices.dtype)
    return small(first), small(second), small(target)
