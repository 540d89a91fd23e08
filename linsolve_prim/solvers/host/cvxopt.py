"""Matrices and vectors of `cvxopt` (GPLv3: an extra that the user chooses), in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...host.available import require
from .parts import Columns


def _typecode(array: np.ndarray) -> str:
    return "z" if np.iscomplexobj(array) else "d"


def spmatrix(columns: Columns, data: np.ndarray) -> Any:
    """A sparse matrix from data in double precision, in the order of the columns."""
    cvxopt = require("CHOLMOD", "cvxopt")
    index = lambda x: cvxopt.matrix(np.array(x, np.int64))
    size, code = (columns.size, columns.size), _typecode(data)
    return cvxopt.spmatrix(
        cvxopt.matrix(np.array(data)), index(columns.rows), index(columns.columns), size, code
    )


def solve_in_place(b: np.ndarray, solve: Callable[[Any], Any]) -> np.ndarray:
    """`(k, n)` from `b (k, n)` in double precision: `solve` overwrites its transpose."""
    rhs = require("CHOLMOD", "cvxopt").matrix(np.array(b.T))
    solve(rhs)
    return np.array(rhs).T
