"""`ILU`: incomplete LU factorization, on the device or on the host."""

from __future__ import annotations

import jax.numpy as jnp

from .._static import stop_gradient
from ..operators import AbstractLinearOperator
from ..sparse.substitution import Triangle
from .base import AbstractPreconditioner
from .fill import factors_of
from .ic import DENSE_SIZE, IC, check_settings
from .incomplete import lu_sweeps, sweep_count, triangles
from .parts import as_inverse_of, is_definite, sparse_form
from .triangles import Solves, TriangularInverse


class ILU(AbstractPreconditioner):
    """Incomplete LU: M⁻¹ = LU ≈ A, for sparse operators of any kind.

    On the pattern of A, with `fill` levels more, by a fixed-point iteration on all entries at once
    (`incomplete.py`); applied by substitutions, level after level. For operators tagged definite (whose
    pattern is symmetric) it is `IC`, so that `CG` takes it too.

    - `fill`: levels of fill: ILU(0) keeps the pattern of A.
    - `sweeps`: of the fixed-point iteration; None stands for 5, "exact" for as many as there are
      links in the longest chain of entries.
    - `solves`: "exact", or a number of Jacobi sweeps with each triangle, which suits accelerators.
    - `shift`: the diagonal is made larger by this part of it, where factors come out unstable.

    Pivots that vanish are replaced, so that M is always made; how good it is then the solve tells.
    """

    fill: int = 0
    sweeps: int | str | None = None
    solves: Solves = "exact"
    shift: float = 0.0

    def __check_init__(self) -> None:
        check_settings(self.fill, self.sweeps, self.solves, "ILU")

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        operator = stop_gradient(operator)
        a = sparse_form(operator, "ILU", DENSE_SIZE)
        if is_definite(operator) and a.pattern.is_symmetric():
            return IC(self.fill, self.sweeps, self.solves, self.shift).init(operator)
        count = sweep_count(self.sweeps, a.pattern, self.fill)
        shift = jnp.asarray(self.shift, a.values.real.dtype)
        w = lu_sweeps(a.values, a.pattern, self.fill, count, shift)
        filled = factors_of(a.pattern, self.fill).pattern
        lower, below, upper, above = triangles(w, filled)
        left = TriangularInverse.make(lower, Triangle(below, True, True), self.solves)
        right = TriangularInverse.make(upper, Triangle(above, False, False), self.solves)
        return as_inverse_of(right @ left, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return (
            is_definite(operator)
            and sparse_form(operator, "ILU", DENSE_SIZE).pattern.is_symmetric()
        )
