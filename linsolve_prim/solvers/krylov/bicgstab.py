"""The stabilised method of biconjugate gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_where
from .base import AbstractKrylovSolver
from .bicgstabl import bicgstab_l
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .probe import shadow
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise, safe_norm, tree_zeros_like


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
    """BiCGStab (van der Vorst, 1992, doi:10.1137/0913035), preconditioned; and BiCGStab(ℓ).

    For square operators of any kind. Short recurrences (seven vectors) instead of `GMRES`'s basis,
    two products with A and two with M for each step, one with A and M at the end; the residual does
    not fall monotonically. Operators that are nearly skew-symmetric, as of strong convection, make
    it stagnate or break down: there `ell=2` or `ell=4` helps (Sleijpen and Fokkema, 1993,
    https://etna.math.kent.edu/vol.1.1993/pp11-32.dir/pp11-32.pdf).

    - `rtol`, `atol`, `preconditioner`, `side`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.
    - `ell`: over how many dimensions each step minimises the residual: 2·`ell` products with A and M
      in one step, 3·`ell` + 5 vectors.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 9.0], [-9.0, 1.0]]))  # nearly skew
        >>> print(lp.linear_solve(A, jnp.array([19.0, -7.0]), lp.BiCGStab(rtol=1e-4, ell=2)).value.round(2))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    ell: Steps = 1

    def __check_init__(self) -> None:
        check_count("ell", self.ell, "1")

    def method(self, system: System) -> Method:
        if self.ell != 1:
            return bicgstab_l(system, int(self.ell or 1))
        eps = system.eps

        def cycle(start: Start) -> End:
            r0, r0_norm, target = system.begin(start)
            dual = shadow(r0, start.index)
            dual_norm = two_norm(dual)
            known = self.norm is two_norm or system.on_left
            r_two = lambda c: c.norm if known else two_norm(c.r)

            def step(c: _Step) -> _Step:
                rho = tree_dot(dual, c.r)
                beta = (rho / c.rho) * (c.alpha / c.omega)
                p = tree_axpy(beta, tree_axpy(-c.omega, c.v, c.p), c.r)
                v = system.product(p)
                sigma = tree_dot(dual, v)
                ok = (jnp.abs(rho) > eps * dual_norm * r_two(c)) & (
                    jnp.abs(sigma) > eps * dual_norm * safe_norm(v)
                )
                alpha = jnp.where(ok, rho / jnp.where(ok, sigma, 1), 0)
                s = tree_where(ok, tree_axpy(-alpha, v, c.r), c.r)
                s_norm = two_norm(s)
                # ω = ⟨t, s⟩/⟨t, t⟩ minimises ‖s − ωt‖.
                t, t_norm = normalise(system.product(s))
                projection = tree_dot(t, s)
                smooth = ok & (jnp.abs(projection) > eps * s_norm)
                # If s is already small, the step ends halfway.
                smooth &= system.measure(s) > target
                scale = jnp.where(t_norm > 0, t_norm, 1).astype(rho.dtype)
                omega = jnp.where(smooth, projection / scale, 0)
                d = tree_where(ok, tree_axpy(alpha, p, c.d), c.d)
                d = tree_where(smooth, tree_axpy(omega, s, d), d)
                r = tree_where(smooth, tree_axpy(-projection, t, s), s)
                r_norm = system.measure(r)
                overflow = ~jnp.isfinite(jnp.abs(rho) + jnp.abs(sigma) + r_norm)
                broken = ~(ok & smooth) & (r_norm > target)
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

            zeros = tree_zeros_like(r0)
            one = jnp.ones((), tree_dot(dual, dual).dtype)
            zero = jnp.zeros((), jnp.int32)
            first = _Step(zeros, r0, zeros, zeros, one, one, one, r0_norm, zero, zero)
            ran = system.run(step, first, start, target)
            return ran.end(system.finish(ran.carry.d))

        return Method(cycle, per_trip=(2, 0))
