"""`IC`: incomplete Cholesky factorization, on the device."""

from __future__ import annotations

import jax.numpy as jnp

from .._static import stop_gradient
from ..operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    conj,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ..sparse.operator import SparseLinearOperator
from ..sparse.substitution import Triangle
from .base import AbstractPreconditioner
from .fill import factors_of
from .incomplete import (
    SWEEPS,
    check_symmetric,
    hermitian_sweeps,
    sweep_count,
    triangles,
)
from .parts import as_inverse_of, is_definite, sparse_form, symmetry_of, tagged
from .triangles import Solves, TriangularInverse, check_solves

#: Up to this size dense operators are taken, with n³/3 terms in a sweep.
DENSE_SIZE = 128


class IC(AbstractPreconditioner):
    """Incomplete Cholesky: M⁻¹ = UᴴD⁻¹U ≈ A for operators tagged positive or negative definite.

    On the pattern of A, with `fill` levels more, by a fixed-point iteration on all entries at once
    (`incomplete.py`); applied by substitutions, level after level. M is Hermitian and definite, also
    where A is so badly scaled that a pivot must be replaced, so `CG` and `MINRES` take it.

    - `fill`: levels of fill: IC(0) keeps the pattern of A.
    - `sweeps`: of the fixed-point iteration; None stands for 5, "exact" for as many as there are
      links in the longest chain of entries.
    - `solves`: "exact", or a number of Jacobi sweeps with each triangle, which suits accelerators.
    - `shift`: the diagonal is made larger by this part of it, for matrices far from an M-matrix.

    (Chow and Patel, "Fine-grained parallel incomplete LU factorization", 2015, doi:10.1137/140968896.)

    **Raises** `WrongTypeError` for an operator that is not sparse, `ValueError` for one that does not
    promise to be definite.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(5, 5)).tocsr()
        >>> A = lp.SparseLinearOperator.from_scipy(S, lp.positive_semidefinite_tag)
        >>> M = lp.preconditioners.IC(sweeps="exact").init(A)
        >>> print(M.mv(A.mv(jnp.ones(5))).round(3))  # without fill, it is exact
        [1. 1. 1. 1. 1.]
    """

    fill: int = 0
    sweeps: int | str | None = None
    solves: Solves = "exact"
    shift: float = 0.0

    def __check_init__(self) -> None:
        check_settings(self.fill, self.sweeps, self.solves, "IC")

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        if not is_definite(operator):
            raise ValueError(
                f"operator: `IC` needs a positive or negative definite operator, and this "
                f"{type(operator).__name__} does not promise that. Tag it with "
                "`positive_semidefinite_tag` if it is, or use `ILU`."
            )
        operator = stop_gradient(operator)
        a = sparse_form(operator, "IC", DENSE_SIZE)
        check_symmetric(a.pattern, "IC")
        negative = not is_positive_semidefinite(operator) and is_negative_semidefinite(operator)
        made = hermitian_inverse(
            -a if negative else a, self.fill, self.sweeps, self.solves, self.shift
        )
        made = tagged(-made if negative else made, symmetry_of(operator))
        return as_inverse_of(made, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


def check_settings(fill: int, sweeps: int | str | None, solves: Solves, name: str) -> None:
    """Refuse settings of an incomplete factorization when it is made."""
    if isinstance(fill, bool) or not isinstance(fill, int) or fill < 0:
        raise ValueError(f"fill: must be a level, an int ≥ 0; got {fill!r}.")
    is_count = isinstance(sweeps, int) and not isinstance(sweeps, bool) and sweeps >= 0
    if not (sweeps is None or sweeps == "exact" or is_count):
        raise ValueError(
            f"sweeps: must be None, 'exact' or a number, an int ≥ 0; got {sweeps!r}. Leave it out for "
            f"{SWEEPS}."
        )
    check_solves(solves, name)


def hermitian_inverse(
    a: SparseLinearOperator, fill: int, sweeps: int | str | None, solves: Solves, shift: float
) -> AbstractLinearOperator:
    """U⁻¹DU⁻ᴴ of a positive definite sparse operator."""
    count = sweep_count(sweeps, a.pattern, fill)
    extra = jnp.asarray(shift, a.values.real.dtype)
    w = hermitian_sweeps(a.values, a.pattern, fill, count, extra)
    factors = factors_of(a.pattern, fill)
    _, _, upper, pattern = triangles(w, factors.pattern)
    d = w[factors.pattern.diagonal_slots()]
    right = TriangularInverse.make(upper, Triangle(pattern, False, False), solves)
    return right @ DiagonalLinearOperator(d) @ conj(right).transpose()
