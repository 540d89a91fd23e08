"""A row of `compare`: one contestant, how it ended, and what was measured. Standard library only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

#: How a contestant may end. Only `SOLVED` ones are ranked.
SOLVED, FAILED, REFUSED = "solved", "FAILED", "refused"
STOPPED, CRASHED, NOT_RUN = "STOPPED", "CRASHED", "not run"

#: What `--by` takes: the quantity, and how it is called in words.
ORDERS = {
    "later": "the time of one more solve, with other values of A",
    "gradient": "the time of value and gradient, with other values of A",
    "first": "the time of set-up, compilation and the first solve",
    "memory": "the memory at the peak of the solve",
}


@dataclasses.dataclass
class Row:
    """Times are in seconds, memory in MiB; NaN is what was not measured.

    - `code`: a Python expression that makes the solver; `form`: whether it is given A as a "sparse"
      or a "dense" operator.
    - `first`, `later`: the first solve of the compiled program, and the median of later ones.
    - `residual`, `adjoint_residual`: ‖b − Ax‖/‖b‖, computed again from the file, and the same of the
      system behind the gradient.
    """

    solver: str
    preconditioner: str
    code: str
    form: str
    outcome: str = NOT_RUN
    reason: str = ""
    residual: float = math.nan
    steps: float = math.nan
    setup: float = math.nan
    compile: float = math.nan
    first: float = math.nan
    later: float = math.nan
    spread: float = math.nan
    memory: float = math.nan
    gradient_outcome: str = NOT_RUN
    gradient_reason: str = ""
    adjoint_residual: float = math.nan
    gradient_compile: float = math.nan
    gradient_first: float = math.nan
    gradient_later: float = math.nan
    gradient_memory: float = math.nan

    @property
    def name(self) -> str:
        """The contestant in words."""
        return f"{self.solver} + {self.preconditioner}" if self.preconditioner else self.solver

    def learn(self, facts: dict[str, object]) -> None:
        """Take over what the worker told."""
        for key, value in facts.items():
            setattr(self, key, value)

    def end(self, outcome: str, reason: str) -> None:
        """Say how it ended: the gradient alone, if the solve was already done and right."""
        if self.outcome == SOLVED:
            self.gradient_outcome, self.gradient_reason = outcome, reason
        else:
            self.outcome, self.reason = outcome, reason

    def quantity(self, order: str) -> float:
        """What `--by` sorts by; infinity for what is not known."""
        if order == "gradient":
            value = self.gradient_later if self.gradient_outcome == SOLVED else math.inf
        elif order == "first":
            value = self.setup + self.compile + self.first
        else:
            value = getattr(self, order)
        return math.inf if math.isnan(value) else value


def ranking(rows: Iterable[Row], order: str) -> list[Row]:
    """Those that solved the system, best first."""
    return sorted((row for row in rows if row.outcome == SOLVED), key=lambda r: r.quantity(order))
