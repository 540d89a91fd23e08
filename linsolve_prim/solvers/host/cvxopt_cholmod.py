"""CHOLMOD by the wheel of `cvxopt`."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from ...host.available import require
from .cvxopt import Template, solve_in_place
from .parts import Columns
from .spare import Lent, Spare


class _Symbolic:
    """What is made once for a pattern: the ordering, and a factor to be filled again.

    cvxopt keeps the symbolic factorization in the factor itself.
    """

    def __init__(self, lower: Columns, is_complex: bool):
        self.template = Template(lower, is_complex)
        self.order = require("CHOLMOD", "cvxopt.amd").order(Template(lower, False).matrix)
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


class ByCvxopt:
    keeps_a_factor = True

    def analyze(self, lower: Columns, data: np.ndarray) -> _Symbolic:
        return _Symbolic(lower, np.iscomplexobj(data))

    def factorize(self, symbolic: _Symbolic, lower: Columns, data: np.ndarray) -> _Cholesky:
        matrix = symbolic.template.filled(data)
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


class _Cholesky(NamedTuple):
    lent: Lent
    template: Template
