"""LSQR: least squares by Golub–Kahan bidiagonalisation."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_where
from .cycles import CONLIM, OVERFLOW, Method, outcome_of
from .least_squares import (
    AbstractLeastSquaresSolver,
    Bidiagonal,
    Memory,
    extend,
    least_squares_method,
    ratio,
    rotation,
)
from .stopping import NormLike, Steps, Tolerance, check_tolerance
from .system import System


class _Step(NamedTuple):
    """After k steps, in the notation of the paper."""

    d: PyTree[Array]
    pair: Bidiagonal
    w: PyTree[Array]
    rho_bar: Array
    norm: Array  # φ̄
    inverse: Array  # ‖W R⁻¹‖, Frobenius: an estimate of ‖A†‖
    memory: Memory
    steps: Array
    outcome: Array


class LSQR(AbstractLeastSquaresSolver):
    """LSQR (Paige and Saunders, 1982, doi:10.1145/355984.355989), for operators of any shape and rank.

    Finds x = A†b, the least-squares solution of minimum norm: conjugate gradients on AᴴAx = Aᴴb
    without forming either, so that ‖b − Ax‖ falls from step to step. One product with A and one with
    Aᴴ for each step; five vectors. (`LSMR` has a smaller ‖Aᴴr‖ after as many steps.)

    - `rtol`, `atol`, `damp` and the two tests: see `AbstractLeastSquaresSolver`.
    - `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown or equation, whichever are fewer.
    - `conlim`: give up (`RESULTS.conlim`) when the estimated condition number is larger than this.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]))
        >>> print(lp.linear_solve(A, jnp.array([1.0, 3.0, 5.0]), lp.LSQR(rtol=1e-5)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    conlim: Tolerance = 1e8

    def __check_init__(self) -> None:
        check_tolerance("conlim", self.conlim)

    def method(self, system: System) -> Method:
        conlim = jnp.asarray(self.conlim, system.real_dtype)
        return least_squares_method(system, _first, lambda c: _step(c, system, conlim))


def _first(pair: Bidiagonal, zeros: PyTree[Array], memory: Memory) -> _Step:
    steps = jnp.zeros((), jnp.int32)
    return _Step(
        d=zeros,
        pair=pair,
        w=pair.v,
        rho_bar=pair.a,
        norm=pair.b,
        inverse=jnp.zeros_like(pair.a),
        memory=memory,
        steps=steps,
        outcome=steps,
    )


def _step(c: _Step, system: System, conlim: Array) -> _Step:
    pair = extend(system, c.pair)
    cos, sin, rho = rotation(c.rho_bar, pair.b)
    theta, rho_bar = sin * pair.a, -cos * pair.a
    phi, norm = cos * c.norm, sin * c.norm
    d = tree_axpy(ratio(phi, rho), c.w, c.d)
    w = tree_axpy(-ratio(theta, rho), c.w, pair.v)

    a_norm = jnp.maximum(c.memory.a_norm, jnp.hypot(c.pair.a, pair.b))
    inverse = jnp.hypot(c.inverse, ratio(two_norm(c.w).astype(rho.dtype), rho))
    cond = jnp.maximum(c.memory.cond, a_norm * inverse)
    overflow = ~jnp.isfinite(pair.a + pair.b + norm)
    ok = ~overflow
    return _Step(
        d=tree_where(ok, d, c.d),
        pair=pair,
        w=w,
        rho_bar=rho_bar,
        norm=norm,
        inverse=inverse,
        memory=c.memory._replace(
            a_norm=jnp.where(ok, a_norm, c.memory.a_norm),
            cond=jnp.where(ok, cond, c.memory.cond),
            normal=jnp.where(ok, norm * pair.a * jnp.abs(cos), c.memory.normal),
        ),
        steps=c.steps + ok.astype(jnp.int32),
        outcome=outcome_of((CONLIM, cond > conlim), (OVERFLOW, overflow)),
    )
