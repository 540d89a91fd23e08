"""`SolveCall`: everything about one solve that is not an array.

A primitive takes a flat list of arrays and hashable parameters. `linear_solve_p` has one
parameter, a `SolveCall`, and its operands are, in this order,

    the operator's arrays | the arrays of (state, options, solver, adjoint) | the vector's arrays.

Only the first group and the last carry tangents; only the last can be transposed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, PyTree

from .._static import Skeleton, split

FORWARD, TANGENT, ADJOINT = "forward", "tangent", "adjoint"


@dataclasses.dataclass(frozen=True)
class Level:
    """One `vmap` around a solve: which operands it batches (along their first axis)."""

    size: int
    batched: tuple[bool, ...]
    axis_name: Any = None
    spmd_axis_name: Any = None

    @property
    def in_axes(self) -> tuple[int | None, ...]:
        return tuple(0 if batched else None for batched in self.batched)


@dataclasses.dataclass(frozen=True)
class Problem:
    """The Python objects of one solve, put together again from a call and its operands."""

    operator: Any
    state: Any
    options: dict[str, Any]
    solver: Any
    adjoint: Any
    vector: PyTree[Array]


@dataclasses.dataclass(frozen=True)
class SolveCall:
    """The static half of a solve. Hashable; equal calls share one trace and one compilation."""

    operator: Skeleton
    rest: Skeleton
    vector: Skeleton
    throw: frozenset[int]  # the result codes that raise
    kind: str = FORWARD
    name: str | None = None
    levels: tuple[Level, ...] = ()  # innermost first
    record: bool = False  # whether the compiled program tells the tapes
    facts: bool = True  # whether result and statistics are asked for

    def __repr__(self) -> str:
        title = f" {self.name!r}" if self.name else ""
        sizes = "".join(f" vmap({level.size})" for level in self.levels)
        return f"<{self.kind} solve{title}{sizes}>"

    @staticmethod
    def make(
        problem: Problem, *, throw: frozenset[int], kind: str, name: str | None
    ) -> tuple[SolveCall, list[Array]]:
        """Split a problem into its call and its operands."""
        op_arrays, operator = split(problem.operator)
        rest_arrays, rest = split((problem.state, problem.options, problem.solver, problem.adjoint))
        vec_arrays, vector = split(problem.vector)
        call = SolveCall(operator, rest, vector, throw, kind, name)
        return call, [*op_arrays, *rest_arrays, *vec_arrays]

    def groups(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Operands (or anything parallel to them) by group: operator, rest, vector."""
        i = self.operator.num_arrays
        j = i + self.rest.num_arrays
        return list(operands[:i]), list(operands[i:j]), list(operands[j:])

    def problem(self, operands: Sequence[Any]) -> Problem:
        """The inverse of `make`."""
        op_arrays, rest_arrays, vec_arrays = self.groups(operands)
        state, options, solver, adjoint = self.rest.fill(rest_arrays)
        return Problem(
            self.operator.fill(op_arrays),
            state,
            options,
            solver,
            adjoint,
            self.vector.fill(vec_arrays),
        )

    def essence(self) -> SolveCall:
        """What decides the computation: all but what is said or done about a failure."""
        return dataclasses.replace(
            self, throw=frozenset(), kind=FORWARD, name=None, record=False, facts=True
        )

    def inner(self) -> SolveCall:
        """The call that the outermost `vmap` maps."""
        return dataclasses.replace(self, levels=self.levels[:-1])

    def under(self, level: Level) -> SolveCall:
        """This call with one more `vmap` around it."""
        return dataclasses.replace(self, levels=(*self.levels, level))
