"""Small regular systems, one for each promise that a solver may ask for, made of any square matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    MatrixLinearOperator,
    TridiagonalLinearOperator,
    positive_semidefinite_tag,
)
from ..sparse import SparseLinearOperator, SparsityPattern

Build: TypeAlias = Callable[[Array], AbstractLinearOperator]


def general(m: Array) -> AbstractLinearOperator:
    """Not symmetric, and far from singular for standard normal entries."""
    return MatrixLinearOperator(m + 6 * jnp.eye(len(m), dtype=m.dtype))


def symmetric(m: Array, *tags: Any) -> AbstractLinearOperator:
    """Hermitian, and positive definite."""
    return MatrixLinearOperator(m @ m.conj().T / len(m) + jnp.eye(len(m), dtype=m.dtype), tags)


def definite(m: Array) -> AbstractLinearOperator:
    return symmetric(m, positive_semidefinite_tag)


def triangle(m: Array) -> AbstractLinearOperator:
    """The lower one, with a sparse pattern."""
    rows, cols = np.tril_indices(len(m))
    pattern, _ = SparsityPattern.from_coo(rows, cols, m.shape)
    entries = m + 4 * jnp.eye(len(m), dtype=m.dtype)
    return SparseLinearOperator(entries[pattern.rows, pattern.indices], pattern)


def bands(m: Array) -> AbstractLinearOperator:
    main, side = jnp.diagonal(m) + 5, jnp.diagonal(m, 1)
    return TridiagonalLinearOperator(main, side, side / 2)


def diagonal(m: Array) -> AbstractLinearOperator:
    return DiagonalLinearOperator(jnp.diagonal(m) + 5)


#: By what `list_solvers()` says that a solver assumes.
FITTING: dict[str, Build] = {
    "nothing": general,
    "symmetric": symmetric,
    "definite": definite,
    "triangular": triangle,
    "tridiagonal": bands,
    "diagonal": diagonal,
}


def singular(assumes: str, m: Array) -> AbstractLinearOperator:
    """Of the same kind, with a null space of dimension one."""
    n, dtype = len(m), m.dtype
    if assumes == "diagonal":
        return DiagonalLinearOperator((jnp.diagonal(m) + 5).at[1].set(0))
    if assumes == "tridiagonal":  # the second differences of what has no ends
        main = jnp.full(n, 2, dtype).at[0].set(1).at[-1].set(1)
        return TridiagonalLinearOperator(main, -jnp.ones(n - 1, dtype), -jnp.ones(n - 1, dtype))
    if assumes == "triangular":
        rows, cols = np.tril_indices(n)
        pattern, _ = SparsityPattern.from_coo(rows, cols, m.shape)
        entries = (m + 4 * jnp.eye(n, dtype=dtype)).at[1].set(0)
        return SparseLinearOperator(entries[pattern.rows, pattern.indices], pattern)
    if assumes == "nothing":
        return MatrixLinearOperator((m + 6 * jnp.eye(n, dtype=dtype)).at[:, 1].set(0))
    half = (m + 2 * jnp.eye(n, dtype=dtype)).at[:, 1].set(0)
    tags = (positive_semidefinite_tag,) if assumes == "definite" else ()
    return MatrixLinearOperator(half @ half.conj().T, tags)
