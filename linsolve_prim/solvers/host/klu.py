"""KLU, for circuit matrices."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from ...host.available import require
from ...host.matrices import in_double
from ...sparse.pattern import SparsityPattern
from ..determinant import of_diagonal_on_host, parity_on_host
from .base import AbstractSymbolicSolver
from .spare import Lent, Spare

#: Old pivots are good enough if factors grow no more than this: what KLU's own threshold allows.
_GROWTH = 1e-3


class KLU(AbstractSymbolicSolver):
    """Sparse LU on a block triangular form by KLU (Davis & Palamadai Natarajan 2010, ACM TOMS 37(3)).

    Made for circuit matrices, whose factors stay sparse; on meshes `SuperLU` is faster. float32 and
    complex64 are computed in double precision. By the wheel of `nbklu`.

    - `reuse_pivots`: a matrix may take over the pivots of an earlier one with the same pattern (which
      takes half of the time) unless its factors grow by that. Otherwise each matrix gets its own, so
      that not even the rounding of a solution depends on what was solved before.

    **Raises** `ImportError`, with the remedy, if `nbklu` is not installed.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), lp.KLU()).round(3))
        [1. 2.]
    """

    reuse_pivots: bool = True

    def __check_init__(self) -> None:
        require("KLU", "nbklu")

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Spare:
        return Spare()  # of solvers, which hold both the ordering and the factors

    def factorize_with(
        self, analysis: Spare, pattern: SparsityPattern, values: np.ndarray
    ) -> _Factor:
        values = in_double(values)
        solver = analysis.take()
        if solver is None:
            solver = _new(pattern, np.iscomplexobj(values))
            solver.factor(values)
        elif not (self.reuse_pivots and _refactor(solver, values)):
            solver.factor(values)
        return _Factor(analysis.lend(solver), threading.Lock(), pattern.nnz)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        solver = factor.lent.item
        with factor.lock:
            # the rows of A are the columns of Aᵀ, which is what was factorized
            return (solver.solve if transpose else solver.tsolve)(in_double(b))

    def logdet(self, factor: Any) -> tuple[Any, float]:
        with factor.lock:
            parts = factor.lent.item.extract()
        # P(A/Rs)Q = LU + F, with F above the blocks of L and U
        columns = np.repeat(np.arange(len(parts["P"])), np.diff(parts["Up"]))
        sign, log = of_diagonal_on_host(np.asarray(parts["Ux"])[parts["Ui"] == columns])
        scale = parts["Rs"]  # of rows: positive
        sign *= parity_on_host(parts["P"]) * parity_on_host(parts["Q"])
        return sign, log + float(np.sum(np.log(scale)))

    def nbytes(self, factor: Any) -> int:
        return _size(factor.nnz)

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        return super().analysis_nbytes(pattern, analysis) + _size(pattern.nnz)


class _Factor(NamedTuple):
    lent: Lent
    lock: threading.Lock
    nnz: int


def _size(nnz: int) -> int:
    return 20 * 16 * nnz


def _new(pattern: SparsityPattern, is_complex: bool) -> Any:
    solver = require("KLU", "nbklu").KLUSolver(
        index_bits=32, complex_values=is_complex, singular_as_error=True
    )
    solver.analyze(pattern.shape[0], _int32(pattern.indptr), _int32(pattern.indices))
    return solver


def _refactor(solver: Any, values: np.ndarray) -> bool:
    """Whether it could be factorized with the pivots that it has."""
    try:
        solver.refactor(values)
        return bool(solver.rgrowth(values) >= _GROWTH)
    except require("KLU", "nbklu").KLUException:  # a pivot is zero
        return False


def _int32(x: np.ndarray) -> np.ndarray:
    return np.array(x, np.int32)
