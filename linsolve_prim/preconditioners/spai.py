"""`SPAI`: sparse approximate inverses, made of small dense systems and applied by products."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._static import stop_gradient
from ..operators import (
    AbstractLinearOperator,
    ComposedLinearOperator,
    conj,
    is_positive_semidefinite,
)
from ..sparse.operator import SparseLinearOperator
from ..sparse.pattern import SparsityPattern
from ..sparse.plans import product, triangle
from ..sparse.values import pick
from .base import AbstractPreconditioner
from .local import local_slots, table_of, with_ones
from .parts import (
    as_inverse_of,
    full_diagonal,
    is_definite,
    sparse_form,
    symmetry_of,
    tagged,
)

DENSE_SIZE = 128


class SPAI(AbstractPreconditioner):
    """A sparse M that is close to A⁻¹ in the Frobenius norm, on the pattern of A or of its powers.

    Each column of M is a least-squares problem of its own, min ‖A mⱼ − eⱼ‖ over the entries that it may
    have (Grote, Huckle, "Parallel preconditioning with sparse approximate inverses", 1997,
    doi:10.1137/S1064827594276552, on a pattern that is chosen before); all are solved at once, by
    their normal equations. M is applied by products, so no unknown waits for another.

    For operators tagged definite it is factorized, M = GᴴG with G ≈ L⁻¹ on the lower triangle
    of that pattern (Kolotilina, Yeremin 1993, doi:10.1137/0614004), and so definite too.

    - `power`: the pattern is that of A to this power.

    **Raises** `WrongTypeError` for an operator that is not sparse.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [0.0, 4.0]]))
        >>> print(lp.preconditioners.SPAI().init(A).as_matrix().round(3) + 0.0)  # of a full triangle exact
        [[ 0.5   -0.125]
         [ 0.     0.25 ]]
    """

    power: int = 1

    def __check_init__(self) -> None:
        if isinstance(self.power, bool) or not isinstance(self.power, int) or self.power < 1:
            raise ValueError(f"power: must be an int ≥ 1; got {self.power!r}.")

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        operator = stop_gradient(operator)
        a = full_diagonal(sparse_form(operator, "SPAI", DENSE_SIZE))
        pattern = _power(a.pattern, self.power)
        if not is_definite(operator):
            return as_inverse_of(_least_squares(a, pattern), operator)
        negative = not is_positive_semidefinite(operator)
        g = _factorized(-a if negative else a, pattern)
        made = ComposedLinearOperator(conj(g).transpose(), g)  # two products: GᴴG would be denser
        made = tagged(-made if negative else made, symmetry_of(operator))
        return as_inverse_of(made, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


def _power(pattern: SparsityPattern, power: int) -> SparsityPattern:
    out = pattern
    for _ in range(power - 1):
        out = product(out, pattern).pattern
    return out


def _rows(pattern: SparsityPattern) -> np.ndarray:
    """The columns of each row, as a table filled up with n."""
    return table_of(np.split(pattern.indices, pattern.indptr[1:-1]), pattern.shape[1])


def _place(pattern: SparsityPattern) -> tuple[np.ndarray, np.ndarray]:
    """Row, and place in the table, of each entry."""
    return pattern.rows, np.arange(pattern.nnz) - pattern.indptr[pattern.rows]


def _least_squares(a: SparseLinearOperator, pattern: SparsityPattern) -> SparseLinearOperator:
    """Column j of M has the pattern's column j: rows J. (AᴴA)(J, J) m = conj(A(j, J))."""
    size = jnp.max(jnp.abs(a.values), initial=0)  # squares of entries in other units are no numbers
    unit = jnp.where((size > 0) & jnp.isfinite(size), size, 1).astype(a.values.dtype)
    a = SparseLinearOperator(a.values / unit, a.pattern)
    of = pattern.T  # its rows are the columns of M
    table = of.cached("rows as a table", lambda: _rows(of))
    gram = conj(a).transpose() @ a
    assert isinstance(gram, SparseLinearOperator)
    blocks = with_ones(pick(gram.values, local_slots(gram.pattern, table)), table, of.shape[1])
    row = of.cached(("entries of", a.pattern), lambda: _slots_of_rows(a.pattern, table))
    m = _solved(blocks, pick(a.values, row).conj())
    return SparseLinearOperator(m[_place(of)] / unit, of).transpose()


def _slots_of_rows(pattern: SparsityPattern, table: np.ndarray) -> np.ndarray:
    """`(n, s)`: the slot of the entry (j, table[j, k]); nnz where there is none."""
    n = pattern.shape[1]
    keys = pattern.rows.astype(np.int64) * n + pattern.indices
    wanted = np.arange(len(table))[:, None] * n + table.astype(np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), pattern.nnz - 1)
    return np.where((keys[at] == wanted) & (table < n), at, pattern.nnz)


def _factorized(a: SparseLinearOperator, pattern: SparsityPattern) -> SparseLinearOperator:
    """G with GAGᴴ ≈ I. Row i of G: A(J, J) y = eᵢ, conj(y) over √yᵢ, with J its columns."""
    lower = triangle(pattern, 0, True).pattern
    table = lower.cached("rows as a table", lambda: _rows(lower))
    blocks = with_ones(pick(a.values, local_slots(a.pattern, table)), table, lower.shape[1])
    last = lower.row_lengths - 1  # where i stands among its columns
    unit = jnp.asarray(np.arange(table.shape[1]) == last[:, None], a.values.dtype)
    y = _solved(blocks, unit)
    size = jnp.take_along_axis(y, jnp.asarray(last)[:, None], axis=1).real
    g = y.conj() / jnp.sqrt(jnp.where(size > 0, size, 1)).astype(y.dtype)
    return SparseLinearOperator(g[_place(lower)], lower)


def _solved(blocks: Array, rhs: Array) -> Array:
    """Solutions for Hermitian definite blocks; of a block that is singular, by its diagonal."""
    x = jnp.linalg.solve(blocks, rhs[..., None])[..., 0]
    d = jnp.diagonal(blocks, axis1=1, axis2=2)
    good = jnp.all(jnp.isfinite(x), axis=1, keepdims=True)
    return jnp.where(good, x, rhs / jnp.where(d == 0, 1, d))
