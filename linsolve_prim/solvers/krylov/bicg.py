"""The method of biconjugate gradients, and the square of it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_add, tree_axpy, tree_dot, tree_where
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .probe import shadow
from .stopping import NormLike, Steps
from .system import System
from .vectors import safe_norm, tree_zeros_like


class _BiCGStep(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    p: PyTree[Array]
    r_dual: PyTree[Array]
    p_dual: PyTree[Array]
    rho: Array
    norm: Array
    steps: Array
    outcome: Array


class BiCG(AbstractKrylovSolver):
    """Biconjugate gradients (Fletcher, 1976, doi:10.1007/BFb0080116), preconditioned.

    For square operators of any kind, with an adjoint. Short recurrences (five vectors); one product
    with A, Aᴴ, M and Mᴴ for each step, one with A and M at the end. The residual jumps up and down,
    and the method may break down; `QMR` costs the same and is smoother.

    - `rtol`, `atol`, `preconditioner`, `side`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 6.0]), lp.BiCG(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    def method(self, system: System) -> Method:
        eps = system.eps

        def step(c: _BiCGStep) -> _BiCGStep:
            rho = tree_dot(c.r_dual, c.r)
            beta = rho / c.rho
            p = tree_axpy(beta, c.p, c.r)
            p_dual = tree_axpy(jnp.conj(beta), c.p_dual, c.r_dual)
            q, q_dual = system.product(p), system.adjoint_product(p_dual)
            sigma = tree_dot(p_dual, q)
            ok = jnp.abs(rho) > eps * safe_norm(c.r_dual) * safe_norm(c.r)
            ok &= jnp.abs(sigma) > eps * safe_norm(p_dual) * safe_norm(q)
            alpha = jnp.where(ok, rho / jnp.where(ok, sigma, 1), 0)
            r = tree_where(ok, tree_axpy(-alpha, q, c.r), c.r)
            r_norm = system.measure(r)
            overflow = ~jnp.isfinite(jnp.abs(rho) + jnp.abs(sigma) + r_norm)
            return _BiCGStep(
                d=tree_where(ok, tree_axpy(alpha, p, c.d), c.d),
                r=r,
                p=p,
                r_dual=tree_axpy(-jnp.conj(alpha), q_dual, c.r_dual),
                p_dual=p_dual,
                rho=jnp.where(ok, rho, 1),
                norm=r_norm,
                steps=c.steps + (ok & ~overflow).astype(jnp.int32),
                outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
            )

        def cycle(start: Start) -> End:
            r, r_norm, target = system.begin(start)
            zeros, zero = tree_zeros_like(r), jnp.zeros((), jnp.int32)
            one = jnp.ones((), system.dtype)
            dual = shadow(r, start.index)
            first = _BiCGStep(zeros, r, zeros, dual, zeros, one, r_norm, zero, zero)
            ran = system.run(step, first, start, target)
            return ran.end(system.finish(ran.carry.d))

        return Method(cycle, per_trip=(1, 1))


class _CGSStep(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    p: PyTree[Array]
    q: PyTree[Array]
    rho: Array
    norm: Array
    steps: Array
    outcome: Array


class CGS(AbstractKrylovSolver):
    """Conjugate gradients squared (Sonneveld, 1989, doi:10.1137/0910004), preconditioned.

    For square operators of any kind. `BiCG` with the square of its polynomials and without Aᴴ: twice
    as fast where it converges, twice as wild where it does not; seven vectors. Two products with A
    and two with M for each step, one with A and M at the end.

    - `rtol`, `atol`, `preconditioner`, `side`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 6.0]), lp.CGS(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    def method(self, system: System) -> Method:
        eps = system.eps

        def cycle(start: Start) -> End:
            r0, r0_norm, target = system.begin(start)
            dual = shadow(r0, start.index)
            dual_norm = safe_norm(dual)

            def step(c: _CGSStep) -> _CGSStep:
                rho = tree_dot(dual, c.r)
                beta = rho / c.rho
                u = tree_axpy(beta, c.q, c.r)
                p = tree_axpy(beta, tree_axpy(beta, c.p, c.q), u)
                v = system.product(p)
                sigma = tree_dot(dual, v)
                ok = jnp.abs(rho) > eps * dual_norm * safe_norm(c.r)
                ok &= jnp.abs(sigma) > eps * dual_norm * safe_norm(v)
                alpha = jnp.where(ok, rho / jnp.where(ok, sigma, 1), 0)
                q = tree_axpy(-alpha, v, u)
                both = tree_add(u, q)
                r = tree_axpy(-alpha, system.product(both), c.r)
                r = tree_where(ok, r, c.r)
                r_norm = system.measure(r)
                overflow = ~jnp.isfinite(jnp.abs(rho) + jnp.abs(sigma) + r_norm)
                return _CGSStep(
                    d=tree_where(ok, tree_axpy(alpha, both, c.d), c.d),
                    r=r,
                    p=p,
                    q=q,
                    rho=jnp.where(ok, rho, 1),
                    norm=r_norm,
                    steps=c.steps + (ok & ~overflow).astype(jnp.int32),
                    outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
                )

            zeros, zero = tree_zeros_like(r0), jnp.zeros((), jnp.int32)
            one = jnp.ones((), system.dtype)
            first = _CGSStep(zeros, r0, zeros, zeros, one, r0_norm, zero, zero)
            ran = system.run(step, first, start, target)
            return ran.end(system.finish(ran.carry.d))

        return Method(cycle, per_trip=(2, 0))
