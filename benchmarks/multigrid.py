"""CG with multigrid on the device beside PyAMG's own: iterations, set-up, solves, values that change."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyamg

import linsolve_prim as lp
from linsolve_prim.preconditioners import AMG, GeometricMultigrid, LowPrecision

from .krylov import stencil
from .report import Table
from .timing import markdown, spread, time_together

RTOL = 1e-8
METHODS = ("smoothed_aggregation", "ruge_stuben")
SHORT = {"smoothed_aggregation": "SA", "ruge_stuben": "RS"}
#: Name: PyAMG's method, and ours beside it.
KINDS: dict[str, tuple[str, Callable[[], Any]]] = {}
for _method, _name_of in SHORT.items():
    KINDS[_name_of] = _method, lambda method=_method: AMG(method)
    KINDS[f"{_name_of} single"] = _method, lambda method=_method: LowPrecision(AMG(method))


def _pyamg(matrix: Any, method: str) -> Any:
    if method == "ruge_stuben":
        return pyamg.ruge_stuben_solver(matrix)
    return pyamg.smoothed_aggregation_solver(matrix, symmetry="hermitian")


def _poisson(shape: tuple[int, ...]) -> Any:
    matrix = pyamg.gallery.poisson(shape, format="csr")
    return matrix, lp.SparseLinearOperator.from_scipy(matrix, lp.positive_semidefinite_tag)


def _cg(operator: Any, b: Any, m: Any) -> Any:
    solver = lp.CG(RTOL, 0.0, preconditioner=m)
    solution = lp.linear_solve(operator, b, solver, throw=False)
    return solution.value, solution.stats["num_steps"], solution.stats["relative_residual"]


def _name(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = call()
    jax.block_until_ready(jax.tree.leaves(out))
    return time.perf_counter() - start, out


def iterations(quick: bool) -> Table:
    """Steps of CG to 1e-8, with the true residual checked, beside PyAMG's own."""
    shapes: list[tuple[int, ...]] = [(128, 128)]
    if not quick:
        shapes += [(64, 64), (16,) * 3, (256, 256), (512, 512), (1024, 1024), (32,) * 3, (64,) * 3]
    rows = []
    for shape in shapes:
        matrix, operator = _poisson(shape)
        b = np.random.default_rng(0).standard_normal(matrix.shape[0])
        cells = []
        for method in METHODS:
            residuals: list[float] = []
            _pyamg(matrix, method).solve(b, tol=RTOL, accel="cg", residuals=residuals)
            x, steps, _ = _cg(operator, jnp.asarray(b), AMG(method))
            assert np.linalg.norm(b - matrix @ np.asarray(x)) <= 1.01 * RTOL * np.linalg.norm(b)
            cells += [str(len(residuals) - 1), str(int(steps))]
        grid = lp.FunctionLinearOperator(
            stencil, jax.ShapeDtypeStruct(shape, jnp.float64), lp.positive_semidefinite_tag
        )
        x, steps, relative = _cg(grid, jnp.asarray(b.reshape(shape)), GeometricMultigrid())
        assert float(relative) <= 1.01 * RTOL
        rows.append([_name(shape), *cells, str(int(steps))])
    header = ["Poisson", "PyAMG SA", "AMG SA", "PyAMG RS", "AMG RS", "GeometricMultigrid"]
    return markdown("CG with multigrid: steps to 1e-8", header, rows)


def solves(seconds: float, quick: bool) -> Table:
    """Set-up, compilation and solve, each beside PyAMG's in the same process."""
    rows = []
    for shape in [(256, 256)] if quick else [(700, 700), (1024, 1024), (64, 64, 64)]:
        matrix, operator = _poisson(shape)
        b = np.random.default_rng(0).standard_normal(matrix.shape[0])
        rhs = jnp.asarray(b)
        for kind, (method, make) in KINDS.items():
            setups, ours = [], []
            for _ in range(3):  # of values that are not known yet
                fresh = lp.SparseLinearOperator(
                    operator.values + 0, operator.pattern, operator.tags
                )
                setups.append(_timed(lambda: _pyamg(matrix, method)))
                ours.append(_timed(lambda: make().init(fresh)))
            reference, m = setups[0][1], ours[0][1]
            lowered = jax.jit(_cg).lower(operator, rhs, m)
            compiling, program = _timed(lowered.compile)
            x, steps, _ = program(operator, rhs, m)
            assert np.linalg.norm(b - matrix @ np.asarray(x)) <= 1.01 * RTOL * np.linalg.norm(b)
            times = time_together(
                {
                    "pyamg": lambda: reference.solve(b, tol=RTOL, accel="cg"),
                    "ours": lambda: program(operator, rhs, m),
                },
                seconds,
            )
            setup, own = (statistics.median(t for t, _ in s) for s in (setups, ours))
            rows.append(
                [
                    f"{_name(shape)}, {kind}",
                    f"{setup:.2f}",
                    f"{own / setup:.2f}",
                    f"{compiling:.2f}",
                    f"{times['pyamg'][0] / 1e3:.0f}",
                    f"{times['ours'][0] / times['pyamg'][0]:.2f}",
                    str(int(steps)),
                    spread(times),
                ]
            )
    header = [
        "Poisson", "PyAMG set-up, s", "ours, ×", "compile, s", "PyAMG solve, ms", "ours, ×", "steps",
        "spread of the solves",
    ]  # fmt: skip
    return markdown("CG with algebraic multigrid: time", header, rows)


def refreshed(quick: bool) -> Table:
    """20 solves with values that change: a refreshed hierarchy, and PyAMG from scratch each time."""
    rows = []
    for shape in [(256, 256)] if quick else [(700, 700), (1024, 1024)]:
        matrix, operator = _poisson(shape)
        b = np.random.default_rng(0).standard_normal(matrix.shape[0])
        rhs, count = jnp.asarray(b), 20
        # definite: the diagonal grows, and all entries are scaled
        changes = [(1 + 0.1 * k, 0.05 * k) for k in range(count)]
        diagonal = jnp.asarray(operator.pattern.diagonal_slots())
        for kind, (method, make) in KINDS.items():
            preparing, hierarchy = _timed(lambda: make().prepare(operator))

            @jax.jit
            def solve(values, scale, shift, b, hierarchy):
                values = (scale * values).at[diagonal].add(shift)
                own = lp.SparseLinearOperator(values, operator.pattern, operator.tags)
                return _cg(own, b, hierarchy)

            arguments = lambda k: (operator.values, *changes[k], rhs, hierarchy)
            compiling, program = _timed(solve.lower(*arguments(0)).compile)
            ours, found = _timed(lambda: [program(*arguments(k)) for k in range(count)])
            start = time.perf_counter()
            for k, (scale, shift) in enumerate(changes):
                changed = scale * matrix
                changed.setdiag(changed.diagonal() + shift)
                x = _pyamg(changed, method).solve(b, tol=RTOL, accel="cg")
                assert np.linalg.norm(
                    b - changed @ np.asarray(found[k][0])
                ) <= 1.01 * RTOL * np.linalg.norm(b)
                del x
            scratch = time.perf_counter() - start
            rows.append(
                [
                    f"{_name(shape)}, {kind}",
                    f"{preparing:.2f}",
                    f"{compiling:.2f}",
                    f"{scratch:.2f}",
                    f"{ours:.2f}",
                    f"{scratch / ours:.1f}",
                    str(max(int(steps) for _, steps, _ in found)),
                ]
            )
    header = [
        "Poisson", "prepare, s", "compile, s", "PyAMG from scratch, s", "refreshed, s", "faster, ×",
        "most steps",
    ]  # fmt: skip
    return markdown("20 solves with changing values", header, rows)
