"""What the values of captured arrays decided about a pattern, so that other values can be asked the same.

A pattern depends on few facts about arrays: where a coefficient is zero, what an index is, how often
a loop runs. An interpretation notes each question that it asks, with the answer. Arrays of other
values that give the same answers lead to the same questions, in the same order, and so to the same
pattern, of which no entry is missing and none is superfluous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

if TYPE_CHECKING:
    from .constants import Constant

Question = Literal["value", "nonzero"]

#: With more intermediate values than this (loops that were followed), to ask again is no longer cheap.
_NODES = 5000


class Decisions:
    """Questions and answers of one interpretation, and while it lasts the values behind them."""

    def __init__(self) -> None:
        self.values: dict[Constant, Any] = {}
        self.can_ask = True
        self.nbytes = 0  # of values that depend on no captured array, and are kept
        self._answers: dict[tuple[Constant, Question], bytes | None] = {}
        self._numbers: dict[Constant, int] = {}

    def begin(self, root: Constant, number: int, array: Any) -> None:
        """`root` stands for captured array number `number`."""
        self.values[root] = array
        self._numbers[root] = number

    def note(self, constant: Constant, question: Question, answer: np.ndarray | None) -> None:
        if (constant, question) not in self._answers:
            self._answers[constant, question] = None if answer is None else digest(answer)

    def close(self) -> set[int]:
        """Forget the values; the numbers of the arrays that anything was asked about."""
        self.values = {}
        seen: set[Constant] = set()
        for constant, _ in self._answers:
            constant.reached(seen)
        self.can_ask = len(seen) <= _NODES
        inputs = {c for constant in seen for c in constant.inputs} - seen
        self.nbytes = sum(c.nbytes for c in inputs)
        asked = {self._numbers[c] for c in seen if c in self._numbers}
        if not self.can_ask:
            self._answers = {}
        return asked

    def changed(self, arrays: Sequence[Any]) -> set[int] | None:
        """None if these arrays give all the same answers; else the numbers of those that may not."""
        if not self.can_ask:
            return set(self._numbers.values())
        values = {root: arrays[number] for root, number in self._numbers.items()}
        for (constant, question), expected in self._answers.items():
            answer = constant.answer(question, values)
            if (None if answer is None else digest(answer)) != expected:
                return {self._numbers[root] for root in constant.captured()}
        return None


def digest(array: Any) -> bytes:
    """Of shape, dtype and contents."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.ascontiguousarray(array)
    content = hashlib.blake2b(array.reshape(-1).view(np.uint8), digest_size=16)
    content.update(repr((array.shape, array.dtype)).encode())
    return content.digest()
