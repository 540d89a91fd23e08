"""A sparsity pattern as a small picture in text."""

from __future__ import annotations

import numpy as np

_MARKS = "·░▒▓█"
_CELLS = 24


def picture(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> str:
    """A grid of at most 24×24 cells; the darker the mark, the denser the block that it stands for.

    `·` is an empty block, `█` one that is more than three quarters full.
    """
    m, n = shape
    height, width = min(m, _CELLS), min(n, _CELLS)
    if height == 0 or width == 0:
        return "(empty)"
    cells = rows.astype(np.int64) * height // m * width + columns.astype(np.int64) * width // n
    counts = np.bincount(cells, minlength=height * width).reshape(height, width)
    row_sizes = np.bincount(np.arange(m, dtype=np.int64) * height // m, minlength=height)
    column_sizes = np.bincount(np.arange(n, dtype=np.int64) * width // n, minlength=width)
    density = counts / (row_sizes[:, None] * column_sizes)
    levels = np.where(counts > 0, 1 + np.minimum((density * 4).astype(int), 3), 0)
    return "\n".join("".join(_MARKS[level] for level in line) for line in levels)
