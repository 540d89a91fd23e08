"""Determinants by factorizations, and their derivatives by solves with the same factors.

The differential of a determinant is Jacobi's formula (Magnus & Neudecker 2019, Matrix Differential
Calculus, chapter 8.3):

    d log det A = tr(A⁻¹ dA) = Σᵢⱼ (A⁻¹)ⱼᵢ dAᵢⱼ

Its real part is that of log |det A|, its imaginary part that of the phase. The sum is over the
entries that A has. A⁻¹ is found by `linear_solve`, so the rule can be differentiated again.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._static import Skeleton, split, stop_gradient
from .._tree import ravel, tree_dtype, unravel
from .._varying import vary_like, varying_axes
from ..api import linear_solve
from ..operators import AbstractLinearOperator, TaggedLinearOperator
from ..solvers.base import AbstractLinearSolver
from ..solvers.determinant import SignAndLog
from ..sparse.operator import SparseLinearOperator
from ..sparse.triplets import TripletLinearOperator
from ..tracing import original_errors

#: Right-hand sides of one block of the inverse: enough for matrix–matrix kernels, and n of each
#: stay within a few times what the factors take.
_BLOCK = 64


@dataclasses.dataclass(frozen=True)
class _Task:
    """The static half: an operator, and (solver, state), without their arrays."""

    operator: Skeleton
    rest: Skeleton
    throw: bool


def of_operator(
    operator: AbstractLinearOperator, solver: AbstractLinearSolver[Any], throw: bool
) -> SignAndLog:
    """Factorize and read the determinant off."""
    chosen, state = solver.start(stop_gradient(operator), {})
    return of_state(operator, chosen, state, throw)


def of_state(
    operator: AbstractLinearOperator, solver: AbstractLinearSolver[Any], state: Any, throw: bool
) -> SignAndLog:
    """From the factors that `solver` made of `operator`."""
    arrays, skeleton = split(operator)
    others, rest = split((solver, stop_gradient(state)))
    return _slogdet(_Task(skeleton, rest, throw), arrays, others)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _slogdet(task: _Task, arrays: list[Array], others: list[Array]) -> SignAndLog:
    solver, state = task.rest.fill(others)
    return solver.slogdet(state)


@_slogdet.defjvp
def _derivative(task: _Task, primals: Any, tangents: Any) -> tuple[SignAndLog, SignAndLog]:
    arrays, others = primals
    sign, log = _slogdet(task, arrays, others)
    solver, state = task.rest.fill(others)
    operator = task.operator.fill(arrays)
    solve = functools.partial(linear_solve, operator, solver=solver, state=state, throw=task.throw)

    def entries(*arrays: Array) -> Array:
        return _entries(task.operator.fill(arrays))

    change = jax.jvp(entries, tuple(arrays), tuple(tangents[0]))[1]
    with original_errors():  # its loop is a compiled program, even where all else is eager
        inverse = _inverse_at_entries(operator, solve)
    rate = jnp.sum(inverse * change)
    real = rate.real.astype(log.dtype)
    if not jnp.iscomplexobj(sign):
        return (sign, log), (jnp.zeros_like(sign), real)
    turn = jax.lax.complex(jnp.zeros_like(rate.imag), rate.imag).astype(sign.dtype)
    return (sign, log), (sign * turn, real)


def _held(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    while isinstance(operator, TaggedLinearOperator):
        operator = operator.operator
    return operator


def _entries(operator: AbstractLinearOperator) -> Array:
    """The values of a sparse operator, `(nnz,)`; of others the matrix."""
    held = _held(operator)
    sparse = isinstance(held, SparseLinearOperator | TripletLinearOperator)
    return held.values if sparse else operator.as_matrix()


def _inverse_at_entries(operator: AbstractLinearOperator, solve: Any) -> Array:
    """(A⁻¹)ⱼᵢ for the entries (i, j) of A, like `_entries`."""
    held = _held(operator)
    axes = varying_axes(split(operator)[0])
    columns = functools.partial(_columns_of_inverse, operator, solve)
    if isinstance(held, SparseLinearOperator):
        return _selected(columns, held.pattern.rows, held.pattern.indices, operator.in_size(), axes)
    if isinstance(held, TripletLinearOperator):
        return _selected(columns, held.rows, held.cols, operator.in_size(), axes)
    return columns(jnp.arange(operator.in_size(), dtype=jnp.int32)).T


def _columns_of_inverse(operator: AbstractLinearOperator, solve: Any, which: Array) -> Array:
    """Columns of A⁻¹ with these numbers, `(n, k)`; zero for numbers that are out of range."""
    out, into = operator.out_structure(), operator.in_structure()
    size, dtype = operator.out_size(), tree_dtype((into, out))

    def column(i: Array) -> Array:
        unit = (jnp.arange(size, dtype=i.dtype) == i).astype(dtype)
        return ravel(solve(unravel(unit, out)).value, into).astype(dtype)

    return jax.vmap(column, out_axes=1)(which)


def _selected(columns: Any, rows: Any, cols: Any, n: int, axes: frozenset[Any]) -> Array:
    """Entries of A⁻¹ at (cols, rows), by blocks of columns, of which one is held at a time.

    (`checkpoint`: a second derivative makes a block again where it would keep all of A⁻¹.)
    """
    rows, cols = jnp.asarray(rows), jnp.asarray(cols)
    width, index = min(n, _BLOCK), rows.dtype

    @jax.checkpoint
    def step(found: Array, start: Array) -> tuple[Array, None]:
        block = columns(start + jnp.arange(width, dtype=index))
        place = rows - start
        inside = (place >= 0) & (place < width)
        there = block.at[cols, jnp.where(inside, place, 0)].get(mode="fill", fill_value=0)
        return jnp.where(inside, there, found), None

    kind = jax.eval_shape(columns, jax.ShapeDtypeStruct((width,), index))
    start = vary_like(jnp.zeros(rows.shape, kind.dtype), axes)
    return jax.lax.scan(step, start, jnp.arange(0, n, width, dtype=index))[0]
