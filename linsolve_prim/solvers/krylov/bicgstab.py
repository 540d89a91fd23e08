"""The stabilised method of biconjugate gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_size, tree_where
from ..._types import Options
from ...operators import AbstractLinearOperator
from ...results import RESULTS
from .base import (
    AbstractKrylovSolver,
    KrylovState,
    Preconditioner,
    check_preconditioner_field,
    inexact_vector,
    read_guess,
    read_preconditioner,
    square_state,
)
from .cycles import BROKE_DOWN, OVERFLOW, RUNNING, End, Start, close, iterate, outcome_of
from .stopping import NormLike, Steps, Tolerance, check_settings, pose, report, step_limit
from .vectors import mesh_axes, normalise, safe_norm, tree_zeros_like, while_loop


class _Step(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    p: PyTree[Array]
    v: PyTree[Array]
    rho: Array
    alpha: Array
    omega: Array
    norm: Array
    steps: Array
    outcome: Array


class BiCGStab(AbstractKrylovSolver):
    """BiCGStab (van der Vorst, 1992, doi:10.1137/0913035), preconditioned from the right.

    For square operators of any kind. Short recurrences (seven vectors) instead of `GMRES`'s basis,
    two products with A and two with M for each step, one with A at the end; the residual does not
    fall monotonically. Operators that are nearly skew-symmetric make it break down.
    Options: `"preconditioner"`, `"y0"`.

    - `rtol`, `atol`: ‖b − Ax‖ ≤ max(rtol·‖b‖, atol), without preconditioner. `rtol=None` stands for
      1e-5 in float32 and 1e-10 in float64.
    - `norm`: the norm in this rule.
    - `max_steps`: default 10 per unknown.
    - `preconditioner`: used where the options name none.
    """

    rtol: Tolerance = None
    atol: Tolerance = 0.0
    norm: NormLike = two_norm
    max_steps: Steps = None
    preconditioner: Preconditioner = None

    def __check_init__(self) -> None:
        check_settings(self.rtol, self.atol, self.norm, self.max_steps)
        check_preconditioner_field(self.preconditioner)

    def init(self, operator: AbstractLinearOperator, options: Options) -> KrylovState:
        del options
        return square_state(operator, self.preconditioner, "BiCGStab")

    def compute(
        self, state: KrylovState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator, _ = state
        vector = inexact_vector(vector)
        preconditioner, x0 = read_preconditioner(state, options), read_guess(operator, options)
        precondition = (lambda r: r) if preconditioner is None else preconditioner.mv
        problem = pose(operator, vector, x0, self.rtol, self.atol, self.norm)
        max_steps = step_limit(self.max_steps, tree_size(vector))
        axes = mesh_axes(operator, preconditioner, problem)
        eps = float(jnp.finfo(problem.norm.dtype).eps)
        measure = lambda r: jnp.asarray(self.norm(r), problem.norm.dtype)

        def cycle(start: Start) -> End:
            # A second start from the same residual must not break down in the same way.
            fresh = start.index == 0
            shadow = tree_where(fresh, start.residual, _wave(start.residual))
            shadow_norm = two_norm(shadow)

            r_two = lambda c: c.norm if self.norm is two_norm else two_norm(c.r)

            def step(c: _Step) -> _Step:
                rho = tree_dot(shadow, c.r)
                beta = (rho / c.rho) * (c.alpha / c.omega)
                p = tree_axpy(beta, tree_axpy(-c.omega, c.v, c.p), c.r)
                p_hat = precondition(p)
                v = operator.mv(p_hat)
                sigma = tree_dot(shadow, v)
                ok = (jnp.abs(rho) > eps * shadow_norm * r_two(c)) & (
                    jnp.abs(sigma) > eps * shadow_norm * safe_norm(v)
                )
                alpha = jnp.where(ok, rho / jnp.where(ok, sigma, 1), 0)
                s = tree_where(ok, tree_axpy(-alpha, v, c.r), c.r)
                s_norm = two_norm(s)
                s_hat = precondition(s)
                # ω = ⟨t, s⟩/⟨t, t⟩ minimises ‖s − ωt‖.
                t, t_norm = normalise(operator.mv(s_hat))
                projection = tree_dot(t, s)
                smooth = ok & (jnp.abs(projection) > eps * s_norm)
                # If s is already small, the step ends halfway.
                smooth &= measure(s) > start.target
                scale = jnp.where(t_norm > 0, t_norm, 1).astype(rho.dtype)
                omega = jnp.where(smooth, projection / scale, 0)
                d = tree_where(ok, tree_axpy(alpha, p_hat, c.d), c.d)
                d = tree_where(smooth, tree_axpy(omega, s_hat, d), d)
                r = tree_where(smooth, tree_axpy(-projection, t, s), s)
                r_norm = measure(r)
                overflow = ~jnp.isfinite(jnp.abs(rho) + jnp.abs(sigma) + r_norm)
                broken = ~(ok & smooth) & (r_norm > start.target)
                return _Step(
                    d=d,
                    r=r,
                    p=p,
                    v=v,
                    rho=rho,
                    alpha=alpha,
                    omega=omega,
                    norm=r_norm,
                    steps=c.steps + (ok & ~overflow).astype(jnp.int32),
                    outcome=outcome_of((BROKE_DOWN, broken), (OVERFLOW, overflow)),
                )

            going = lambda c: (
                (c.outcome == RUNNING) & (c.norm > start.target) & (c.steps < start.budget)
            )
            zeros = tree_zeros_like(start.residual)
            one = jnp.ones((), tree_dot(shadow, shadow).dtype)
            zero = jnp.zeros((), jnp.int32)
            first = _Step(
                zeros, start.residual, zeros, zeros, one, one, one, start.norm, zero, zero
            )
            c = while_loop(going, step, first, axes)
            return End(c.d, c.steps, close(c.outcome, c.norm, start.target), start.memory)

        ending, _ = iterate(cycle, operator, problem, self.norm, max_steps, axes)
        return report(problem, ending, max_steps)

    def assume_full_rank(self) -> bool:
        return True


def _wave(like: PyTree[Array]) -> PyTree[Array]:
    """Fixed numbers between −1 and 1 without a pattern that an operator is likely to have."""

    def one(leaf: Array) -> Array:
        index = jnp.arange(1, leaf.size + 1, dtype=jnp.float32)
        return jnp.cos(index * index * 0.7390851).reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree.map(one, like)
