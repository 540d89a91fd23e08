"""Matrices and vectors of `cvxopt` (GPLv3: an extra that the user chooses), in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...host.available import require
from .parts import Columns


class Template:
    """Sparse matrices on given columns: cvxopt sorts triplets once, and then copies what it has."""

    def __init__(self, columns: Columns, is_complex: bool):
        self.code = "z" if is_complex else "d"
        self.size = columns.size
        cvxopt = require("CHOLMOD", "cvxopt")
        index = lambda x: cvxopt.matrix(np.array(x, np.int64))
        shape = (columns.size, columns.size)
        rows, cols = index(columns.rows), index(columns.columns)
        self.matrix = cvxopt.spmatrix(1.0, rows, cols, shape, self.code)

    def filled(self, data: np.ndarray) -> Any:
        """With data in double precision, in the order of the columns."""
        out = +self.matrix  # a copy
        if len(data):
            out.V = require("CHOLMOD", "cvxopt").matrix(np.array(data))
        return out


def solve_in_place(b: np.ndarray, solve: Callable[[Any], Any]) -> np.ndarray:
    """`(k, n)` from `b (k, n)` in double precision: `solve` overwrites its transpose."""
    rhs = require("CHOLMOD", "cvxopt").matrix(np.array(b.T))
    solve(rhs)
    return np.array(rhs).T
