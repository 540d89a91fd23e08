"""SYMMLQ: the smallest error for symmetric operators."""

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
from .vectors import tree_zeros_like


class _Step(NamedTuple):
    """After k steps: T = LQ, and L̄z = β₁e₁ but for its last two entries."""

    d: PyTree[Array]
    w: PyTree[Array]
    lanczos: Lanczos
    gamma_bar: Array
    delta_bar: Array
    rest: Array  # the next entry of Lz, and
    rest_next: Array  # the one after it
    sines: Array  # their product
    zeta: Array  # from d, the point of CG lies at d + ζw
    top: Array  # the largest ‖A zₖ‖
    norm: Array
    steps: Array
    outcome: Array


class SYMMLQ(AbstractKrylovSolver):
    """SYMMLQ (Paige and Saunders, 1975, doi:10.1137/0712047), preconditioned.

    For real symmetric and complex Hermitian operators, definite or not; singular ones if b lies in
    the range. In every step ‖x − x*‖ falls, not ‖b − Ax‖, which `MINRES` minimises; it ends at the
    point that has the smaller residual, that of SYMMLQ or that of `CG`. Short recurrences: six
    vectors, one product with A and one with M (definite) for each step, and one with A at the end.
    An operator without a tag that promises A = Aᴴ is tested by two products, as in `MINRES`.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, -3.0]]), lp.symmetric_tag)
        >>> print(lp.linear_solve(A, jnp.array([4.0, -5.0]), lp.SYMMLQ(rtol=1e-4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    in_the_middle: ClassVar[bool] = True

    def method(self, system: System) -> Method:
        skewed = is_skewed(system)
        plain = system.preconditioner is None and self.norm is two_norm

        def cycle(start: Start) -> End:
            zeros = tree_zeros_like(start.residual)
            zero, steps = jnp.zeros_like(start.norm), jnp.zeros((), jnp.int32)
            lanczos = start_lanczos(system, start.residual)
            beta = lanczos.beta
            # What the norms of the method, √⟨r, Mr⟩, are worth in those of the user; roughly.
            unit = start.norm / jnp.where(beta > 0, beta, 1)

            def step(c: _Step) -> _Step:
                lanczos, alpha = lanczos_step(system, c.lanczos)
                off, off_next = c.lanczos.off, lanczos.off
                first = c.steps == 0
                gamma = jnp.where(first, 1, jnp.hypot(c.gamma_bar, off))
                top = jnp.maximum(c.top, jnp.hypot(jnp.hypot(off, alpha), off_next))
                overflow = ~jnp.isfinite(gamma + top)
                broken = lanczos.indefinite | (c.lanczos.beta == 0)
                singular = ~first & (gamma <= system.eps * top)
                ok = ~(overflow | broken | singular)
                safe = jnp.where(ok, gamma, 1)
                cos = jnp.where(first, -1, c.gamma_bar / safe)
                sin = jnp.where(first, 0, off / safe)
                delta = cos * c.delta_bar + sin * alpha
                gamma_bar = sin * c.delta_bar - cos * alpha
                z = jnp.where(ok, c.rest / safe, 0)
                v = c.lanczos.z
                d = tree_axpy(z * cos, c.w, tree_axpy(z * sin, v, c.d))
                w = tree_axpy(sin, c.w, tree_scale(-cos, v))
                rest, rest_next = c.rest_next - delta * z, -sin * off_next * z
                sines = jnp.where(first, 1, c.sines * sin)
                # The residual of CG is a multiple of the next Lanczos vector.
                regular = jnp.abs(gamma_bar) > system.eps * top
                pivot = jnp.where(regular, gamma_bar, 1)
                size = 1 if plain else jnp.asarray(self.norm(lanczos.v), c.norm.dtype)
                cg = jnp.abs(sines * beta * (off_next / pivot)) * size
                lq = unit * jnp.hypot(rest, rest_next)
                at_cg = regular & (cg <= lq)
                return _Step(
                    d=d,
                    w=w,
                    lanczos=lanczos,
                    gamma_bar=gamma_bar,
                    delta_bar=-cos * off_next,
                    rest=rest,
                    rest_next=rest_next,
                    sines=sines,
                    zeta=jnp.where(ok, jnp.where(at_cg, rest / pivot, 0), c.zeta),
                    top=top,
                    norm=jnp.where(ok, jnp.where(at_cg, cg, lq), c.norm),
                    steps=c.steps + ok.astype(jnp.int32),
                    outcome=outcome_of(
                        (SINGULAR, singular), (BROKE_DOWN, broken), (OVERFLOW, overflow)
                    ),
                )

            first = _Step(
                d=zeros,
                w=zeros,
                lanczos=lanczos,
                gamma_bar=zero,
                delta_bar=zero,
                rest=zero,
                rest_next=beta,
                sines=zero + 1,
                zeta=zero,
                top=zero,
                norm=start.norm,
                steps=steps,
                outcome=steps if skewed is None else outcome_of((BROKE_DOWN, skewed)),
            )
            correction = lambda c: tree_axpy(c.zeta, c.w, c.d)
            ran = system.run(step, first, start, start.target, correction=correction, exact=plain)
            return ran.end(correction(ran.carry))

        before = (0 if skewed is None else PROBES, 0)
        return Method(cycle, monotone=False, before=before)
