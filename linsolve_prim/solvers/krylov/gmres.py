"""The generalised minimal residual method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import HIGHEST, tree_dtype, tree_size, tree_sub
from .base import AbstractKrylovSolver
from .cycles import OVERFLOW, SINGULAR, End, Method, Start, outcome_of
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise


class _Arnoldi(NamedTuple):
    """After j steps: A V[:j] = V[:j+1] H, and QH = R is upper triangular."""

    basis: PyTree[Array]  # V, stacked along the first axis of each leaf
    rotations: Array  # Q, the product of the Givens rotations
    triangle: Array  # R, with ones on the diagonal of the columns to come
    norm: Array  # of the residual, two_norm
    top: Array  # the largest ‖A vᵢ‖
    steps: Array
    outcome: Array


class GMRES(AbstractKrylovSolver):
    """Restarted GMRES (Saad and Schultz, 1986, doi:10.1137/0907058), preconditioned.

    For square operators of any kind. One product with A and one with M for each step, and one with
    A for each restart; a basis of `restart + 1` vectors. Gram–Schmidt is done twice, in matrix
    form: twice is enough (Giraud, Langou and Rozložník, 2005, doi:10.1016/j.camwa.2005.08.009).

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol). (What is minimised is the Euclidean norm.)
    - `max_steps`: default 10 per unknown. Steps inside of restarts count.
    - `restart`: the length of a cycle.
    - `stagnation_iters`: how many cycles in a row may leave the residual where it is.
    - `side`: `"right"` minimises ‖b − Ax‖, `"left"` ‖M(b − Ax)‖.
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    restart: Steps = 20
    stagnation_iters: Steps = 20

    def __check_init__(self) -> None:
        check_count("restart", self.restart, "20")
        check_count("stagnation_iters", self.stagnation_iters, "20")

    def method(self, system: System) -> Method:
        length = min(int(self.restart or 1), max(tree_size(system.problem.vector), 1))

        def cycle(start: Start) -> End:
            r, _, target = system.begin(start, euclidean=True)
            v, beta = normalise(r)
            step, first = _arnoldi(system.product, v, beta, length)
            ran = system.run(
                step,
                first,
                start,
                target,
                budget=jnp.minimum(start.budget, length),
                correction=lambda c: system.finish(_combine(c, beta)),
                exact=self.norm is two_norm,
            )
            return ran.end(system.finish(_combine(ran.carry, beta)))

        return Method(cycle, patience=int(self.stagnation_iters or 1))


def _arnoldi(
    product: Any, v: PyTree[Array], beta: Array, length: int
) -> tuple[Callable[[_Arnoldi], _Arnoldi], _Arnoldi]:
    """The step that extends an orthonormal basis from v, where the residual has the norm `beta`."""
    dtype = tree_dtype(v)
    eps = float(jnp.finfo(dtype).eps)
    index = jnp.arange(length + 1, dtype=jnp.int32)

    def step(c: _Arnoldi) -> _Arnoldi:
        j = c.steps
        w, w_norm = normalise(product(jax.tree.map(lambda leaf: _row(leaf, j), c.basis)))
        h = _project(c.basis, w)
        w = tree_sub(w, _expand(c.basis, h))
        again = _project(c.basis, w)
        w, rest = normalise(tree_sub(w, _expand(c.basis, again)))
        rest = jnp.where(rest > 10 * eps, rest, 0)  # else the space is invariant: a happy end
        # The new column of H in units of ‖w‖, turned by the rotations that were; then the next one.
        column = h + again + jnp.where(index == j + 1, rest, 0).astype(dtype)
        column = jnp.matmul(c.rotations, column, precision=HIGHEST)
        hypot = jnp.sqrt(jnp.abs(column[j]) ** 2 + rest**2)
        top = jnp.maximum(c.top, w_norm)
        singular = hypot * w_norm <= eps * top
        overflow = ~jnp.isfinite(w_norm)
        ok = ~(singular | overflow)
        safe = jnp.where(ok, hypot, 1)
        cos, sin = column[j] / safe.astype(dtype), (rest / safe).astype(dtype)
        q, q_next = c.rotations[j], c.rotations[j + 1]
        rotations = c.rotations.at[j].set(jnp.conj(cos) * q + sin * q_next)
        rotations = rotations.at[j + 1].set(cos * q_next - sin * q)
        rotations = jnp.where(ok, rotations, c.rotations)
        rows = index[:length]
        new = jnp.where(rows == j, hypot.astype(dtype), jnp.where(rows < j, column[:length], 0))
        new = jnp.where(ok, new * w_norm.astype(dtype), c.triangle[:, j])
        keep_row = lambda leaf, row: leaf.at[j + 1].set(jnp.where(ok & (rest > 0), row, 0))
        return _Arnoldi(
            basis=jax.tree.map(keep_row, c.basis, w),
            rotations=rotations,
            triangle=c.triangle.at[:, j].set(new),
            norm=jnp.where(ok, beta * jnp.abs(rotations[j + 1, 0]), c.norm),
            top=top,
            steps=j + ok.astype(jnp.int32),
            outcome=outcome_of((SINGULAR, singular), (OVERFLOW, overflow)),
        )

    empty = lambda leaf: jnp.zeros((length + 1, *leaf.shape), leaf.dtype).at[0].set(leaf)
    zero = jnp.zeros((), jnp.int32)
    first = _Arnoldi(
        basis=jax.tree.map(empty, v),
        rotations=jnp.eye(length + 1, dtype=dtype),
        triangle=jnp.eye(length, dtype=dtype),
        norm=beta,
        top=jnp.zeros_like(beta),
        steps=zero,
        outcome=zero,
    )
    return step, first


def _combine(c: _Arnoldi, beta: Array) -> PyTree[Array]:
    """V y with the y that minimises ‖βe₁ − Hy‖, that is Ry = Qβe₁."""
    length = c.triangle.shape[0]
    rhs = c.rotations[:length, 0] * beta.astype(c.triangle.dtype)
    rhs = jnp.where(jnp.arange(length, dtype=jnp.int32) < c.steps, rhs, 0)
    y = jsp.linalg.solve_triangular(c.triangle, rhs)
    return _expand(c.basis, jnp.append(y, jnp.zeros((1,), y.dtype)))


def _row(leaf: Array, j: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(leaf, j, keepdims=False)


def _project(basis: PyTree[Array], w: PyTree[Array]) -> Array:
    """Vᴴw."""
    dtype = tree_dtype(w)

    def one(v: Array, w: Array) -> Array:
        flat = v.reshape(v.shape[0], -1)
        h = jnp.matmul(flat, jnp.conj(w).reshape(-1), precision=HIGHEST)
        return jnp.conj(h).astype(dtype)

    return sum(jax.tree.leaves(jax.tree.map(one, basis, w)))


def _expand(basis: PyTree[Array], h: Array) -> PyTree[Array]:
    """V h."""

    def one(v: Array) -> Array:
        h_leaf = h if jnp.iscomplexobj(v) else h.real
        flat = v.reshape(v.shape[0], -1)
        x = jnp.matmul(h_leaf.astype(v.dtype), flat, precision=HIGHEST)
        return x.reshape(v.shape[1:])

    return jax.tree.map(one, basis)
