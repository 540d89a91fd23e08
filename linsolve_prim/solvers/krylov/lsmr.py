"""LSMR: least squares by Golub–Kahan bidiagonalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_where, tree_zeros
from .base import AbstractKrylovSolver
from .cycles import CLAIMED, CONLIM, OVERFLOW, RUNNING, End, Method, Start, close, outcome_of
from .stopping import NormLike, Steps, Tolerance, check_tolerance
from .system import System
from .vectors import normalise, safe_norm

_Product: TypeAlias = Callable[[PyTree[Array]], PyTree[Array]]


class _Memory(NamedTuple):
    a_norm: Array  # the largest ‖A vₖ‖ so far: a lower bound of ‖A‖₂
    cond: Array  # estimate of cond(A)
    normal: Array  # estimate of ‖Aᴴr‖


class _Step(NamedTuple):
    """After k steps, in the notation of the paper: `a` alpha, `b` beta, `z` zeta, `t` tau."""

    d: PyTree[Array]
    u: PyTree[Array]
    v: PyTree[Array]
    h: PyTree[Array]
    h_bar: PyTree[Array]
    a: Array
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
    memory: _Memory
    steps: Array
    outcome: Array


class LSMR(AbstractKrylovSolver):
    """LSMR (Fong and Saunders, 2011, doi:10.1137/10079687X), for operators of any shape and rank.

    Finds x = A†b, the least-squares solution of minimum norm (with an initial guess: the one
    nearest to it). One product with A and one with Aᴴ for each step. With a preconditioner M, on the
    right of A, it is ‖M⁻¹x‖ that is least.

    It stops when, of the true residual r = b − Ax, either of these is true (`stats["reason"]` says
    which):

    - ‖r‖ ≤ max(rtol·‖b‖, atol);
    - ‖Aᴴr‖ ≤ max(rtol, 10ε)·‖A‖·‖r‖, the least-squares solution. ‖A‖ is estimated from below, so
      that the test is stricter than that of the paper; if A is not tall, it is rtol ≤ ε^⅔ that
      counts, because then ‖r‖ is what most likely becomes small.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in the first rule.
    - `max_steps`: default 10 per unknown or equation, whichever are fewer.
    - `conlim`: give up (`RESULTS.conlim`) when the estimated condition number is larger than this.
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    conlim: Tolerance = 1e8

    is_square: ClassVar[bool] = False

    def __check_init__(self) -> None:
        check_tolerance("conlim", self.conlim)

    def method(self, system: System) -> Method:
        problem, operator = system.problem, system.operator
        dtype, eps = system.real_dtype, system.eps
        ls_rtol = jnp.maximum(problem.rtol, 10 * eps)
        if operator.out_size() <= operator.in_size():
            # Most likely consistent: then Aᴴr is small before r is, by the condition number.
            ls_rtol = jnp.minimum(ls_rtol, eps ** (2 / 3))
        conlim = jnp.asarray(self.conlim, dtype)

        def cycle(start: Start) -> End:
            u, b = normalise(start.residual)
            v, a = normalise(system.adjoint_product(u))
            a, b = a.astype(dtype), b.astype(dtype)
            target = start.target
            if self.norm is not two_norm:
                target = target * b / jnp.where(start.norm > 0, start.norm, 1)

            def claims(c: _Step) -> Array:
                normal = c.memory.normal <= start.caution * ls_rtol * c.memory.a_norm * c.norm
                return (c.norm <= target) | (normal & jnp.isfinite(c.memory.normal))

            def going(c: _Step) -> Array:
                return (c.outcome == RUNNING) & ~claims(c) & (c.steps < start.budget)

            first = _first(u, v, a, b, start.memory, tree_zeros(operator.in_structure()))
            step = lambda c: _step(c, system.product, system.adjoint_product, conlim)
            exact = self.norm is two_norm
            ran = system.run(step, first, start, target, going=going, exact=exact)
            c = ran.carry
            outcome = jnp.where(claims(c), CLAIMED, close(c.outcome, c.norm, target))
            return ran.end(system.finish(c.d), memory=c.memory, outcome=outcome.astype(jnp.int32))

        def least_squares(residual: PyTree[Array], memory: _Memory) -> Array:
            normal = safe_norm(system.adjoint_product(residual)).astype(dtype)
            bound = ls_rtol * memory.a_norm * two_norm(residual).astype(dtype)
            return (normal <= bound) & jnp.isfinite(normal)

        def statistics(memory: _Memory, x: PyTree[Array]) -> dict[str, Any]:
            return {
                "norm_Ar": memory.normal * problem.unit,
                "norm_A": memory.a_norm,
                "cond_A": memory.cond,
                "norm_x": two_norm(x),
            }

        zero = jnp.zeros((), dtype)
        return Method(
            cycle,
            memory=_Memory(zero, zero, zero),
            monotone=False,
            least_squares=least_squares,
            per_trip=(1, 1),
            per_cycle=(0, 2),
            statistics=statistics,
        )

    def assume_full_rank(self) -> bool:
        return False


def _first(
    u: PyTree[Array],
    v: PyTree[Array],
    a: Array,
    b: Array,
    memory: _Memory,
    zeros: PyTree[Array],
) -> _Step:
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    steps = jnp.zeros((), jnp.int32)
    memory = _Memory(jnp.maximum(memory.a_norm, a), jnp.maximum(memory.cond, 1), a * b)
    return _Step(
        d=zeros,
        u=u,
        v=v,
        h=v,
        h_bar=zeros,
        a=a,
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


def _step(c: _Step, product: _Product, adjoint_product: _Product, conlim: Array) -> _Step:
    # Bidiagonalisation: b u = A v − a u, then a v = Aᴴu − b v
    u, b = normalise(tree_axpy(-c.a, c.u, product(c.v)))
    v, a = normalise(tree_axpy(-b, c.v, adjoint_product(u)))
    a, b = a.astype(c.a.dtype), b.astype(c.a.dtype)

    # The two rotations that make the bidiagonal matrix triangular, and its transpose again
    cos, sin, rho = _rotation(c.a_bar, b)
    theta = sin * a
    theta_bar = c.s_bar * rho
    rho_temp = c.c_bar * rho
    c_bar, s_bar, rho_bar = _rotation(rho_temp, theta)
    z, z_bar = c_bar * c.z_bar, -s_bar * c.z_bar

    # (Products of two singular values are avoided: they may underflow.)
    h_bar = tree_axpy(-_ratio(theta_bar, c.rho_bar) * _ratio(rho, c.rho), c.h_bar, c.h)
    d = tree_axpy(_ratio(_ratio(z, rho_bar), rho), h_bar, c.d)
    h = tree_axpy(-_ratio(theta, rho), c.h, v)

    # ‖r‖
    b_hat, b_ddot = cos * c.b_ddot, -sin * c.b_ddot
    c_tilde, s_tilde, rho_tilde = _rotation(c.rho_dot, theta_bar)
    theta_tilde, rho_dot = s_tilde * rho_bar, c_tilde * rho_bar
    b_dot = c_tilde * b_hat - s_tilde * c.b_dot
    t_tilde = _ratio(c.z - c.theta_tilde * c.t_tilde, rho_tilde)
    t_dot = _ratio(z - theta_tilde * t_tilde, rho_dot)
    norm = jnp.sqrt((b_dot - t_dot) ** 2 + b_ddot**2)

    # cond(A): the diagonal of the last triangle; its first entry belongs to no step
    later = c.steps > 0
    rho_max = jnp.where(later, jnp.maximum(c.rho_max, c.rho_bar), c.rho_max)
    rho_min = jnp.where(later, jnp.minimum(c.rho_min, c.rho_bar), c.rho_min)
    cond = _ratio(jnp.maximum(rho_max, rho_temp), jnp.minimum(rho_min, rho_temp))
    a_norm = jnp.maximum(c.memory.a_norm, jnp.hypot(c.a, b))

    overflow = ~jnp.isfinite(a + b + norm)
    ok = ~overflow
    return _Step(
        d=tree_where(ok, d, c.d),
        u=u,
        v=v,
        h=h,
        h_bar=h_bar,
        a=a,
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
        memory=_Memory(
            jnp.where(ok, a_norm, c.memory.a_norm),
            jnp.where(ok, jnp.maximum(cond, c.memory.cond), c.memory.cond),
            jnp.where(ok, jnp.abs(z_bar), c.memory.normal),
        ),
        steps=c.steps + ok.astype(jnp.int32),
        outcome=outcome_of((CONLIM, cond > conlim), (OVERFLOW, overflow)),
    )


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0: directions in which nothing is left to correct."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _rotation(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """`(c, s, r)` with c·a + s·b = r = √(a² + b²) and c·b = s·a; the identity for zero."""
    r = jnp.hypot(a, b)
    safe = jnp.where(r > 0, r, 1)
    return jnp.where(r > 0, a / safe, 1), b / safe, r
