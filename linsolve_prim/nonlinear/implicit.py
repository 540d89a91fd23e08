"""The derivative of what solves an equation, however it was found: the implicit function theorem.

F(x(θ), θ) = 0 for all θ gives (∂F/∂x) x′ = −(∂F/∂θ) θ′: one linear solve for a tangent, its
transpose for a cotangent. The rule calls the function that it is the rule of, so that x depends on θ
in it, and holds to any order.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import Skeleton, Static, split
from .._tree import tree_neg
from .._types import default_floating_dtype, is_inexact
from ..adjoint import ImplicitAdjoint, as_adjoint
from ..operators import AbstractLinearOperator
from ..primitive import FORWARD, TANGENT, Failure, SolveCall, bind
from ..primitive.call import Problem
from ..primitive.outcome import deliver
from ..primitive.states import stop_gradient
from ..results import RESULTS, Solution
from ..solvers.base import AbstractLinearSolver

Found = tuple[PyTree[Array], RESULTS, dict[str, Any]]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(equation: Any, method: Any, x0: Any, arrays: list[list[Array]]) -> Found:
    fill = lambda skeleton, given: skeleton.fill(given)
    equation, method, x0 = map(fill, (equation, method, x0), arrays)
    return method.find(equation, x0)


def find(equation: Any, method: Any, x0: PyTree[Array]) -> Found:
    """`method.find(equation, x0)`, compiled once for equal equations, if it can be."""
    if getattr(method, "runs_on_host", False):
        return method.find(equation, x0)
    parts = [split(x) for x in (equation, method, x0)]
    return _compiled(*(skeleton for _, skeleton in parts), [arrays for arrays, _ in parts])


@dataclasses.dataclass(frozen=True)
class Task:
    """The static half of a nonlinear solve: hashable, so that equal solves are one compilation."""

    equation: Skeleton
    rest: Skeleton  # of (method, x0, solver of derivatives, its settings)
    throw: frozenset[int]
    name: str | None


def solve_implicitly(
    equation: Any,
    method: Any,
    x0: PyTree[Array],
    solver: AbstractLinearSolver[Any],
    adjoint: Any,
    throw: frozenset[int],
    name: str | None,
) -> Solution:
    """What `method` finds, with derivatives by the arrays of the equation; `solver` solves for them.

    An equation has `residual(x)` and `operator(x)`, its Jacobian; a method `find(equation, x0)`.
    """
    own = as_adjoint(adjoint, {})
    if own is not None and own.sketch is not None:
        raise TypeError(
            "adjoint: of a nonlinear solve it must be None, an AbstractLinearSolver, an ImplicitAdjoint "
            f"or a OneStepAdjoint; got {type(adjoint).__name__}."
        )
    arrays, skeleton = split(equation)
    others, rest = split(stop_gradient((method, x0, solver, own)))
    task = Task(skeleton, rest, throw, name)
    value, *rest_of_it = _solved(task, arrays, others)
    result, stats = _as_they_were(*rest_of_it)
    return Solution(value, result, stats, None)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solved(task: Task, arrays: list[Array], others: list[Array]) -> tuple[Any, Any, Any]:
    """The value; result and statistics as `_as_floats` packs them."""
    method, x0, _, _ = task.rest.fill(others)
    value, result, stats = find(task.equation.fill(arrays), method, x0)
    what = Failure(repr(method), FORWARD, task.name)
    value, result, stats = deliver(value, result, stats, task.throw, what)
    return value, *_as_floats((result, stats))


@_solved.defjvp
def _derivative(task: Task, primals: Any, tangents: Any) -> tuple[Any, Any]:
    arrays, others = primals
    value, floats, form = _solved(task, arrays, others)

    def residual(*arrays: Array) -> PyTree[Array]:
        return task.equation.fill(arrays).residual(value)

    change = jax.jvp(residual, tuple(arrays), tuple(tangents[0]))[1]
    operator = task.equation.fill(arrays).operator(value)
    dx = _linear(task, others, operator, jax.tree.map(jnp.asarray, tree_neg(change)))
    return (value, floats, form), (dx, jax.tree.map(jnp.zeros_like, floats), form)


def _linear(
    task: Task, others: list[Array], operator: AbstractLinearOperator, rhs: PyTree[Array]
) -> PyTree[Array]:
    """J⁻¹·rhs, on the tape as a tangent (and its transpose as a cotangent)."""
    _, _, solver, adjoint = task.rest.fill(others)
    options: dict[str, Any] = {}
    if adjoint is not None:
        solver = solver if adjoint.solver is None else adjoint.solver
        options = solver.made_options(stop_gradient(operator), adjoint.options or {})
        adjoint = ImplicitAdjoint(x0=adjoint.x0)
    operator, rhs, solver = solver.regularise(operator, rhs, options)
    chosen, state = solver.start(stop_gradient(operator), options)
    problem = Problem(operator, stop_gradient(state), options, chosen, adjoint, rhs)
    call, operands = SolveCall.make(problem, throw=task.throw, kind=TANGENT, name=task.name)
    return bind(call, operands)[0]


# A tangent of an integer has no mesh axes, and `custom_jvp` under `shard_map` asks for some: so integers
# (counts and codes, which are small) leave it as floats.


def _as_floats(tree: Any) -> tuple[list[Array], Static]:
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, tree))
    floats = [x if is_inexact(x) else x.astype(default_floating_dtype()) for x in leaves]
    return floats, Static((treedef, tuple(x.dtype for x in leaves)))


def _as_they_were(floats: list[Array], form: Static) -> Any:
    treedef, dtypes = form.value
    leaves = [jax.lax.stop_gradient(x).astype(dtype) for x, dtype in zip(floats, dtypes)]
    return jax.tree.unflatten(treedef, leaves)
