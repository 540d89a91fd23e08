"""A first look at the residual, for programs that only have to raise after a failure.

The verdict of `judge.py` is exact, and a few kernels. Nearly every solve ends with a residual that is far
below its tolerance, which one sum can tell; for the others the callback looks again, in NumPy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._tree import tree_real_dtype, tree_size
from ..solvers.base import AbstractLinearSolver, usual_rtol


class Margin(NamedTuple):
    """A first look at the residual: its `term` (n,) has a sum that is `clear` or leaves doubt.

    The second one is at what the residual is the difference of: Ax, and b (which is the vector).
    """

    term: Array
    product: PyTree[Array]

    @staticmethod
    def of(solver: Any, product: PyTree[Array], vector: PyTree[Array]) -> Margin | None:
        """|bᵢ| − |rᵢ|/τ with τ = ε^⅓/√n: if that has a positive sum, ‖r‖₂ ≤ ‖r‖₁ < τ‖b‖₁ ≤ ε^⅓‖b‖₂.

        None if the sum is of too many for a rounding error of 1 % at most, or the tolerance is another.
        """
        dtype, size = tree_real_dtype(vector), tree_size(vector)
        if not 0 < size < 0.0025 / float(jnp.finfo(dtype).eps) or not _usual_tolerance(solver):
            return None
        tau = 0.99 * usual_rtol(dtype) / size**0.5
        flat = lambda p, b: (jnp.abs(b) - jnp.abs(b - p) / tau).reshape(-1).astype(dtype)
        terms = [flat(p, b) for p, b in zip(jax.tree.leaves(product), jax.tree.leaves(vector))]
        term = terms[0] if len(terms) == 1 else jnp.concatenate(terms)
        return Margin(jax.lax.stop_gradient(term), product)

    @staticmethod
    def clear(total: Array) -> Array:
        """Of the sum. (Of b = 0 it is zero. Where it is tiny, parts of r may have been flushed to zero.)"""
        info = jnp.finfo(total.dtype)
        ordinary = (total > float(info.tiny) / float(info.eps) ** 2) & (total < jnp.inf)
        return ordinary | (total == 0)


def _usual_tolerance(solver: Any) -> bool:
    """Whether the tolerance is known on the host, which runs no code in JAX: one may be written in it."""
    return type(solver).tolerance is AbstractLinearSolver.tolerance


def small_residual(product: list[np.ndarray], vector: list[np.ndarray]) -> bool:
    """The second look, in NumPy: whether ‖b − Ax‖₂ ≤ ε^⅓·‖b‖₂, for the leaves of Ax and b."""
    dtype = np.result_type(*(x.real.dtype for x in vector))
    flat = lambda leaves: np.concatenate([np.abs(x).ravel().astype(dtype) for x in leaves])
    with np.errstate(all="ignore"):
        b = flat(vector)
        r = flat([y - x for x, y in zip(product, vector)])
        size = np.max(b)  # so that no square over- or underflows
        if size == 0:
            return not np.any(r)
        small = np.linalg.norm(r / size) <= usual_rtol(dtype) * np.linalg.norm(b / size)
        return bool(small and np.isfinite(size))
