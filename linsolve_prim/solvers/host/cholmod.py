"""CHOLMOD, by scikit-sparse where it is installed, else by the wheel of `cvxopt`: the library in that, or its
module."""

from __future__ import annotations

import functools
import importlib
import types
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from ...host.available import has_module, require
from ...host.matrices import csr_of, in_double, solves
from ...host.tasks import Solved
from ...operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ...sparse.pattern import SparsityPattern
from . import cholmod_library
from .base import AbstractSymbolicSolver
from .cholmod_library import ORDERINGS, ByLibrary
from .cvxopt_cholmod import ByCvxopt, about_nbytes, least_pivot, lower_part


class CHOLMOD(AbstractSymbolicSolver):
    """Sparse Cholesky by CHOLMOD (Chen, Davis, Hager & Rajamanickam 2008, ACM TOMS 35(3)), by supernodes
    where that pays.

    For operators tagged positive or negative definite, real or Hermitian; others are refused, and a
    matrix that is not definite gives `RESULTS.singular`. float32 and complex64 are computed in double
    precision.

    - `ordering`: "amd" (approximate minimum degree), "metis" (nested dissection, with `pymetis`), or "auto":
      AMD, and where it leaves much to do METIS, if that is installed and leaves less. It is made once for a
      pattern. METIS takes 0.7 s for 40³ unknowns in 3-D, and saves nearly half of each factorization there; in
      2-D, a tenth to a third from 400² on, for 1 s (4 s for 700²): then ask for it.

    By `scikit-sparse` (0.4, which has no wheels and needs SuiteSparse) if it is installed, else by
    `cvxopt` (GPLv3: never a default of the installation).

    **Raises** `ImportError`, with the remedy, if neither is installed.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.csr_array([[2.0, 1.0], [1.0, 3.0]])
        >>> A = lp.SparseLinearOperator.from_scipy(S, lp.positive_semidefinite_tag)
        >>> print(lp.solve(A, jnp.array([4.0, 7.0]), lp.CHOLMOD()).round(3))
        [1. 2.]
    """

    ordering: str = "auto"
    negative: bool = False
    keeps_values: ClassVar[bool] = False

    def __check_init__(self) -> None:
        if self.ordering not in ORDERINGS:
            raise ValueError(
                f"ordering: must be one of {', '.join(ORDERINGS)}; got {self.ordering!r}."
            )
        if scikit_sparse() is None:
            if self.ordering == "metis":
                require("METIS", "pymetis")
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
        return CHOLMOD(self.ordering, negative)

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> _Analysis:
        by: Any = _ByScikitSparse()
        if scikit_sparse() is None:
            by = ByLibrary() if cholmod_library.fits(pattern) else ByCvxopt()
        try:
            return _Analysis(by, by.analyze(pattern, values, self.ordering))
        except OverflowError:  # too large for 32 bits, which cvxopt is not
            return _Analysis(ByCvxopt(), ByCvxopt().analyze(pattern, values, self.ordering))

    def factorize_with(
        self, analysis: Any, pattern: SparsityPattern, values: np.ndarray
    ) -> _Factor:
        by, symbolic = analysis
        factor = by.factorize(symbolic, pattern, -values if self.negative else values)
        matrix = None
        if by.least_pivot(factor) <= pattern.shape[0] * np.finfo(float).eps:
            matrix = csr_of(pattern, np.array(values))
        return _Factor(by, factor, pattern.nnz, matrix)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray | Solved:
        by, library, _, matrix = factor
        flip = transpose != by.of_transpose and np.iscomplexobj(b)  # Aᵀ = conj(A)
        x = by.solve(library, in_double(b.conj() if flip else b))
        x = x.conj() if flip else x
        x = -x if self.negative else x
        if matrix is None:
            return x
        good = solves(
            matrix.T if transpose else matrix, x, b, 1 / 3
        )  # by which every solve is judged
        return Solved(x, ["successful" if one else "singular" for one in good])

    def logdet(self, factor: Any) -> tuple[int, float]:
        pivots = factor.by.pivots(factor.factor)
        odd = self.negative and len(pivots) % 2
        return -1 if odd else 1, float(np.sum(np.log(pivots)))

    def runs_in_threads(self) -> bool:
        return _runs_in_threads()

    def nbytes(self, factor: Any) -> int:
        return int(factor.by.nbytes(factor.factor, factor.nnz))

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        kept = analysis.by.analysis_nbytes(analysis.symbolic, pattern.nnz)
        return super().analysis_nbytes(pattern, analysis) + int(kept)


class _Analysis(NamedTuple):
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


@functools.cache  # asked in each callback
def _runs_in_threads() -> bool:
    return scikit_sparse() is None and cholmod_library.library() is not None


class _ByScikitSparse:
    of_transpose = False

    def analyze(self, pattern: SparsityPattern, values: np.ndarray, ordering: str) -> Any:
        # "supernodal" is LLᵀ, which refuses what is not definite; the default may be LDLᵀ
        settings = {"mode": "supernodal"}
        if ordering != "auto":  # which CHOLMOD knows itself
            settings["ordering_method"] = ordering
        matrix = lower_part(pattern, values)
        return require("CHOLMOD", "sksparse.cholmod").analyze(matrix, **settings)

    def factorize(self, symbolic: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        return symbolic.cholesky(lower_part(pattern, values))

    def solve(self, factor: Any, b: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(factor.solve_A(b.T).T)

    def pivots(self, factor: Any) -> np.ndarray:
        return np.asarray(factor.D()).real

    def least_pivot(self, factor: Any) -> float:
        return least_pivot(self.pivots(factor))

    def nbytes(self, factor: Any, nnz: int) -> int:
        return about_nbytes(nnz)

    def analysis_nbytes(self, symbolic: Any, nnz: int) -> int:
        return 0
