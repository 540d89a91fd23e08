"""How the derivatives of a solve are found: the `adjoint=` argument."""

from __future__ import annotations

from typing import Any

import equinox as eqx

from .operators import AbstractLinearOperator
from .solvers.base import AbstractLinearSolver


class ImplicitAdjoint(eqx.Module):
    """Derivatives by the implicit function theorem: tangents and cotangents by solves of their own.

    - `solver`: the solver of those solves; `None` keeps the forward solve's, with its factorization.
    - `preconditioner`: an operator that approximates A⁻¹ (it is transposed for cotangents).
    - `x0`: where the cotangent solves start: a pytree of the structure of b. (Iterative methods only.)
    - `options`: the options of those solves; `None` keeps the forward solve's, less the initial guess.
    """

    solver: AbstractLinearSolver[Any] | None = None
    preconditioner: AbstractLinearOperator | None = None
    options: dict[str, Any] | None = None
    x0: Any = None

    def __check_init__(self) -> None:
        if not (self.solver is None or isinstance(self.solver, AbstractLinearSolver)):
            raise TypeError(
                "ImplicitAdjoint(solver=...): must be an AbstractLinearSolver or None; got "
                f"{type(self.solver).__name__}."
            )


def as_adjoint(adjoint: Any, options: dict[str, Any]) -> ImplicitAdjoint | None:
    """The `adjoint=` argument in one form: with its preconditioner among its options."""
    if adjoint is None:
        return None
    if isinstance(adjoint, AbstractLinearSolver):
        adjoint = ImplicitAdjoint(solver=adjoint)
    if not isinstance(adjoint, ImplicitAdjoint):
        raise TypeError(
            "adjoint: must be None, an AbstractLinearSolver or an ImplicitAdjoint; got "
            f"{type(adjoint).__name__}."
        )
    own = adjoint.options
    if adjoint.preconditioner is not None:
        own = {**(options if own is None else own), "preconditioner": adjoint.preconditioner}
        own = {k: v for k, v in own.items() if k not in ("y0", "x0")}
    return ImplicitAdjoint(solver=adjoint.solver, options=own, x0=adjoint.x0)
