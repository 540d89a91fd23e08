"""Induced dimension reduction."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_size, tree_sub, tree_where
from .arnoldi import combined, project
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .probe import fixed_vector
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise, tree_zeros_like

#: ω is made larger where r and Ar are closer to orthogonal than this (Sleijpen and van der Vorst,
#: 1995, doi:10.1007/BF02141261), so that a small one does not spoil the steps to come.
_COSINE = 0.7


class _Step(NamedTuple):
    """In the notation of the paper. G = AU, M = PᴴG is lower triangular, f = Pᴴr."""

    d: PyTree[Array]
    r: PyTree[Array]
    g: PyTree[Array]  # s vectors, stacked along the first axis of each leaf
    u: PyTree[Array]
    m: Array
    f: Array
    omega: Array
    k: Array  # which of these vectors is made next; with s, the residual goes to the next space
    norm: Array
    steps: Array
    outcome: Array


class IDR(AbstractKrylovSolver):
    """IDR(s) (van Gijzen and Sonneveld, 2011, doi:10.1145/2049662.2049667), preconditioned.

    For square operators of any kind. Residuals are forced into smaller and smaller spaces: in
    exact arithmetic n + n/s steps are enough, where `BiCGStab`, which is much like s = 1, takes 2n.
    Short recurrences: 3s + 5 vectors; one product with A and one with M for each step, one with A
    and M at the end. The s fixed shadow vectors have no pattern, and are the same in every run.

    - `rtol`, `atol`, `preconditioner`, `side`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `s`: the number of shadow vectors. More of them need fewer steps and more work in each.
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 3 * x - jnp.roll(x, 1), jnp.zeros(5))
        >>> print(lp.linear_solve(A, 2 * jnp.ones(5), lp.IDR(s=2)).value.round(3))
        [1. 1. 1. 1. 1.]
    """

    norm: NormLike = two_norm
    s: Steps = 4
    max_steps: Steps = None

    def __check_init__(self) -> None:
        check_count("s", self.s, "4")

    def method(self, system: System) -> Method:
        s = min(int(self.s or 1), max(tree_size(system.problem.vector), 1))

        def cycle(start: Start) -> End:
            r, r_norm, target = system.begin(start)
            # Another start from the same residual must not break down in the same way.
            shadows = _shadows(r, s, start.index)
            rows = jax.tree.map(lambda leaf: jnp.zeros((s, *leaf.shape), leaf.dtype), r)
            zero = jnp.zeros((), jnp.int32)
            first = _Step(
                d=tree_zeros_like(r),
                r=r,
                g=rows,
                u=rows,
                m=jnp.eye(s, dtype=system.dtype),
                f=project(shadows, r).astype(system.dtype),
                omega=jnp.ones((), system.dtype),
                k=zero,
                norm=r_norm,
                steps=zero,
                outcome=zero,
            )
            step = lambda c: _step(system, shadows, c)
            ran = system.run(step, first, start, target)
            return ran.end(system.finish(ran.carry.d))

        return Method(cycle)


def _shadows(like: PyTree[Array], s: int, cycle: Array) -> PyTree[Array]:
    """s orthonormal vectors, stacked."""
    rows: list[PyTree[Array]] = []
    for i in range(s):
        p = normalise(fixed_vector(like, s * cycle + i))[0]
        for _ in range(2):
            for row in rows:
                p = tree_axpy(-tree_dot(row, p), row, p)
            p = normalise(p)[0]
        rows.append(p)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _step(system: System, shadows: PyTree[Array], c: _Step) -> _Step:
    s, eps = c.f.shape[0], system.eps
    index = jnp.arange(s, dtype=jnp.int32)
    last = c.k == s
    # A vector of the space that r is in; from it the next u and g, or the next residual.
    share = _solve_part(c.m, c.f, index >= c.k)
    v = tree_sub(c.r, combined(c.g, share))
    w = tree_where(last, c.r, tree_axpy(c.omega, v, combined(c.u, share)))
    g = system.product(w)
    # Make g orthogonal to the first k shadow vectors.
    share = _solve_part(c.m, project(shadows, g), (index < c.k) & ~last)
    g, w = tree_sub(g, combined(c.g, share)), tree_sub(w, combined(c.u, share))

    g_unit, g_norm = normalise(g)
    omega = _omega(g_unit, g_norm, c.r)
    # One projection, of the new g, or of the new residual
    probe = tree_where(last, tree_axpy(-omega, g, c.r), g_unit)
    inner = project(shadows, probe).astype(c.f.dtype)
    column = jnp.where(index >= c.k, inner, 0) * g_norm.astype(c.f.dtype)
    at = lambda x: jnp.sum(jnp.where(index == c.k, x, 0))
    ok = jnp.where(last, g_norm > 0, jnp.abs(at(inner)) > eps)
    beta = at(c.f) / jnp.where(ok & ~last, at(column), 1)
    alpha = jnp.where(ok, jnp.where(last, omega, beta), 0)

    r = tree_axpy(-alpha, g, c.r)
    r_norm = system.measure(r)
    overflow = ~jnp.isfinite(g_norm + jnp.abs(alpha) + r_norm)
    keep = ok & ~overflow
    f = jnp.where(last, inner, jnp.where(index > c.k, c.f - beta * column, 0))
    put = lambda rows, row: jax.tree.map(
        lambda old, new: old.at[c.k].set(new, mode="drop"), rows, row
    )
    return _Step(
        d=tree_axpy(alpha, w, c.d),
        r=r,
        g=put(c.g, g),
        u=put(c.u, w),
        m=jnp.where((index == c.k)[None, :], column[:, None], c.m),
        f=f,
        omega=jnp.where(last, omega, c.omega),
        k=jnp.where(last, 0, c.k + 1),
        norm=jnp.where(keep, r_norm, c.norm),
        steps=c.steps + keep.astype(jnp.int32),
        outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
    )


def _solve_part(m: Array, f: Array, part: Array) -> Array:
    """The solution of that part of a lower triangular system, and zeros elsewhere."""
    inside = part[:, None] & part[None, :]
    m = jnp.where(inside, m, jnp.eye(m.shape[0], dtype=m.dtype))
    return jsp.linalg.solve_triangular(m, jnp.where(part, f.astype(m.dtype), 0), lower=True)


def _omega(t: PyTree[Array], t_norm: Array, r: PyTree[Array]) -> Array:
    """The ω that minimises ‖r − ωt‖ for t given by its unit vector and norm, or a larger one."""
    inner, size = tree_dot(t, r), two_norm(r)
    part = jnp.abs(inner)
    some = part > 0
    sign = jnp.where(some, inner / jnp.where(some, part, 1).astype(inner.dtype), 1)
    long = jnp.maximum(part, _COSINE * size).astype(part.dtype)
    return sign * (long / jnp.where(t_norm > 0, t_norm, 1)).astype(inner.dtype)
