"""UMFPACK, by the wheel of `cvxopt`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...host.available import require
from ...host.matrices import in_double
from ...sparse.pattern import SparsityPattern
from .base import AbstractSymbolicSolver
from .cvxopt import Template, solve_in_place
from .parts import all_columns


class _Analysis(NamedTuple):
    template: Template
    symbolic: Any


class _Factor(NamedTuple):
    matrix: Any
    numeric: Any
    nnz: int


class UMFPACK(AbstractSymbolicSolver):
    """Unsymmetric multifrontal LU by UMFPACK (Davis 2004, ACM TOMS 30(2)), by the wheel of `cvxopt`.

    For any square operator. float32 and complex64 are computed in double precision. The symbolic
    analysis is made once for a pattern.

    **Raises** `ImportError`, with the remedy, if `cvxopt` is not installed (GPLv3).

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), lp.UMFPACK()).round(3))
        [1. 2.]
    """

    def __check_init__(self) -> None:
        require("UMFPACK", "cvxopt")
        require("UMFPACK", "cvxopt.umfpack")

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> _Analysis:
        columns = all_columns(pattern)
        template = Template(columns, np.iscomplexobj(values))
        matrix = template.filled(in_double(values)[columns.slots])
        return _Analysis(template, require("UMFPACK", "cvxopt.umfpack").symbolic(matrix))

    def factorize_with(
        self, analysis: Any, pattern: SparsityPattern, values: np.ndarray
    ) -> _Factor:
        template, symbolic = analysis
        matrix = template.filled(in_double(values)[all_columns(pattern).slots])
        numeric = require("UMFPACK", "cvxopt.umfpack").numeric(matrix, symbolic)
        return _Factor(matrix, numeric, pattern.nnz)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        umfpack, turn = require("UMFPACK", "cvxopt.umfpack"), "T" if transpose else "N"
        run = lambda rhs: umfpack.solve(factor.matrix, factor.numeric, rhs, turn)
        return solve_in_place(in_double(b), run)

    def nbytes(self, factor: Any) -> int:
        return 60 * 8 * factor.nnz
