"""Orderings that bring the entries of a pattern close to the diagonal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .pattern import SparsityPattern


class Band(NamedTuple):
    """A symmetric reordering of a square pattern, and the band that its entries lie in then.

    - `order`: `(n,)`, the unknown that comes at each place; None if they stay as they are.
    - `rows`, `columns`: `(nnz,)`, where each entry of the pattern (in its own order) lies now.
    - `below`, `above`: how far entries lie from the diagonal, at most.
    """

    order: np.ndarray | None
    rows: np.ndarray
    columns: np.ndarray
    below: int
    above: int

    @property
    def width(self) -> int:
        return max(self.below, self.above)


def given_band(pattern: SparsityPattern) -> Band:
    """The band of a pattern in the order that it has."""
    return Band(None, pattern.rows, pattern.indices, *pattern.bandwidth())


def graph_of(pattern: SparsityPattern) -> sp.csr_matrix:
    """The pattern as SciPy's graph algorithms take it."""
    ones = np.ones(pattern.nnz, np.int8)
    return sp.csr_matrix((ones, pattern.indices, pattern.indptr), shape=pattern.shape)


def by_breadth(graph: sp.csr_matrix, symmetric: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The reverse order of Cuthill & McKee (1969, doi:10.1145/800195.805928) of A + Aᵀ: the unknown at
    each place, and the place of each unknown.
    """
    order = sp.csgraph.reverse_cuthill_mckee(graph, symmetric_mode=symmetric)
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=order.dtype)
    return order, place


def narrow_band(pattern: SparsityPattern) -> Band:
    """The narrower of the given order and that by breadth. Made once for a pattern."""

    def make() -> Band:
        given = given_band(pattern)
        if given.width <= 1:
            return given
        order, place = by_breadth(graph_of(pattern), pattern.is_symmetric())
        rows, columns = place[pattern.rows], place[pattern.indices]
        offsets = columns.astype(np.int64) - rows
        found = Band(order, rows, columns, max(0, int(-offsets.min())), max(0, int(offsets.max())))
        return found if found.width < given.width else given

    return pattern.cached("narrow band", make)


def may_be_narrow(pattern: SparsityPattern, width: int) -> bool:
    """Whether some order could bring all entries within `width` of the diagonal: a quick look, which
    spares most patterns the search for it.
    """

    def longest() -> int:
        lengths = pattern.row_lengths, np.bincount(pattern.indices)
        return max(int(length.max(initial=0)) for length in lengths)

    return pattern.cached("longest line", longest) <= 2 * width + 1
