"""Derivatives by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx

from ..operators import AbstractLinearOperator
from ..preconditioners.base import AbstractPreconditioner
from ..solvers.base import AbstractLinearSolver


def check_preconditioner(given: Any) -> None:
    """Refuse what neither approximates A⁻¹ nor makes something that does."""
    if not (given is None or isinstance(given, _PRECONDITIONER)):
        raise TypeError(
            "preconditioner: must be an AbstractLinearOperator that approximates A⁻¹, one of "
            f"`preconditioners` or its name, or None; got {type(given).__name__}. Wrap a matrix as "
            "`MatrixLinearOperator(matrix)`."
        )


_PRECONDITIONER = AbstractLinearOperator | AbstractPreconditioner | str


class ImplicitAdjoint(eqx.Module):
    """Derivatives by the implicit function theorem: tangents and cotangents by solves of their own.

    - `solver`: the solver of those solves; `None` keeps the forward solve's, with its factorization.
    - `preconditioner`: an operator that approximates A⁻¹ (it is transposed for cotangents), or one of
      `preconditioners`, by an object or by name, which makes that from A.
    - `x0`: where the cotangent solves start: a pytree of the structure of b. (Iterative methods only.)
    - `options`: the options of those solves; `None` keeps the forward solve's, less the initial guess.

    **Raises** `TypeError` for a `solver` or a `preconditioner` that is none.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A, b = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([4.0, 7.0])
        >>> rough = lp.ImplicitAdjoint(lp.GMRES(rtol=1e-2))  # gradients to two digits
        >>> print(jax.grad(lambda b: lp.solve(A, b, adjoint=rough).sum())(b).round(1))
        [0.4 0.2]
    """

    solver: AbstractLinearSolver[Any] | None = None
    preconditioner: AbstractLinearOperator | AbstractPreconditioner | str | None = None
    options: dict[str, Any] | None = None
    x0: Any = None
    #: What is done to A′x, a linear map of random numbers with mean I: see `StochasticAdjoint`.
    sketch: Callable[[Any], Any] | None = None

    def __check_init__(self) -> None:
        check_preconditioner(self.preconditioner)
        if not (self.solver is None or isinstance(self.solver, AbstractLinearSolver)):
            raise TypeError(
                "ImplicitAdjoint(solver=...): must be an AbstractLinearSolver or None; got "
                f"{type(self.solver).__name__}."
            )
