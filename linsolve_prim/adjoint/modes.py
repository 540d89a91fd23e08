"""The `adjoint=` argument in one form."""

from __future__ import annotations

from typing import Any

from ..solvers.base import AbstractLinearSolver
from .implicit import ImplicitAdjoint
from .one_step import OneStepAdjoint
from .stochastic import StochasticAdjoint
from .unrolled import UnrolledAdjoint


def as_adjoint(adjoint: Any, options: dict[str, Any]) -> ImplicitAdjoint | None:
    """What the primitive's rules take: with the preconditioner among the options."""
    if adjoint is None:
        return None
    if isinstance(adjoint, AbstractLinearSolver):
        adjoint = ImplicitAdjoint(solver=adjoint)
    if isinstance(adjoint, (OneStepAdjoint, StochasticAdjoint)):
        adjoint = adjoint.implicit()
    if isinstance(adjoint, UnrolledAdjoint):
        raise TypeError(
            "adjoint: UnrolledAdjoint differentiates the iterations of a linear solve by a Krylov or "
            "stationary method; here, take an ImplicitAdjoint or leave it out."
        )
    if not isinstance(adjoint, ImplicitAdjoint):
        raise TypeError(
            "adjoint: must be None, an AbstractLinearSolver, an ImplicitAdjoint, UnrolledAdjoint, "
            f"OneStepAdjoint or StochasticAdjoint; got {type(adjoint).__name__}."
        )
    own = adjoint.options
    if adjoint.preconditioner is not None:
        own = {**(options if own is None else own), "preconditioner": adjoint.preconditioner}
        own = {k: v for k, v in own.items() if k not in ("y0", "x0")}
    return ImplicitAdjoint(adjoint.solver, None, own, adjoint.x0, adjoint.sketch)
