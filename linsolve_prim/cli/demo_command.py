"""`python -m linsolve_prim demo`: find a coefficient field by differentiating through the solve."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import linsolve_prim as lp

from ..auto import Choice
from . import FAILURE, SUCCESS
from .demo_problem import Problem, airfoil_problem, file_problem
from .reading import check_out
from .report import row, seconds

_NOISE_FLOOR = 1e-3  # data without noise are still not fitted to more digits than these
#: Weight of the roughness penalty: of 1, 3, 10, 30 and 100 the one with the smallest field error at
#: 1 % noise (46, 31, 22, 20 and 23 %) [measured: this command].
_ROUGHNESS = 30.0
_BOUND = 4.0  # |log κ|: keeps a first, long line search from κ = exp(100)


class Data(NamedTuple):
    """What is observed: the values at some unknowns of one solution for each load, with noise."""

    sensors: np.ndarray
    values: np.ndarray  # (k, sensors)
    sigma: np.ndarray  # (k, 1), the size of the noise


class Point(NamedTuple):
    """One evaluation: objective, gradient, misfit, and how its solves went at worst."""

    objective: float
    gradient: np.ndarray
    misfit: float
    residual: float
    ok: bool


class Fit(NamedTuple):
    """The outcome: log κ, and a row (misfit, gradient norm, field error) for each iteration."""

    field: np.ndarray
    history: list[tuple[float, float, float]]
    evaluations: int
    seconds: float


def run(arguments: argparse.Namespace) -> int:
    """Make the data, fit the field, check the gradient, draw; fail if the misfit did not fall."""
    check_out(arguments.out, (".png", ".pdf", ".svg"))
    with jax.enable_x64(True):
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    problem = airfoil_problem() if arguments.file is None else file_problem(arguments.file)
    truth = jnp.asarray(problem.truth)
    first = solve_all(problem, truth)
    _report_problem(problem, lp.AutoLinearSolver().choose(make_operator(problem, truth)))
    for kappa, solution in (("true κ", first), ("first κ = 1", solve_all(problem, 0 * truth))):
        if not _succeeded(solution):
            reason = lp.RESULTS[_worst(solution)].splitlines()[0]
            row("status", f"FAILED: A(κ) cannot be solved at the {kappa}. {reason}")
            return FAILURE
    rng = np.random.default_rng(arguments.seed)
    data = observe(problem, np.asarray(first.value), arguments.noise, rng)
    size = f"{data.values.size} values at {data.sensors.size} points"
    row("data", f"{size}, {_percent(arguments.noise)} noise")
    evaluate = make_objective(problem, data)
    print()
    with _few_threads(len(problem.free)):
        fit = optimise(problem, evaluate, arguments.steps)
        error = gradient_error(evaluate, 0.5 * fit.field, rng)
    print()
    good = _report_fit(problem, fit, evaluate(fit.field), error)
    _draw(arguments.out, problem, data, fit)
    row("status", "the misfit fell" if good else "FAILED: the misfit did not fall")
    return SUCCESS if good else FAILURE


def _few_threads(unknowns: int) -> contextlib.AbstractContextManager[Any]:
    """One BLAS thread for small systems, if threadpoolctl is there to say so.

    They gain nothing from more, and wait for them where cores are shared: 530 instead of 4 ms for
    an evaluation on the airfoil [measured: this command, 2 cores, a load of 9].
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1 if unknowns < 1000 else None, user_api="blas")


# ---- the mathematics -----------------------------------------------------------------------------


def solve_all(problem: Problem, field: jax.Array) -> lp.Solution:
    """A(exp(field))u = f for every load f. Under `vmap` they share one factorization."""
    operator = make_operator(problem, field)

    def solve(load: jax.Array) -> lp.Solution:
        solution = lp.linear_solve(operator, load, throw=False)
        return dataclasses.replace(solution, state=None)  # else one copy for each load

    return jax.vmap(solve)(jnp.asarray(problem.loads))


def make_operator(problem: Problem, field: jax.Array) -> lp.SparseLinearOperator:
    """A(exp(field)), which the solver is chosen by."""
    tags = lp.positive_semidefinite_tag if problem.definite else ()
    return lp.SparseLinearOperator(problem.assemble(jnp.exp(field)), problem.pattern, tags)


def observe(problem: Problem, exact: np.ndarray, noise: float, rng: np.random.Generator) -> Data:
    """Noisy values of the solutions at half of the unknowns."""
    n = exact.shape[1]
    sensors = np.sort(rng.choice(n, size=max(n // 2, 1), replace=False))
    values = exact[:, sensors]
    size = np.sqrt(np.mean(values**2, axis=1, keepdims=True))
    noisy = values + noise * size * rng.standard_normal(values.shape)
    return Data(sensors, noisy, max(noise, _NOISE_FLOOR) * size)


def make_objective(problem: Problem, data: Data) -> Callable[[np.ndarray], Point]:
    """J(log κ) = ½ Σ ((u − d)/σ)² + ½ w |grad log κ|², with its gradient, compiled once.

    The misfit that is shown is the mean of ((u − d)/σ)²: at 1, the data are met up to their noise.
    """
    sensors, values, sigma = (jnp.asarray(part) for part in data)
    roughness = jnp.asarray(problem.roughness)

    def objective(field: jax.Array) -> tuple[jax.Array, Any]:
        solution = solve_all(problem, field)
        squares = ((solution.value[:, sensors] - values) / sigma) ** 2
        penalty = 0.5 * _ROUGHNESS * (field @ (roughness @ field))
        return 0.5 * squares.sum() + penalty, (squares.mean(), solution)

    compiled = jax.jit(jax.value_and_grad(objective, has_aux=True))

    def evaluate(field: np.ndarray) -> Point:
        (value, (misfit, solution)), gradient = compiled(jnp.asarray(field))
        worst, ok = float(solution.stats["relative_residual"].max()), _succeeded(solution)
        return Point(float(value), np.asarray(gradient), float(misfit), worst, ok)

    return evaluate


def optimise(problem: Problem, evaluate: Callable[[np.ndarray], Point], steps: int) -> Fit:
    """L-BFGS-B from κ = 1, with a line printed now and then."""
    history: list[tuple[float, float, float]] = []
    field = np.zeros_like(problem.truth)
    print(f"{'iteration':>9}{'misfit':>12}{'|gradient|':>13}{'field error':>14}")

    latest: list[tuple[np.ndarray, Point]] = []

    def note(field: np.ndarray) -> None:
        at, point = latest[-1]
        point = point if np.array_equal(at, field) else evaluate(field)
        norm = float(np.linalg.norm(point.gradient))
        history.append((point.misfit, norm, field_error(problem, field)))
        if _is_shown(len(history) - 1):
            _print_iteration(history)

    def value_and_gradient(field: np.ndarray) -> tuple[float, np.ndarray]:
        latest[:] = [(field.copy(), evaluate(field))]
        return latest[0][1].objective, latest[0][1].gradient

    value_and_gradient(field)  # compiles
    start = time.perf_counter()
    note(field)
    bounds = scipy.optimize.Bounds(-_BOUND, _BOUND)
    options = {"maxiter": steps, "maxfun": 20 * steps, "maxcor": 30, "ftol": 1e-6, "gtol": 1e-6}
    found = scipy.optimize.minimize(
        value_and_gradient,
        field,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        callback=note,
        options=options,
    )
    if not _is_shown(len(history) - 1):
        _print_iteration(history)
    return Fit(found.x, history, found.nfev, time.perf_counter() - start)


def field_error(problem: Problem, field: np.ndarray) -> float:
    """‖log κ − truth‖ / ‖truth‖ in the L² norm."""
    norm = lambda values: np.sqrt(np.sum(problem.weights * values**2))
    return float(norm(field - problem.truth) / norm(problem.truth))


def gradient_error(evaluate: Any, field: np.ndarray, rng: np.random.Generator) -> float:
    """The relative difference of the gradient and a central difference, in a random direction."""
    direction = rng.standard_normal(field.shape)
    direction /= np.linalg.norm(direction)
    step = 1e-4  # error O(step²) of the difference, against O(ε/step) of rounding
    ahead, behind = evaluate(field + step * direction), evaluate(field - step * direction)
    difference = (ahead.objective - behind.objective) / (2 * step)
    return abs(evaluate(field).gradient @ direction / difference - 1)


# ---- the report ----------------------------------------------------------------------------------


def _report_problem(problem: Problem, choice: Choice) -> None:
    loads, n = problem.loads.shape
    row("problem", problem.title)
    for text in problem.notes:
        row("", text)
    row("unknowns", f"{n}, with {loads} right-hand sides; log κ at {len(problem.points)} points")
    row("matrix", f"sparse, {problem.pattern.nnz} entries")
    row("solver", f"{choice.solver!r}, because {choice.reason}")
    row("", "one factorization for all right-hand sides, and for the gradient")


def _report_fit(problem: Problem, fit: Fit, last: Point, error: float) -> bool:
    before, after = fit.history[0], fit.history[-1]
    worst = "successful" if last.ok else "FAILED"
    row("last solves", f"{worst}, relative residual {last.residual:.1e}")
    row("gradient check", f"{error:.1e} relative, against a central difference")
    row("misfit", f"{before[0]:.4g} -> {after[0]:.4g} (1: down to the noise)")
    row("field error", f"{_percent(before[2])} -> {_percent(after[2])}")
    each = f"{seconds(fit.seconds / fit.evaluations)} for a value with its gradient"
    row("time", f"{seconds(fit.seconds)} for {len(fit.history) - 1} iterations, {each}")
    return bool(last.ok and after[0] < before[0])


def _draw(path: str, problem: Problem, data: Data, fit: Fit) -> None:
    try:
        from .demo_picture import draw
    except ImportError:
        row("picture", 'none: needs matplotlib (`pip install "linsolve-prim[demo]"`)')
        return
    state = np.asarray(solve_all(problem, jnp.asarray(fit.field)).value)
    draw(path, problem, data, fit, state)
    row("picture", path)


def _print_iteration(history: list[tuple[float, float, float]]) -> None:
    misfit, norm, error = history[-1]
    print(f"{len(history) - 1:>9}{misfit:>12.4g}{norm:>13.3e}{_percent(error):>14}")


def _is_shown(iteration: int) -> bool:
    return iteration in (0, 1, 2, 5) or iteration % 10 == 0


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _succeeded(solution: lp.Solution) -> bool:
    (codes,) = jax.tree.leaves(solution.result == lp.RESULTS.successful)
    return bool(codes.all())


def _worst(solution: lp.Solution) -> Any:
    (failed,) = np.nonzero(~np.asarray(solution.result == lp.RESULTS.successful))
    return jax.tree.map(lambda leaf: leaf[failed[0]], solution.result)
