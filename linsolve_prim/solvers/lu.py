"""LU factorization with partial pivoting."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax.lax import linalg as lax_linalg
from jaxtyping import Array, PyTree

from .._static import Static
from .._types import Options
from ..operators import AbstractLinearOperator
from ..results import RESULTS
from .base import AbstractLinearSolver
from .rank import pivot_threshold
from .structures import (
    PackedStructures,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)

_LUState: TypeAlias = tuple[tuple[Array, Array], Array, PackedStructures, Static]


def _singular(lu: Array) -> Array:
    """Whether a pivot cannot be told from zero.

    The computed factors are those of a matrix within γₙ|L||U| of A, entry by entry (Higham 2002,
    Accuracy and Stability of Numerical Algorithms, theorem 9.3): a pivot of that size or below may as
    well be zero. The test is blind to any scaling of rows or columns. NaNs are singular.
    """
    n = lu.shape[0]
    if n == 0:
        return jnp.array(False)
    size = jnp.abs(lu)
    pivots = size.reshape(-1)[:: n + 1]
    # Σ_k |l_jk||u_kj|, the diagonal of |L||U|; summed along columns, as LAPACK lays them out
    bound = pivots + jnp.sum(jnp.triu(size * size.T, 1), axis=0)
    return ~(jnp.min(pivots - pivot_threshold(n, lu.dtype) * bound) > 0)


class LU(AbstractLinearSolver[_LUState]):
    """PA = LU by Gaussian elimination with partial pivoting (LAPACK `getrf`), for square matrices.

    Singular operators give `RESULTS.singular`. Stable for all but contrived matrices (Golub & Van
    Loan 2013, Matrix Computations, section 3.4).
    """

    def init(self, operator: AbstractLinearOperator, options: Options) -> _LUState:
        del options
        require_square(operator, "LU")
        lu, _, permutation = lax_linalg.lu(operator.as_matrix())
        singular = _singular(lu)
        return (lu, permutation), singular, pack_structures(operator), Static(False)

    def compute(
        self, state: _LUState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        (lu, permutation), singular, structures, transposed = state
        substitute = functools.partial(lax_linalg.triangular_solve, lu, left_side=True)
        x = ravel_vector(vector, structures)[:, None]
        if transposed.value:  # Aᵀ = UᵀLᵀP
            x = substitute(x, lower=False, transpose_a=True)
            x = substitute(x, lower=True, transpose_a=True, unit_diagonal=True)
            x = jnp.zeros_like(x).at[permutation].set(x, unique_indices=True)
        else:  # PA = LU
            x = substitute(x[permutation], lower=True, unit_diagonal=True)
            x = substitute(x, lower=False)
        result = RESULTS.where(singular, RESULTS.singular, RESULTS.successful)
        return unravel_solution(x[:, 0], structures), result, {}

    def transpose(self, state: _LUState, options: Options) -> tuple[_LUState, Options]:
        factor, singular, structures, transposed = state
        structures = transpose_packed_structures(structures)
        return (factor, singular, structures, Static(not transposed.value)), options

    def conj(self, state: _LUState, options: Options) -> tuple[_LUState, Options]:
        (lu, permutation), singular, structures, transposed = state
        return ((lu.conj(), permutation), singular, structures, transposed), options

    def assume_full_rank(self) -> bool:
        return True
