"""Random sparse matrices for tests: with any entries, triangular, or positive definite."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types import default_floating_dtype
from ..errors import StructureError
from ..operators import conj, positive_semidefinite_tag
from ..sparse.algebra import tril, triu
from ..sparse.operator import SparseLinearOperator


def random_sparse(
    shape: tuple[int, int],
    nnz: int,
    *,
    seed: int = 0,
    dtype: Any = None,
    well_conditioned: bool = False,
    min_diagonal: float = 1.0,
) -> SparseLinearOperator:
    """`nnz` standard normal entries at different random positions.

    - `well_conditioned`: the main diagonal is full, of numbers between `min_diagonal` and twice that, and
      in each row and column at least twice as large as all else: full rank, with a condition number
      of a few units.

    **Raises** `StructureError` if there is no room for so many entries (or for the diagonal in them).

        >>> import linsolve_prim as lp
        >>> A = lp.testing.random_sparse((4, 3), 6, well_conditioned=True)
        >>> A.pattern.shape, A.pattern.nnz
        ((4, 3), 6)
    """
    m, n = shape
    diagonal = np.arange(min(m, n) if well_conditioned else 0) * (n + 1)
    anywhere = lambda i, j: np.ones(len(i), bool)
    values, rows, columns = _draw(shape, nnz, m * n, anywhere, diagonal, seed, dtype)
    if well_conditioned:
        values = _balanced(values, rows, columns, min_diagonal, seed)
    return SparseLinearOperator.from_coo(rows, columns, jnp.asarray(values), shape)


def random_sparse_triangular(
    size: int,
    nnz: int,
    *,
    lower: bool = True,
    strict: bool = False,
    seed: int = 0,
    dtype: Any = None,
    min_diagonal: float = 1.0,
) -> SparseLinearOperator:
    """A triangle with `nnz` entries, the diagonal among them, as `random_sparse(well_conditioned=True)`.

    - `strict`: without a diagonal; the entries are small enough for I + A to be well conditioned.

    **Raises** `StructureError` as `random_sparse` does.

        >>> import linsolve_prim as lp
        >>> L = lp.testing.random_sparse_triangular(4, 7)
        >>> L.pattern.nnz, lp.is_lower_triangular(L)
        (7, True)
    """

    def inside(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        far = i - j if lower else j - i
        return far > 0 if strict else far >= 0

    room = size * (size + (-1 if strict else 1)) // 2
    diagonal = np.arange(0 if strict else size) * (size + 1)
    shape = size, size
    values, rows, columns = _draw(shape, nnz, room, inside, diagonal, seed, dtype)
    values = jnp.asarray(_balanced(values, rows, columns, min_diagonal, seed))
    return SparseLinearOperator.from_coo(rows, columns, values, shape)


def random_sparse_spd(
    size: int, nnz: int, *, seed: int = 0, dtype: Any = None, min_diagonal: float = 1.0
) -> SparseLinearOperator:
    """A positive definite matrix, Hermitian if complex, and tagged so.

    - `nnz`: entries in its lower triangle, the diagonal among them.

    **Raises** `StructureError` as `random_sparse` does.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.testing.random_sparse_spd(4, 7)
        >>> bool((jnp.linalg.eigvalsh(A.as_matrix()) > 0).all()), lp.is_positive_semidefinite(A)
        (True, True)
    """
    lower = random_sparse_triangular(size, nnz, seed=seed, dtype=dtype, min_diagonal=min_diagonal)
    strict = tril(lower, -1) * 0.5
    diagonal_part = tril(triu(lower))
    both: Any = diagonal_part + (strict + conj(strict).T)
    return SparseLinearOperator(both.values, both.pattern, positive_semidefinite_tag)


def _draw(
    shape: tuple[int, int],
    nnz: int,
    room: int,
    inside: Any,
    diagonal: np.ndarray,
    seed: int,
    dtype: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, rows and columns of `nnz` of the `room` positions inside, `diagonal` among them."""
    if not len(diagonal) <= nnz <= room:
        raise StructureError(
            f"nnz: must be from {len(diagonal)} to {room} for shape {shape}; got {nnz}."
        )
    rng = np.random.default_rng(seed)
    dtype = np.dtype(default_floating_dtype() if dtype is None else dtype)
    allowed = lambda flat: flat[inside(*np.divmod(flat, shape[1]))]
    others = _choose(rng, shape[0] * shape[1], allowed, diagonal, nnz - len(diagonal))
    rows, columns = np.divmod(np.sort(np.concatenate([diagonal, others])), shape[1])
    values = rng.normal(size=nnz) + (1j * rng.normal(size=nnz) if dtype.kind == "c" else 0)
    return values.astype(dtype), rows, columns


def _choose(rng: Any, size: int, allowed: Any, taken: np.ndarray, count: int) -> np.ndarray:
    """`count` different allowed numbers below `size` that are not taken."""
    if size <= 1 << 20:
        return rng.choice(np.setdiff1d(allowed(np.arange(size)), taken), count, replace=False)
    found = taken[:0]  # of so many, it is quicker to draw until there are enough
    while len(found) < count:
        more = allowed(rng.integers(0, size, 2 * count))
        found = np.setdiff1d(np.union1d(found, more), taken)
    return rng.permutation(found)[:count]


def _balanced(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, least: float, seed: int
) -> np.ndarray:
    """A diagonal of `least` to twice that; sums of other magnitudes in a row or column at most half."""
    on = rows == columns
    off = np.where(on, 0, np.abs(values))
    largest = max([1e-30, *np.bincount(rows, off), *np.bincount(columns, off)])
    out = values * (0.5 * least / largest)
    out[on] = least * (1 + np.random.default_rng(seed + 1).random(int(on.sum())))
    return out.astype(values.dtype)
