"""What a solve computes: `solver.compute`, judged by its true residual, under its `vmap`s.

`trace` makes that a `Program`, once for one kind of solve: JAX's own cache of `jax.jit` holds them,
and the equation of a solve carries its program, so that no rule traces again. A solve and its
tangents share one program, and its transpose has the second, whatever the order of differentiation.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._compiled import compiling
from .._static import Static
from .._types import structure_equal, structure_str
from .._varying import vary_like, varying_axes
from ..errors import StructureError
from .call import SolveCall
from .judge import Verdict, judge
from .stages import Stages


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
    stats["implementation"] = solver.implementation()
    # a statistic that is a constant has no mesh, but the primitive's results vary as its operands do
    stats = vary_like(jax.tree.map(_stat, stats), varying_axes(operands))
    return value, result, stats, verdict


def _run(call: SolveCall, *operands: Any) -> tuple[Any, Any, dict[str, Any], Verdict]:
    """`(value, result, stats, verdict)` of a solve, with one leading axis for each of its `vmap`s."""
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


_traced_run = jax.jit(_run, static_argnums=0)


class Program:
    """A traced solve: its equations, and the structure of what it returns.

    Who asks for the verdict only leaves result and statistics to dead-code elimination.
    """

    def __init__(self, jaxpr: Any, out_tree: Any, lane: Program | None = None):
        self.jaxpr = jaxpr
        self.out_tree = out_tree
        self.lane = lane  # what the outermost `vmap` maps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and other.jaxpr is self.jaxpr

    def __hash__(self) -> int:
        return id(self.jaxpr)

    def __repr__(self) -> str:
        return "..."

    def in_stages(self, *operands: Any) -> tuple[Stages, Any]:
        """Run it by need: what computes the results, and their numbers in the place of them."""
        numbers = range(len(self.jaxpr.jaxpr.outvars))
        return Stages(self.jaxpr, operands), jax.tree.unflatten(self.out_tree, numbers)

    def out_avals(self) -> list[Any]:
        """The types of the value, the result and the statistics, flat."""
        avals = jax.tree.unflatten(self.out_tree, self.jaxpr.out_avals)
        return jax.tree.leaves(avals[:3])

    def no_facts(self) -> tuple[Any, Any]:
        """What stands in the place of result and statistics if nobody asks for them."""
        _, *facts, _ = jax.tree.unflatten(self.out_tree, self.jaxpr.out_avals)
        return jax.tree.map(lambda aval: jax.lax.full(aval.shape, 0, aval.dtype), tuple(facts))

    def unflatten(self, flat: list[Any]) -> tuple[Any, Any, dict[str, Any]]:
        """The inverse of `jax.tree.leaves((value, result, stats))`."""
        *kept, _ = jax.tree.unflatten(self.out_tree, self.jaxpr.out_avals)
        return jax.tree.unflatten(jax.tree.structure(tuple(kept)), flat)


def trace(call: SolveCall, operands: list[Any], lane: Program | None = None) -> Program:
    """The program of a solve, from the cache if one of its kind was traced before."""
    # JAX names the mesh when it transposes (also none), and the mesh is a part of the cache's key.
    mesh = jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh())
    with mesh, compiling():
        traced = _traced_run.trace(call.essence(), *operands)
    return Program(traced.jaxpr, jax.tree.structure(traced.out_info), lane)
