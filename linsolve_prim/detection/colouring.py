"""Colouring: columns of one colour have no row in common, so that one product shows them all.

Curtis, Powell, Reid (1974), doi:10.1093/imamat/13.1.117. With few diagonals, the number of a column
modulo some p is a colouring, up to a few columns at the boundary. The others are coloured in rounds:
each takes the smallest colour that is free in all of its rows, and of those that clash, the one
with the largest random priority keeps it (Jones, Plassmann, 1993, doi:10.1137/0914041). Each round
is a few passes of NumPy over the entries that are left.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..sparse.pattern import SparsityPattern

#: Diagonals with less than this share of the entries of the fullest one do not shape a stencil.
_SHARE = 1 / 4

#: Stencils of more diagonals are coloured in rounds from the start.
_STENCIL = 128

_NONE = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Colouring:
    """`colours (n,)` from 0 to `count − 1`; they hold but for the rows that are `apart`.

    Those rows are so long that they would need more colours than there are such rows: they are
    found by products with the transpose, one for each.
    """

    colours: np.ndarray
    count: int
    apart: np.ndarray


def colouring(pattern: SparsityPattern, transposable: bool = True) -> Colouring:
    """Made once for each pattern. Rows are only taken apart where the function has a transpose."""
    return pattern.cached(("colouring", transposable), lambda: _make(pattern, transposable))


def _make(pattern: SparsityPattern, transposable: bool) -> Colouring:
    n = pattern.shape[1]
    lengths = pattern.row_lengths
    apart = _long_rows(lengths) if transposable else np.zeros(0, np.intp)
    rest = np.ones(len(lengths), bool)
    rest[apart] = False
    if lengths[rest].max(initial=0) == n:  # every column meets every other one
        return Colouring(np.arange(n, dtype=np.int32), n, apart)
    entries = np.repeat(rest, lengths)
    rows, columns = pattern.rows[entries], pattern.indices[entries]
    colours = _repaired(rows, columns, _by_diagonals(rows, columns, n), pattern.shape)
    used, colours = np.unique(colours, return_inverse=True)
    return Colouring(colours.astype(np.int32), len(used), apart)


def _long_rows(lengths: np.ndarray) -> np.ndarray:
    """The k longest rows, where k + the length of the longest other row is half of what it was."""
    order = np.argsort(-lengths, kind="stable")
    after = np.append(lengths[order], 0)
    cost = np.arange(len(after)) + after  # of taking the first k rows apart
    best = int(np.argmin(cost))
    return order[:best] if 2 * cost[best] < cost[0] else order[:0]


def _by_diagonals(rows: np.ndarray, columns: np.ndarray, n: int) -> np.ndarray:
    """Column j gets the colour j mod p, if the diagonals are few; else none.

    Columns j and k share a row only if j − k is the difference of two diagonals' offsets. So p is the
    smallest number modulo which the offsets differ.
    """
    none = np.full(n, _NONE)
    if len(rows) == 0:
        return np.zeros(n, np.intp)
    offsets = columns.astype(np.int64) - rows
    low = int(offsets.min())
    counts = np.bincount(offsets - low)
    frequent = np.flatnonzero(counts >= _SHARE * counts.max()) + low
    if len(frequent) > _STENCIL or counts.max() < n / 4:
        return none
    for p in range(len(frequent), 4 * len(frequent) + 1):
        if len(np.unique(frequent % p)) == len(frequent):
            return np.arange(n) % p
    return none


def _repaired(
    rows: np.ndarray, columns: np.ndarray, colours: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Colours for the columns that have none, and for those that clash."""
    m, colours = shape[0], colours.astype(np.int64)
    count = int(colours.max(initial=_NONE)) + 1
    if count:
        colours[_losers(rows, columns, colours, m, count)] = _NONE
    left = colours[columns] == _NONE
    if left.any():
        taken = np.zeros(
            (m, max(1, -(-count // 64))), np.uint64
        )  # the colours in each row, as bits
        concerned = np.zeros(m, bool)
        concerned[rows[left]] = True
        known = ~left & concerned[rows]
        _take(taken, rows[known], colours[columns[known]])
        _colour_rest(rows[left], columns[left], colours, taken)
    colours[colours == _NONE] = 0  # those without an entry
    return colours


def _colour_rest(
    rows: np.ndarray, columns: np.ndarray, colours: np.ndarray, taken: np.ndarray
) -> None:
    """Write colours for all of the given columns."""
    n, m = len(colours), len(taken)
    priority = np.random.default_rng(0).permutation(n)
    order = np.argsort(priority[columns], kind="stable")  # so that the highest is written last
    rows, columns = rows[order], columns[order]
    while len(columns):
        proposal, taken = _smallest_free(rows, columns, taken, n)
        lost = _losers(rows, columns, proposal, m, int(proposal.max()) + 1)
        proposal[lost] = _NONE
        won = proposal[columns] != _NONE
        _take(taken, rows[won], proposal[columns[won]])
        np.copyto(colours, proposal, where=proposal != _NONE)
        rows, columns = rows[~won], columns[~won]


def _losers(
    rows: np.ndarray, columns: np.ndarray, colours: np.ndarray, m: int, count: int
) -> np.ndarray:
    """The columns that share a row and a colour with one that comes later in the list."""
    coloured = colours[columns] != _NONE
    rows, columns = rows[coloured], columns[coloured]
    cells = rows.astype(np.int64) * count + colours[columns]
    if m * count <= 8 * len(cells) + 2**16:
        winner = np.empty(m * count, columns.dtype)
    else:  # a table of those that occur
        found, cells = np.unique(cells, return_inverse=True)
        winner = np.empty(len(found), columns.dtype)
    winner[cells] = columns
    return columns[winner[cells] != columns]


def _take(taken: np.ndarray, rows: np.ndarray, colours: np.ndarray) -> None:
    bits = np.uint64(1) << (colours % 64).astype(np.uint64)
    np.bitwise_or.at(taken, (rows, colours // 64), bits)


def _smallest_free(
    rows: np.ndarray, columns: np.ndarray, taken: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each of the given columns the smallest colour that none of its rows has."""
    order = np.argsort(columns, kind="stable")
    starts = np.flatnonzero(np.diff(columns[order], prepend=-1))
    forbidden = np.bitwise_or.reduceat(taken[rows[order]], starts, axis=0)
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    word = np.argmax(forbidden != full, axis=1)
    free = ~forbidden[np.arange(len(starts)), word]
    if not free.all():  # some have no colour left: there must be more
        taken = np.concatenate([taken, np.zeros((len(taken), 1), np.uint64)], axis=1)
        word = np.where(free == 0, taken.shape[1] - 1, word)
        free = np.where(free == 0, full, free)
    lowest = free & (~free + np.uint64(1))
    proposal = np.full(n, _NONE, np.int64)
    proposal[columns[order][starts]] = word * 64 + np.frexp(lowest.astype(np.float64))[1] - 1
    return proposal, taken
