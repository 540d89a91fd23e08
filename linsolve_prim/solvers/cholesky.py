"""Cholesky factorization."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp
import jax.scipy as jsp
from jax.lax import linalg as lax_linalg
from jaxtyping import Array, PyTree

from .._static import Static
from .._types import Options
from ..operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ..results import RESULTS
from .base import AbstractLinearSolver
from .determinant import SignAndLog, of_diagonal
from .rank import pivot_threshold
from .structures import (
    PackedStructures,
    factorizable,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)

_CholeskyState: TypeAlias = tuple[Array, Array, PackedStructures, Static]


class Cholesky(AbstractLinearSolver[_CholeskyState]):
    """A = LLᴴ (LAPACK `potrf`), for operators tagged positive or negative definite.

    Half the work of `LU`. Singular operators, and operators that are not definite in spite of their
    tag, give `RESULTS.singular`. Only the lower triangle is factorized; that the upper one agrees is
    seen by the check of the residual.

    `(n, n)`, all four dtypes; complex operators are Hermitian. (Golub & Van Loan 2013, Matrix
    Computations, section 4.2.)

    **Raises** `ValueError` for an operator that does not promise to be definite.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> print(lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.Cholesky()).value.round(3))
        [1. 2.]
    """

    def init(self, operator: AbstractLinearOperator, options: Options) -> _CholeskyState:
        del options
        require_square(operator, "Cholesky")
        is_nsd = is_negative_semidefinite(operator)
        if not (is_positive_semidefinite(operator) or is_nsd):
            raise ValueError(
                "operator: `Cholesky` needs a positive or negative definite operator, and this "
                f"{type(operator).__name__} does not promise that. Tag it with "
                "`positive_semidefinite_tag` if it is, or use `LU()`."
            )
        matrix = factorizable(operator.as_matrix())
        if is_nsd:
            matrix = -matrix
        factor = lax_linalg.cholesky(matrix, symmetrize_input=False)
        # In units of its diagonal entry, a negligible pivot: A is not definite. (NaN: even less.)
        n = matrix.shape[0]
        pivots, diagonal = jnp.diagonal(factor).real ** 2, jnp.diagonal(matrix).real
        definite = jnp.all(pivots > pivot_threshold(n, matrix.dtype) * diagonal)
        return factor, ~definite, pack_structures(operator), Static(is_nsd)

    def compute(
        self, state: _CholeskyState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        factor, singular, structures, is_nsd = state
        x = jsp.linalg.cho_solve((factor, True), factorizable(ravel_vector(vector, structures)))
        result = RESULTS.where(singular, RESULTS.singular, RESULTS.successful)
        return unravel_solution(-x if is_nsd.value else x, structures), result, {}

    def transpose(self, state: _CholeskyState, options: Options) -> tuple[_CholeskyState, Options]:
        # Aᵀ = conj(A) = conj(L) conj(L)ᴴ
        factor, singular, structures, is_nsd = state
        structures = transpose_packed_structures(structures)
        return (factor.conj(), singular, structures, is_nsd), options

    def conj(self, state: _CholeskyState, options: Options) -> tuple[_CholeskyState, Options]:
        factor, singular, structures, is_nsd = state
        return (factor.conj(), singular, structures, is_nsd), options

    def slogdet(self, state: _CholeskyState) -> SignAndLog:
        factor, _, _, is_nsd = state
        sign, half = of_diagonal(jnp.diagonal(factor))
        return -sign if is_nsd.value and factor.shape[0] % 2 else sign, 2 * half

    def assume_full_rank(self) -> bool:
        return True
