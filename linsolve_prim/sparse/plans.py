"""The symbolic part of the algebra: patterns of results, and which values go where. Host NumPy only.

A plan is computed once for a pattern, or for a pair of them, and lives as long as they do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import StructureError
from .indices import concrete, stable_order
from .pattern import SparsityPattern


class Taken(NamedTuple):
    """A pattern whose entries are some of another's: `slots`, `(nnz,)`, are theirs in that one."""

    pattern: SparsityPattern
    slots: np.ndarray


class Union(NamedTuple):
    """The union of two patterns; for each entry its slot in either one (`nnz` of that if none)."""

    pattern: SparsityPattern
    first: np.ndarray
    second: np.ndarray


class Product(NamedTuple):
    """C = AB: value `slots[t]` of C gets `a[first[t]] * b[second[t]]`; `slots` is sorted."""

    pattern: SparsityPattern
    first: np.ndarray
    second: np.ndarray
    slots: np.ndarray


def _for_pair(
    first: SparsityPattern, second: SparsityPattern, key: str, make: Callable[[], Any]
) -> Any:
    """`make()`, kept until one of the two patterns is gone."""
    known: Any = first.cached(("pairs", key), weakref.WeakKeyDictionary)
    plan = known.get(second)
    if plan is None:
        # not in the dictionary's own lock: two threads may both compute it, and agree
        plan = known.setdefault(second, make())
    return plan


def union(first: SparsityPattern, second: SparsityPattern) -> Union:
    """The pattern of A + B."""

    def make() -> Union:
        rows = np.concatenate([first.rows, second.rows])
        columns = np.concatenate([first.indices, second.indices])
        pattern, slots = SparsityPattern.from_coo(rows, columns, first.shape)

        def inverse(slots: np.ndarray) -> np.ndarray:
            out = np.full(pattern.nnz, len(slots), pattern.indices.dtype)
            out[slots] = np.arange(len(slots))
            return out

        return Union(pattern, inverse(slots[: first.nnz]), inverse(slots[first.nnz :]))

    return _for_pair(first, second, "union", make)


def product(first: SparsityPattern, second: SparsityPattern) -> Product:
    """The pattern of AB, and its terms.

    Row by row, as Gustavson, "Two fast algorithms for sparse matrices" (ACM TOMS 4, 1978),
    doi:10.1145/355791.355796; but all rows at once, by sorting the terms.
    """

    def make() -> Product:
        counts = second.row_lengths[first.indices]  # terms that each entry of A takes part in
        ends = np.cumsum(counts, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        a = np.repeat(np.arange(first.nnz), counts)
        within = np.arange(total) - (ends - counts)[a]
        b = second.indptr[first.indices][a] + within
        shape = (first.shape[0], second.shape[1])
        pattern, slots = SparsityPattern.from_coo(first.rows[a], second.indices[b], shape)
        order = stable_order(slots, pattern.nnz)
        dtype = pattern.indices.dtype
        return Product(pattern, a[order].astype(dtype), b[order].astype(dtype), slots[order])

    return _for_pair(first, second, "product", make)


def _part(pattern: SparsityPattern, kept: np.ndarray) -> Taken:
    slots = np.flatnonzero(kept).astype(pattern.indices.dtype)
    rows, columns = pattern.rows[slots], pattern.indices[slots]
    return Taken(SparsityPattern.from_coo(rows, columns, pattern.shape)[0], slots)


def triangle(pattern: SparsityPattern, k: int, lower: bool) -> Taken:
    """The entries on and below (above) diagonal k."""

    def make() -> Taken:
        offsets = pattern.indices.astype(np.int64) - pattern.rows
        return _part(pattern, offsets <= k if lower else offsets >= k)

    return pattern.cached(("triangle", k, lower), make)


def diagonal(size: int) -> SparsityPattern:
    """The pattern of the identity."""
    return SparsityPattern(np.arange(size + 1), np.arange(size), (size, size))


def block_diagonal(patterns: list[SparsityPattern]) -> SparsityPattern:
    """The patterns along the diagonal; entries keep their order, block after block."""
    down = np.cumsum([0] + [pattern.nnz for pattern in patterns])
    right = np.cumsum([0] + [pattern.shape[1] for pattern in patterns])
    pointers = [pattern.indptr[1:] + start for pattern, start in zip(patterns, down)]
    indices = [pattern.indices + start for pattern, start in zip(patterns, right)]
    m = sum(pattern.shape[0] for pattern in patterns)
    indptr = np.concatenate([np.zeros(1, np.int64), *pointers])
    return SparsityPattern(indptr, np.concatenate(indices), (m, int(right[-1])))


# ---- Slices --------------------------------------------------------------------------------------


def positions(index: Any, size: int, axis: str) -> np.ndarray:
    """A slice, an array of indices (from −size to size − 1) or a mask, as indices from 0."""
    if isinstance(index, slice):
        return np.arange(size)[index]
    if not hasattr(index, "aval"):
        index = np.asarray(index)
        if index.dtype == bool and index.shape == (size,):
            return np.flatnonzero(index)
    if np.ndim(index) != 1:
        raise StructureError(
            f"{axis}: must be a slice, indices with one axis, or a mask of shape {(size,)}; got "
            f"shape {np.shape(index)}. One entry is `A[i : i + 1, j : j + 1]`."
        )
    found = concrete(axis, index).astype(np.int64)
    outside = (found < -size) | (found >= size)
    if np.any(outside):
        raise StructureError(
            f"{axis}: must lie in [{-size}, {size}); got {found[outside][0]}. Slices may go past "
            "the end, indices may not."
        )
    return np.where(found < 0, found + size, found)


def _take_rows(pattern: SparsityPattern, rows: np.ndarray) -> Taken:
    counts = pattern.row_lengths[rows]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], counts)
    slots = np.repeat(pattern.indptr[rows], counts) + within
    shape = (len(rows), pattern.shape[1])
    return Taken(SparsityPattern(indptr, pattern.indices[slots], shape), slots)


def take(pattern: SparsityPattern, rows: np.ndarray, columns: np.ndarray) -> Taken:
    """The given rows and columns, in the given order, and as often as given."""
    some, slots = _take_rows(pattern, rows)
    if np.array_equal(columns, np.arange(pattern.shape[1])):
        return Taken(some, slots)
    transposed, of_transposed = _take_rows(some.T, columns)
    slots = slots[some.transpose_order][of_transposed]
    return Taken(transposed.T, slots[transposed.transpose_order])
