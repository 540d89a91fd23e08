"""`solve_entry`: one entry of a solution, from the rows of the matrix that matter for it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._types import inexact_asarray
from .api import linear_solve
from .errors import StructureError, WrongTypeError
from .operators import MatrixLinearOperator, TaggedLinearOperator
from .primitive import FORWARD, Failure, failures
from .primitive.outcome import deliver
from .primitive.states import stop_gradient
from .results import REASONS, RESULTS
from .simple import as_operator, promote
from .solvers import LU
from .solvers.krylov.stopping import check_count, check_tolerance
from .sparse.operator import SparseLinearOperator
from .sparse.pattern import SparsityPattern

_PUSHES = 64  # for each row that may be looked at: far more than dominance can need


def solve_entry(
    A: Any,
    b: Any,
    index: Any,
    *,
    rtol: float = 1e-6,
    max_rows: int = 256,
    throw: bool = True,
    suppress: Any = (),
    name: str | None = None,
) -> Array:
    """**An approximation** of xᵢ, one entry of the solution of Ax = b, in a time that does not depend on n.

    With y = A⁻ᵀeᵢ it is xᵢ = yᵀb, and y falls off quickly around i where A is diagonally dominant. Rows
    that matter are found by pushing (Andersen, Chung and Lang, 2006, doi:10.1109/FOCS.2006.44; for
    linear systems Andoni, Krauthgamer and Pogrow, 2019, arXiv:1809.02995): all mass begins at i;
    what row j has is handed to its neighbours k, |aⱼₖ|/|aⱼⱼ| of it, until no more than `rtol` is left. Then
    the system of those rows S alone is solved, y_S = A_SS⁻ᵀeᵢ, and

        |x̂ᵢ − xᵢ| ≤ bound · maxₖ|xₖ|,  bound = Σ |yⱼaⱼₖ| over j in S and k not in S.

    That holds for every A, and `bound ≤ rtol` is what success means. Diagonal dominance by rows, strict by
    a constant, is what makes a small S sufficient: Poisson's equation is not of that kind.

    - `A`: a sparse matrix or `SparseLinearOperator`, square, with a diagonal.
    - `b`: `(n,)`.
    - `index`: i, an integer that may be traced; or an array of them, whose shape the result has.
    - `rtol`: of the error, relative to the largest |xₖ|.
    - `max_rows`: how many rows may be looked at. Memory is its square, time up to its cube.
    - `throw`, `suppress`, `name`: as for `solve`.

    Derivatives, of any order and in both modes, are exact for x̂ᵢ: they live on rows S of A and b, and
    are approximations of those of xᵢ. On a `SolveTape` are `"touched"` (the size of S), `"num_steps"`
    (pushes) and `"relative_residual"` (the bound).

    **Raises** `StructureError` or `TypeError` for input that does not fit; `NotConverged` if more than
    `max_rows` rows would be needed, `SingularMatrixError` for a missing or zero diagonal.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.diags_array([-1.0, 4.0, -1.0], offsets=[-1, 0, 1], shape=(99, 99)).tocsr()
        >>> print(lp.solve_entry(A, 2 * jnp.ones(99), 50).round(3))  # of (…, 1, 1, 1, …), far from the ends
        1.0
    """
    operator = _sparse(A)
    b = inexact_asarray(b)
    n = operator.in_size()
    if operator.out_size() != n or b.shape != (n,):
        raise StructureError(
            f"A, b: must be a square matrix and a vector of its size; got {operator.pattern.shape} "
            f"and {b.shape}."
        )
    index = _checked(index, n)
    check_tolerance("rtol", rtol)
    check_count("max_rows", max_rows, "256")
    pattern = operator.pattern
    values, b = promote(operator.values, b)
    width = int(pattern.row_lengths.max(initial=1))
    what = Failure(f"solve_entry(max_rows={max_rows})", FORWARD, name)

    def one(index: Array) -> Array:
        arrays = _Matrix(values, *_device(pattern))
        value, result, stats = _near(arrays, b, index, rtol, rows=min(max_rows, n), width=width)
        codes = failures(throw, suppress)
        return deliver(value, result, stop_gradient(stats), codes, what)[0]

    for _ in range(index.ndim):
        one = jax.vmap(one)
    return one(index)


class _Matrix(NamedTuple):
    values: Array
    indptr: Array
    indices: Array

    def rows(self, ids: Array, width: int) -> tuple[Array, Array]:
        """Columns and entries of some rows, `(k, width)`; n and 0 where a row has no more."""
        n = self.indptr.shape[0] - 1
        slots = self.indptr[ids][..., None] + jnp.arange(width, dtype=jnp.int32)
        stored = slots < self.indptr[jnp.minimum(ids + 1, n)][..., None]
        at = jnp.where(stored, slots, 0)
        return jnp.where(stored, self.indices[at], n), jnp.where(stored, self.values[at], 0)


@functools.partial(jax.jit, static_argnames=("rows", "width"))
def _near(
    matrix: _Matrix, b: Array, index: Array, rtol: Any, *, rows: int, width: int
) -> tuple[Array, RESULTS, dict[str, Any]]:
    """x̂ᵢ, how it went, and what that took."""
    found = _push(stop_gradient(matrix), index, rtol, rows, width)
    system, outside = _local(matrix, found.ids, width)
    unit = jnp.zeros(rows, b.dtype).at[0].set(1)
    solution = linear_solve(
        MatrixLinearOperator(system.T), unit, LU(), throw=False, name="rows of solve_entry"
    )
    y = solution.value
    near = b.at[found.ids].get(mode="fill", fill_value=0)
    value = jnp.sum(y * near)
    bound = jnp.sum(jnp.abs(stop_gradient(y)) * stop_gradient(outside))
    given = jnp.all(jnp.isfinite(system)) & jnp.all(jnp.isfinite(near))
    result = RESULTS.where(bound <= rtol, RESULTS.successful, RESULTS.max_steps_reached)
    # (unused slots of the system are rows of the identity, so that its verdict is that of S)
    sound = found.sound & (solution.result == RESULTS.successful)
    result = RESULTS.where(sound, result, RESULTS.singular)
    result = RESULTS.where(given, result, RESULTS.nonfinite_input)
    stats = {
        "num_steps": found.steps,
        "max_steps": jnp.asarray(_PUSHES * rows, jnp.int32),
        "residual_norm": bound,
        "relative_residual": bound,
        "reason": REASONS.where(result == RESULTS.successful, REASONS.rtol, REASONS.failed),
        "touched": jnp.sum(found.ids < matrix.indptr.shape[0] - 1, dtype=jnp.int32),
    }
    return value, result, stats


class _Found(NamedTuple):
    ids: Array  # (rows,) int32: S, in the order in which it was met; n where there is none
    mass: Array  # (rows,): what is still to be handed on
    count: Array
    steps: Array
    room: Array  # whether there was room for all neighbours
    sound: Array  # whether all diagonals were there


def _push(matrix: _Matrix, index: Array, rtol: Any, rows: int, width: int) -> _Found:
    """Hand on the largest mass until all that is left is at most `rtol`, or there is no room."""
    n = matrix.indptr.shape[0] - 1
    real = jnp.finfo(matrix.values.dtype).dtype
    yes, one = jnp.array(True), jnp.ones((), jnp.int32)
    first = _Found(
        jnp.full(rows, n, jnp.int32).at[0].set(index),
        jnp.zeros(rows, real).at[0].set(1),
        one,
        0 * one,
        yes,
        yes,
    )

    def unfinished(s: _Found) -> Array:
        return (jnp.sum(s.mass) > rtol) & s.room & s.sound & (s.steps < _PUSHES * rows)

    def push(s: _Found) -> _Found:
        slot = jnp.argmax(s.mass)
        columns, entries = matrix.rows(s.ids[slot], width)
        size = jnp.abs(entries)
        own = columns == s.ids[slot]
        diagonal = jnp.sum(jnp.where(own, size, 0))
        neighbour = (columns < n) & ~own
        met = s.ids[None, :] == columns[:, None]
        new = neighbour & ~jnp.any(met, axis=1)
        fresh = s.count - 1 + jnp.cumsum(new, dtype=jnp.int32)
        place = jnp.where(new, fresh, jnp.argmax(met, axis=1).astype(jnp.int32))
        place = jnp.where(neighbour, place, rows)  # `rows` and beyond: nowhere
        handed = s.mass[slot] * size / jnp.where(diagonal > 0, diagonal, 1)
        count = s.count + jnp.sum(new, dtype=jnp.int32)
        return _Found(
            s.ids.at[place].set(columns.astype(jnp.int32), mode="drop"),
            s.mass.at[slot].set(0).at[place].add(handed, mode="drop"),
            jnp.minimum(count, rows),
            s.steps + 1,
            count <= rows,
            diagonal > 0,
        )

    return jax.lax.while_loop(unfinished, push, first)


def _local(matrix: _Matrix, ids: Array, width: int) -> tuple[Array, Array]:
    """A_SS, with the identity where S is not full, and Σ|aⱼₖ| over k not in S for each j in S."""
    rows = ids.shape[0]
    columns, entries = matrix.rows(ids, width)
    order = jnp.argsort(ids)
    near = jnp.minimum(jnp.searchsorted(ids[order], columns), rows - 1)
    inside = (ids[order][near] == columns) & (columns < matrix.indptr.shape[0] - 1)
    place = jnp.where(inside, order[near].astype(jnp.int32), rows)
    empty = (ids == matrix.indptr.shape[0] - 1).astype(entries.dtype)
    system = jnp.diag(empty).at[jnp.arange(rows)[:, None], place].add(entries, mode="drop")
    return system, jnp.sum(jnp.where(inside, 0, jnp.abs(entries)), axis=1)


def _sparse(A: Any) -> SparseLinearOperator:
    operator = as_operator(A, None)
    while isinstance(operator, TaggedLinearOperator):
        operator = operator.operator
    if not isinstance(operator, SparseLinearOperator):
        raise WrongTypeError(
            "A: must be a sparse matrix whose pattern is known, or a `SparseLinearOperator`, as few rows "
            f"shall be looked at; got {type(A).__name__}. For others, solve for all of x."
        )
    return operator


def _checked(index: Any, n: int) -> Array:
    index = jnp.asarray(index)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise WrongTypeError(f"index: must be an integer or an array of them; got {index.dtype}.")
    if not isinstance(index, jax.core.Tracer):
        known = np.asarray(index)
        if known.size and not (0 <= known.min() and known.max() < n):
            raise StructureError(f"index: must be from 0 to {n - 1}; got {index}.")
    return index.astype(jnp.int32)


def _device(pattern: SparsityPattern) -> tuple[Array, Array]:
    """`indptr` and `indices` as arrays of JAX, made once."""

    def make() -> tuple[Array, Array]:
        with jax.ensure_compile_time_eval():
            return jnp.asarray(pattern.indptr), jnp.asarray(pattern.indices)

    return pattern.cached("solve_entry", make)
