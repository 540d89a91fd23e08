"""`Jacobi`: the inverse of the diagonal."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .._static import stop_gradient
from .._tree import unravel
from ..errors import StructureError
from ..operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    diagonal,
    positive_semidefinite_tag,
)
from .base import AbstractPreconditioner
from .parts import is_definite, nonzero, refuse_products, require_square, symmetry_of, tagged


class Jacobi(AbstractPreconditioner):
    """M = D⁻¹, with D the diagonal of A (zeros in it count as one).

    - `absolute`: |D|⁻¹ instead, which is definite also where A is not: for `MINRES` and indefinite A.
    - `diagonal`: D, `(n,)`, for operators that are known by their products only; by default it is
      read from A, which takes n products for such.

    **Raises** `StructureError` for a `diagonal` of another shape.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[4.0, 1.0], [1.0, -2.0]]))
        >>> print(lp.preconditioners.Jacobi(absolute=True).init(A).as_matrix())
        [[0.25 0.  ]
         [0.   0.5 ]]
    """

    absolute: bool = False
    diagonal: Any = None

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "Jacobi")
        operator = stop_gradient(operator)
        d = nonzero(self._read(operator))
        d = jnp.abs(d).astype(d.dtype) if self.absolute else d
        made = DiagonalLinearOperator(unravel(1 / d, operator.in_structure()))
        tags = frozenset([positive_semidefinite_tag]) if self.absolute else symmetry_of(operator)
        return tagged(made, tags)

    def _read(self, operator: AbstractLinearOperator) -> Array:
        if self.diagonal is None:
            remedy = "Pass it: `Jacobi(diagonal=d)`."
            refuse_products(operator, "Jacobi", remedy)
            return diagonal(operator)
        size = operator.in_size()
        d = jnp.asarray(self.diagonal)
        if d.shape != (size,):
            raise StructureError(
                f"diagonal: must have shape {(size,)}, one number for each unknown; got {d.shape}."
            )
        return d

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.absolute or is_definite(operator)
