"""Level scheduling: which unknowns of a sparse triangular system can be found at once. NumPy only.

Unknown i of Lx = b waits for each j with an entry (i, j). Its *level* is one above the highest of
those, and the unknowns of a level follow from lower ones, all at once. After Anderson, Saad, "Solving
sparse triangular linear systems on parallel computers" (Int. J. High Speed Comput. 1, 1989),
doi:10.1142/S0129053389000056.

Tables and programs stay small whatever the pattern, for three reasons:

- *Long rows are cut.* No row has more than `width` entries: of a longer one, those of the lowest
  levels become *auxiliary* unknowns, y = −Σ aⱼxⱼ, that are found on the way. A row of k entries
  waits log k levels longer at most, and mostly not at all: its last entries stay.
- *Levels are not padded.* Unknowns stand in the order of their levels, in cells. A step computes a
  block of neighbouring cells; those past the end of a level come too early, and once more in time.
- *Neighbouring levels of similar size share a loop* (`Run`), whose block is as large as suits them.
  For any sizes, one loop with the best block does at most three times the work of separate steps:
  a block of R rows with about as many entries as a step costs. More loops must pay for themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .pattern import SparsityPattern

#: The most entries in a row of the tables, which are as many gathers in a step.
_WIDTH = 16
_WIDTHS = (_WIDTH, 8, 4)
#: A step costs about as much as this many entries: some hundred on CPU, more on accelerators. On CPU
#: anything from 256 to 16384 is as good, to a third [measured on grids and factors].
_STEP = 4096
_BLOCKS = 4 ** np.arange(12)
_MOST_RUNS = 8  # and one
#: Groups of levels that the choice of runs looks at.
_GROUPS = 4096


class Run(NamedTuple):
    """A loop: `block` cells from each of `starts`, `(steps,)`."""

    block: int
    starts: np.ndarray


class Levels(NamedTuple):
    """A triangular system in the order of its levels, in `cells` cells. Cell 0 holds zero.

    With `nnz` values v, further slots are constants: v[nnz] = 0, v[nnz + 1] = 1, v[nnz + 2] = −1.
    Cell c gets (b[rows[c]] − Σₖ v[slots[k, c]] t[columns[k, c]]) / v[diagonal[c]], with t the cells.

    - `slots`, `columns`: `(width, cells)`; - `diagonal`, `rows`: `(cells,)`, rows being n where b
      is zero; - `solution`: `(n,)`, the cell of each unknown; - `height`: the number of levels.
    """

    slots: np.ndarray
    columns: np.ndarray
    diagonal: np.ndarray
    rows: np.ndarray
    solution: np.ndarray
    runs: tuple[Run, ...]
    height: int


def levels_of(pattern: SparsityPattern, lower: bool, transpose: bool, unit: bool) -> Levels:
    """The levels of A (or of Aᵀ) for a lower or upper triangular A; `unit` stands for A + I.

    Slots are those of A in every case. O(nnz) once for a pattern (0.3 µs for each entry).
    """
    make = lambda: _make(pattern, lower, transpose, unit)
    return pattern.cached(("levels", lower, transpose, unit), make)


class _Rows(NamedTuple):
    """Where entries off the diagonal begin and end, for each row, and the slot of the diagonal."""

    of: SparsityPattern
    starts: np.ndarray
    lengths: np.ndarray
    diagonal: np.ndarray


def _rows(of: SparsityPattern, lower: bool) -> _Rows:
    diagonal = of.diagonal_slots()
    stored = diagonal < of.nnz
    starts = of.indptr[:-1] if lower else of.indptr[:-1] + stored
    return _Rows(of, starts, of.row_lengths - stored, diagonal)


def _width(lengths: np.ndarray) -> int:
    """The number of entries beyond which rows are cut: large, unless most of the tables were empty."""
    longest, total = int(lengths.max(initial=0)), int(lengths.sum()) + len(lengths)
    cells = lambda width: len(lengths) + int(np.sum(np.maximum(lengths - 1, 0) // (width - 1)))
    wide = [width for width in _WIDTHS if width * cells(width) <= 2 * total]
    return min(longest, wide[0] if wide else _WIDTHS[-1])


class _Cut(NamedTuple):
    """Rows that were cut, and the auxiliary ones: unknowns `(k,)`, what they take `(k, width)`, or −1."""

    rows: list[np.ndarray]
    nodes: list[np.ndarray]
    slots: list[np.ndarray]

    def append(self, rows: np.ndarray, nodes: np.ndarray, slots: np.ndarray, width: int) -> None:
        filled = np.full((2, len(rows) * width), -1)
        filled[:, : len(nodes)] = nodes, slots
        self.rows.append(rows)
        self.nodes.append(filled[0].reshape(-1, width))
        self.slots.append(filled[1].reshape(-1, width))


def _count_levels(rows: _Rows, lower: bool, width: int) -> tuple[np.ndarray, _Cut]:
    """The level of each unknown, those from n on being auxiliary, and the rows that were cut."""
    level: list[int] = [0] * len(rows.starts)
    cut = _Cut([], [], [])
    columns, minus_one = rows.of.indices.tolist(), rows.of.nnz + 2
    order = slice(None) if lower else slice(None, None, -1)
    numbers = np.arange(len(level))[order].tolist()
    starts, lengths = rows.starts[order].tolist(), rows.lengths[order].tolist()
    # one after the other: lists, as NumPy takes longer for one number
    for i, start, length in zip(numbers, starts, lengths):
        if 0 < length <= width:
            level[i] = 1 + max([level[j] for j in columns[start : start + length]])
        elif length:
            nodes, slots = (
                np.array(columns[start : start + length]),
                np.arange(start, start + length),
            )
            nodes, slots = _shorten(nodes, slots, level, cut, width, minus_one)
            level[i] = 1 + max([level[j] for j in nodes.tolist()])
            cut.append(np.array([i]), nodes, slots, width)
    return np.array(level, np.int64), cut


def _shorten(
    nodes: np.ndarray, slots: np.ndarray, level: list[int], cut: _Cut, width: int, minus_one: int
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of a long row, once auxiliary unknowns took the entries of the lowest levels."""
    while len(nodes) > width:
        heights = np.array([level[j] for j in nodes.tolist()])
        order = np.argsort(heights, kind="stable")
        pieces = min(-(-(len(nodes) - width) // (width - 1)), len(nodes) // width)
        taken = min(len(nodes) - width + pieces, pieces * width)
        first, rest = order[:taken], order[taken:]
        new = np.arange(len(level), len(level) + pieces)
        cut.append(new, nodes[first], slots[first], width)
        last = np.minimum(np.arange(1, pieces + 1) * width, taken) - 1
        level.extend((1 + heights[first[last]]).tolist())
        nodes = np.concatenate([nodes[rest], new])
        slots = np.concatenate([slots[rest], np.full(pieces, minus_one)])
    return nodes, slots


def _tables(rows: _Rows, cut: _Cut, total: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of `total` unknowns waits for, and by which entries: both `(total, width)`.

    Unknown −1 and the slot nnz stand where there are fewer.
    """
    n, nnz = len(rows.starts), rows.of.nnz
    nodes, slots = np.full((total, width), -1), np.full((total, width), nnz)
    step, lengths = np.arange(width), rows.lengths[:, None]
    own = (step < lengths) & (lengths <= width)
    entries = (rows.starts[:, None] + step)[own]
    nodes[:n][own], slots[:n][own] = rows.of.indices[entries], entries
    if cut.rows:
        at, wait, where = (np.concatenate(part) for part in cut)
        nodes[at], slots[at] = wait, np.where(wait < 0, nnz, where)
    return nodes, slots


def _make(pattern: SparsityPattern, lower: bool, transpose: bool, unit: bool) -> Levels:
    of, nnz = pattern.T if transpose else pattern, pattern.nnz
    rows = _rows(of, lower != transpose)
    width = _width(rows.lengths)
    level, cut = _count_levels(rows, lower != transpose, width)
    n, total = of.shape[0], len(level)
    nodes, slots = _tables(rows, cut, total, width)
    diagonal = np.full(total, nnz + 1)
    if not unit:
        diagonal[:n] = rows.diagonal
    if transpose:
        of_a = np.append(pattern.transpose_order, np.arange(nnz, nnz + 3))
        slots, diagonal = of_a[slots], of_a[diagonal]

    order = np.argsort(level, kind="stable")
    cell = np.empty(total + 1, np.int64)
    cell[order], cell[-1] = np.arange(1, total + 1), 0
    sizes = np.bincount(level)
    runs = _runs(sizes, width)
    room = max((run.block for run in runs), default=0)  # for blocks that begin in the last level

    def by_cells(table: np.ndarray, fill: int) -> np.ndarray:
        pad = [(1, room)] + [(0, 0)] * (table.ndim - 1)
        padded = np.pad(table[order], pad, constant_values=fill)
        return np.ascontiguousarray(padded.T, of.indices.dtype)

    return Levels(
        slots=by_cells(slots, nnz),
        columns=by_cells(cell[nodes], 0),
        diagonal=by_cells(diagonal, nnz + 1),
        rows=by_cells(np.minimum(np.arange(total), n), n),
        solution=cell[:n].astype(of.indices.dtype),
        runs=runs,
        height=len(sizes),
    )


# ---- Runs ----------------------------------------------------------------------------------------


def _runs(sizes: np.ndarray, width: int) -> tuple[Run, ...]:
    """Levels of these sizes, one after the other, as few loops: the least cost by Viterbi's method.

    A level of r unknowns in blocks of R takes ⌈r/R⌉ steps, of `_STEP` + R(width + 1) each.
    """
    if len(sizes) == 0:
        return ()
    blocks = _BLOCKS[: 1 + np.searchsorted(_BLOCKS, sizes.max())]
    blocks = np.minimum(blocks, sizes.max())
    # neighbours in groups, so that there are not too many
    ends = np.flatnonzero(np.append(np.diff(sizes) != 0, True)) + 1
    if len(ends) > _GROUPS:
        ends = ends[np.arange(1, _GROUPS + 1) * len(ends) // _GROUPS - 1]
    begins = np.append(0, ends[:-1])
    steps = -(-sizes[:, None] // blocks)
    costs = np.add.reduceat(steps * (_STEP + blocks * (width + 1)), begins, axis=0).astype(float)
    change = costs.sum(axis=0).min() / _MOST_RUNS + sizes.sum()  # which may be copied
    total, came = costs[0], []
    for cost in costs[1:]:
        best = int(total.argmin())
        changes = total > total[best] + change
        came.append(np.where(changes, best, np.arange(len(blocks))))
        total = np.where(changes, total[best] + change, total) + cost
    choice = [int(total.argmin())]
    for before in reversed(came):
        choice.append(int(before[choice[-1]]))
    chosen = np.array(choice[::-1])

    cells = 1 + np.append(0, np.cumsum(sizes))
    runs = []
    first = np.flatnonzero(np.append(True, np.diff(chosen) != 0))
    for a, b in zip(first, np.append(first[1:], len(chosen))):
        block = int(blocks[chosen[a]])
        these = slice(begins[a], ends[b - 1])
        counts = -(-sizes[these] // block)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        runs.append(Run(block, np.repeat(cells[:-1][these], counts) + block * within))
    return tuple(runs)
