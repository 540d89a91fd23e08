"""The problem of Aᵀ or conj(A), from that of A, sharing its factorization."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from .._static import stop_gradient as stop_gradient
from ..operators import conj
from ..solvers.base import AbstractLinearSolver
from .call import Problem


def _overrides(solver: Any, method: str) -> bool:
    """Whether a solver has its own `method` (the base class's only says that it has none)."""
    own = inspect.getattr_static(type(solver), method)
    return own is not inspect.getattr_static(AbstractLinearSolver, method)


def _turn(problem: Problem, operator: Any, method: str) -> Problem:
    solver = problem.solver
    if _overrides(solver, method):
        state, options = getattr(solver, method)(problem.state, problem.options)
    else:
        options = problem.options
        state = solver.init(stop_gradient(operator), options)
    return dataclasses.replace(
        problem, operator=operator, state=stop_gradient(state), options=options
    )


def transpose_state(problem: Problem) -> Problem:
    """The problem of Aᵀ (its vector is still that of A)."""
    return _turn(problem, problem.operator.transpose(), "transpose")


def conj_state(problem: Problem) -> Problem:
    """The problem of conj(A)."""
    return _turn(problem, conj(problem.operator), "conj")


def adjoint_settings(problem: Problem) -> Problem:
    """The problem as tangent and cotangent solves see it.

    They inherit the solver, its state and its options, but for the initial guess (which is one for
    x, not for x′), or take those that `adjoint` names.
    """
    adjoint = problem.adjoint
    options = {k: v for k, v in problem.options.items() if k not in ("y0", "x0")}
    if adjoint is None or (adjoint.solver is None and adjoint.options is None):
        state = problem.solver.lenient(problem.state)
        return dataclasses.replace(problem, options=options, state=state)
    solver = problem.solver if adjoint.solver is None else adjoint.solver
    options = options if adjoint.options is None else adjoint.options
    solver, state = solver.start(stop_gradient(problem.operator), options)
    state = stop_gradient(solver.lenient(state))
    # What is left of them is where cotangent solves start.
    rest = (
        dataclasses.replace(adjoint, solver=None, options=None) if adjoint.x0 is not None else None
    )
    return dataclasses.replace(problem, solver=solver, options=options, state=state, adjoint=rest)
