"""Incomplete factorizations by a fixed-point iteration, which finds all entries at once on any device.

After Chow, Patel, "Fine-grained parallel incomplete LU factorization" (SIAM J. Sci. Comput. 37, 2015),
doi:10.1137/140968896. On a pattern S that holds the diagonal, LU = A on S is, entry by entry,

    l(i,j) = (a(i,j) − Σₖ l(i,k) u(k,j)) / u(j,j)    i > j
    u(i,j) =  a(i,j) − Σₖ l(i,k) u(k,j)              i ≤ j,    k < min(i, j),

and the right-hand sides, taken as a map of all entries, have it as their only fixed point: entries
depend on earlier ones, so that iterating ends in the exact factors after as many sweeps as the
longest chain. A few are enough for factors that precondition as well. Starting from the triangles
of A themselves, the iterates follow when A is scaled by diagonal matrices, so nothing need be scaled.

For Hermitian A the factors are UᴴD⁻¹U, with D the diagonal of U and

    u(i,j) = a(i,j) − Σₖ conj(u(k,i)) u(k,j) / d(k),

which keeps M Hermitian after any number of sweeps, and definite if all d are positive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..sparse.levels import levels_of
from ..sparse.pattern import SparsityPattern
from ..sparse.plans import triangle
from ..sparse.values import pick
from .fill import Factors, factors_of

#: More make less than one iteration in twenty less [measured: tests/test_preconditioners_ilu.py].
SWEEPS = 5

#: A pivot below this part of the diagonal of A (of its row, if A has no symmetry) is one that exact
#: arithmetic would not have met, or that would make M large in one direction for nothing.
_SMALL_PIVOT = 1e-6


def _on_pattern(values: Array, factors: Factors, shift: Array) -> Array:
    """The values of A, `(nnz,)`, in the slots of S; the diagonal times 1 + `shift`."""
    out = (
        jnp.zeros(factors.pattern.nnz, values.dtype)
        .at[factors.given]
        .set(values, indices_are_sorted=True, unique_indices=True)
    )
    more = (1 + shift).astype(values.dtype)
    return out.at[factors.pattern.diagonal_slots()].multiply(more)


def _sums(factors: Factors, terms: Array) -> Array:
    zeros = jnp.zeros(factors.pattern.nnz, terms.dtype)
    return zeros.at[factors.target].add(terms, indices_are_sorted=True)


def _iterate(step: Callable[[Array], Array], first: Array, sweeps: int) -> Array:
    return jax.lax.fori_loop(0, sweeps, lambda _, w: step(w), first)


def sweep_count(sweeps: int | str | None, of: SparsityPattern, fill: int) -> int:
    """How many, for None, "exact" or a number."""
    if sweeps is None:
        return SWEEPS
    if isinstance(sweeps, int):
        return sweeps
    # l(i,j) waits for u(j,j), and that for the l(j,k) of a lower level
    below = triangle(factors_of(of, fill).pattern, -1, True).pattern
    return 2 * levels_of(below, True, False, True).height


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def lu_sweeps(values: Array, of: SparsityPattern, fill: int, sweeps: int, shift: Array) -> Array:
    """L and U in the slots of S (L without its ones), from the values of A on the pattern `of`."""
    factors = factors_of(of, fill)
    pattern, a = factors.pattern, _on_pattern(values, factors, shift)
    diagonal, columns = pattern.diagonal_slots(), pattern.indices
    below = columns < pattern.rows
    largest = jax.ops.segment_max(
        jnp.abs(a), pattern.rows, pattern.shape[0], indices_are_sorted=True
    )
    floor = jnp.where(largest > 0, largest, 1)

    def guarded(w: Array) -> Array:
        d = w[diagonal]
        good = jnp.abs(d) > _SMALL_PIVOT * floor
        return w.at[diagonal].set(
            jnp.where(good, d, _of_size(a[diagonal], floor)),
            indices_are_sorted=True,
            unique_indices=True,
        )

    def step(w: Array) -> Array:
        w = guarded(w)
        new = a - _sums(factors, w[factors.first] * w[factors.second])
        return jnp.where(below, new / w[diagonal[columns]], new)

    start = guarded(a)
    start = jnp.where(below, a / start[diagonal[columns]], start)
    return guarded(_iterate(step, start, sweeps))


def _of_size(d: Array, size: Array) -> Array:
    """The entries of d where they are not zero, else `size`."""
    return jnp.where(d == 0, size.astype(d.dtype), d)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def hermitian_sweeps(
    values: Array, of: SparsityPattern, fill: int, sweeps: int, shift: Array
) -> Array:
    """U in the slots of S (what is below the diagonal is of no meaning) for a positive definite A."""
    factors = factors_of(of, fill)
    pattern, a = factors.pattern, _on_pattern(values, factors, shift)
    diagonal, rows = pattern.diagonal_slots(), pattern.rows
    mirrored, k = pattern.transpose_order[factors.first], rows[factors.second]
    own = a[diagonal].real
    own = jnp.where(own > 0, own, 1)

    def pivots(w: Array) -> Array:
        d = w[diagonal].real
        return jnp.where(d > _SMALL_PIVOT * own, d, own)

    def step(w: Array) -> Array:
        d = pivots(w).astype(w.dtype)
        terms = w[mirrored].conj() * w[factors.second] / d[k]
        return a - _sums(factors, terms)

    w = _iterate(step, a, sweeps)
    return w.at[diagonal].set(
        pivots(w).astype(w.dtype), indices_are_sorted=True, unique_indices=True
    )


def triangles(
    w: Array, pattern: SparsityPattern
) -> tuple[Array, SparsityPattern, Array, SparsityPattern]:
    """The strictly lower part of S with its values, and the upper one."""
    lower, upper = triangle(pattern, -1, True), triangle(pattern, 0, False)
    return pick(w, lower.slots), lower.pattern, pick(w, upper.slots), upper.pattern


def check_symmetric(pattern: SparsityPattern, name: str) -> None:
    """Refuse a pattern that a Hermitian matrix does not have."""
    if not pattern.is_symmetric():
        missing = np.flatnonzero(~np.isin(_keys(pattern), _keys(pattern.T)))[0]
        place = int(pattern.rows[missing]), int(pattern.indices[missing])
        raise ValueError(
            f"operator: `{name}` needs a symmetric pattern; got an entry at {place} and none at "
            f"{place[::-1]}. Store both triangles (`symmetrize`), or use `ILU` with `GMRES`."
        )


def _keys(pattern: SparsityPattern) -> np.ndarray:
    return pattern.rows.astype(np.int64) * pattern.shape[1] + pattern.indices
