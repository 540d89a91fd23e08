"""How a product with a sparse matrix is computed, chosen from its pattern."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from .pattern import SparsityPattern


def product(pattern: SparsityPattern, transpose: bool, values: Array, x: Array) -> Array:
    """`(B, nnz)` and `(B, K, n)` to `(B, K, m)`."""
    rows, columns = pattern.rows, pattern.indices
    if transpose:
        rows, columns = columns, rows
    size = pattern.shape[1 if transpose else 0]
    terms = values[:, None, :] * x[:, :, columns]
    return jnp.zeros((*x.shape[:2], size), x.dtype).at[:, :, rows].add(terms)


def outer(pattern: SparsityPattern, transpose: bool, left: Array, x: Array) -> Array:
    """`(B, K, m)` and `(B, K, n)` to `(B, nnz)`."""
    rows, columns = pattern.rows, pattern.indices
    if transpose:
        rows, columns = columns, rows
    return jnp.sum(left[:, :, rows] * x[:, :, columns], axis=1)
