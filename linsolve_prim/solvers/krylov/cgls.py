"""CGLS: conjugate gradients on the normal equations, by products with A and Aᴴ."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import sum_squares, two_norm
from ..._tree import tree_axpy, tree_where
from .cycles import BROKE_DOWN, OVERFLOW, Method, outcome_of
from .least_squares import (
    AbstractLeastSquaresSolver,
    Bidiagonal,
    Memory,
    least_squares_method,
)
from .stopping import NormLike, Steps
from .system import System
from .vectors import safe_norm, tree_divide


class _Step(NamedTuple):
    """In units in which the first r and the first Aᴴr have the norm one (`unit`: those norms)."""

    d: PyTree[Array]
    r: PyTree[Array]
    p: PyTree[Array]
    gamma: Array  # ‖Aᴴr‖²
    unit: Bidiagonal
    norm: Array
    memory: Memory
    steps: Array
    outcome: Array


class CGLS(AbstractLeastSquaresSolver):
    """CGLS (Hestenes and Stiefel, 1952, doi:10.6028/jres.049.044; Björck, Elfving and Strakoš, 1998,
    doi:10.1137/S089547989631202X), for operators of any shape and rank.

    Finds x = A†b, the least-squares solution of minimum norm: the iterates of `LSQR`, by simpler
    recurrences with four vectors, where ‖b − Ax‖ and ‖Aᴴr‖ are known and not estimated. One product
    with A and one with Aᴴ for each step. On ill-conditioned systems `LSQR` and `LSMR` lose less.

    - `rtol`, `atol`, `damp` and the two tests: see `AbstractLeastSquaresSolver`.
    - `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown or equation, whichever are fewer.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0], [1.0]]))
        >>> print(lp.linear_solve(A, jnp.array([1.0, 3.0]), lp.CGLS()).value.round(3))  # the mean
        [2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    def method(self, system: System) -> Method:
        return least_squares_method(
            system, _first, lambda c: _step(c, system), knows_condition=False
        )


def _first(pair: Bidiagonal, zeros: PyTree[Array], memory: Memory) -> _Step:
    steps = jnp.zeros((), jnp.int32)
    return _Step(
        d=zeros,
        r=pair.u,
        p=pair.v,
        gamma=jnp.ones_like(pair.a),
        unit=pair,
        norm=pair.b,
        memory=memory,
        steps=steps,
        outcome=steps,
    )


def _step(c: _Step, system: System) -> _Step:
    dtype = c.norm.dtype
    a = jnp.where(c.unit.a > 0, c.unit.a, 1)
    q = tree_divide(system.product(c.p), a)
    delta = sum_squares(q).astype(dtype)
    ok = delta > 0
    alpha = jnp.where(ok, c.gamma / jnp.where(ok, delta, 1), 0)
    d = tree_axpy(alpha * (c.unit.b / a), c.p, c.d)
    r = tree_axpy(-alpha, q, c.r)
    s = tree_divide(system.adjoint_product(r), a)
    gamma = sum_squares(s).astype(dtype)
    p = tree_axpy(gamma / jnp.where(c.gamma > 0, c.gamma, 1), c.p, s)
    norm = c.unit.b * two_norm(r).astype(dtype)
    normal = jnp.sqrt(gamma) * a * c.unit.b
    p_norm = safe_norm(c.p).astype(dtype)
    a_norm = jnp.sqrt(delta) * a / jnp.where(p_norm > 0, p_norm, 1)

    overflow = ~jnp.isfinite(delta + gamma + norm)
    ok &= ~overflow
    return _Step(
        d=tree_where(ok, d, c.d),
        r=tree_where(ok, r, c.r),
        p=p,
        gamma=gamma,
        unit=c.unit,
        norm=jnp.where(ok, norm, c.norm),
        memory=c.memory._replace(
            a_norm=jnp.where(ok, jnp.maximum(a_norm, c.memory.a_norm), c.memory.a_norm),
            normal=jnp.where(ok, normal, c.memory.normal),
        ),
        steps=c.steps + ok.astype(jnp.int32),
        outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
    )
