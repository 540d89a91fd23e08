"""Substitution with a sparse triangular matrix, level after level, on any device. See `levels.py`.

A step reads its part of the tables, gathers unknowns that are known, and writes a block of new ones.
Right-hand sides of one matrix stand side by side, `(n, k)`, so that a gather moves k neighbours: two
to five times as fast on CPU as k rows `(k, n)`, which is what `vmap` would make of one [measured:
benchmarks/sparse_triangular.py]. Hence the rule of its own for `vmap`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._varying import vary_together
from .levels import Levels, Run, levels_of
from .pattern import SparsityPattern


class Triangle(NamedTuple):
    """A pattern all of whose entries are on one side of the diagonal; with `unit`, that of A + I."""

    pattern: SparsityPattern
    lower: bool
    unit: bool

    def levels(self, transpose: bool) -> Levels:
        """The order of the substitution with A or with Aᵀ."""
        return levels_of(self.pattern, self.lower, transpose, self.unit)


class Prepared(NamedTuple):
    """The values of a matrix in the order of its levels: `entries (width, cells)`, `diagonal (cells,)`."""

    entries: Array
    diagonal: Array


def prepare(triangle: Triangle, transpose: bool, values: Array) -> Prepared:
    """Values `(nnz,)` in the order in which they are used to solve with A, or with Aᵀ."""
    levels = triangle.levels(transpose)
    extended = jnp.concatenate([values, jnp.asarray([0, 1, -1], values.dtype)])
    slots, diagonal = _hidden(levels.slots), _hidden(levels.diagonal)
    return Prepared(_at(extended, slots), _at(extended, diagonal))


def substitute(triangle: Triangle, transpose: bool, prepared: Prepared, b: Array) -> Array:
    """The solution `(n,)` for `b (n,)`. A zero on the diagonal gives infinity or NaN."""
    return _solver(triangle, transpose)(*prepared, b[:, None])[:, 0]


def _hidden(table: Any) -> Array:
    # XLA would compute with constants when it compiles, which takes longer than the program runs
    return jax.lax.optimization_barrier(jnp.asarray(table))


def _at(x: Array, index: Array) -> Array:
    return x.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _solver(triangle: Triangle, transpose: bool) -> Any:
    """`(entries, diagonal, b (n, k))` to `(n, k)`."""

    def make() -> Any:
        def plain(entries: Array, diagonal: Array, b: Array) -> Array:
            return _all_levels(triangle.levels(transpose), entries, diagonal, b)

        solve = jax.custom_batching.custom_vmap(plain)

        @solve.def_vmap
        def _rule(axis_size: int, batched: list[bool], *args: Array) -> tuple[Array, bool]:
            if batched[0] or batched[1]:  # other matrices
                axes = [0 if one else None for one in batched]
                return jax.vmap(plain, axes, axis_size=axis_size)(*args), True
            entries, diagonal, b = args  # more right-hand sides
            _, n, k = b.shape
            x = solve(entries, diagonal, jnp.moveaxis(b, 0, 1).reshape(n, axis_size * k))
            return jnp.moveaxis(x.reshape(n, axis_size, k), 1, 0), True

        # `custom_vmap` has no reverse mode. Unrolled iterations ask for that of a preconditioner.
        differentiable = jax.custom_jvp(solve)

        @differentiable.defjvp
        def _derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> Any:
            return solve(*primals), jax.jvp(plain, primals, tangents)[1]

        return differentiable

    return triangle.pattern.cached(("substitution", triangle[1:], transpose), make)


def _all_levels(levels: Levels, entries: Array, diagonal: Array, b: Array) -> Array:
    with_zero = jnp.concatenate([b, jnp.zeros((1, b.shape[1]), b.dtype)])
    rhs = _at(with_zero, _hidden(levels.rows))
    entries, diagonal, rhs = vary_together(entries, diagonal, rhs)
    cells = jnp.zeros_like(rhs)
    columns = _hidden(levels.columns)
    for run in levels.runs:
        cells = _run(run, columns, entries, diagonal, rhs, cells)
    return _at(cells, _hidden(levels.solution))


def _run(
    run: Run, columns: Array, entries: Array, diagonal: Array, rhs: Array, cells: Array
) -> Array:
    starts = _hidden(run.starts)

    def step(i: Array, cells: Array) -> Array:
        part = lambda x: jax.lax.dynamic_slice_in_dim(x, starts[i], run.block)
        x = part(rhs)
        for k in range(columns.shape[0]):  # unrolled: as one gather it would be slower, see ELL
            x -= part(entries[k])[:, None] * _at(cells, part(columns[k]))
        x = x / part(diagonal)[:, None]
        return jax.lax.dynamic_update_slice_in_dim(cells, x, starts[i], 0)

    return jax.lax.fori_loop(0, len(run.starts), step, cells)
