"""Derivatives of one step: an approximate inverse in the place of the inverse."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_add, tree_real_dtype, tree_scale, tree_sub, tree_zeros
from .._types import Options
from ..operators import AbstractLinearOperator, conj, linearise
from ..results import REASONS, RESULTS
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.probe import fixed_vector
from ..solvers.krylov.stopping import check_count
from ..solvers.krylov.vectors import normalise, safe_norm
from .implicit import ImplicitAdjoint

_POWER = 20  # products for the default of ω


class _Steps(NamedTuple):
    operator: AbstractLinearOperator
    preconditioner: AbstractLinearOperator | None
    omega: Array


class RichardsonSteps(AbstractLinearSolver[_Steps]):
    """A few steps of Richardson's iteration from zero, x ← x + ωM(v − Ax): ω Σᵢ (I − ωMA)ⁱ M v.

    It is as accurate as it is, and is never said to have failed: for derivatives that shall be cheap.

    - `preconditioner`: M; the option of that name goes before it. `None`: the identity.
    - `num_steps`: how many. 1 is ωMv.
    - `omega`: `None` takes 1 with a preconditioner, and else 1/‖A‖₂ (by 20 products with A and Aᴴ).
    """

    preconditioner: AbstractLinearOperator | None = None
    num_steps: int = 1
    omega: float | Array | None = None

    def __check_init__(self) -> None:
        check_count("num_steps", self.num_steps, "1")
        given = self.preconditioner
        if not (given is None or isinstance(given, AbstractLinearOperator)):
            raise TypeError(
                "preconditioner: must be an AbstractLinearOperator that approximates A⁻¹, or None; got "
                f"{type(given).__name__}."
            )

    def init(self, operator: AbstractLinearOperator, options: Options) -> _Steps:
        operator = linearise(operator)
        m = options.get("preconditioner")
        m = self.preconditioner if m is None else m
        dtype = tree_real_dtype(operator.in_structure())
        if self.omega is not None:
            omega = jnp.asarray(self.omega, dtype)
        else:
            omega = jnp.ones((), dtype) if m is not None else 1 / _norm(operator)
        return _Steps(operator, None if m is None else linearise(m), omega)

    def compute(
        self, state: _Steps, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator, m, omega = state
        step = lambda r: tree_scale(omega, r if m is None else m.mv(r))
        x = step(vector)
        for _ in range(self.num_steps - 1):
            x = tree_add(x, step(tree_sub(vector, operator.mv(x))))
        r_norm, b_norm = safe_norm(tree_sub(vector, operator.mv(x))), safe_norm(vector)
        stats = {
            "num_steps": jnp.asarray(self.num_steps, jnp.int32),
            "residual_norm": r_norm,
            "relative_residual": r_norm / jnp.where(b_norm > 0, b_norm, 1),
            "reason": REASONS.steps,
        }
        return x, RESULTS.successful, stats

    def transpose(self, state: _Steps, options: Options) -> tuple[_Steps, Options]:
        operator, m, omega = state
        return _Steps(operator.T, None if m is None else m.T, omega), _turned(options, "T")

    def conj(self, state: _Steps, options: Options) -> tuple[_Steps, Options]:
        operator, m, omega = state
        return _Steps(conj(operator), None if m is None else conj(m), omega), _turned(options, "")

    def assume_full_rank(self) -> bool:
        return True

    def checks_residual(self) -> bool:
        return True


def _turned(options: Options, which: str) -> Options:
    if options.get("preconditioner") is None:
        return options
    m = options["preconditioner"]
    return {**options, "preconditioner": m.T if which == "T" else conj(m)}


def _norm(operator: AbstractLinearOperator) -> Array:
    """‖A‖₂ by the power method for AᴴA."""
    adjoint = conj(operator).transpose()
    v = normalise(fixed_vector(tree_zeros(operator.in_structure()), 5))[0]

    def body(_: Any, state: tuple[PyTree[Array], Array]) -> tuple[PyTree[Array], Array]:
        w, size = normalise(adjoint.mv(operator.mv(state[0])))
        return w, jnp.sqrt(size).astype(state[1].dtype)

    one = jnp.ones((), tree_real_dtype(v))
    size = jax.lax.fori_loop(0, _POWER, body, (v, one))[1]
    return jnp.where(size > 0, size, 1)


class OneStepAdjoint(eqx.Module):
    """Approximate derivatives, x′ ≈ M(b′ − A′x): those of one step x ← x + M(b − Ax) at the solution.

    With an M that is nearly A⁻¹ the error is ‖I − MA‖, else it is of order one: then it is a
    direction of descent at best. (Bolte, Pauwels and Vaiter, 2023, arXiv:2305.13768; known as
    Jacobian-free backpropagation where M = I, Fung et al., 2022, arXiv:2103.12803.)

    - `preconditioner`: M, an operator, or one of `preconditioners` (an object or its name), which makes
      it from A. `None` takes the solve's own, if that was given as an option, else ωI.
    - `num_steps`: k > 1 differentiates k such steps, with an error of ‖I − MA‖ᵏ.
    - `omega`: a factor of M; see `RichardsonSteps`.

    **Raises** `TypeError` for a preconditioner that is none.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([2.0, 4.0])))
        >>> adjoint = lp.OneStepAdjoint(lp.DiagonalLinearOperator(jnp.array([0.5, 0.25])))  # M = A⁻¹: exact
        >>> print(jax.grad(lambda b: lp.linear_solve(A, b, adjoint=adjoint).value.sum())(jnp.ones(2)))
        [0.5  0.25]
    """

    preconditioner: Any = None
    num_steps: int = dataclasses.field(default=1, kw_only=True)
    omega: float | Array | None = dataclasses.field(default=None, kw_only=True)

    def __check_init__(self) -> None:
        self.implicit()

    def implicit(self) -> ImplicitAdjoint:
        """The same for the primitive's rules: an implicit adjoint that solves by a few steps."""
        steps = RichardsonSteps(None, self.num_steps, self.omega)
        return ImplicitAdjoint(steps, self.preconditioner)
