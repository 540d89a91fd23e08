"""Derivatives of the iterations themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
from jaxtyping import Array, PyTree

from .._types import Options
from ..operators import AbstractLinearOperator
from ..primitive.call import FORWARD
from ..primitive.failure import Failure
from ..primitive.outcome import deliver
from ..primitive.states import stop_gradient
from ..results import Solution
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.base import AbstractKrylovSolver
from ..solvers.krylov.stopping import check_count
from ..solvers.krylov.unrolled import unroll


class UnrolledAdjoint(eqx.Module):
    """Differentiate `num_steps` iterations of a Krylov or stationary method, step by step.

    The value is what those iterations give, from the initial guess: that of the solver with
    `rtol=atol=0` and `max_steps=num_steps` (restarts included). So value and derivative belong
    together, also with respect to what the limit does not depend on: a preconditioner, the initial
    guess, learned coefficients. Forward and reverse, to any order. What is made from A by a setting,
    such as `preconditioner="ilu"`, is held: its derivative by A is left out. (A `LearnedPreconditioner`,
    and one that is given as an operator, are differentiated.)

    - `num_steps`: how many iterations. As it grows, the derivative tends to the implicit one.
    - `warmup`: so many iterations come before, and are not differentiated (truncation).
    - `checkpoint`: keep only the vectors of a step, and compute its products again in reverse mode.

    Reverse mode keeps memory for each step: n·num_steps, where `ImplicitAdjoint` keeps n.

    **Raises** `TypeError` for a solver that is no iteration, `ValueError` for one that cannot be unrolled.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([1.0, 3.0])), lp.positive_semidefinite_tag)
        >>> one = lambda b: lp.linear_solve(A, b, lp.CG(), adjoint=lp.UnrolledAdjoint(1)).value
        >>> value, tangent = jax.jvp(one, (jnp.ones(2),), (jnp.ones(2),))  # one step: x = b·⟨b, b⟩/⟨b, Ab⟩
        >>> print(value.round(3), tangent.round(3))
        [0.5 0.5] [0.5 0.5]
    """

    num_steps: int
    warmup: int = dataclasses.field(default=0, kw_only=True)
    checkpoint: bool = dataclasses.field(default=False, kw_only=True)

    def __check_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        if self.warmup != 0:
            check_count("warmup", self.warmup, "0")


def solve_unrolled(
    operator: AbstractLinearOperator,
    vector: PyTree[Array],
    solver: AbstractLinearSolver[Any],
    options: Options,
    adjoint: UnrolledAdjoint | None,
    *,
    throw: frozenset[int],
    name: str | None,
) -> Solution:
    """What `linear_solve` does with an `UnrolledAdjoint`: ordinary code, which JAX differentiates.

    So it does with solvers that are learned, whose `compute` is such code.
    """
    chosen, state = solver.start(operator, options)
    what = Failure(repr(chosen), FORWARD, name)
    if chosen.differentiates_itself():
        value, result, stats = chosen.compute(state, vector, options)
        value, result, stats = deliver(value, result, _told(stats, chosen), throw, what)
        return Solution(value, result, stats, stop_gradient(state))
    if adjoint is None or not isinstance(chosen, AbstractKrylovSolver):
        raise TypeError(
            "adjoint: UnrolledAdjoint differentiates the steps of a Krylov or stationary method, and "
            f"{chosen!r} has none. Pass `solver=CG()` or the like, or leave `adjoint` out."
        )
    if adjoint.warmup:
        start = stop_gradient((operator, vector, options))
        own = stop_gradient(chosen), stop_gradient(state)
        x, _, _ = unroll(*own, start[1], start[2], adjoint.warmup, differentiable=False)
        options = {k: v for k, v in options.items() if k != "x0"} | {"y0": stop_gradient(x)}
    value, result, stats = unroll(
        chosen, state, vector, options, adjoint.num_steps, checkpoint=adjoint.checkpoint
    )
    what = Failure(repr(chosen), FORWARD, name)
    value, result, stats = deliver(value, result, _told(stats, chosen), throw, what)
    return Solution(value, result, stats, stop_gradient(state))


def _told(stats: dict[str, Any], solver: AbstractLinearSolver[Any]) -> dict[str, Any]:
    """What the statistics say; no derivative flows into them."""
    return stop_gradient(stats) | {"implementation": solver.implementation()}
