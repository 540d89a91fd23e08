"""Honesty: failures that happened, and failures that were told; us beside our peers.

A solve failed if ‖b − Ax‖, computed again by NumPy in double precision, is more than ten times what
was asked for, or not finite. It was told if the package said so: by its result code, or (for those
that have none) by NaN in every entry, which nobody overlooks. A false alarm is a failure that was
told where the residual is as small as was asked for.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg as jspla
import numpy as np

import linsolve_prim as lp

from .report import Table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lineax as lx

RTOL = {"float32": 1e-4, "float64": 1e-8}
#: What direct solvers are held to: far above the rounding of a system that can be solved.
DIRECT_RTOL = 1e-6

Solve = Callable[[Any, Any], tuple[Any, Any]]  # A, b -> x, whether it says that it succeeded


class _Case(NamedTuple):
    a: np.ndarray
    b: np.ndarray


def _orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def _with_spectrum(rng: np.random.Generator, values: np.ndarray, symmetric: bool) -> np.ndarray:
    """Q diag(values) Qᵀ; if not symmetric, times a matrix near the identity."""
    n = len(values)
    q = _orthogonal(rng, n)
    near = np.eye(n) if symmetric else np.eye(n) + 0.3 * rng.normal(size=(n, n)) / n**0.5
    return q @ np.diag(values) @ q.T @ near


def krylov_cases(symmetric: bool, dtype: Any) -> list[_Case]:
    """60 systems of 30 unknowns: 20 easy ones, 20 with condition numbers up to 1e14, 20 singular."""
    rng, cases, n = np.random.default_rng(2), [], 30
    for kind in ("easy", "conditioned", "singular"):
        for k in range(20):
            values = np.linspace(1.0, 10.0, n)
            if kind == "conditioned":
                values = np.logspace(0, -2 - 0.6 * k, n)
            if kind == "singular":
                values[: 1 + k // 5] = 0.0
            a = _with_spectrum(rng, values, symmetric)
            cases.append(_Case(a.astype(dtype), rng.normal(size=n).astype(dtype)))
    return cases


def singular_cases(definite: bool) -> list[_Case]:
    """60 systems of four unknowns that have no solution."""
    rng, cases = np.random.default_rng(1), []
    for rank in (1, 2, 3):
        for _ in range(20):
            left = rng.normal(size=(4, rank))
            a = left @ (left.T if definite else rng.normal(size=(rank, 4)))
            cases.append(_Case(a, rng.normal(size=4)))
    return cases


def _package(m: Any, solver: Any, definite: bool) -> Solve:
    """Lineax's interface, which is ours too."""
    tags = m.positive_semidefinite_tag if definite else ()

    def solve(a: Any, b: Any) -> tuple[Any, Any]:
        operator = m.MatrixLinearOperator(a, tags)
        solution = m.linear_solve(operator, b, solver, throw=False)
        return solution.value, solution.result == m.RESULTS.successful

    return solve


def _without_code(fn: Callable[[Any, Any], Any]) -> Solve:
    def solve(a: Any, b: Any) -> tuple[Any, Any]:
        x = fn(a, b)
        return x, ~jnp.all(jnp.isnan(x))

    return solve


def _count(solve: Solve, cases: list[_Case], rtol: float) -> str:
    """`failed: told` and false alarms of a contestant."""
    compiled, failed, told, alarms = jax.jit(solve), 0, 0, 0
    for a, b in cases:
        x, success = compiled(a, b)
        with np.errstate(all="ignore"):
            residual = b.astype(np.float64) - a.astype(np.float64) @ np.asarray(x, np.float64)
        fine = np.linalg.norm(residual) <= 10 * rtol * np.linalg.norm(b)  # NaN: it is not
        failed += not fine
        told += not fine and not bool(success)
        alarms += bool(fine and not success)
    return f"{told} of {failed}" + (f" ({alarms} false)" if alarms else "")


def _methods(dtype: str) -> dict[str, tuple[bool, dict[str, Solve]]]:
    """By name: whether it needs definite systems, and the contestants."""
    rtol = RTOL[dtype]
    jaxs = lambda f: _without_code(lambda a, b: f(a, b, tol=rtol, maxiter=300)[0])
    settings = {"rtol": rtol, "atol": 0.0, "max_steps": 300}
    # ours counts steps, theirs restarts of 20 steps
    theirs = {**settings, "atol": 1e-300 if dtype == "float64" else 1e-30}
    return {
        "CG": (True, {"ours": _package(lp, lp.CG(**settings), True),
                      "Lineax": _package(lx, lx.CG(**theirs), True), "JAX": jaxs(jspla.cg)}),
        "GMRES": (False, {"ours": _package(lp, lp.GMRES(**{**settings, "max_steps": 6000}), False),
                          "Lineax": _package(lx, lx.GMRES(**theirs), False), "JAX": jaxs(jspla.gmres)}),
        "BiCGStab": (False, {"ours": _package(lp, lp.BiCGStab(**settings), False),
                             "Lineax": _package(lx, lx.BiCGStab(**theirs), False),
                             "JAX": jaxs(jspla.bicgstab)}),
    }  # fmt: skip


def _direct() -> dict[str, tuple[bool, dict[str, Solve]]]:
    inverse = lambda a, b: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(a), b)
    return {
        "LU": (False, {"ours": _package(lp, lp.LU(), False), "Lineax": _package(lx, lx.LU(), False),
                       "JAX": _without_code(jnp.linalg.solve)}),
        "Cholesky": (True, {"ours": _package(lp, lp.Cholesky(), True),
                            "Lineax": _package(lx, lx.Cholesky(), True), "JAX": _without_code(inverse)}),
    }  # fmt: skip


def failures() -> Table:
    """Failures that were told, of those that happened."""
    rows = []
    for name, (definite, contestants) in _direct().items():
        cells = [_count(s, singular_cases(definite), DIRECT_RTOL) for s in contestants.values()]
        rows.append([f"{name}, singular, float64", *cells])
    for dtype, rtol in RTOL.items():
        for name, (definite, contestants) in _methods(dtype).items():
            cases = krylov_cases(definite, np.dtype(dtype))
            cells = [_count(solve, cases, rtol) for solve in contestants.values()]
            rows.append([f"{name}, {dtype}", *cells])
    header = ["60 systems each; told, of those that failed", "ours", "Lineax", "JAX"]
    return Table("Honesty: failures that were told", header, rows)
