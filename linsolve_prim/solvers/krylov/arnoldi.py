"""Arnoldi's process and its least-squares problem: what GMRES and its relatives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, PyTree

from ..._tree import HIGHEST, tree_dtype, tree_sub
from .cycles import OVERFLOW, SINGULAR, outcome_of
from .vectors import normalise


class Arnoldi(NamedTuple):
    """After j steps: A Z[:j] = C B[:, :j] + V[:j+1] H, and QH = R is upper triangular."""

    basis: PyTree[Array]  # V, stacked along the first axis of each leaf
    directions: PyTree[Array] | None  # Z; `None` if that is V, or follows from V
    shares: Array | None  # B; `None` without vectors C
    rotations: Array  # Q, the product of the Givens rotations
    triangle: Array  # R, with ones on the diagonal of the columns to come
    norm: Array  # of the residual, two_norm
    top: Array  # the largest ‖A zᵢ‖
    steps: Array
    trip: Array  # through the loop: the same in all lanes of a `vmap`, so that rows are slices
    outcome: Array
    extra: Any  # whatever `expand` counts


#: What a lane of a `vmap` that has ended need not keep: later steps write rows and columns that it does not
#: read, or that it multiplies by zero, and write nothing there that is no number.
LOOSE = ("basis", "directions", "shares", "rotations", "triangle", "trip")

#: From the carry to z, Az and the new `extra`. (z is `None` where no directions are kept.)
Expand: TypeAlias = Callable[[Arnoldi], tuple[PyTree[Array] | None, PyTree[Array], Any]]


def arnoldi(
    expand: Expand,
    v: PyTree[Array],
    beta: Array,
    length: int,
    *,
    directions: PyTree[Array] | None = None,
    against: PyTree[Array] | None = None,
    extra: Any = (),
) -> tuple[Callable[[Arnoldi], Arnoldi], Arnoldi]:
    """The step that extends an orthonormal basis from v, where the residual has the norm `beta`.

    `directions` is a vector like z, if Z is to be kept; `against` are orthonormal vectors C (or
    zeros) to which all of V is orthogonal. Gram–Schmidt is done twice, in matrix form.
    """
    dtype = tree_dtype(v)
    eps = float(jnp.finfo(dtype).eps)
    index = jnp.arange(length + 1, dtype=jnp.int32)

    def step(c: Arnoldi) -> Arnoldi:
        j = c.trip
        z, w, extra = expand(c)
        w, w_norm = normalise(w)
        share = None
        if against is not None:
            share = project(against, w)
            w = tree_sub(w, combined(against, share))
        h = project(c.basis, w)
        w = tree_sub(w, combined(c.basis, h))
        if against is not None:
            share_again = project(against, w)
            w = tree_sub(w, combined(against, share_again))
            share = share + share_again
        again = project(c.basis, w)
        w, rest = normalise(tree_sub(w, combined(c.basis, again)))
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
        pair = jax.lax.dynamic_slice_in_dim(c.rotations, j, 2)
        turned = [jnp.conj(cos) * pair[0] + sin * pair[1], cos * pair[1] - sin * pair[0]]
        pair = jnp.where(ok, jnp.stack(turned), pair)  # written at once, so that Q is not copied
        rows = index[:length]
        new = jnp.where(rows == j, hypot.astype(dtype), jnp.where(rows < j, column[:length], 0))
        new = jnp.where(ok, new * w_norm.astype(dtype), c.triangle[:, j])
        keep_row = lambda leaf, row: leaf.at[j + 1].set(jnp.where(ok & (rest > 0), row, 0))
        keep_direction = lambda leaf, row: leaf.at[j].set(jnp.where(ok, row, 0))
        shares, kept = c.shares, c.directions
        if share is not None and shares is not None:
            column = jnp.where(ok, share * w_norm.astype(dtype), 0)
            shares = shares.at[:, j].set(column)
        if kept is not None:
            kept = jax.tree.map(keep_direction, kept, z)
        return Arnoldi(
            basis=jax.tree.map(keep_row, c.basis, w),
            directions=kept,
            shares=shares,
            rotations=jax.lax.dynamic_update_slice_in_dim(c.rotations, pair, j, 0),
            triangle=c.triangle.at[:, j].set(new),
            norm=jnp.where(ok, beta * jnp.abs(pair[1, 0]), c.norm),
            top=top,
            steps=c.steps + ok.astype(jnp.int32),
            trip=j + 1,
            outcome=outcome_of((SINGULAR, singular), (OVERFLOW, overflow)),
            extra=extra,
        )

    rows = lambda leaf: jnp.zeros((length + 1, *leaf.shape), leaf.dtype).at[0].set(leaf)
    empty = lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype)
    shares = None
    if against is not None:
        count = jax.tree.leaves(against)[0].shape[0]
        shares = jnp.zeros((count, length), dtype)
    zero = jnp.zeros((), jnp.int32)
    first = Arnoldi(
        basis=jax.tree.map(rows, v),
        directions=None if directions is None else jax.tree.map(empty, directions),
        shares=shares,
        rotations=jnp.eye(length + 1, dtype=dtype),
        triangle=jnp.eye(length, dtype=dtype),
        norm=beta,
        top=jnp.zeros_like(beta),
        steps=zero,
        trip=zero,
        outcome=zero,
        extra=extra,
    )
    return step, first


def minimiser(c: Arnoldi, beta: Array) -> tuple[Array, Array]:
    """`(y, g)`: the y that minimises ‖βe₁ − Hy‖, and g = Ry, that is Qβe₁ without its last entry."""
    length = c.triangle.shape[0]
    g = c.rotations[:length, 0] * beta.astype(c.triangle.dtype)
    g = jnp.where(jnp.arange(length, dtype=jnp.int32) < c.steps, g, 0)
    return jsp.linalg.solve_triangular(c.triangle, g), g


def combine(c: Arnoldi, beta: Array) -> PyTree[Array]:
    """Zy (or Vy, if that is Z) with the y that minimises ‖βe₁ − Hy‖."""
    y, _ = minimiser(c, beta)
    if c.directions is not None:
        return combined(c.directions, y)
    return combined(c.basis, jnp.append(y, jnp.zeros((1,), y.dtype)))


def row(basis: PyTree[Array], j: Array) -> PyTree[Array]:
    """The j-th vector of a basis."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, j, keepdims=False), basis)


def put_last(vectors: PyTree[Array], count: Array, new: PyTree[Array]) -> PyTree[Array]:
    """A vector added behind the others; if there is no room, the first one goes."""

    def one(rows: Array, new_row: Array) -> Array:
        size = rows.shape[0]
        rows = jnp.where(count >= size, jnp.roll(rows, -1, axis=0), rows)
        return rows.at[jnp.minimum(count, size - 1)].set(new_row.astype(rows.dtype))

    return jax.tree.map(one, vectors, new)


def project(basis: PyTree[Array], w: PyTree[Array]) -> Array:
    """Vᴴw."""
    dtype = tree_dtype(w)

    def one(v: Array, w: Array) -> Array:
        flat = v.reshape(v.shape[0], -1)
        h = jnp.matmul(flat, jnp.conj(w).reshape(-1), precision=HIGHEST)
        return jnp.conj(h).astype(dtype)

    return sum(jax.tree.leaves(jax.tree.map(one, basis, w)))


def combined(basis: PyTree[Array], h: Array) -> PyTree[Array]:
    """V h."""

    def one(v: Array) -> Array:
        h_leaf = h if jnp.iscomplexobj(v) else h.real
        flat = v.reshape(v.shape[0], -1)
        x = jnp.matmul(h_leaf.astype(v.dtype), flat, precision=HIGHEST)
        return x.reshape(v.shape[1:])

    return jax.tree.map(one, basis)
