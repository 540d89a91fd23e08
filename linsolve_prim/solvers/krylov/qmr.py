"""Quasi-minimal residuals, with the adjoint (QMR) and without (TFQMR)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_scale, tree_where
from .base import AbstractKrylovSolver
from .cycles import (
    BROKE_DOWN,
    CLAIMED,
    OVERFLOW,
    RUNNING,
    End,
    Method,
    Start,
    close,
    outcome_of,
)
from .probe import shadow
from .stopping import NormLike, Steps
from .system import System
from .vectors import normalise, safe_norm, tree_zeros_like


class _QMRStep(NamedTuple):
    """v and w are Lanczos vectors of norm 1; p and q those of the factors LU of T."""

    d: PyTree[Array]
    r: PyTree[Array]
    v: PyTree[Array]
    w: PyTree[Array]
    p: PyTree[Array]
    q: PyTree[Array]
    step_d: PyTree[Array]
    step_r: PyTree[Array]
    rho: Array
    xi: Array
    epsilon: Array
    gamma: Array
    theta: Array
    eta: Array
    tau: Array  # what is minimised in place of ‖r‖
    norm: Array
    steps: Array
    outcome: Array


class QMR(AbstractKrylovSolver):
    """QMR (Freund and Nachtigal, 1994, doi:10.1137/0915022): coupled two-term recurrences.

    For square operators of any kind, with an adjoint. The Krylov space of `BiCG`, at its cost of one
    product with A, Aᴴ, M and Mᴴ for each step (and one with A and M at the end), but from it an x
    whose residual is nearly the smallest: it falls smoothly. Ten vectors. Without look-ahead, so
    that it may break down, though less often than `BiCG`.

    - `rtol`, `atol`, `preconditioner`, `side`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 6.0]), lp.QMR(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    def method(self, system: System) -> Method:
        eps, real, dtype = system.eps, system.real_dtype, system.dtype

        def step(c: _QMRStep) -> _QMRStep:
            delta = tree_dot(c.w, c.v)
            share = delta / c.epsilon
            p = tree_axpy(-c.xi.astype(dtype) * share, c.p, c.v)
            q = tree_axpy(-c.rho.astype(dtype) * jnp.conj(share), c.q, c.w)
            ap = system.product(p)
            epsilon = tree_dot(q, ap)
            ok = (jnp.abs(delta) > eps) & (jnp.abs(epsilon) > eps * safe_norm(q) * safe_norm(ap))
            beta = jnp.where(ok, epsilon / jnp.where(ok, delta, 1), 1)
            v, rho = normalise(tree_axpy(-beta, c.v, ap))
            w, xi = normalise(tree_axpy(-jnp.conj(beta), c.w, system.adjoint_product(q)))
            rho, xi = rho.astype(real), xi.astype(real)
            theta = rho / (c.gamma * jnp.abs(beta))
            gamma = 1 / jnp.hypot(theta, 1)
            eta = -c.eta * (c.rho * (gamma / c.gamma) ** 2).astype(dtype) / beta
            kept = ((c.theta * gamma) ** 2).astype(real)
            step_d = tree_axpy(eta, p, tree_scale(kept, c.step_d))
            step_r = tree_axpy(eta, ap, tree_scale(kept, c.step_r))
            r = tree_where(ok, tree_axpy(-1, step_r, c.r), c.r)
            r_norm = system.measure(r)
            overflow = ~jnp.isfinite(jnp.abs(delta) + jnp.abs(epsilon) + rho + xi + r_norm)
            return _QMRStep(
                d=tree_where(ok, tree_axpy(1, step_d, c.d), c.d),
                r=r,
                v=v,
                w=w,
                p=p,
                q=q,
                step_d=step_d,
                step_r=step_r,
                rho=rho,
                xi=xi,
                epsilon=jnp.where(ok, epsilon, 1),
                gamma=gamma,
                theta=theta,
                eta=eta,
                tau=c.tau * theta * gamma,
                norm=r_norm,
                steps=c.steps + (ok & ~overflow).astype(jnp.int32),
                outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
            )

        def cycle(start: Start) -> End:
            r, r_norm, target = system.begin(start)
            v, rho = normalise(r)
            w, xi = normalise(shadow(r, start.index))
            zeros, zero = tree_zeros_like(r), jnp.zeros((), jnp.int32)
            one, none = jnp.ones((), real), jnp.zeros((), real)
            first = _QMRStep(
                d=zeros,
                r=r,
                v=v,
                w=w,
                p=zeros,
                q=zeros,
                step_d=zeros,
                step_r=zeros,
                rho=rho.astype(real),
                xi=xi.astype(real),
                epsilon=jnp.ones((), dtype),
                gamma=one,
                theta=none,
                eta=-jnp.ones((), dtype),
                tau=rho.astype(real),
                norm=r_norm,
                steps=zero,
                outcome=zero,
            )
            correction = lambda c: system.finish(c.d)
            return _run(system, step, first, start, target, lambda c: c.tau, 1, correction)

        return Method(cycle, per_trip=(1, 1))


def _run(
    system: System,
    step: Callable[[Any], Any],
    first: Any,
    start: Start,
    target: Array,
    tau: Callable[[Any], Array],
    rate: int,
    correction: Callable[[Any], PyTree[Array]],
) -> End:
    """Step until ‖r‖, or else its bound √(m + 1)·τ after m = `rate`·steps, comes to the target.

    The second happens if r has drifted, by rounding errors that no step takes back: a new cycle does.
    """
    unit = tau(first) / jnp.where(first.norm > 0, first.norm, 1)

    def claims(c: Any) -> Array:
        bound = tau(c) * jnp.sqrt((rate * c.steps + 1).astype(target.dtype))
        return (c.norm <= target) | (bound <= unit * target)

    def going(c: Any) -> Array:
        return (c.outcome == RUNNING) & ~claims(c) & (c.steps < start.budget)

    ran = system.run(step, first, start, target, going=going, correction=correction)
    c = ran.carry
    claimed = claims(c) & (c.outcome == RUNNING)
    outcome = jnp.where(claimed, CLAIMED, close(c.outcome, c.norm, target))
    return ran.end(correction(c), outcome=outcome.astype(jnp.int32))


class _Half(NamedTuple):
    """What each half of a step of TFQMR changes."""

    d: PyTree[Array]
    r: PyTree[Array]
    w: PyTree[Array]
    step_d: PyTree[Array]
    step_r: PyTree[Array]
    tau: Array
    theta: Array
    eta: Array
    norm: Array


class _TFQMRStep(NamedTuple):
    half: _Half
    u: PyTree[Array]
    v: PyTree[Array]
    au: PyTree[Array]  # of the last half
    rho: Array
    beta: Array
    norm: Array
    steps: Array
    outcome: Array


class TFQMR(AbstractKrylovSolver):
    """Transpose-free QMR (Freund, 1993, doi:10.1137/0914029), preconditioned.

    For square operators of any kind. The directions of `CGS` without Aᴴ, and from them an x whose
    residual falls smoothly. Ten vectors; two products with A and two with M for each step (which
    may end after the first half), one with A and M at the end. The residual itself is followed,
    where the paper has a bound for it.

    - `rtol`, `atol`, `preconditioner`, `side`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 6.0]), lp.TFQMR(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    def method(self, system: System) -> Method:
        eps, real, dtype = system.eps, system.real_dtype, system.dtype

        def halve(h: _Half, alpha: Array, u: PyTree[Array], au: PyTree[Array]) -> _Half:
            w = tree_axpy(-alpha, au, h.w)
            kept = (h.theta**2).astype(dtype) * h.eta / alpha
            step_d, step_r = tree_axpy(kept, h.step_d, u), tree_axpy(kept, h.step_r, au)
            theta = safe_norm(w).astype(real) / jnp.where(h.tau > 0, h.tau, 1)
            cos = 1 / jnp.hypot(theta, 1)
            eta = (cos**2).astype(dtype) * alpha
            r = tree_axpy(-eta, step_r, h.r)
            d = tree_axpy(eta, step_d, h.d)
            tau = h.tau * theta * cos
            return _Half(d, r, w, step_d, step_r, tau, theta, eta, system.measure(r))

        def cycle(start: Start) -> End:
            r0, r0_norm, target = system.begin(start)
            dual = shadow(r0, start.index)
            dual_norm = safe_norm(dual)

            def step(c: _TFQMRStep) -> _TFQMRStep:
                h = c.half
                au = system.product(c.u)
                v = tree_axpy(c.beta, tree_axpy(c.beta, c.v, c.au), au)
                sigma = tree_dot(dual, v)
                ok = jnp.abs(c.rho) > eps * dual_norm * safe_norm(h.w)
                ok &= jnp.abs(sigma) > eps * dual_norm * safe_norm(v)
                alpha = jnp.where(ok, c.rho / jnp.where(ok, sigma, 1), 1)
                first = halve(h, alpha, c.u, au)
                u = tree_axpy(-alpha, v, c.u)
                au = system.product(u)
                second = halve(first, alpha, u, au)
                new = tree_where(first.norm > target, second, first)
                new = tree_where(ok, new, h)
                rho = tree_dot(dual, new.w)
                beta = rho / jnp.where(ok, c.rho, 1)
                overflow = ~jnp.isfinite(jnp.abs(sigma) + jnp.abs(rho) + new.norm)
                return _TFQMRStep(
                    half=new,
                    u=tree_axpy(beta, u, new.w),
                    v=v,
                    au=au,
                    rho=rho,
                    beta=beta,
                    norm=new.norm,
                    steps=c.steps + (ok & ~overflow).astype(jnp.int32),
                    outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
                )

            zeros, zero = tree_zeros_like(r0), jnp.zeros((), jnp.int32)
            none, nothing = jnp.zeros((), real), jnp.zeros((), dtype)
            tau = safe_norm(r0).astype(real)
            half = _Half(zeros, r0, r0, zeros, zeros, tau, none, nothing, r0_norm)
            rho = tree_dot(dual, r0)
            first = _TFQMRStep(half, r0, zeros, zeros, rho, nothing, r0_norm, zero, zero)
            correction = lambda c: system.finish(c.half.d)
            return _run(system, step, first, start, target, lambda c: c.half.tau, 2, correction)

        return Method(cycle, per_trip=(2, 0))
