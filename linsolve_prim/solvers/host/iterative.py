"""What the iterative host solvers share: their tolerance, and a matrix with its transpose."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...host.preconditioning import BothWays as BothWays
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
