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
import numpy as np
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
    image: PyTree[Array] | None  # Ax; `None` where only the residual is known
    residual: PyTree[Array]
    norm: Array  # of the residual, as the user measures it
    target: Array  # where that norm shall come
    caution: Array  # by which the target was lowered: 1, or 1/2 after a claim that was not true
    budget: Array  # steps that are left
    steps: Array  # steps that were taken
    begun: Array  # the same, and those that failed
    index: Array  # how many cycles went before
    ledger: (
        Array  # of a `Ledger`: where a method takes its numbers from that itself, none is a kernel
    )
    memory: Any  # what the last cycle left
    trail: Any  # the history so far, if one is kept


class End(NamedTuple):
    """What a cycle returns."""

    correction: PyTree[Array]  # or x itself, of a method that `moves`
    steps: Array
    outcome: Array
    memory: Any
    trips: Array  # through its loop: steps, and those that failed
    trail: Any
    ledger: Array | None = None  # in which the method has written its own numbers
    lost: Array | None = (
        None  # how many of the `steps` failed, of a method that counts trips as steps
    )


class Method(NamedTuple):
    """A Krylov method for one system: its cycle, and what the loop around it has to know.

    - `cycle`: from `Start` to `End`.
    - `memory`: handed from cycle to cycle. `numbers`: the same for numbers, at the end of the ledger.
    - `moves`: the cycle returns x, and not a correction of it.
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
    numbers: tuple[float, ...] = ()
    moves: bool = False
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
    begun: Array  # steps, and those that failed where the method counts them
    trips: Array
    index: Array
    ledger: Array
    memory: Any
    trail: Any


_GOING = -1


class Ledger:
    """Numbers that a loop carries as one array: one kernel to compile, where each had one.

    They are read where they are needed, since a number that is handed over is a kernel, too. Behind
    the named entries are those of the method.
    """

    NAMES = (
        "step",  # one at the start of a cycle, in which a method may keep the length of a step
        "goal",
        "code",  # that of the result; `_GOING` while there is none
        "target",
        "caution",
        "norm",  # of b − Ax
        "best",
        "stalled",
        "least_squares",
        "lost",  # steps that failed, as far as they were counted
    )

    def __init__(self, array: Array):
        self._array = array

    def __getitem__(self, name: str) -> Array:
        return self._entry(self.NAMES.index(name))

    def _entry(self, i: int) -> Array:
        return jax.lax.index_in_dim(self._array, i, keepdims=False)

    def numbers(self) -> list[Array]:
        """Those of the method."""
        return [self._entry(i) for i in range(len(self.NAMES), self._array.shape[0])]

    def is_going(self) -> Array:
        return self["code"] < 0

    def steps(self, begun: Array) -> Array:
        """How many of the steps that were begun did not fail."""
        return begun - self["lost"].astype(begun.dtype)

    def written(self, **entries: Any) -> Array:
        """The array with these entries. The method's own are `numbers`, a tuple."""
        own = entries.pop("numbers", ())
        places = {self.NAMES.index(name): value for name, value in entries.items()}
        places |= {len(self.NAMES) + i: value for i, value in enumerate(own)}
        array, size = self._array, self._array.shape[0]
        order = sorted(places)
        for few in (order[i : i + _FEW] for i in range(0, len(order), _FEW)):
            row: list[Array] = []
            for place in few:
                row.append(jnp.zeros((place - sum(len(part) for part in row),), array.dtype))
                row.append(jnp.asarray(places[place], array.dtype)[None])
            row.append(jnp.zeros((size - sum(len(part) for part in row),), array.dtype))
            mask = np.isin(np.arange(size), few)  # a constant is no kernel
            array = jnp.where(mask, jnp.concatenate([part for part in row if len(part)]), array)
        return array


#: XLA makes one kernel of a concatenation of so few. It would take a number out of it again, and compile
#: that by itself, but does not look through the choice between it and what was there before.
_FEW = 4


def first_ledger(dtype: Any, numbers: tuple[float, ...], **entries: Any) -> Array:
    """The array of a `Ledger` for the first cycle."""
    zeros = jnp.zeros((len(Ledger.NAMES) + len(numbers),), dtype)
    return Ledger(zeros).written(step=1, caution=1, numbers=numbers, **entries)


def _is_going(c: _Loop) -> Array:
    return Ledger(c.ledger).is_going()


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

    real = problem.goal.dtype

    def target(going: Array, goal: Array, caution: Array) -> Array:
        # No lane waits for one that is done: that one is where it shall come.
        return jnp.where(going, goal * caution, jnp.inf)

    def body(c: _Loop) -> _Loop:
        old = Ledger(c.ledger)
        steps = old.steps(c.begun)
        start = Start(
            x=c.x,
            image=c.image,
            residual=tree_sub(problem.vector, c.image),
            norm=old["norm"],
            target=old["target"],
            caution=old["caution"],
            budget=jnp.where(old.is_going(), max_steps - steps, 0),
            steps=steps,
            begun=c.begun,
            index=c.index,
            ledger=c.ledger,
            memory=c.memory,
            trail=c.trail,
        )
        end = method.cycle(start)
        x, ordinary = end.correction, jnp.array(True)
        if not method.moves:
            ordinary = jnp.isfinite(max_norm(end.correction))
            x = tree_where(ordinary, tree_add(c.x, end.correction), c.x)
        image = operator.mv(x)
        r_norm = jnp.asarray(norm(tree_sub(problem.vector, image)), real)
        finite = ordinary & jnp.isfinite(r_norm)
        if method.monotone:
            keep = finite & (r_norm <= old["norm"])
            x, image, r_norm = tree_where(
                keep, (x, image, r_norm), (c.x, c.image, jnp.asarray(old["norm"]))
            )
        outcome = jnp.where(finite, end.outcome, OVERFLOW)
        begun = c.begun + end.steps
        lost = old["lost"] if end.lost is None else old["lost"] + end.lost.astype(real)
        steps = begun if end.lost is None else begun - lost.astype(begun.dtype)

        ran_out = outcome == RAN_OUT
        needed = jnp.where(ran_out, 1 - 10 * eps, 0.5) * old["best"]
        stalled = jnp.where(r_norm <= needed, 0, old["stalled"] + 1)
        small = r_norm <= old["goal"]
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
            trail = record(trail, steps, jnp.where(finite, r_norm, old["norm"]), x, jnp.array(True))
        caution = jnp.where(outcome == CLAIMED, 0.5, old["caution"])
        ledger = Ledger(c.ledger if end.ledger is None else end.ledger).written(
            step=1,
            code=jnp.where(done, _code(result), _GOING),
            target=target(~done, old["goal"], caution),
            caution=caution,
            norm=r_norm,
            best=jnp.minimum(old["best"], r_norm),
            stalled=stalled,
            least_squares=normal & ~small,
            lost=lost,
        )
        return _Loop(
            x=x,
            image=image,
            begun=begun,
            trips=c.trips + end.trips,
            index=c.index + 1,
            ledger=ledger,
            memory=end.memory,
            trail=trail,
        )

    zero = jnp.zeros((), jnp.int32)
    going = (problem.norm > problem.goal) & ~problem.is_bad
    result = RESULTS.where(problem.is_bad, RESULTS.nonfinite_input, RESULTS.successful)
    ledger = first_ledger(
        real,
        method.numbers,
        goal=problem.goal,
        code=jnp.where(going, _GOING, _code(result)),
        target=target(going, problem.goal, jnp.ones_like(problem.goal)),
        norm=problem.norm,
        best=problem.norm,
    )
    start = _Loop(
        x=problem.x,
        image=problem.image,
        begun=zero,
        trips=zero,
        index=zero,
        ledger=ledger,
        memory=method.memory,
        trail=trail,
    )
    c = while_loop(_is_going, body, start, axes)
    rates = list(zip(method.per_trip, method.per_cycle, method.before))
    matvecs, rmatvecs = (c.trips * a + c.index * b + before for a, b, before in rates)
    last = Ledger(c.ledger)
    ending = Ending(
        x=c.x,
        residual=tree_sub(problem.vector, c.image),
        norm=last["norm"],
        result=result_of_code(last["code"].astype(jnp.int32)),
        num_steps=last.steps(c.begun),
        least_squares=last["least_squares"] > 0,
        matvecs=matvecs + c.index,  # one for each true residual
        rmatvecs=rmatvecs,
        trail=c.trail,
    )
    return ending, c.memory


def _code(result: RESULTS) -> Array:
    (code,) = jax.tree.leaves(result)
    return code
