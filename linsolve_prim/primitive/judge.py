"""The verdict on a solve, from its true residual.

A solver says how it thinks that it went; this file says how it went. Success needs ‖b − Ax‖₂ within
`solver.tolerance(‖b‖₂)`; where A may be rank deficient or is rectangular, so that the residual need
not vanish, it needs the normal equations to hold instead.

All of this is a part of every compiled solve, so it is written for few operations: a NaN or infinity
anywhere makes the residual one, and needs no test of its own; whether the *input* was to blame is
asked only once a solve has failed.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._norms import two_norm
from .._tree import tree_all_finite, tree_real_dtype, tree_sub
from .._types import complex_to_real_dtype
from .._varying import vary_like, varying_axes
from ..operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    MatrixLinearOperator,
    TaggedLinearOperator,
    TridiagonalLinearOperator,
    conj,
)
from ..results import REASONS, RESULTS, SUCCESSFUL
from ..sparse.operator import SparsityPattern, sparse_of
from .call import Problem
from .margin import Margin


def _probe(operator: AbstractLinearOperator) -> PyTree[Array]:
    """A fixed vector that is orthogonal to no singular vector that one is likely to meet."""
    start = 0
    leaves, treedef = jax.tree.flatten(operator.in_structure())
    out = []
    for leaf in leaves:
        count = jnp.arange(start, start + leaf.size, dtype=complex_to_real_dtype(leaf.dtype))
        wave = jnp.cos(1.0 + 0.7390851 * count) + 0.5
        out.append(wave.reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(treedef, out)


def _normal_equations_hold(problem: Problem, residual: PyTree[Array], r_norm: Array) -> Array:
    """‖Aᴴr‖ ≤ tol·‖A‖·‖r‖, with ‖A‖ bounded from below by one product with a fixed vector."""
    operator = problem.operator
    if operator.in_size() == 0:  # Aᴴr has no entries, and nothing is its norm
        return jnp.array(True)
    probe = _probe(operator)
    scale = two_norm(operator.mv(probe)) / two_norm(probe)
    normal = two_norm(conj(operator).transpose().mv(residual))
    return normal <= problem.solver.tolerance(r_norm) * scale.astype(r_norm.dtype)


class _Sizes(NamedTuple):
    """Of the residual r and of b: squared 2-norms, and sizes without squares.

    The latter are max |rᵢ|, or Σ|rᵢ| of few: a factor of √n from the 2-norm at most.
    """

    rr: Array
    bb: Array
    r_rough: Array
    b_rough: Array

    def regular(self) -> Array:
        """Whether squares neither over- nor underflow. Where they do, the rough sizes serve."""
        info = jnp.finfo(self.bb.dtype)
        return (self.bb > info.tiny / info.eps) & (self.bb < info.max * info.eps)

    def r_norm(self) -> Array:
        return jnp.where(self.regular(), jnp.sqrt(self.rr), self.r_rough)

    def b_norm(self) -> Array:
        return jnp.where(self.regular(), jnp.sqrt(self.bb), self.b_rough)

    def residual_within(self, bound: Array) -> Array:
        """Whether the residual is within a bound, and b is finite. (Without a square root.)"""
        within = jnp.where(self.regular(), self.rr <= bound * bound, self.r_rough <= bound)
        return within & jnp.isfinite(self.b_rough)


def _sizes_in_one_pass(r: Array, b: Array) -> Array:
    """`_sizes`, by a reduction of four things at once."""
    zero = jnp.zeros((), r.dtype)
    add = lambda x, y: (x[0] + y[0], x[1] + y[1], jnp.maximum(x[2], y[2]), jnp.maximum(x[3], y[3]))
    return jnp.stack(jax.lax.reduce((r * r, b * b, r, b), (zero,) * 4, add, (0,)))


@jax.custom_batching.custom_vmap
def _sizes(r: Array, b: Array) -> Array:
    """The four `_Sizes` of two vectors of absolute values.

    The verdict on one small system is time lost between kernels, so it is written for few of them: one
    sum. [measured: benchmarks/dense.py]
    """
    if not 0 < r.size <= 32:
        return _sizes_in_one_pass(r, b)
    both = jnp.stack([r, b])
    return jnp.sum(jnp.stack([both * both, both]), axis=2).reshape(4)


@_sizes.def_vmap
def _sizes_batch(axis_size: int, in_batched: list[bool], r: Array, b: Array) -> tuple[Array, bool]:
    axes = tuple(0 if batched else None for batched in in_batched)
    return jax.vmap(_sizes_in_one_pass, in_axes=axes, axis_size=axis_size)(r, b), True


def _all_sizes(residual: PyTree[Array], vector: PyTree[Array]) -> _Sizes:
    pairs = zip(jax.tree.leaves(residual), jax.tree.leaves(vector))
    dtype = tree_real_dtype(vector)
    flat = lambda x: jnp.abs(x).reshape(-1)
    columns = zip(*(_sizes(flat(r), flat(b)).astype(dtype) for r, b in pairs))
    return _Sizes(*(functools.reduce(op, column) for op, column in zip(_MERGE, columns)))


_MERGE = (jnp.add, jnp.add, jnp.maximum, jnp.maximum)


_DENSE = MatrixLinearOperator, DiagonalLinearOperator, TridiagonalLinearOperator


def _reads_everything(operator: AbstractLinearOperator) -> bool:
    """Whether Ax is known to be NaN where any entry of x is: then the residual alone is proof of x."""
    sparse = sparse_of(operator)
    if sparse is not None:
        return sparse.pattern.cached("no empty column", lambda: _no_empty_column(sparse.pattern))
    while isinstance(operator, TaggedLinearOperator):
        operator = operator.operator
    return isinstance(operator, _DENSE)


def _no_empty_column(pattern: SparsityPattern) -> bool:
    return bool(np.all(np.bincount(pattern.indices, minlength=pattern.shape[1])))


def _spoiled(product: PyTree[Array], value: PyTree[Array]) -> PyTree[Array]:
    """Ax + 0·x: a NaN or infinity counts that A has no entry for, or that its function never reads."""
    spoil = functools.reduce(jnp.add, [jnp.sum(0 * jnp.abs(x)) for x in jax.tree.leaves(value)])
    return jax.tree.map(lambda y: y + spoil.astype(y.dtype), product)


class Verdict(NamedTuple):
    """Whether a solve failed, and what can be said of it at no cost: kernels are not free.

    `claim` is the solver's own result code. `relative_residual` is there if the solver checks it, and
    `rhs_size`, which is finite if b is, if the residual was checked here. With `margin` a success can
    be told for less.
    """

    failed: Array | None
    claim: Array | None
    num_steps: Array
    relative_residual: Array | None
    rhs_size: Array | None
    margin: Margin | None = None


def judge(
    problem: Problem, value: PyTree[Array], result: RESULTS, stats: dict[str, Any]
) -> tuple[RESULTS, dict[str, Any], Verdict]:
    """The true result code, the statistics that every solve has, and the verdict in short."""
    operator, solver, vector = problem.operator, problem.solver, problem.vector
    (claim,) = jax.tree.leaves(result)
    claimed = claim == SUCCESSFUL
    stats.setdefault("num_steps", jnp.zeros((), jnp.int32))
    if solver.checks_residual():
        relative = stats.get("relative_residual")
        verdict = Verdict(~claimed, claim, stats["num_steps"], relative, None)
        return _blame_input(problem, result), stats, verdict
    product = operator.mv(value)
    if not _reads_everything(operator):
        product = _spoiled(product, value)
    residual = tree_sub(vector, product)
    sizes = _all_sizes(residual, vector)
    r_norm, b_norm = sizes.r_norm(), sizes.b_norm()
    solved = sizes.residual_within(solver.tolerance(b_norm))
    reason = REASONS.where(b_norm == 0, REASONS.zero_rhs, REASONS.direct)
    margin = Margin.of(solver, product, vector)
    if solver.allow_dependent_columns(operator) or solver.allow_dependent_rows(operator):
        margin = None
        fits = _normal_equations_hold(problem, residual, r_norm) & jnp.isfinite(sizes.b_rough)
        reason = REASONS.where(solved, reason, REASONS.least_squares)
        solved = solved | fits
    good = claimed & solved
    untrue = RESULTS.where(jnp.isfinite(r_norm), RESULTS.inaccurate, RESULTS.singular)
    result = RESULTS.where(claimed & ~solved, untrue, result)
    stats["residual_norm"] = r_norm
    stats["relative_residual"] = r_norm / jnp.where(b_norm > 0, b_norm, 1)
    stats["reason"] = REASONS.where(good, reason, REASONS.failed)
    verdict = Verdict(~good, claim, stats["num_steps"], None, sizes.b_rough, margin)
    return _blame_input(problem, result), stats, verdict


def _blame_input(problem: Problem, result: RESULTS) -> RESULTS:
    """The result code of a failed solve, which is `nonfinite_input` if b or A hold NaN or infinity."""
    arrays = jax.tree.leaves((problem.vector, problem.operator))
    arrays = [a for a in arrays if hasattr(a, "dtype")]
    axes = varying_axes(arrays)
    bad = jax.lax.cond(
        result == RESULTS.successful,
        lambda: vary_like(jnp.array(False), axes),
        lambda: ~tree_all_finite(arrays),
    )
    return RESULTS.where(bad, RESULTS.nonfinite_input, result)
