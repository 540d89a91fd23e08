"""What does not depend on the unknowns, evaluated ahead where it is known and matters.

Whether a coefficient is zero, where an index points and how often a loop runs decide about a
pattern. Values that nobody asks for are never computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ..operators.program import evaluate
from .decisions import Decisions, Question
from .moves import MOVES

_UNSET = object()


class Constant:
    """A value that is made from others when it is asked for; or that is not known.

    `make` takes the values of `inputs`, which are known, and returns an array, or None. What depends
    on a captured array has `decisions`, which note what it is asked and how it answered: its values
    are kept there, so that the questions can be asked again of other arrays.
    """

    __slots__ = ("_make", "_value", "decisions", "inputs")

    def __init__(
        self,
        make: Callable[..., Any],
        inputs: Sequence[Constant] = (),
        decisions: Decisions | None = None,
    ):
        self._make = make
        self.inputs = tuple(inputs)
        self._value: Any = _UNSET
        captured = (c.decisions for c in self.inputs if c.decisions is not None)
        self.decisions: Decisions | None = next(captured, decisions)

    def value(self) -> np.ndarray | None:
        """The array, or None if it is not known before the program runs."""
        return self._answer("value")

    def nonzero(self) -> np.ndarray | None:
        """Where it is not zero (NaN is not), or None if that is not known."""
        return self._answer("nonzero")

    def _answer(self, question: Question) -> np.ndarray | None:
        if self.decisions is None:
            return self.answer(question, {})
        answer = self.answer(question, self.decisions.values)
        self.decisions.note(self, question, answer)
        return answer

    def answer(self, question: Question, values: dict[Constant, Any]) -> np.ndarray | None:
        """For `values` of the captured arrays, to which what is made of them is added."""
        out = self._evaluate(values)
        if out is None:
            return None
        return np.asarray(out) != 0 if question == "nonzero" else np.asarray(out)

    @property
    def nbytes(self) -> int:
        """Of the value, where it is kept."""
        return getattr(self._value, "nbytes", 0)

    def captured(self) -> set[Constant]:
        """The captured arrays that it is made from."""
        return {c for c in self.reached(set()) if not c.inputs}

    def reached(self, seen: set[Constant]) -> set[Constant]:
        """`seen`, with itself and all that it is made from and that depends on a captured array."""
        waiting = [self]
        while waiting:
            top = waiting.pop()
            if top.decisions is not None and top not in seen:
                seen.add(top)
                waiting += top.inputs
        return seen

    def _evaluate(self, values: dict[Constant, Any]) -> Any:
        # With a stack of its own: the counter of a loop is as deep as the loop is long.
        known = lambda c: c._value if c.decisions is None else values.get(c, _UNSET)
        waiting = [self]
        while waiting:
            top = waiting[-1]
            if known(top) is not _UNSET:
                waiting.pop()
                continue
            inputs = [(c, known(c)) for c in top.inputs]
            missing = [c for c, value in inputs if value is _UNSET]
            if missing:
                waiting += missing
                continue
            unknown = any(value is None for _, value in inputs)
            value = None if unknown else top._make(*(value for _, value in inputs))
            if top.decisions is None:
                top._value, top.inputs = value, ()
            else:
                values[top] = value
        return known(self)


def known(value: Any) -> Constant:
    """An array or a number; nothing is known of one that is being traced."""
    return UNKNOWN if isinstance(value, jax.core.Tracer) else Constant(lambda: value)


UNKNOWN = Constant(lambda: None)


def outputs_of(eqn: Any, inputs: Sequence[Constant]) -> list[Constant]:
    """The outputs of an equation whose operands are constants."""
    if eqn.effects:
        return [UNKNOWN] * len(eqn.outvars)
    together = Constant(lambda *values: _apply(eqn, values), inputs)
    one = lambda i: Constant(lambda values: values[i], [together])
    return [one(i) for i in range(len(eqn.outvars))]


def part(constant: Constant, index: Any) -> Constant:
    """`constant[index]`."""
    return Constant(lambda value: np.asarray(value)[index], [constant])


def _apply(eqn: Any, values: Sequence[Any]) -> list[Any] | None:
    move = MOVES.get(eqn.primitive.name)
    if move is not None:
        return move(eqn.params, [np.asarray(value) for value in values])
    try:
        with ahead():
            return evaluate(eqn, values)
    except Exception:  # such as a collective, which means something inside of `shard_map` only
        return None


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """Evaluate at once, on the host, whatever is being traced."""
    with jax.ensure_compile_time_eval(), jax.default_device(_cpu()):
        yield


def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # there are only others: JAX_PLATFORMS says so
        return None
