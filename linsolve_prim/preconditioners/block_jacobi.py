"""`BlockJacobi`: the inverses of blocks on the diagonal."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._static import FrozenArray, stop_gradient
from ..operators import AbstractLinearOperator
from ..sparse.operator import sparse_of
from ..sparse.values import pick
from .base import AbstractPreconditioner
from .local import (
    LocalInverses,
    as_labels,
    contiguous,
    inverses,
    local_slots,
    parts_by_label,
    table_of,
    with_ones,
)
from .parts import (
    as_inverse_of,
    dense_form,
    is_definite,
    require_square,
    symmetry_of,
    tagged,
)


class BlockJacobi(AbstractPreconditioner):
    """M = blockdiag(B₁, B₂, …)⁻¹ with the diagonal blocks of A, dense, all inverted at once.

    - `blocks`: the number of unknowns in a block (neighbours, the last block being smaller), or an
      array of a label for each unknown: those of one label are a block. Memory is the number of
      blocks times the square of the largest.

    A singular block counts as its diagonal. For several fields at each point of a grid that are
    stored point by point `blocks` is their number; field by field, `np.arange(n) % points`.

    **Raises** `ValueError` for `blocks` that is neither a number nor a label for each unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 4.0]]))
        >>> print(lp.preconditioners.BlockJacobi(2).init(A).as_matrix().round(3) + 0.0)
        [[ 1.   -1.    0.  ]
         [-1.    2.    0.  ]
         [ 0.    0.    0.25]]
    """

    blocks: Any = eqx.field(default=4, static=True, converter=lambda x: as_labels(x, "blocks"))

    def __check_init__(self) -> None:
        known = isinstance(self.blocks, FrozenArray)
        if not (known or (isinstance(self.blocks, int) and self.blocks >= 1)):
            raise ValueError(
                f"blocks: must be a number of unknowns, an int ≥ 1, or labels; got {self.blocks!r}."
            )

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "BlockJacobi")
        operator = stop_gradient(operator)
        n = operator.in_size()
        by_size = isinstance(self.blocks, int)
        if by_size:
            table = contiguous(n, min(int(self.blocks), max(n, 1)))
        else:
            table = table_of(parts_by_label(self.blocks, n, "blocks"), n)
        blocks = inverses(local_blocks(operator, table, "BlockJacobi"), is_definite(operator))
        members = None if by_size else jnp.asarray(table)
        made = LocalInverses(blocks, members, None, None, n)
        return as_inverse_of(tagged(made, symmetry_of(operator)), operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


def local_blocks(operator: AbstractLinearOperator, table: np.ndarray, name: str) -> Array:
    """The matrices of A on each part, `(parts, s, s)`, with ones where a part is smaller."""
    sparse = sparse_of(operator)
    if sparse is not None:
        pattern = sparse.pattern
        blocks = pick(sparse.values, local_slots(pattern, table))
        return with_ones(blocks, table, pattern.shape[0])
    matrix = dense_form(operator, name)
    at = jnp.minimum(jnp.asarray(table), max(matrix.shape[0] - 1, 0))
    return with_ones(matrix[at[:, :, None], at[:, None, :]], table, matrix.shape[0])
