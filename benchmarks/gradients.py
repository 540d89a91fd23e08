"""The gradient of a CG solve: by the implicit function theorem, and through the iterations."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg as jspla
import numpy as np

import linsolve_prim as lp

from .krylov import stencil
from .report import Table
from .timing import agree, spread, time_together

RTOL = 1e-8


def _product(c: Any) -> Any:
    return lambda x: stencil(x) + c * x


def _ours(adjoint: Any, steps: int) -> Any:
    """With a fixed number of steps where they are differentiated, else to a tolerance."""
    implicit = adjoint is None

    def solve(c: Any, b: Any) -> Any:
        structure = jax.ShapeDtypeStruct(b.shape, b.dtype)
        operator = lp.FunctionLinearOperator(_product(c), structure, lp.positive_semidefinite_tag)
        solver = lp.CG(RTOL, 0.0) if implicit else lp.CG(0.0, 0.0, max_steps=steps)
        return lp.linear_solve(operator, b, solver, adjoint=adjoint, throw=False).value

    return solve


def _jax(c: Any, b: Any) -> Any:
    return jspla.cg(_product(c), b, tol=RTOL)[0]


def _by_hand(steps: int) -> Any:
    """The textbook's iteration as a scan, which reverse mode goes through."""

    def solve(c: Any, b: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            x, r, p, rr = carry
            q = _product(c)(p)
            alpha = rr / jnp.sum(p * q)
            x, r = x + alpha * p, r - alpha * q
            new = jnp.sum(r * r)
            return (x, r, r + new / rr * p, new), None

        start = (jnp.zeros_like(b), b, b, jnp.sum(b * b))
        return jax.lax.scan(step, start, None, steps)[0][0]

    return solve


def _steps(c: Any, b: Any) -> int:
    """What CG needs to the tolerance, and a little more, so that the unrolled gradient is right."""
    structure = jax.ShapeDtypeStruct(b.shape, b.dtype)
    operator = lp.FunctionLinearOperator(_product(c), structure, lp.positive_semidefinite_tag)
    return int(lp.linear_solve(operator, b, lp.CG(RTOL, 0.0)).stats["num_steps"]) + 20


def implicit_and_unrolled(seconds: float, quick: bool) -> Table:
    """Value and gradient by c (a field) and b; memory is that of the compiled program's scratch."""
    rows = []
    for m in (64, 128) if quick else (64, 128, 256):
        rng = np.random.default_rng(0)
        b = jnp.asarray(rng.normal(size=(m, m)))
        c = jnp.asarray(0.1 + 0.1 * rng.random((m, m)))
        steps = _steps(c, b)
        solves = {
            "ours, implicit": _ours(None, steps),
            "jax.scipy": _jax,
            "ours, unrolled": _ours(lp.UnrolledAdjoint(steps), steps),
            "ours, unrolled, checkpointed": _ours(
                lp.UnrolledAdjoint(steps, checkpoint=True), steps
            ),
            "scan by hand": _by_hand(steps),
        }
        programs = {}
        for name, solve in solves.items():
            loss = lambda c, b, solve=solve: jnp.sum(jnp.sin(solve(c, b)))
            programs[name] = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(c, b).compile()
        calls = {name: lambda program=p: program(c, b) for name, p in programs.items()}
        agree(calls, rtol=1e-5)
        results = time_together(calls, seconds, rounds=7)
        base = results["ours, implicit"][0]
        memory = {k: p.memory_analysis().temp_size_in_bytes / 2**20 for k, p in programs.items()}
        rows.append([f"{m}², {steps} steps", f"{base / 1000:.1f}"])
        rows[-1] += [f"{results[k][0] / base:.2f}" for k in list(solves)[1:]]
        rows[-1] += [f"{memory[k]:.2f}" for k in solves] + [spread(results)]
    names = list(solves)
    header = ["gradient of CG", f"{names[0]}, ms", *(f"{k}, ×" for k in names[1:])]
    header += [f"{k}, MiB" for k in names] + ["spread"]
    return Table("Gradients: implicit and unrolled", header, rows)
