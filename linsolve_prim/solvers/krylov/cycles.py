"""The loop around every Krylov method, which alone decides whether the system is solved.

A method iterates on cheap recurrences of the residual, and these drift from b − Ax. So it is only
asked for a correction, d with Ad ≈ r (a *cycle*): when it claims its target, when it breaks down or
when it has to restart anyway, x + d is judged by its true residual, and if that is too large the
method continues from there. (Correcting by groups of steps also keeps the drift itself small:
van der Vorst and Ye, 2000, doi:10.1137/S1064827599353865.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm
from ..._tree import tree_add, tree_real_dtype, tree_sub, tree_where
from ..._types import Norm
from ...operators import AbstractLinearOperator
from ...results import RESULTS
from .history import Trail, record
from .stopping import Ending, Problem
from .vectors import while_loop

# How a cycle ends
RUNNING, CLAIMED, RAN_OUT, BROKE_DOWN, SINGULAR, OVERFLOW, CONLIM = range(7)


class Start(NamedTuple):
    """What a cycle starts from."""

    x: PyTree[Array]
    residual: PyTree[Array]
    norm: Array  # of the residual, as the user measures it
    target: Array  # where that norm shall come
    caution: Array  # by which the target was lowered: 1, or 1/2 after a claim that was not true
    budget: Array  # steps that are left
    steps: Array  # steps that were taken
    index: Array  # how many cycles went before
    memory: Any  # what the last cycle left
    trail: Any  # the history so far, if one is kept


class End(NamedTuple):
    """What a cycle returns."""

    correction: PyTree[Array]
    steps: Array
    outcome: Array
    memory: Any
    trips: Array  # through its loop: steps, and those that failed
    trail: Any


class Method(NamedTuple):
    """A Krylov method for one system: its cycle, and what the loop around it has to know.

    - `cycle`: from `Start` to `End`.
    - `memory`: handed from cycle to cycle.
    - `patience`: how many cycles in a row that end by their length alone may fail to reduce the
      residual. After those that end by themselves it is 2, and they have to halve it.
    - `monotone`: take back cycles that increase the residual.
    - `least_squares(residual, memory)`: whether a residual that is not small solves the problem.
    - `per_trip`, `per_cycle`: products with A and with Aᴴ in each trip through the cycle's loop, and
      in each cycle beside those and the one for the true residual; `before`: once, before all.
    - `statistics(memory, x)`: further statistics.
    """

    cycle: Callable[[Start], End]
    memory: Any = ()
    patience: int = 2
    monotone: bool = True
    least_squares: Callable[[PyTree[Array], Any], Array] | None = None
    per_trip: tuple[int, int] = (1, 0)
    per_cycle: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (0, 0)
    statistics: Callable[[Any, PyTree[Array]], dict[str, Any]] | None = None


class _Loop(NamedTuple):
    x: PyTree[Array]
    residual: PyTree[Array]
    norm: Array
    best: Array
    steps: Array
    budget: Array  # steps that are left: none where it is done, so that no lane waits for that one
    trips: Array
    index: Array
    stalled: Array
    target: Array
    least_squares: Array
    going: Array
    result: RESULTS
    memory: Any
    trail: Any


def outcome_of(*flags: tuple[int, Array]) -> Array:
    """The last of these codes whose flag is set; `RUNNING` if none is."""
    code = jnp.asarray(RUNNING, jnp.int32)
    for outcome, flag in flags:
        code = jnp.where(flag, jnp.asarray(outcome, jnp.int32), code)
    return code


def close(outcome: Array, norm: Array, target: Array) -> Array:
    """The outcome of a cycle whose loop has ended."""
    claimed = jnp.where(norm <= target, jnp.asarray(CLAIMED, jnp.int32), RAN_OUT)
    return jnp.where(outcome == RUNNING, claimed, outcome)


def _verdict(outcome: Array, exhausted: Array, first_step: Array) -> RESULTS:
    """The result of an iteration that ended without success."""
    result = RESULTS.where(outcome == BROKE_DOWN, RESULTS.breakdown, RESULTS.stagnation)
    result = RESULTS.where(outcome == SINGULAR, RESULTS.singular, result)
    in_order = (outcome == RAN_OUT) | (outcome == CLAIMED)
    result = RESULTS.where(exhausted & in_order, RESULTS.max_steps_reached, result)
    result = RESULTS.where(outcome == CONLIM, RESULTS.conlim, result)
    # All products so far were of ordinary numbers: the operator itself holds NaN or infinity.
    overflow = RESULTS.where(first_step, RESULTS.nonfinite_input, RESULTS.diverged)
    return RESULTS.where(outcome == OVERFLOW, overflow, result)


def iterate(
    method: Method,
    operator: AbstractLinearOperator,
    problem: Problem,
    norm: Norm,
    max_steps: int,
    axes: frozenset,
    trail: Trail | None = None,
) -> tuple[Ending, Any]:
    """Run cycles until the true residual is small enough, or nothing more can be hoped for.

    Returns also the memory of the last cycle. One product for each cycle.
    """
    eps = float(jnp.finfo(tree_real_dtype(problem.vector)).eps)

    def body(c: _Loop) -> _Loop:
        start = Start(
            x=c.x,
            residual=c.residual,
            norm=c.norm,
            target=c.target,
            caution=jnp.where(c.target < problem.goal, 0.5, 1).astype(problem.goal.dtype),
            budget=c.budget,
            steps=c.steps,
            index=c.index,
            memory=c.memory,
            trail=c.trail,
        )
        end = method.cycle(start)
        x = tree_add(c.x, end.correction)
        residual = tree_sub(problem.vector, operator.mv(x))
        r_norm = jnp.asarray(norm(residual), c.norm.dtype)
        finite = jnp.isfinite(max_norm(x)) & jnp.isfinite(r_norm)
        keep = finite & (r_norm <= c.norm) if method.monotone else finite
        x, residual, r_norm = tree_where(keep, (x, residual, r_norm), (c.x, c.residual, c.norm))
        outcome = jnp.where(finite, end.outcome, OVERFLOW)
        steps, budget = c.steps + end.steps, c.budget - end.steps

        ran_out = outcome == RAN_OUT
        needed = jnp.where(ran_out, 1 - 10 * eps, 0.5) * c.best
        stalled = jnp.where(r_norm <= needed, 0, c.stalled + 1)
        small = r_norm <= problem.goal
        normal = jnp.zeros_like(small)
        if method.least_squares is not None:
            normal = method.least_squares(residual, end.memory)
        solved = small | normal
        given_up = stalled >= jnp.where(ran_out, method.patience, 2)
        exhausted = budget <= 0
        failure = _verdict(outcome, exhausted, steps == 0)
        done = solved | given_up | exhausted | (outcome == OVERFLOW) | (outcome == CONLIM)
        trail = end.trail
        if trail is not None:  # the true residual replaces that of the recurrences
            trail = record(trail, steps, r_norm, x, jnp.array(True))
        return _Loop(
            x=x,
            residual=residual,
            norm=r_norm,
            best=jnp.minimum(c.best, r_norm),
            steps=steps,
            budget=jnp.where(done, 0, budget),
            trips=c.trips + end.trips,
            index=c.index + 1,
            stalled=stalled,
            target=jnp.where(outcome == CLAIMED, problem.goal / 2, c.target),
            least_squares=normal & ~small,
            going=~done,
            result=RESULTS.where(solved, RESULTS.successful, failure),
            memory=end.memory,
            trail=trail,
        )

    zero = jnp.zeros((), jnp.int32)
    false = jnp.zeros((), bool)
    going = (problem.norm > problem.goal) & ~problem.is_bad
    start = _Loop(
        x=problem.x,
        residual=problem.residual,
        norm=problem.norm,
        best=problem.norm,
        steps=zero,
        budget=jnp.where(going, jnp.asarray(max_steps, jnp.int32), 0),
        trips=zero,
        index=zero,
        stalled=zero,
        target=problem.goal,
        least_squares=false,
        going=going,
        result=RESULTS.where(problem.is_bad, RESULTS.nonfinite_input, RESULTS.successful),
        memory=method.memory,
        trail=trail,
    )
    c = while_loop(lambda c: c.going, body, start, axes)
    rates = list(zip(method.per_trip, method.per_cycle, method.before))
    matvecs, rmatvecs = (c.trips * a + c.index * b + before for a, b, before in rates)
    ending = Ending(
        x=c.x,
        residual=c.residual,
        norm=c.norm,
        result=c.result,
        num_steps=c.steps,
        least_squares=c.least_squares,
        matvecs=matvecs + c.index,  # one for each true residual
        rmatvecs=rmatvecs,
        trail=c.trail,
    )
    return ending, c.memory
