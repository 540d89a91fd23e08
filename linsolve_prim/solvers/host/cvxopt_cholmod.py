"""CHOLMOD by the module `cvxopt.cholmod`, where its library cannot be called itself."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ...host import orderings
from ...host.available import require
from ...host.matrices import in_double
from ...host.tasks import Refused
from ...sparse.pattern import SparsityPattern
from .cvxopt import Template, solve_in_place
from .parts import Columns, lower_columns
from .spare import Lent, Spare


class _Symbolic:
    """What is made once for a pattern: the ordering, and a factor to be filled again.

    cvxopt keeps the symbolic factorization in the factor itself.
    """

    def __init__(self, lower: Columns, is_complex: bool, order: np.ndarray | None):
        self.template = Template(lower, is_complex)
        if order is None:
            self.order = require("CHOLMOD", "cvxopt.amd").order(Template(lower, False).matrix)
        else:
            self.order = require("CHOLMOD", "cvxopt").matrix(np.array(order, np.int64))
        self.spare = Spare()


_options = threading.Lock()


def _symbolic(matrix: Any, order: Any) -> Any:
    """LLᵀ by supernodes, or LDLᵀ by columns where those would be small: as CHOLMOD chooses."""
    cholmod = require("CHOLMOD", "cvxopt.cholmod")
    with _options:
        before = dict(cholmod.options)
        cholmod.options["supernodal"] = 1
        try:
            return cholmod.symbolic(matrix, order, "L")
        finally:
            cholmod.options.clear()
            cholmod.options.update(before)


def lower_part(pattern: SparsityPattern, values: np.ndarray) -> sp.csc_matrix:
    """The lower triangle by columns, in double precision."""
    lower = lower_columns(pattern)
    return lower.matrix(in_double(values)[lower.slots])


def least_pivot(pivots: np.ndarray) -> float:
    """The least pivot, over the largest.

    **Raises** `Refused` if one is not positive.
    """
    if not np.all(pivots > 0):
        raise Refused("singular", "a pivot is not positive: the matrix is not definite")
    return float(pivots.min() / pivots.max())


def about_nbytes(nnz: int) -> int:
    """The bytes of a factor, of a library that does not tell: large 2-D meshes fill in so much."""
    return 40 * 8 * nnz


class ByCvxopt:
    of_transpose = False

    def analyze(self, pattern: SparsityPattern, values: np.ndarray, ordering: str) -> _Symbolic:
        order = orderings.metis(pattern) if ordering == "metis" else None
        return _Symbolic(lower_columns(pattern), np.iscomplexobj(values), order)

    def factorize(
        self, symbolic: _Symbolic, pattern: SparsityPattern, values: np.ndarray
    ) -> _Cholesky:
        matrix = symbolic.template.filled(in_double(values)[lower_columns(pattern).slots])
        factor = symbolic.spare.take() or _symbolic(matrix, symbolic.order)
        require("CHOLMOD", "cvxopt.cholmod").numeric(matrix, factor)
        return _Cholesky(symbolic.spare.lend(factor), symbolic.template)

    def solve(self, factor: _Cholesky, b: np.ndarray) -> np.ndarray:
        cholmod = require("CHOLMOD", "cvxopt.cholmod")
        return solve_in_place(b, lambda rhs: cholmod.solve(factor.lent.item, rhs))

    def pivots(self, factor: _Cholesky) -> np.ndarray:
        cholmod, (lent, template) = require("CHOLMOD", "cvxopt.cholmod"), factor
        try:
            return np.array(cholmod.diag(lent.item)).real.ravel() ** 2
        except ValueError:  # it is LDLᵀ, and does not show D: but solves with it
            ones = require("CHOLMOD", "cvxopt").matrix(1.0, (template.size, 1), template.code)
            cholmod.solve(lent.item, ones, sys=6)
            with np.errstate(divide="ignore"):
                return 1 / np.array(ones).real.ravel()

    def least_pivot(self, factor: _Cholesky) -> float:
        return least_pivot(self.pivots(factor))

    def nbytes(self, factor: _Cholesky, nnz: int) -> int:
        return about_nbytes(nnz)

    def analysis_nbytes(self, symbolic: _Symbolic, nnz: int) -> int:
        return about_nbytes(nnz)  # of the factor that is kept


class _Cholesky(NamedTuple):
    lent: Lent
    template: Template
