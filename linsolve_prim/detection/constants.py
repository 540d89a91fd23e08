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
from .moves import MOVES

_UNSET = object()


class Constant:
    """A value that is made from others when it is asked for; or that is not known.

    `make` takes the values of `inputs`, which are known, and returns an array, or None.
    """

    __slots__ = ("_inputs", "_make", "_value")

    def __init__(self, make: Callable[..., Any], inputs: Sequence[Constant] = ()):
        self._make = make
        self._inputs = tuple(inputs)
        self._value: Any = _UNSET

    def value(self) -> np.ndarray | None:
        """The array, or None if it is not known before the program runs."""
        out = self._evaluate()
        return None if out is None else np.asarray(out)

    def nonzero(self) -> np.ndarray | None:
        """Where it is not zero (NaN is not), or None if that is not known."""
        value = self.value()
        return None if value is None else value != 0

    def _evaluate(self) -> Any:
        # With a stack of its own: the counter of a loop is as deep as the loop is long.
        waiting = [self]
        while waiting:
            top = waiting[-1]
            missing = [c for c in top._inputs if c._value is _UNSET]
            if top._value is _UNSET and not missing:
                values = [c._value for c in top._inputs]
                top._value = None if any(v is None for v in values) else top._make(*values)
                top._inputs = ()
            if top._value is not _UNSET:
                waiting.pop()
            waiting += missing
        return self._value


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


def part(constant: Constant, index: int) -> Constant:
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
