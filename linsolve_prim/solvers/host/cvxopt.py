"""CHOLMOD and UMFPACK, by the wheel of `cvxopt` (GPLv3: an extra that the user chooses)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...host.available import require
from ...operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ...sparse.pattern import SparsityPattern
from .base import AbstractHostSolver


def _typecode(dtype: np.dtype) -> str:
    return "z" if np.issubdtype(dtype, np.complexfloating) else "d"


def _dense(cvxopt: Any, array: np.ndarray, code: str) -> Any:
    """An array `(n,)` or `(n, k)` in cvxopt's own (double) precision."""
    return cvxopt.matrix(np.array(array, np.complex128 if code == "z" else np.float64))


def _sparse(cvxopt: Any, rows: Any, columns: Any, values: np.ndarray, n: int, code: str) -> Any:
    index = lambda x: cvxopt.matrix(np.array(x, np.int64))
    return cvxopt.spmatrix(_dense(cvxopt, values, code), index(rows), index(columns), (n, n), code)


def _solved(b: np.ndarray, cvxopt: Any, code: str, solve: Any) -> np.ndarray:
    """`solve(B)` in place for B = bᵀ, `(n, k)` by columns."""
    rhs = _dense(cvxopt, b.T, code)
    solve(rhs)
    return np.array(rhs).T


class _Lower(NamedTuple):
    """The lower triangle of a pattern, by columns, and the ordering."""

    rows: np.ndarray
    columns: np.ndarray
    slots: np.ndarray
    ordering: Any


class CHOLMOD(AbstractHostSolver):
    """Supernodal sparse Cholesky by CHOLMOD (Chen, Davis, Hager & Rajamanickam 2008, ACM TOMS 35(3)).

    For operators tagged positive or negative definite, real or Hermitian; others are refused, and a
    matrix that is not definite gives `RESULTS.singular`. float32 and complex64 are computed in double
    precision. The ordering (AMD) is made once for a pattern.

    **Raises** `ImportError`, with the remedy, if `cvxopt` is not installed (GPLv3: never a default of
    the installation).
    """

    negative: bool = False

    def __check_init__(self) -> None:
        require("CHOLMOD", "cvxopt")
        require("CHOLMOD", "cvxopt.cholmod")
        require("CHOLMOD", "cvxopt.amd")

    def specialize(self, operator: AbstractLinearOperator) -> CHOLMOD:
        negative = is_negative_semidefinite(operator)
        if not (negative or is_positive_semidefinite(operator)):
            raise ValueError(
                "operator: `CHOLMOD` needs a positive or negative definite operator, and this "
                f"{type(operator).__name__} does not promise that. Tag it with "
                "`positive_semidefinite_tag` if it is, or use `SuperLU()`."
            )
        return CHOLMOD(negative)

    def separates_analysis(self) -> bool:
        return True

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> _Lower:
        cvxopt = require("CHOLMOD", "cvxopt")
        columns = pattern.T  # entries by columns
        lower = columns.indices >= columns.rows
        rows, cols = columns.indices[lower], columns.rows[lower]
        ones = _sparse(cvxopt, rows, cols, np.ones(len(rows)), pattern.shape[0], "d")
        ordering = require("CHOLMOD", "cvxopt.amd").order(ones)
        return _Lower(rows, cols, pattern.transpose_order[lower], ordering)

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        return self.factorize_with(self.analyze(pattern, values), pattern, values)

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        cvxopt, cholmod = require("CHOLMOD", "cvxopt"), require("CHOLMOD", "cvxopt.cholmod")
        code = _typecode(values.dtype)
        data = values[analysis.slots]
        data = -data if self.negative else data
        matrix = _sparse(cvxopt, analysis.rows, analysis.columns, data, pattern.shape[0], code)
        factor = cholmod.symbolic(matrix, analysis.ordering, "L")
        cholmod.numeric(matrix, factor)
        return factor, code, pattern.nnz

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        cvxopt, cholmod = require("CHOLMOD", "cvxopt"), require("CHOLMOD", "cvxopt.cholmod")
        factor, code, _ = factor
        flip = transpose and code == "z"  # Aᵀ = conj(A)
        x = _solved(b.conj() if flip else b, cvxopt, code, lambda rhs: cholmod.solve(factor, rhs))
        x = x.conj() if flip else x
        return -x if self.negative else x

    def nbytes(self, factor: Any) -> int:
        return 40 * 8 * factor[2]  # CHOLMOD does not tell; fill of 40 is that of large 2-D meshes


class UMFPACK(AbstractHostSolver):
    """Unsymmetric multifrontal LU by UMFPACK (Davis 2004, ACM TOMS 30(2)), by the wheel of `cvxopt`.

    For any square operator. float32 and complex64 are computed in double precision. The symbolic
    analysis is made once for a pattern.

    **Raises** `ImportError`, with the remedy, if `cvxopt` is not installed (GPLv3).
    """

    def __check_init__(self) -> None:
        require("UMFPACK", "cvxopt")
        require("UMFPACK", "cvxopt.umfpack")

    def separates_analysis(self) -> bool:
        return True

    def _matrix(self, pattern: SparsityPattern, values: np.ndarray, code: str) -> Any:
        columns = pattern.T
        data = values[pattern.transpose_order]
        n = pattern.shape[0]
        return _sparse(require("UMFPACK", "cvxopt"), columns.indices, columns.rows, data, n, code)

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        umfpack = require("UMFPACK", "cvxopt.umfpack")
        code = _typecode(values.dtype)
        return umfpack.symbolic(self._matrix(pattern, values, code))

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        return self.factorize_with(self.analyze(pattern, values), pattern, values)

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        umfpack = require("UMFPACK", "cvxopt.umfpack")
        code = _typecode(values.dtype)
        matrix = self._matrix(pattern, values, code)
        return matrix, umfpack.numeric(matrix, analysis), code, pattern.nnz

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        umfpack = require("UMFPACK", "cvxopt.umfpack")
        matrix, numeric, code, _ = factor
        run = lambda rhs: umfpack.solve(matrix, numeric, rhs, "T" if transpose else "N")
        return _solved(b, require("UMFPACK", "cvxopt"), code, run)

    def nbytes(self, factor: Any) -> int:
        return 60 * 8 * factor[3]
