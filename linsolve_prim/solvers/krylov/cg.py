"""The method of conjugate gradients."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_where
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import tree_zeros_like


class _Memory(NamedTuple):
    """What joins two steps, also across a recomputation of the residual."""

    p: PyTree[Array]  # search direction
    rho: Array  # ⟨r, Mr⟩
    size: Array  # ⟨p, M⁻¹p⟩
    top: Array  # the largest |⟨p, Ap⟩| / ⟨p, M⁻¹p⟩ so far


class _Step(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    norm: Array
    steps: Array
    outcome: Array
    memory: _Memory


class CG(AbstractKrylovSolver):
    """Conjugate gradients (Hestenes and Stiefel, 1952, doi:10.6028/jres.049.044), preconditioned.

    For operators tagged positive or negative (semi)definite, real symmetric or complex Hermitian;
    semidefinite ones if b lies in the range. One product with A and one with M (definite) for each
    step, and one with A at the end.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `stabilise_every`: recompute the residual every so many steps, by another product. `None` does
      so at the end only, where it is always done.
    - `max_steps`: default 10 per unknown.
    """

    norm: NormLike = two_norm
    stabilise_every: Steps = None
    max_steps: Steps = None

    needs_definite: ClassVar[bool] = True
    in_the_middle: ClassVar[bool] = True

    def __check_init__(self) -> None:
        check_count("stabilise_every", self.stabilise_every, "the end only", optional=True)

    def method(self, system: System) -> Method:
        problem = system.problem
        one = jnp.ones_like(problem.norm)
        zeros = tree_zeros_like(problem.residual)
        # ρ = ∞ makes β = ρ'/ρ zero: with 1 its square would overflow where M is large, as A⁻¹ may be
        nothing = _Memory(zeros, jnp.inf * one, jnp.zeros_like(one), jnp.zeros_like(one))
        norm_is_rho = system.preconditioner is None and self.norm is two_norm

        # A and −A, M and −M give the same iterates, so that the signs need no care.
        def step(c: _Step) -> _Step:
            m = c.memory
            z = system.precondition(c.r)
            rho = c.norm**2 if norm_is_rho else tree_dot(c.r, z).real
            beta = rho / m.rho
            p = tree_axpy(beta, m.p, z)
            q = system.apply(p)
            curvature = tree_dot(p, q).real
            size = jnp.abs(rho) + beta**2 * m.size
            top = jnp.maximum(m.top, jnp.abs(curvature) / jnp.where(size > 0, size, 1))
            # Along p the operator is zero to working precision, against what it is along others.
            ok = (jnp.abs(curvature) > system.eps * size * top) & (rho != 0)
            alpha = jnp.where(ok, rho / jnp.where(ok, curvature, 1), 0)
            d = tree_where(ok, tree_axpy(alpha, p, c.d), c.d)
            r = tree_where(ok, tree_axpy(-alpha, q, c.r), c.r)
            r_norm = jnp.asarray(self.norm(r), c.norm.dtype)
            overflow = ~jnp.isfinite(rho + curvature + r_norm)
            return _Step(
                d=d,
                r=r,
                norm=r_norm,
                steps=c.steps + (ok & ~overflow).astype(jnp.int32),
                outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
                memory=_Memory(p, rho, size, top),
            )

        def cycle(start: Start) -> End:
            budget = start.budget
            if self.stabilise_every is not None:
                budget = jnp.minimum(budget, self.stabilise_every)
            zero = jnp.zeros((), jnp.int32)
            first = _Step(zeros, start.residual, start.norm, zero, zero, start.memory)
            ran = system.run(
                step, first, start, start.target, budget=budget, correction=lambda c: c.d
            )
            c = ran.carry
            return ran.end(c.d, memory=tree_where(c.outcome == BROKE_DOWN, nothing, c.memory))

        return Method(
            cycle,
            memory=nothing,
            patience=system.max_steps,
            monotone=False,  # what falls from step to step is the error, not the residual
        )
