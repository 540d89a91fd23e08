"""RSLab, a supernodal sparse solver in Rust."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from ...host.available import require
from ...operators import AbstractLinearOperator, is_positive_semidefinite
from ...sparse.pattern import SparsityPattern
from .base import AbstractHostSolver
from .superlu import GENERAL, SuperLU

#: Pivots that are too small are raised to this part of ‖A‖ if the plain factorization refuses; a few
#: steps of refinement then make up for it.
_PERTURBATION = 1e-8
_REFINEMENTS = 5


class _Factor(NamedTuple):
    factor: Any
    refine: int


class _Columns(NamedTuple):
    indices: np.ndarray
    indptr: np.ndarray
    slots: np.ndarray  # values[slots] are the data


class RSLab(AbstractHostSolver):
    """Supernodal LDLᵀ (for real operators tagged positive definite) or LU, by `rslab` (MIT).

    Fast, above all in three dimensions, and its symbolic analysis is made once for a pattern. It
    pivots within supernodes only, so a matrix that it refuses is tried again with perturbed pivots and
    iterative refinement, and what still has a bad residual goes to `SuperLU`.

    - `ordering`: as for `rslab.analyze`: "auto", "amd", "amf", "metis" or "rcm".
    - `threads`: of one factorization.

    **Raises** `ImportError`, with the remedy, if `rslab` is not installed.
    """

    ordering: str = "auto"
    threads: int = 1
    symmetric: bool | None = None
    releases_gil: ClassVar[bool] = True

    def __check_init__(self) -> None:
        require("RSLab", "rslab")  # here, and not in a callback: its importing thread must live on

    def specialize(self, operator: AbstractLinearOperator) -> RSLab:
        symmetric = self.symmetric
        if symmetric is None:
            real = not jnp.issubdtype(operator.in_structure().dtype, jnp.complexfloating)
            symmetric = real and is_positive_semidefinite(operator)
        return RSLab(self.ordering, self.threads, symmetric)

    def separates_analysis(self) -> bool:
        return True

    def _columns(self, pattern: SparsityPattern) -> _Columns:
        """What RSLab is given, by columns: A (not Aᵀ, whose solves take one right-hand side at a time),
        or its lower triangle."""

        def make() -> _Columns:
            columns = pattern.T
            if not self.symmetric:
                return _Columns(columns.indices, columns.indptr, pattern.transpose_order)
            lower = columns.indices >= columns.rows
            counts = np.bincount(columns.rows[lower], minlength=pattern.shape[1])
            indptr = np.concatenate([[0], np.cumsum(counts)]).astype(columns.indptr.dtype)
            return _Columns(columns.indices[lower], indptr, pattern.transpose_order[lower])

        return pattern.cached(("rslab", bool(self.symmetric)), make)

    def _matrix(self, pattern: SparsityPattern, values: np.ndarray) -> sp.csc_matrix:
        indices, indptr, slots = self._columns(pattern)
        return sp.csc_matrix((values[slots], indices, indptr), shape=pattern.shape)

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        path = "ldlt" if self.symmetric else "lu"
        settings = {} if self.ordering == "auto" else {"ordering": self.ordering}
        return require("RSLab", "rslab").analyze(
            self._matrix(pattern, values), path=path, threads=self.threads, **settings
        )

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        return self.factorize_with(self.analyze(pattern, values), pattern, values)

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        try:
            return _Factor(analysis.factor(values[self._columns(pattern).slots]), 0)
        except RuntimeError:
            if self.symmetric:
                raise
        perturbed = require("RSLab", "rslab").lu(
            self._matrix(pattern, values), preconditioner=_PERTURBATION, threads=self.threads
        )
        return _Factor(perturbed, _REFINEMENTS)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        lu, refine = factor
        if transpose and not self.symmetric:
            return np.stack([lu.solve_transpose(np.ascontiguousarray(row)) for row in b])
        if refine or len(b) == 1:
            return np.stack([lu.solve(np.ascontiguousarray(row), refine=refine) for row in b])
        return lu.solve_many(b.T).T

    def nbytes(self, factor: Any) -> int:
        return int(factor.factor.heap_bytes)

    def fallback(self) -> SuperLU:
        return GENERAL
