"""`trace`: the sum of the diagonal."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..errors import StructureError
from ..operators import AbstractLinearOperator, diagonal
from ..simple import as_operator


def trace(A: Any) -> Array:
    """tr A, the sum of `diagonal(A)`, of a square operator or matrix; differentiable.

    What it costs is what `diagonal` costs: nothing for operators that hold it, sums and multiples of
    such, else the matrix by n products.

    **Raises** `StructureError` if A is not square.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.trace(lp.MatrixLinearOperator(jnp.array([[1.0, 2.0], [3.0, 4.0]]))))
        5.0
    """
    operator = A if isinstance(A, AbstractLinearOperator) else as_operator(A, None)
    rows, columns = operator.out_size(), operator.in_size()
    if rows != columns:
        raise StructureError(f"A: must be square to have a trace; got a {rows}×{columns} operator.")
    return jnp.sum(diagonal(operator))
