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

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm
from ..._tree import tree_add, tree_real_dtype, tree_sub, tree_where
from ..._types import Norm
from ...operators import AbstractLinearOperator
from ...results import RESULTS, result_of_code
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
    image: PyTree[Array]  # Ax. (Where it is subtracted from b right away, A is compiled once more.)
    norm: Array  # of b − Ax
    steps: Array
    trips: Array
    index: Array
    ledger: Array  # of a `_Ledger`
    memory: Any
    trail: Any


class _Ledger(NamedTuple):
    """Numbers that a loop carries as one array: one kernel to compile, where each had one."""

    goal: Array
    code: Array  # that of the result; `_GOING` while there is none
    caution: Array
    best: Array
    stalled: Array
    least_squares: Array

    def packed(self) -> Array:
        return jnp.stack([entry.astype(self.goal.dtype) for entry in self])


_GOING = -1


def _is_going(c: _Loop) -> Array:
    return _Ledger(*c.ledger).code < 0


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
        old = _Ledger(*c.ledger)
        going = _is_going(c)
        start = Start(
            x=c.x,
            residual=tree_sub(problem.vector, c.image),
            norm=c.norm,
            # No lane waits for one that is done: that one is where it shall come.
            target=jnp.where(going, old.goal * old.caution, jnp.inf),
            caution=old.caution,
            budget=jnp.where(going, max_steps - c.steps, 0),
            steps=c.steps,
            index=c.index,
            memory=c.memory,
            trail=c.trail,
        )
        end = method.cycle(start)
        ordinary = jnp.isfinite(max_norm(end.correction))
        x = tree_where(ordinary, tree_add(c.x, end.correction), c.x)
        image = operator.mv(x)
        r_norm = jnp.asarray(norm(tree_sub(problem.vector, image)), c.norm.dtype)
        finite = ordinary & jnp.isfinite(r_norm)
        if method.monotone:
            keep = finite & (r_norm <= c.norm)
            x, image, r_norm = tree_where(keep, (x, image, r_norm), (c.x, c.image, c.norm))
        outcome = jnp.where(finite, end.outcome, OVERFLOW)
        steps = c.steps + end.steps

        ran_out = outcome == RAN_OUT
        needed = jnp.where(ran_out, 1 - 10 * eps, 0.5) * old.best
        stalled = jnp.where(r_norm <= needed, 0, old.stalled + 1)
        small = r_norm <= old.goal
        normal = jnp.zeros_like(small)
        if method.least_squares is not None:
            normal = method.least_squares(tree_sub(problem.vector, image), end.memory)
        solved = small | normal
        given_up = stalled >= jnp.where(ran_out, method.patience, 2)
        exhausted = steps >= max_steps
        done = solved | given_up | exhausted | (outcome == OVERFLOW) | (outcome == CONLIM)
        result = _verdict(outcome, exhausted, steps == 0)
        result = RESULTS.where(solved, RESULTS.successful, result)
        trail = end.trail
        if trail is not None:  # the true residual replaces that of the recurrences
            trail = record(trail, steps, jnp.where(finite, r_norm, c.norm), x, jnp.array(True))
        ledger = _Ledger(
            goal=old.goal,
            code=jnp.where(done, _code(result), _GOING),
            caution=jnp.where(outcome == CLAIMED, 0.5, old.caution),
            best=jnp.minimum(old.best, r_norm),
            stalled=stalled,
            least_squares=normal & ~small,
        )
        return _Loop(
            x=x,
            image=image,
            norm=r_norm,
            steps=steps,
            trips=c.trips + end.trips,
            index=c.index + 1,
            ledger=ledger.packed(),
            memory=end.memory,
            trail=trail,
        )

    zero, one = jnp.zeros((), jnp.int32), jnp.ones_like(problem.goal)
    going = (problem.norm > problem.goal) & ~problem.is_bad
    result = RESULTS.where(problem.is_bad, RESULTS.nonfinite_input, RESULTS.successful)
    ledger = _Ledger(
        goal=problem.goal,
        code=jnp.where(going, _GOING, _code(result)),
        caution=one,
        best=problem.norm,
        stalled=0 * one,
        least_squares=0 * one,
    )
    start = _Loop(
        x=problem.x,
        image=problem.image,
        norm=problem.norm,
        steps=zero,
        trips=zero,
        index=zero,
        ledger=ledger.packed(),
        memory=method.memory,
        trail=trail,
    )
    c = while_loop(_is_going, body, start, axes)
    rates = list(zip(method.per_trip, method.per_cycle, method.before))
    matvecs, rmatvecs = (c.trips * a + c.index * b + before for a, b, before in rates)
    last = _Ledger(*c.ledger)
    ending = Ending(
        x=c.x,
        residual=tree_sub(problem.vector, c.image),
        norm=c.norm,
        result=result_of_code(last.code.astype(jnp.int32)),
        num_steps=c.steps,
        least_squares=last.least_squares > 0,
        matvecs=matvecs + c.index,  # one for each true residual
        rmatvecs=rmatvecs,
        trail=c.trail,
    )
    return ending, c.memory


def _code(result: RESULTS) -> Array:
    (code,) = jax.tree.leaves(result)
    return code
