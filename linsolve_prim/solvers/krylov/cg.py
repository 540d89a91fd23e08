"""The method of conjugate gradients."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_neg, tree_where
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, RUNNING, End, Method, Start, outcome_of
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import in_lane, tree_zeros_like


class _Memory(NamedTuple):
    """What joins two steps, also across a recomputation of the residual; carried as one array."""

    inverse: Array  # 1/⟨r, Mr⟩, or 1/‖r‖ where that is its root; 0 if there is no last direction
    size: Array  # ⟨p, M⁻¹p⟩ / ⟨r, Mr⟩
    top: Array  # the largest |⟨p, Ap⟩| / ⟨p, M⁻¹p⟩ so far


class _Step(NamedTuple):
    d: PyTree[Array]
    g: PyTree[Array]  # −r, the gradient, so that d and g change alike: by one kernel
    p: PyTree[Array]  # search direction, of ascent
    norm: Array
    trips: Array
    alpha: Array  # the step was −αp: 0 if it broke down, NaN if it overflowed; infinite without one
    memory: Array

    @property
    def outcome(self) -> Array:
        """How the step ended. (Not a field: what can be found out from others is not carried.)"""
        overflow = jnp.isnan(self.alpha) | ~jnp.isfinite(self.norm)
        return outcome_of((BROKE_DOWN, self.alpha == 0), (OVERFLOW, overflow))

    @property
    def steps(self) -> Array:
        """Trips without one that failed, which is the last."""
        return self.trips - (self.outcome != RUNNING).astype(jnp.int32)


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
            m = _Memory(*c.memory)
            z = system.precondition(c.g)
            gauge = c.norm if gauge_is_norm else tree_dot(c.g, z).real
            power = 2 if gauge_is_norm else 1
            rho = gauge**power
            beta = (gauge * m.inverse) ** power
            p = tree_where(active, tree_axpy(beta, c.p, z), c.p)
            q = system.apply(p)
            curvature = tree_dot(p, q).real
            size = 1 + jnp.abs(beta) * m.size
            # Along p the operator is zero to working precision, against what it is along others.
            noise = jnp.where(m.inverse == 0, 0, system.eps * jnp.abs(rho) * size * m.top)
            ok = (jnp.abs(curvature) > noise) & (rho != 0)
            ordinary = jnp.isfinite(rho + curvature)
            alpha = jnp.where(ok, rho / jnp.where(ok, curvature, 1), 0)
            alpha = jnp.where(ordinary, alpha, jnp.nan)
            took = jnp.abs(alpha) > 0
            moves = active & took
            d = tree_where(moves, tree_axpy(-alpha, p, c.d), c.d)
            g = tree_where(moves, tree_axpy(-alpha, q, c.g), c.g)
            memory = _Memory(
                inverse=jnp.where(took, 1 / jnp.where(took, gauge, 1), 0),
                size=size,
                top=jnp.maximum(m.top, jnp.where(took, 1 / (jnp.abs(alpha) * size), 0)),
            )
            return _Step(
                d=d,
                g=g,
                p=p,
                norm=jnp.asarray(self.norm(g), c.norm.dtype),
                trips=c.trips + 1,
                alpha=alpha,
                memory=jnp.stack(memory),
            )

        def cycle(start: Start) -> End:
            none = jnp.zeros((), jnp.int32)
            p, memory = start.memory
            first = _Step(
                zeros, tree_neg(start.residual), p, start.norm, none, zero + jnp.inf, memory
            )

            def going(c: _Step) -> Array:
                going = (c.outcome == RUNNING) & (c.norm > start.target)
                going &= start.steps + c.trips < system.max_steps
                if self.stabilise_every is not None:
                    going &= c.trips < self.stabilise_every
                return going

            # The step itself holds vectors of lanes that are done: choosing again would read and write
            # each of them once more.
            ran = system.run(
                lambda c: step(c, in_lane(going(c))),
                first,
                start,
                start.target,
                going=going,
                correction=lambda c: c.d,
                loose=("d", "g", "p"),
            )
            return ran.end(ran.carry.d, memory=(ran.carry.p, ran.carry.memory))

        return Method(
            cycle,
            memory=(zeros, jnp.array([0, 1, 0], zero.dtype)),
            patience=system.max_steps,
            monotone=False,  # what falls from step to step is the error, not the residual
        )
