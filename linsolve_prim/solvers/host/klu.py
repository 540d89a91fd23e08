"""KLU, for circuit matrices."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ...host.available import require
from ...host.matrices import in_double
from ...sparse.pattern import SparsityPattern
from ..determinant import of_diagonal_on_host, parity_on_host
from .base import AbstractHostSolver


class KLU(AbstractHostSolver):
    """Sparse LU on a block triangular form by KLU (Davis & Palamadai Natarajan 2010, ACM TOMS 37(3)).

    Made for circuit matrices, whose factors stay sparse; on meshes `SuperLU` is faster. float32 and
    complex64 are computed in double precision. By the wheel of `nbklu`.

    **Raises** `ImportError`, with the remedy, if `nbklu` is not installed.
    """

    def __check_init__(self) -> None:
        require("KLU", "nbklu")

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        is_complex = np.iscomplexobj(values)
        solver = require("KLU", "nbklu").KLUSolver(
            index_bits=32, complex_values=is_complex, singular_as_error=True
        )
        # the rows of A are the columns of Aᵀ, which is what is factorized
        solver.analyze(pattern.shape[0], _int32(pattern.indptr), _int32(pattern.indices))
        solver.factor(in_double(values))
        return solver, threading.Lock(), pattern.nnz

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        solver, lock, _ = factor
        rhs = np.array(in_double(b), order="C")
        with lock:
            out = solver.solve(rhs) if transpose else solver.tsolve(rhs)
        return np.asarray(rhs if out is None else out).reshape(b.shape)

    def logdet(self, factor: Any) -> tuple[Any, float]:
        solver, lock, _ = factor
        with lock:
            parts = solver.extract()
        # P(A/Rs)Q = LU + F, with F above the blocks of L and U
        columns = np.repeat(np.arange(len(parts["P"])), np.diff(parts["Up"]))
        sign, log = of_diagonal_on_host(np.asarray(parts["Ux"])[parts["Ui"] == columns])
        scale = parts["Rs"]  # of rows: positive
        sign *= parity_on_host(parts["P"]) * parity_on_host(parts["Q"])
        return sign, log + float(np.sum(np.log(scale)))

    def nbytes(self, factor: Any) -> int:
        return 20 * 16 * factor[2]


def _int32(x: np.ndarray) -> np.ndarray:
    return np.array(x, np.int32)
