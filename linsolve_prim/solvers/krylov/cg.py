"""The method of conjugate gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_size, tree_where
from ..._types import Options
from ...operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
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
from .stopping import (
    NormLike,
    Steps,
    Tolerance,
    check_count,
    check_settings,
    pose,
    report,
    step_limit,
)
from .vectors import mesh_axes, tree_zeros_like, while_loop


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
    semidefinite ones if b lies in the range. One product with A and one with M for each step, and
    one with A at the end. Options: `"preconditioner"` (definite, approximating A⁻¹), `"y0"`.

    - `rtol`, `atol`: ‖b − Ax‖ ≤ max(rtol·‖b‖, atol), without preconditioner. `rtol=None` stands for
      1e-5 in float32 and 1e-10 in float64.
    - `norm`: the norm in this rule.
    - `stabilise_every`: recompute the residual every so many steps, by another product. `None` does
      so at the end only, where it is always done.
    - `max_steps`: default 10 per unknown.
    - `preconditioner`: used where the options name none.
    """

    rtol: Tolerance = None
    atol: Tolerance = 0.0
    norm: NormLike = two_norm
    stabilise_every: Steps = None
    max_steps: Steps = None
    preconditioner: Preconditioner = None

    def __check_init__(self) -> None:
        check_settings(self.rtol, self.atol, self.norm, self.max_steps)
        check_count("stabilise_every", self.stabilise_every, "the end only", optional=True)
        check_preconditioner_field(self.preconditioner)

    def init(self, operator: AbstractLinearOperator, options: Options) -> KrylovState:
        del options
        state = square_state(operator, self.preconditioner, "CG")
        if not (is_positive_semidefinite(operator) or is_negative_semidefinite(operator)):
            raise ValueError(
                "operator: `CG` needs a positive or negative definite operator, and this "
                f"{type(operator).__name__} does not promise that. Tag it with "
                "`positive_semidefinite_tag` if it is, or use `GMRES()`."
            )
        return state

    def compute(
        self, state: KrylovState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator, _ = state
        vector = inexact_vector(vector)
        preconditioner, x0 = read_preconditioner(state, options), read_guess(operator, options)
        problem = pose(operator, vector, x0, self.rtol, self.atol, self.norm)
        max_steps = step_limit(self.max_steps, tree_size(vector))
        axes = mesh_axes(operator, preconditioner, problem)
        one = jnp.ones_like(problem.norm)
        zeros = tree_zeros_like(problem.residual)
        nothing = _Memory(zeros, one, jnp.zeros_like(one), jnp.zeros_like(one))
        eps = float(jnp.finfo(one.dtype).eps)

        # A and −A, M and −M give the same iterates, so that the signs need no care.
        def step(c: _Step) -> _Step:
            m = c.memory
            if preconditioner is not None:
                z = preconditioner.mv(c.r)
                rho = tree_dot(c.r, z).real
            elif self.norm is two_norm:
                z, rho = c.r, c.norm**2
            else:
                z, rho = c.r, tree_dot(c.r, c.r).real
            beta = rho / m.rho
            p = tree_axpy(beta, m.p, z)
            q = operator.mv(p)
            curvature = tree_dot(p, q).real
            size = jnp.abs(rho) + beta**2 * m.size
            top = jnp.maximum(m.top, jnp.abs(curvature) / jnp.where(size > 0, size, 1))
            # Along p the operator is zero to working precision, against what it is along others.
            ok = (jnp.abs(curvature) > eps * size * top) & (rho != 0)
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
            going = lambda c: (c.outcome == RUNNING) & (c.norm > start.target) & (c.steps < budget)
            zero = jnp.zeros((), jnp.int32)
            first = _Step(zeros, start.residual, start.norm, zero, zero, start.memory)
            c = while_loop(going, step, first, axes)
            memory = tree_where(c.outcome == BROKE_DOWN, nothing, c.memory)
            return End(c.d, c.steps, close(c.outcome, c.norm, start.target), memory)

        ending, _ = iterate(
            cycle,
            operator,
            problem,
            self.norm,
            max_steps,
            axes,
            memory=nothing,
            patience=max_steps,
            monotone=False,  # what falls from step to step is the error, not the residual
        )
        return report(problem, ending, max_steps)

    def assume_full_rank(self) -> bool:
        return True
