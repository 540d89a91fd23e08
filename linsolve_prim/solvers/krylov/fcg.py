"""Conjugate gradients that make each direction conjugate anew: flexible and adaptive CG."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two, two_norm
from ..._tree import tree_axpy, tree_dot, tree_size, tree_sub, tree_where
from .arnoldi import combined, project
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .fgmres import count_statistics, no_counts, precondition_counted
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise, tree_divide, tree_zeros_like


class _Memory(NamedTuple):
    """The last directions, also across a recomputation of the residual."""

    p: PyTree[Array]  # with entries up to 2, stacked along the first axis of each leaf
    q: PyTree[Array]  # Ap
    curvature: Array  # ⟨q, p⟩; zero where no direction is kept
    top: Array  # the largest ‖q‖ so far
    count: Array
    extra: Any  # what a solver inside of the preconditioner counts


class _Step(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    norm: Array
    steps: Array
    outcome: Array
    memory: _Memory


class FCG(AbstractKrylovSolver):
    """Flexible conjugate gradients (Notay, 2000, doi:10.1137/S1064827599362314), preconditioned.

    For operators tagged positive or negative (semi)definite, as `CG`, with a preconditioner that
    is not symmetric, not linear, or not the same each time: one sweep of Gauss–Seidel, a few steps
    of another iteration. Each direction is made conjugate to the last `mmax` ones by their own
    products, and the step along it fits the residual that there is. One product with A and one with
    M for each step, one with A at the end; 3 + 2·`mmax` vectors.

    - `preconditioner`: an operator M that approximates A⁻¹, linear or not; or a *solver*, which is
      called for Az = v: `FCG(preconditioner=CG(rtol=0.1))`. Its steps stand in
      `stats["inner_steps"]`.
    - `rtol`, `atol`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `mmax`: to how many directions each new one is made conjugate.
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> solver = lp.FCG(rtol=1e-4, preconditioner=lp.CG(rtol=0.1))  # an iteration inside
        >>> print(lp.linear_solve(A, jnp.array([4.0, 7.0]), solver).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    mmax: Steps = 1
    max_steps: Steps = None

    needs_definite: ClassVar[bool] = True
    flexible: ClassVar[bool] = True

    def __check_init__(self) -> None:
        check_count("mmax", self.mmax, "1")

    def method(self, system: System) -> Method:
        return _method(system, int(self.mmax or 1), None)


class CGAdaptive(AbstractKrylovSolver):
    """Conjugate gradients with both coefficients taken from the residual that there is.

    α = ⟨p, r⟩/⟨p, Ap⟩ and β = −⟨Ap, Mr⟩/⟨p, Ap⟩ hold for any r, so that rounding errors (and a
    residual that is recomputed) do not spoil them as they do those of `CG`, and need no tag: it is
    ΦML's "CG-adaptive", and Hestenes' and Stiefel's first form (1952, doi:10.6028/jres.049.044).
    Symmetric or Hermitian operators are what it is for; indefinite ones are often solved, but may
    end in `RESULTS.breakdown` (`MINRES` solves them all), as do most without symmetry.

    One product with A and one with M for each step, one with A at the end; two inner products more
    than `CG`.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `stabilise_every`: recompute the residual every so many steps, by another product. `None` does
      so at the end only, where it is always done.
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]))  # without a tag
        >>> print(lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.CGAdaptive(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    stabilise_every: Steps = None
    max_steps: Steps = None

    def __check_init__(self) -> None:
        check_count("stabilise_every", self.stabilise_every, "the end only", optional=True)

    def method(self, system: System) -> Method:
        return _method(system, 1, self.stabilise_every)


def _method(system: System, length: int, stabilise_every: int | None) -> Method:
    length = min(length, max(tree_size(system.problem.vector), 1))
    zeros = tree_zeros_like(system.problem.residual)
    one, count = jnp.ones_like(system.problem.norm), jnp.zeros((), jnp.int32)
    rows = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), zeros)
    curvature = jnp.zeros((length,), system.dtype)
    nothing = _Memory(rows, rows, curvature, jnp.zeros_like(one), count, no_counts())
    limit = 10 * system.eps

    def step(c: _Step) -> _Step:
        m = c.memory
        z, counts = precondition_counted(system, c.r)
        kept = m.curvature != 0
        shares = jnp.where(kept, project(m.q, z) / jnp.where(kept, m.curvature, 1), 0)
        p = tree_sub(z, combined(m.p, shares))
        p = tree_divide(p, power_of_two(max_norm(p)))
        p_norm = two_norm(p)
        q = system.apply(p)
        q_unit, q_norm = normalise(q)
        size = q_norm / jnp.where(p_norm > 0, p_norm, 1)
        top = jnp.maximum(m.top, size)
        along = tree_dot(q_unit, p)
        # Along p the operator is zero to working precision, or turns p into what is orthogonal.
        ok = (jnp.abs(along) > limit * p_norm) & (size > system.eps * top)
        overflow = ~jnp.isfinite(q_norm + jnp.abs(along))
        ok &= ~overflow
        curvature = along * q_norm.astype(along.dtype)
        safe = jnp.where(ok, curvature, 1)
        alpha = jnp.where(ok, tree_dot(p, c.r) / jnp.conj(safe), 0)
        r = tree_where(ok, tree_axpy(-alpha, q, c.r), c.r)
        r_norm = jnp.asarray(system.norm(r), c.norm.dtype)
        # A step that failed is the last one of its cycle, which forgets its directions.
        put = lambda rows, row: jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, m.count % length, 0),
            rows,
            row,
        )
        memory = _Memory(
            p=put(m.p, p),
            q=put(m.q, q),
            curvature=put(m.curvature, curvature.astype(m.curvature.dtype)),
            top=top,
            count=m.count + 1,
            extra=m.extra + counts,
        )
        return _Step(
            d=tree_axpy(alpha, p, c.d),
            r=r,
            norm=r_norm,
            steps=c.steps + ok.astype(jnp.int32),
            outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow | ~jnp.isfinite(r_norm))),
            memory=memory,
        )

    def cycle(start: Start) -> End:
        budget = start.budget
        if stabilise_every is not None:
            budget = jnp.minimum(budget, stabilise_every)
        first = _Step(zeros, start.residual, start.norm, count, count, start.memory)
        ran = system.run(step, first, start, start.target, budget=budget, correction=lambda c: c.d)
        c = ran.carry
        fresh = nothing._replace(extra=c.memory.extra)
        return ran.end(c.d, memory=tree_where(c.outcome == BROKE_DOWN, fresh, c.memory))

    return Method(
        cycle,
        memory=nothing,
        patience=system.max_steps,
        monotone=False,  # what falls from step to step is the error, not the residual
        statistics=lambda memory, x: count_statistics(system, memory.extra),
    )
