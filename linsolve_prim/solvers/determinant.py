"""Determinants of factors: signs (phases, if complex) and logarithms of magnitudes."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array

#: det A / |det A| in the dtype of A (0 if A is singular), and log |det A|, which is real.
SignAndLog: TypeAlias = tuple[Array, Array]


def of_diagonal(entries: Array) -> SignAndLog:
    """Of a product of numbers `(n,)`. A zero among them gives `(0, -inf)`."""
    size = jnp.abs(entries)
    if jnp.iscomplexobj(entries):  # (JAX takes the derivative of `sign` for zero)
        phases = entries / jnp.where(size == 0, 1, size).astype(entries.dtype)
    else:
        phases = jnp.sign(entries)
    return jnp.prod(phases), jnp.sum(jnp.log(size))


def parity(permutation: Array) -> Array:
    """1 for even permutations `(n,)`, −1 for odd ones, by counting inversions.

    n² comparisons, which are summed as they are made: nothing beside the n³ of a factorization.
    """
    inverted = permutation[:, None] > permutation[None, :]
    odd = jnp.sum(jnp.triu(inverted, 1), dtype=jnp.uint32) % 2
    return jnp.where(odd == 1, -1, 1)


def parity_on_host(permutation: np.ndarray) -> int:
    """The same in NumPy, in O(n): (−1)^(n − number of cycles)."""
    n = len(permutation)
    if n == 0:
        return 1
    graph = sp.csr_array((np.ones(n, np.int8), (np.arange(n), permutation)), shape=(n, n))
    cycles = sp.csgraph.connected_components(graph, return_labels=False)
    return -1 if (n - cycles) % 2 else 1


def of_diagonal_on_host(entries: np.ndarray) -> tuple[Any, float]:
    """`of_diagonal` in NumPy."""
    size = np.abs(entries)
    if np.any(size == 0):
        return 0.0, -np.inf
    return np.prod(entries / size), float(np.sum(np.log(size)))
