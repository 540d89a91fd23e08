"""`SSOR` and `GaussSeidel`: substitutions with the triangles of A itself."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._static import stop_gradient
from ..operators import AbstractLinearOperator, DiagonalLinearOperator
from ..sparse.operator import SparseLinearOperator
from ..sparse.plans import triangle
from ..sparse.substitution import Triangle
from .base import AbstractPreconditioner
from .parts import (
    as_inverse_of,
    full_diagonal,
    is_definite,
    nonzero,
    sparse_form,
    symmetry_of,
    tagged,
)
from .triangles import Solves, TriangularInverse, check_solves

Direction = Literal["forward", "backward", "symmetric"]
#: Up to this size dense operators are taken, with one level for each unknown.
DENSE_SIZE = 1024


class SSOR(AbstractPreconditioner):
    """Symmetric successive over-relaxation: M = ω(2 − ω)(D + ωU)⁻¹ D (D + ωL)⁻¹ for A = L + D + U.

    Nothing is factorized: the two substitutions are with the triangles of A, level after level. M is
    symmetric (definite) if A is. (Axelsson 1972, doi:10.1007/BF01932955; Saad, "Iterative methods for
    sparse linear systems", section 10.2.) Zeros on the diagonal count as one.

    - `omega`: in 0 < ω < 2; ω = 1 is a forward and a backward sweep of Gauss and Seidel.
    - `solves`: "exact", or a number of Jacobi sweeps with each triangle, which suits accelerators.

    **Raises** `WrongTypeError` for an operator that is not sparse, `ValueError` for another `omega`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [1.0, 4.0]]))
        >>> M = lp.preconditioners.SSOR(omega=1.0).init(A).as_matrix()
        >>> bool(jnp.allclose(M, M.T)), bool(jnp.linalg.norm(jnp.eye(2) - M @ A.as_matrix()) < 0.3)
        (True, True)
    """

    omega: float = 1.0
    solves: Solves = "exact"

    def __check_init__(self) -> None:
        check_solves(self.solves, "SSOR")
        if isinstance(self.omega, (int, float)) and not 0 < self.omega < 2:
            raise ValueError(f"omega: must be in 0 < ω < 2; got {self.omega!r}.")

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        operator = stop_gradient(operator)
        a = full_diagonal(sparse_form(operator, "SSOR", DENSE_SIZE))
        omega = jnp.asarray(self.omega, a.values.real.dtype)
        d = nonzero(a.values[a.pattern.diagonal_slots()])
        lower = _triangle_inverse(a, omega, True, self.solves)
        upper = _triangle_inverse(a, omega, False, self.solves)
        scale = (omega * (2 - omega)).astype(d.dtype)
        made = upper @ DiagonalLinearOperator(scale * d) @ lower
        return as_inverse_of(tagged(made, symmetry_of(operator)), operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


class GaussSeidel(AbstractPreconditioner):
    """One sweep of Gauss and Seidel from zero: M = (D + L)⁻¹ for A = L + D + U.

    - `direction`: "symmetric", a forward and a backward sweep, which is `SSOR` with ω = 1 and keeps
      symmetry; "forward"; or "backward", (D + U)⁻¹.
    - `solves`: "exact", or a number of Jacobi sweeps with each triangle, which suits accelerators.

    (Saad, "Iterative methods for sparse linear systems", section 10.2.)

    **Raises** `WrongTypeError` for an operator that is not sparse, `ValueError` for another `direction`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [1.0, 4.0]]))
        >>> print(lp.preconditioners.GaussSeidel("forward").init(A).mv(jnp.array([4.0, 6.0])))  # (D + L)x = b
        [2. 1.]
    """

    direction: Direction = "symmetric"
    solves: Solves = "exact"

    def __check_init__(self) -> None:
        check_solves(self.solves, "GaussSeidel")
        if self.direction not in ("forward", "backward", "symmetric"):
            raise ValueError(
                "direction: must be 'forward', 'backward' or 'symmetric'; got "
                f"{self.direction!r}. Leave it out for 'symmetric', which `CG` takes too."
            )

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        if self.direction == "symmetric":
            return SSOR(1.0, self.solves).init(operator)
        operator = stop_gradient(operator)
        a = full_diagonal(sparse_form(operator, "GaussSeidel", DENSE_SIZE))
        one = jnp.ones((), a.values.real.dtype)
        made = _triangle_inverse(a, one, self.direction == "forward", self.solves)
        return as_inverse_of(made, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.direction == "symmetric" and is_definite(operator)


def _triangle_inverse(
    a: SparseLinearOperator, omega: Array | jax.Array, lower: bool, solves: Solves
) -> TriangularInverse:
    """(D + ωL)⁻¹ or (D + ωU)⁻¹."""
    part = triangle(a.pattern, 0, lower)
    values = a.values[part.slots]
    on = part.pattern.rows == part.pattern.indices
    values = jnp.where(on, nonzero(values), omega.astype(values.dtype) * values)
    return TriangularInverse.make(values, Triangle(part.pattern, lower, False), solves)
