"""The pattern with an entry everywhere, for dense matrices that are treated as sparse ones."""

from __future__ import annotations

import functools

import numpy as np

from .pattern import SparsityPattern


@functools.lru_cache(maxsize=64)
def full_pattern(rows: int, columns: int) -> SparsityPattern:
    indptr = np.arange(rows + 1) * columns
    indices = np.tile(np.arange(columns), rows)
    return SparsityPattern(indptr, indices, (rows, columns))
