"""CHOLMOD, by scikit-sparse where it is installed, else by the wheel of `cvxopt`."""

from __future__ import annotations

import importlib
import types
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ...host.available import has_module, require
from ...host.matrices import csr_of, in_double
from ...host.tasks import Refused, Solved
from ...operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ...sparse.pattern import SparsityPattern
from .base import AbstractSymbolicSolver
from .cvxopt_cholmod import ByCvxopt
from .parts import Columns, lower_columns


class CHOLMOD(AbstractSymbolicSolver):
    """Sparse Cholesky by CHOLMOD (Chen, Davis, Hager & Rajamanickam 2008, ACM TOMS 35(3)), by supernodes
    where that pays.

    For operators tagged positive or negative definite, real or Hermitian; others are refused, and a
    matrix that is not definite gives `RESULTS.singular`. float32 and complex64 are computed in double
    precision. The ordering (AMD) is made once for a pattern.

    By `scikit-sparse` (0.4, which has no wheels and needs SuiteSparse) if it is installed, else by
    `cvxopt` (GPLv3: never a default of the installation).

    **Raises** `ImportError`, with the remedy, if neither is installed.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.csr_array([[2.0, 1.0], [1.0, 3.0]])
        >>> A = lp.SparseLinearOperator.from_scipy(S, lp.positive_semidefinite_tag)
        >>> print(lp.solve(A, jnp.array([4.0, 7.0]), lp.CHOLMOD()).round(3))
        [1. 2.]
    """

    negative: bool = False

    def __check_init__(self) -> None:
        if scikit_sparse() is None:
            for module in ("cvxopt", "cvxopt.cholmod", "cvxopt.amd"):
                require("CHOLMOD", module)

    def specialize(self, operator: AbstractLinearOperator) -> CHOLMOD:
        negative = is_negative_semidefinite(operator)
        if not (negative or is_positive_semidefinite(operator)):
            raise ValueError(
                "operator: `CHOLMOD` needs a positive or negative definite operator, and this "
                f"{type(operator).__name__} does not promise that. Tag it with "
                "`positive_semidefinite_tag` if it is, or use `SuperLU()`."
            )
        return CHOLMOD(negative)

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> _Analysis:
        lower = lower_columns(pattern)
        by: Any = ByCvxopt() if scikit_sparse() is None else _ByScikitSparse()
        return _Analysis(lower, by, by.analyze(lower, values[lower.slots]))

    def factorize_with(
        self, analysis: Any, pattern: SparsityPattern, values: np.ndarray
    ) -> _Factor:
        lower, by, symbolic = analysis
        data = in_double(values)[lower.slots]
        factor = by.factorize(symbolic, lower, -data if self.negative else data)
        pivots = by.pivots(factor)
        if not np.all(pivots > 0):
            raise Refused("singular", "a pivot is not positive: the matrix is not definite")
        vanish = pivots.min() <= len(pivots) * np.finfo(float).eps * pivots.max()
        return _Factor(by, factor, pattern.nnz, csr_of(pattern, values) if vanish else None)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray | Solved:
        by, library, _, matrix = factor
        flip = transpose and np.iscomplexobj(b)  # Aᵀ = conj(A)
        x = by.solve(library, in_double(b.conj() if flip else b))
        x = x.conj() if flip else x
        x = -x if self.negative else x
        if matrix is None:
            return x
        bad = _residual_is_large(matrix.T if transpose else matrix, x, b)
        return Solved(x, ["singular" if one else "successful" for one in bad])

    def logdet(self, factor: Any) -> tuple[int, float]:
        pivots = factor.by.pivots(factor.factor)
        odd = self.negative and len(pivots) % 2
        return -1 if odd else 1, float(np.sum(np.log(pivots)))

    def nbytes(self, factor: Any) -> int:
        return _size(factor.nnz)

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        kept = _size(pattern.nnz) if analysis.by.keeps_a_factor else 0
        return super().analysis_nbytes(pattern, analysis) + kept


def _size(nnz: int) -> int:
    return 40 * 8 * nnz  # CHOLMOD does not tell; large 2-D meshes fill in so much


class _Analysis(NamedTuple):
    lower: Columns
    by: Any
    symbolic: Any


class _Factor(NamedTuple):
    """`matrix`: only if a pivot is as small as the rounding of others, so that rank may be lost."""

    by: Any
    factor: Any
    nnz: int
    matrix: sp.csr_matrix | None


def scikit_sparse() -> types.ModuleType | None:
    """`sksparse.cholmod` of the versions 0.x up to 0.4, if installed. (0.5 has other functions.)"""
    if not has_module("sksparse.cholmod"):
        return None
    try:
        module = importlib.import_module("sksparse.cholmod")
    except ImportError:  # it is there, and its library is not
        return None
    return module if hasattr(module, "analyze") else None


def _residual_is_large(matrix: Any, x: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether ‖b − Ax‖ > ε^⅓·‖b‖, by which every solve is judged, for each right-hand side."""
    with np.errstate(all="ignore"):
        residual = np.linalg.norm(b - (matrix @ x.T).T, axis=1)
        return ~(residual <= np.finfo(b.dtype).eps ** (1 / 3) * np.linalg.norm(b, axis=1))


class _ByScikitSparse:
    keeps_a_factor = False

    def analyze(self, lower: Columns, data: np.ndarray) -> Any:
        # "supernodal" is LLᵀ, which refuses what is not definite; the default may be LDLᵀ
        matrix = lower.matrix(in_double(data))
        return require("CHOLMOD", "sksparse.cholmod").analyze(matrix, mode="supernodal")

    def factorize(self, symbolic: Any, lower: Columns, data: np.ndarray) -> Any:
        return symbolic.cholesky(lower.matrix(data))

    def solve(self, factor: Any, b: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(factor.solve_A(b.T).T)

    def pivots(self, factor: Any) -> np.ndarray:
        return np.asarray(factor.D()).real
