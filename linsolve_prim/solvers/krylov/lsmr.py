"""LSMR: least squares by Golub–Kahan bidiagonalisation."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_where
from .cycles import CONLIM, OVERFLOW, Method, outcome_of
from .least_squares import (
    AbstractLeastSquaresSolver,
    Bidiagonal,
    Memory,
    extend,
    least_squares_method,
    ratio,
    rotation,
)
from .stopping import NormLike, Steps, Tolerance, check_tolerance
from .system import System


class _Step(NamedTuple):
    """After k steps, in the notation of the paper: `a` alpha, `b` beta, `z` zeta, `t` tau."""

    d: PyTree[Array]
    pair: Bidiagonal
    h: PyTree[Array]
    h_bar: PyTree[Array]
    a_bar: Array
    z: Array
    z_bar: Array
    rho: Array
    rho_bar: Array
    c_bar: Array
    s_bar: Array
    # for the estimate of ‖r‖
    b_ddot: Array
    b_dot: Array
    rho_dot: Array
    theta_tilde: Array
    t_tilde: Array
    norm: Array
    # for the estimate of cond(A)
    rho_max: Array
    rho_min: Array
    memory: Memory
    steps: Array
    outcome: Array


class LSMR(AbstractLeastSquaresSolver):
    """LSMR (Fong and Saunders, 2011, doi:10.1137/10079687X), for operators of any shape and rank.

    Finds x = A†b, the least-squares solution of minimum norm: `MINRES` on AᴴAx = Aᴴb, so that
    ‖Aᴴr‖ falls from step to step, and an early stop is safer than with `LSQR`. One product with A and
    one with Aᴴ for each step; seven vectors.

    - `rtol`, `atol`, `damp` and the two tests: see `AbstractLeastSquaresSolver`.
    - `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown or equation, whichever are fewer.
    - `conlim`: give up (`RESULTS.conlim`) when the estimated condition number is larger than this.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]))
        >>> print(lp.linear_solve(A, jnp.array([1.0, 3.0, 5.0]), lp.LSMR(rtol=1e-5)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    conlim: Tolerance = 1e8

    def __check_init__(self) -> None:
        check_tolerance("conlim", self.conlim)

    def method(self, system: System) -> Method:
        conlim = jnp.asarray(self.conlim, system.real_dtype)
        return least_squares_method(system, _first, lambda c: _step(c, system, conlim))


def _first(pair: Bidiagonal, zeros: PyTree[Array], memory: Memory) -> _Step:
    a, b = pair.a, pair.b
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    steps = jnp.zeros((), jnp.int32)
    return _Step(
        d=zeros,
        pair=pair,
        h=pair.v,
        h_bar=zeros,
        a_bar=a,
        z=zero,
        z_bar=a * b,
        rho=one,
        rho_bar=one,
        c_bar=one,
        s_bar=zero,
        b_ddot=b,
        b_dot=zero,
        rho_dot=one,
        theta_tilde=zero,
        t_tilde=zero,
        norm=b,
        rho_max=zero,
        rho_min=jnp.full_like(a, jnp.inf),
        memory=memory,
        steps=steps,
        outcome=steps,
    )


def _step(c: _Step, system: System, conlim: Array) -> _Step:
    pair = extend(system, c.pair)
    a, b = pair.a, pair.b

    # The two rotations that make the bidiagonal matrix triangular, and its transpose again
    cos, sin, rho = rotation(c.a_bar, b)
    theta = sin * a
    theta_bar = c.s_bar * rho
    rho_temp = c.c_bar * rho
    c_bar, s_bar, rho_bar = rotation(rho_temp, theta)
    z, z_bar = c_bar * c.z_bar, -s_bar * c.z_bar

    # (Products of two singular values are avoided: they may underflow.)
    h_bar = tree_axpy(-ratio(theta_bar, c.rho_bar) * ratio(rho, c.rho), c.h_bar, c.h)
    d = tree_axpy(ratio(ratio(z, rho_bar), rho), h_bar, c.d)
    h = tree_axpy(-ratio(theta, rho), c.h, pair.v)

    # ‖r‖
    b_hat, b_ddot = cos * c.b_ddot, -sin * c.b_ddot
    c_tilde, s_tilde, rho_tilde = rotation(c.rho_dot, theta_bar)
    theta_tilde, rho_dot = s_tilde * rho_bar, c_tilde * rho_bar
    b_dot = c_tilde * b_hat - s_tilde * c.b_dot
    t_tilde = ratio(c.z - c.theta_tilde * c.t_tilde, rho_tilde)
    t_dot = ratio(z - theta_tilde * t_tilde, rho_dot)
    norm = jnp.sqrt((b_dot - t_dot) ** 2 + b_ddot**2)

    # cond(A): the diagonal of the last triangle; its first entry belongs to no step
    later = c.steps > 0
    rho_max = jnp.where(later, jnp.maximum(c.rho_max, c.rho_bar), c.rho_max)
    rho_min = jnp.where(later, jnp.minimum(c.rho_min, c.rho_bar), c.rho_min)
    cond = ratio(jnp.maximum(rho_max, rho_temp), jnp.minimum(rho_min, rho_temp))
    a_norm = jnp.maximum(c.memory.a_norm, jnp.hypot(c.pair.a, b))

    overflow = ~jnp.isfinite(a + b + norm)
    ok = ~overflow
    return _Step(
        d=tree_where(ok, d, c.d),
        pair=pair,
        h=h,
        h_bar=h_bar,
        a_bar=cos * a,
        z=z,
        z_bar=z_bar,
        rho=rho,
        rho_bar=rho_bar,
        c_bar=c_bar,
        s_bar=s_bar,
        b_ddot=b_ddot,
        b_dot=b_dot,
        rho_dot=rho_dot,
        theta_tilde=theta_tilde,
        t_tilde=t_tilde,
        norm=norm,
        rho_max=rho_max,
        rho_min=rho_min,
        memory=c.memory._replace(
            a_norm=jnp.where(ok, a_norm, c.memory.a_norm),
            cond=jnp.where(ok, jnp.maximum(cond, c.memory.cond), c.memory.cond),
            normal=jnp.where(ok, jnp.abs(z_bar), c.memory.normal),
        ),
        steps=c.steps + ok.astype(jnp.int32),
        outcome=outcome_of((CONLIM, cond > conlim), (OVERFLOW, overflow)),
    )
