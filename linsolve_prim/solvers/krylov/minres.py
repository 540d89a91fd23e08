"""The method of minimal residuals for symmetric operators."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_scale
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, SINGULAR, End, Method, Start, outcome_of
from .lanczos import Lanczos, lanczos_step, start_lanczos
from .probe import PROBES, is_skewed
from .stopping import NormLike, Steps
from .system import System
from .vectors import tree_divide, tree_zeros_like


class _Step(NamedTuple):
    """In the notation of the paper; c, s of the last rotation."""

    d: PyTree[Array]
    w: PyTree[Array]
    w_old: PyTree[Array]
    lanczos: Lanczos
    r: PyTree[Array] | None  # of the system, where its norm is not `phi_bar`
    delta_bar: Array
    epsilon: Array
    cos: Array
    sin: Array
    phi_bar: Array  # the norm of the residual that is minimised: √⟨r, Mr⟩
    top: Array  # the largest ‖A zₖ‖
    norm: Array
    steps: Array
    outcome: Array


class MINRES(AbstractKrylovSolver):
    """MINRES (Paige and Saunders, 1975, doi:10.1137/0712047), preconditioned.

    For real symmetric and complex Hermitian operators, definite or not; singular ones if b lies in
    the range (then any initial guess leads to a solution). ‖b − Ax‖ falls in every step (with a
    preconditioner it is √⟨r, Mr⟩ that falls). Short recurrences: seven vectors, one product with A
    and one with M (definite) for each step, and one with A at the end.

    An operator without a tag that promises A = Aᴴ is tested by two products, ⟨Au, v⟩ = ⟨u, Av⟩ for
    fixed u and v, and if it fails ends in `RESULTS.breakdown`: of a matrix that is not symmetric the
    method would minimise something else.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, -3.0]]), lp.symmetric_tag)  # indefinite
        >>> print(lp.linear_solve(A, jnp.array([4.0, -5.0]), lp.MINRES(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    in_the_middle: ClassVar[bool] = True

    def method(self, system: System) -> Method:
        skewed = is_skewed(system)
        knows_norm = system.preconditioner is None and self.norm is two_norm

        def step(c: _Step) -> _Step:
            lanczos, alpha = lanczos_step(system, c.lanczos)
            beta = lanczos.beta
            # The last two rotations, then the next one: (gamma_bar, beta) to (gamma, 0)
            delta = c.cos * c.delta_bar + c.sin * alpha
            gamma_bar = c.sin * c.delta_bar - c.cos * alpha
            gamma = jnp.hypot(gamma_bar, beta)
            top = jnp.maximum(c.top, jnp.hypot(jnp.hypot(c.lanczos.off, alpha), beta))
            overflow = ~jnp.isfinite(gamma + top)
            broken = lanczos.indefinite | (c.lanczos.beta == 0)
            singular = gamma <= system.eps * top
            ok = ~(overflow | broken | singular)
            safe = jnp.where(ok, gamma, 1)
            cos, sin = gamma_bar / safe, beta / safe
            phi, phi_bar = cos * c.phi_bar, sin * c.phi_bar
            w = tree_axpy(-c.epsilon, c.w_old, tree_axpy(-delta, c.w, c.lanczos.z))
            w = tree_divide(w, safe)
            r, norm = None, phi_bar
            if not knows_norm:
                r = tree_axpy(sin**2, c.r, tree_scale(-phi_bar * cos, lanczos.v))
                norm = jnp.asarray(self.norm(r), c.norm.dtype)
            return _Step(
                d=tree_axpy(jnp.where(ok, phi, 0), w, c.d),
                w=w,
                w_old=c.w,
                lanczos=lanczos,
                r=r,
                delta_bar=-c.cos * beta,
                epsilon=c.sin * beta,
                cos=cos,
                sin=sin,
                phi_bar=phi_bar,
                top=top,
                norm=jnp.where(ok, norm, c.norm),
                steps=c.steps + ok.astype(jnp.int32),
                outcome=outcome_of(
                    (SINGULAR, singular), (BROKE_DOWN, broken), (OVERFLOW, overflow)
                ),
            )

        def cycle(start: Start) -> End:
            zeros = tree_zeros_like(start.residual)
            zero, steps = jnp.zeros_like(start.norm), jnp.zeros((), jnp.int32)
            lanczos = start_lanczos(system, start.residual)
            first = _Step(
                d=zeros,
                w=zeros,
                w_old=zeros,
                lanczos=lanczos,
                r=None if knows_norm else start.residual,
                delta_bar=zero,
                epsilon=zero,
                cos=zero - 1,
                sin=zero,
                phi_bar=lanczos.beta,
                top=zero,
                norm=start.norm,
                steps=steps,
                outcome=steps if skewed is None else outcome_of((BROKE_DOWN, skewed)),
            )
            ran = system.run(step, first, start, start.target, correction=lambda c: c.d)
            return ran.end(ran.carry.d)

        return Method(cycle, before=(0 if skewed is None else PROBES, 0))
