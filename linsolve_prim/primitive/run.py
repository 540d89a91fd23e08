"""What a solve computes: `solver.compute`, judged by its true residual, under its `vmap`s.

`run` is the meaning of the primitive: abstract evaluation asks for its shapes, lowering and eager
evaluation call it. It is a `jax.jit`, so that JAX's own cache makes sure that `solver.compute` is
traced once for one kind of solve and not once for each rule: a solve and its tangent share one
trace, its transpose makes the second, whatever the order of differentiation.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._static import Static
from .._types import structure_equal, structure_str
from ..errors import StructureError
from .call import SolveCall
from .judge import Verdict, judge


def _stat(x: Any) -> Any:
    """A statistic as an array; what is no number is passed around the primitive."""
    if isinstance(x, (bool, int, float, complex)) or hasattr(x, "dtype"):
        return jnp.asarray(x)
    return Static(x)


def unwrap_stats(stats: dict[str, Any]) -> dict[str, Any]:
    """Statistics as the solver gave them: the inverse of what `run` did to pass them around."""
    is_static = lambda x: isinstance(x, Static)
    return jax.tree.map(lambda x: x.value if is_static(x) else x, stats, is_leaf=is_static)


def _run_one(call: SolveCall, *operands: Any) -> tuple[Any, Any, dict[str, Any], Verdict]:
    problem = call.problem(operands)
    solver = problem.solver
    value, result, stats = solver.compute(problem.state, problem.vector, problem.options)
    if not structure_equal(value, problem.operator.in_structure()):
        raise StructureError(
            f"{type(solver).__name__}.compute returned a solution of structure "
            f"{structure_str(value)}, but the operator's input structure is "
            f"{structure_str(problem.operator.in_structure())}. The solution must have the latter."
        )
    result, stats, verdict = judge(problem, value, result, dict(stats))
    return value, result, jax.tree.map(_stat, stats), verdict


@functools.partial(jax.jit, static_argnums=0, inline=True)
def run_with_verdict(
    call: SolveCall, *operands: Any
) -> tuple[Any, Any, dict[str, Any], Verdict]:
    """`(value, result, stats, verdict)` of a solve, with one leading axis for each of its `vmap`s.

    Who asks for the verdict only leaves result and statistics to dead-code elimination.
    """
    fn = functools.partial(_run_one, call)
    for level in call.levels:
        fn = jax.vmap(
            fn,
            in_axes=level.in_axes,
            axis_size=level.size,
            axis_name=level.axis_name,
            spmd_axis_name=level.spmd_axis_name,
        )
    return fn(*operands)


def run(call: SolveCall, *operands: Any) -> tuple[Any, Any, dict[str, Any]]:
    """`(value, result, stats)` of a solve."""
    return run_with_verdict(call, *operands)[:3]
