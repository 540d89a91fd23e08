"""What the iterative host solvers share: their tolerance, and a matrix with its transpose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..krylov.stopping import default_rtol


def rtol_of(rtol: float | None, dtype: Any) -> float:
    """The relative tolerance for right-hand sides of a dtype."""
    return default_rtol(dtype) if rtol is None else rtol


def tolerance(rtol: float | None, atol: float, rhs_norm: Any) -> Any:
    """What the residual is judged by; it was computed once before, in another order."""
    return 1.01 * (rtol_of(rtol, rhs_norm.dtype) * rhs_norm + atol)


def scaled(rhs: np.ndarray) -> tuple[np.ndarray, float]:
    """`(rhs / size, size)` with entries of at most one, so that no square over- or underflows."""
    size = float(np.abs(rhs).max())
    return (rhs / np.asarray(size, rhs.real.dtype) if size > 0 else rhs), size


def times_power(x: np.ndarray, exponent: int) -> np.ndarray:
    """x·2**exponent, by which nothing is rounded, also where 2**exponent is no number."""
    out = np.array(x)
    parts = out.view(out.real.dtype)  # real and imaginary ones
    np.ldexp(parts, exponent, out=parts)
    return out


class BothWays:
    """A matrix with what `make` prepares for it; and, made when asked for, its transpose with that."""

    def __init__(self, matrix: sp.csr_matrix, make: Callable[[sp.csr_matrix], Any]):
        self.matrix, self._make, self._lock = matrix, make, threading.Lock()
        self._made: dict[bool, tuple[sp.csr_matrix, Any]] = {}
        self.get(False)

    def get(self, transpose: bool) -> tuple[sp.csr_matrix, Any]:
        with self._lock:
            if transpose not in self._made:
                matrix = self.matrix.T.tocsr() if transpose else self.matrix
                self._made[transpose] = matrix, self._make(matrix)
            return self._made[transpose]
