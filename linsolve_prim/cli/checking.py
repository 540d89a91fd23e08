"""The true residual of a solution, computed by NumPy and SciPy from what the files hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..solvers.krylov import default_rtol
from .reading import System


class Check(NamedTuple):
    """The worst column's ‖b − Ax‖₂, its ratio to ‖b‖₂, and whether it is a solution (in words)."""

    residual: float
    relative: float
    passed: bool
    verdict: str


def check_solution(
    system: System, x: np.ndarray, solver: Any, tolerances: tuple[Any, Any], dtype: np.dtype
) -> Check:
    """Judge x by the tolerance that was asked for, else by the one that the solver works to.

    For rectangular A, and solvers that allow any rank, ‖Aᴴr‖ ≤ tolerance·‖A‖·‖r‖ will do as well:
    the least-squares solution. Both get a rounding of every product for free, eps·(|A||x| + |b|) in
    the dtype of the solve: the solver cannot see less of its residual.
    """
    with np.errstate(all="ignore"):  # NaN and infinity fail below, and are said
        return _check(system, x, solver, tolerances, dtype)


def _check(
    system: System, x: np.ndarray, solver: Any, tolerances: tuple[Any, Any], dtype: np.dtype
) -> Check:
    matrix, rhs = system.matrix, system.rhs
    x = x.astype(np.result_type(x.dtype, np.float64))
    residual, eps = rhs - matrix @ x, float(np.finfo(dtype).eps)
    rounding = eps * (abs(matrix) @ abs(x) + abs(rhs))
    norm = lambda array: np.linalg.norm(array, axis=0)
    r_norm, b_norm = norm(residual), norm(rhs)
    rtol, atol = _tolerances(solver, tolerances, dtype)
    allowed = np.maximum(rtol * b_norm, atol)
    solved = r_norm <= allowed + norm(rounding)
    relative = r_norm / np.where(b_norm > 0, b_norm, 1)
    worst = np.argmax(np.where(np.isnan(relative), np.inf, relative))
    values = float(np.ravel(r_norm)[worst]), float(np.ravel(relative)[worst])
    if np.all(solved):
        strictly = bool(np.all(r_norm <= allowed))
        words = "within" if strictly else f"above, by no more than rounding in {dtype} explains,"
        return Check(*values, True, f"{words} {_rule(rtol, atol)}")
    any_rank = not solver.assume_full_rank() or matrix.shape[0] != matrix.shape[1]
    if not any_rank:
        return Check(*values, False, f"NOT within {_rule(rtol, atol)}")
    adjoint = matrix.conj().T
    size = np.sqrt(np.sum(abs(matrix) ** 2))  # Frobenius
    fits = norm(adjoint @ residual) <= (
        np.maximum(rtol * r_norm, atol) * size + norm(abs(adjoint) @ rounding)
    )
    words = "the normal equations hold" if np.all(solved | fits) else "NO least-squares solution"
    return Check(*values, bool(np.all(solved | fits)), f"{words}, to {_rule(rtol, atol)}")


def _tolerances(solver: Any, tolerances: tuple[Any, Any], dtype: np.dtype) -> tuple[float, float]:
    rtol, atol = tolerances
    if rtol is None and solver.checks_residual():
        rtol = default_rtol(dtype)
    elif rtol is None:
        rtol = float(solver.tolerance(jnp.ones((), jnp.finfo(dtype).dtype)))
    return rtol, 0.0 if atol is None else atol


def _rule(rtol: float, atol: float) -> str:
    return f"max({rtol:.1e}·‖b‖, {atol:.1e})" if atol else f"{rtol:.1e}·‖b‖"
