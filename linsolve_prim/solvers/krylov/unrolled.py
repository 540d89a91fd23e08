"""A Krylov method for a fixed number of steps, as a loop that JAX can differentiate in reverse.

The frame of `cycles.py` ends when the residual is small, which takes a loop of unknown length: that has
no reverse mode. Here the same cycles run for a number of trips that is known when it is traced. In
trips after its end a cycle stands still, and its derivative does not pass through what is not a number
there: the step is then computed from the cycle's first carry, and thrown away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._static import split
from ..._tree import tree_add, tree_size, tree_sub, tree_where
from ..._types import Options
from ..._varying import vary_like
from ...operators import AbstractLinearOperator
from ...results import RESULTS
from .base import AbstractKrylovSolver, KrylovState, inexact_vector, read_guess, read_preconditioner
from .cycles import OVERFLOW, RUNNING, Ledger, Method, Start, first_ledger
from .stopping import Ending, Problem, pose, report
from .system import Ran, System
from .vectors import mesh_axes, tree_divide, tree_zeros_like

#: Methods whose cycle is more than one loop over steps.
_OTHERS = ("LGMRES", "GCROT", "IterativeRefinement", "CGAdaptive", "LSQR", "LSMR", "CGLS", "CRAIG")


def unroll(
    solver: AbstractKrylovSolver,
    state: KrylovState,
    vector: PyTree[Array],
    options: Options,
    steps: int,
    *,
    checkpoint: bool = False,
    differentiable: bool = True,
) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
    """`steps` steps of the method, whatever the residual: `compute` with rtol = atol = 0.

    **Raises** `ValueError` for methods that cannot be unrolled.
    """
    _check_method(solver)
    if not differentiable:
        solver = dataclasses.replace(solver, rtol=0.0, atol=0.0, max_steps=steps)
        return solver.compute(state, vector, options)
    operator = state.operator
    preconditioner = read_preconditioner(state, options)
    problem = _posed(solver, operator, inexact_vector(vector), read_guess(operator, options))
    axes = mesh_axes(operator, preconditioner, problem)
    length = min(steps, _cycle_length(solver, problem, steps))
    system = _Unrolled(
        operator, preconditioner, None, problem, solver.norm, solver.side, steps, axes
    )
    system.length, system.checkpoint, system.options = length, checkpoint, options
    method = solver.method(system)
    cycles = -(-steps // length)
    x, steps_done, trips, overflow = _iterate(method, operator, problem, solver, steps, cycles)
    residual = tree_sub(problem.vector, operator.mv(x))
    result = RESULTS.where(overflow, RESULTS.diverged, RESULTS.max_steps_reached)
    result = RESULTS.where(problem.is_zero, RESULTS.successful, result)
    ending = Ending(
        x=x,
        residual=residual,
        norm=jnp.asarray(solver.norm(residual), problem.norm.dtype),
        result=RESULTS.where(problem.is_bad, RESULTS.nonfinite_input, result),
        num_steps=steps_done,
        least_squares=jnp.array(False),
        matvecs=trips * method.per_trip[0] + cycles * (method.per_cycle[0] + 1) + method.before[0],
        rmatvecs=trips * method.per_trip[1] + cycles * method.per_cycle[1] + method.before[1],
        trail=None,
    )
    return report(problem, ending, steps, solver.norm)


def _check_method(solver: AbstractKrylovSolver) -> None:
    name = type(solver).__name__
    bounds = getattr(solver, "lower", 1), getattr(solver, "upper", 1)
    if None in bounds:
        raise ValueError(
            f"adjoint: UnrolledAdjoint needs `{name}` with both bounds, which it otherwise corrects "
            f"between steps; got lower={bounds[0]!r}, upper={bounds[1]!r}."
        )
    if name in _OTHERS or solver.nullspace is not None:
        what = "a `nullspace`" if solver.nullspace is not None else f"`{name}`"
        raise ValueError(
            f"adjoint: UnrolledAdjoint does not differentiate {what}. Take CG, FCG, MINRES, GMRES, "
            "BiCGStab, Richardson or the like without one, or an ImplicitAdjoint."
        )


def _cycle_length(solver: AbstractKrylovSolver, problem: Problem, steps: int) -> int:
    restart = getattr(solver, "restart", None)
    return steps if restart is None else min(int(restart), max(tree_size(problem.vector), 1))


def _posed(
    solver: AbstractKrylovSolver,
    operator: AbstractLinearOperator,
    vector: PyTree[Array],
    x0: PyTree[Array] | None,
) -> Problem:
    """The problem in units that are held: a factor that cancels needs no derivative."""
    held_operator, held_vector, held_x0 = _held((operator, vector, x0))
    problem = pose(held_operator, held_vector, held_x0, 0.0, 0.0, solver.norm)
    nothing = problem.is_zero | problem.is_bad
    x = problem.x if x0 is None else x0
    residual = vector if x0 is None else tree_sub(vector, operator.mv(x0))

    def in_units(tree: PyTree[Array]) -> PyTree[Array]:
        return tree_where(nothing, tree_zeros_like(tree), tree_divide(tree, problem.unit))

    residual = in_units(residual)
    return problem._replace(
        vector=in_units(vector),
        x=problem.x if x0 is None else in_units(x),
        residual=residual,
        norm=jnp.asarray(solver.norm(residual), problem.norm.dtype),
    )


def _held(tree: Any) -> Any:
    """The same pytree with its arrays shut off from differentiation."""
    arrays, skeleton = split(tree)
    return skeleton.fill([jax.lax.stop_gradient(a) for a in arrays])


def _iterate(
    method: Method,
    operator: AbstractLinearOperator,
    problem: Problem,
    solver: AbstractKrylovSolver,
    steps: int,
    cycles: int,
) -> tuple[PyTree[Array], Array, Array, Array]:
    """Cycle after cycle; x, how many steps were taken, how many trips, and whether it overflowed."""
    zero, real = jnp.zeros((), jnp.int32), problem.norm.dtype
    x, residual, norm, memory = problem.x, problem.residual, problem.norm, method.memory
    done, trips, overflow = zero, zero, jnp.array(False)
    # further steps round, and derivatives of what underflows in them are no numbers
    target = 0.1 * float(jnp.finfo(real).eps) * jax.lax.stop_gradient(norm)
    ledger = first_ledger(real, method.numbers, target=target)
    for index in range(cycles):
        start = Start(
            x=x,
            image=None,
            residual=residual,
            norm=norm,
            target=target,
            caution=jnp.ones((), real),
            budget=steps - done,
            steps=done,
            begun=done,
            index=jnp.asarray(index, jnp.int32),
            ledger=ledger,
            memory=memory,
            trail=None,
        )
        end = method.cycle(start)
        x = end.correction if method.moves else tree_add(x, end.correction)
        done, trips, memory = done + end.steps, trips + end.trips, end.memory
        if end.lost is not None:
            done = done - end.lost.astype(done.dtype)
        if end.ledger is not None:
            ledger = Ledger(end.ledger).written(step=1)
        overflow = overflow | (end.outcome == OVERFLOW)
        if index + 1 < cycles:
            residual = tree_sub(problem.vector, operator.mv(x))
            norm = jnp.asarray(solver.norm(residual), real)
    return x, done, trips, overflow


class _Unrolled(System):
    """A system whose loop has a fixed number of trips."""

    length: int = 1
    checkpoint: bool = False

    def held(self) -> System:
        operator, m = _held((self.operator, self.preconditioner))
        return System(
            operator, m, None, self.problem, self.norm, "right", self.max_steps, self.axes
        )

    def run(
        self,
        step: Callable[[Any], Any],
        first: Any,
        start: Start,
        target: Array,
        *,
        budget: Array | None = None,
        going: Callable[[Any], Array] | None = None,
        correction: Callable[[Any], PyTree[Array]] | None = None,
        exact: bool = True,
        loose: tuple[str, ...] = (),
    ) -> Ran:
        limit = start.budget if budget is None else budget
        if going is None:

            def going(c: Any) -> Array:
                return (c.outcome == RUNNING) & (c.norm > target) & (c.steps < limit)

        body = jax.checkpoint(step) if self.checkpoint else step

        def trip(carry: Any, _: Any) -> tuple[Any, None]:
            c, trips = carry
            active = going(c)
            new = body(tree_where(active, c, first))
            return (tree_where(active, new, c), trips + active.astype(jnp.int32)), None

        init = vary_like((first, jnp.zeros((), jnp.int32)), self.axes)
        (c, trips), _ = jax.lax.scan(trip, init, length=self.length)
        return Ran(c, trips, None, target)
