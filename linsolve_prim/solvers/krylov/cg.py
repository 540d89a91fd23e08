"""The method of conjugate gradients."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_where
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, RUNNING, End, Method, Start, outcome_of
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import in_lane, tree_zeros_like


class _Memory(NamedTuple):
    """What joins two steps, also across a recomputation of the residual."""

    gauge: Array  # ⟨r, Mr⟩, or ‖r‖ where that is its root
    size: Array  # ⟨p, M⁻¹p⟩ / ⟨r, Mr⟩
    top: Array  # the largest |⟨p, Ap⟩| / ⟨p, M⁻¹p⟩ so far
    alpha: Array  # the step was αp: 0 if it broke down, NaN if it overflowed; infinite without one


class _Step(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    p: PyTree[Array]  # search direction
    norm: Array
    steps: Array
    memory: _Memory

    @property
    def outcome(self) -> Array:
        """How the step ended. (Not a field: what can be found out from others is not carried.)"""
        alpha = self.memory.alpha
        overflow = jnp.isnan(alpha) | ~jnp.isfinite(self.norm)
        return outcome_of((BROKE_DOWN, alpha == 0), (OVERFLOW, overflow))


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

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.CG(rtol=1e-4))
        >>> print(solution.value.round(3), solution.stats["num_steps"])
        [1. 2.] 2
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
        zeros = tree_zeros_like(problem.residual)
        zero = jnp.zeros_like(problem.norm)
        gauge_is_norm = system.preconditioner is None and self.norm is two_norm

        # A and −A, M and −M give the same iterates, so that the signs need no care.
        def step(c: _Step, active: Array) -> _Step:
            m = c.memory
            fresh = jnp.isinf(m.alpha)  # there is no last direction
            z = system.precondition(c.r)
            gauge = c.norm if gauge_is_norm else tree_dot(c.r, z).real
            rho = gauge**2 if gauge_is_norm else gauge
            ratio = gauge / m.gauge
            beta = jnp.where(fresh, 0, ratio**2 if gauge_is_norm else ratio)
            p = tree_where(active, tree_axpy(beta, c.p, z), c.p)
            q = system.apply(p)
            curvature = tree_dot(p, q).real
            size = 1 + jnp.abs(beta) * m.size
            # Along p the operator is zero to working precision, against what it is along others.
            noise = jnp.where(fresh, 0, system.eps * jnp.abs(rho) * size * m.top)
            ok = (jnp.abs(curvature) > noise) & (rho != 0)
            ordinary = jnp.isfinite(rho + curvature)
            alpha = jnp.where(ok, rho / jnp.where(ok, curvature, 1), 0)
            alpha = jnp.where(ordinary, alpha, jnp.nan)
            moves = active & (jnp.abs(alpha) > 0)
            top = jnp.maximum(m.top, jnp.where(moves, 1 / (jnp.abs(alpha) * size), 0))
            d = tree_where(moves, tree_axpy(alpha, p, c.d), c.d)
            r = tree_where(moves, tree_axpy(-alpha, q, c.r), c.r)
            r_norm = jnp.asarray(self.norm(r), c.norm.dtype)
            return _Step(
                d=d,
                r=r,
                p=p,
                norm=r_norm,
                steps=c.steps + (moves & jnp.isfinite(r_norm)).astype(jnp.int32),
                memory=_Memory(gauge, size, top, alpha),
            )

        def cycle(start: Start) -> End:
            budget = start.budget
            if self.stabilise_every is not None:
                budget = jnp.minimum(budget, self.stabilise_every)
            none = jnp.zeros((), jnp.int32)
            p, old = start.memory
            alpha = jnp.where(old.alpha == 0, jnp.inf, old.alpha)
            memory = old._replace(alpha=alpha)
            first = _Step(zeros, start.residual, p, start.norm, none, memory)

            def going(c: _Step) -> Array:
                return (c.outcome == RUNNING) & (c.norm > start.target) & (c.steps < budget)

            # The step itself holds vectors of lanes that are done: choosing again would read and write
            # each of them once more.
            ran = system.run(
                lambda c: step(c, in_lane(going(c))),
                first,
                start,
                start.target,
                going=going,
                correction=lambda c: c.d,
                loose=("d", "r", "p"),
            )
            return ran.end(ran.carry.d, memory=(ran.carry.p, ran.carry.memory))

        return Method(
            cycle,
            memory=(zeros, _Memory(zero + 1, zero, zero, zero + jnp.inf)),
            patience=system.max_steps,
            monotone=False,  # what falls from step to step is the error, not the residual
        )
