"""LU factorization with partial pivoting."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.lax import linalg as lax_linalg
from jaxtyping import Array, PyTree

from .._static import Static
from .._types import Options
from .._varying import vary_like, varying_axes
from ..operators import AbstractLinearOperator
from ..results import RESULTS
from .base import AbstractLinearSolver
from .determinant import SignAndLog, of_diagonal, parity
from .rank import pivot_threshold
from .structures import (
    PackedStructures,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)
from .swaps import permutation_of

_LUState: TypeAlias = tuple[tuple[Array, Array], Array, PackedStructures, Static]


def _pivots(lu: Array) -> Array:
    n = lu.shape[-1]
    return jnp.abs(lu.reshape(*lu.shape[:-2], n * n)[..., :: n + 1])


def _negligible_pivot(lu: Array) -> Array:
    """Whether a pivot cannot be told from zero, for factors `(..., n, n)`.

    The computed factors are those of a matrix within γₙ|L||U| of A, entry by entry (Higham 2002,
    Accuracy and Stability of Numerical Algorithms, theorem 9.3): a pivot of that size or below may
    as well be zero. The test is blind to any scaling of rows or columns. NaNs are negligible.
    """
    size, pivots = jnp.abs(lu), _pivots(lu)
    # Σ_k |l_jk||u_kj|, the diagonal of |L||U|; summed along columns, as LAPACK lays them out
    off_diagonal = jnp.triu(size * jnp.swapaxes(size, -1, -2), 1)
    bound = pivots + jnp.sum(off_diagonal, axis=-2)
    return jnp.any(~(pivots > pivot_threshold(lu.shape[-1], lu.dtype) * bound), axis=-1)


@jax.custom_batching.custom_vmap
def _singular(lu: Array) -> Array:
    """`_negligible_pivot`, which is only asked if any matrix has pivots that differ by 1/√ε.

    (It reads all factors, which costs as much as the substitution; but for one small matrix that is
    less than a conditional. Of a batch one such matrix is enough to ask: hence the rule of its own
    for `vmap`, which would otherwise take both branches.)
    """
    n = lu.shape[-1]
    if n == 0:
        return jnp.zeros(lu.shape[:-2], bool)
    if lu.ndim == 2 and n <= 32:
        return _negligible_pivot(lu)
    pivots = _pivots(lu)
    zero = jnp.zeros((), pivots.dtype)
    both = lambda x, y: (jnp.minimum(x[0], y[0]), jnp.maximum(x[1], y[1]))
    least, most = jax.lax.reduce((pivots, pivots), (zero + jnp.inf, zero), both, (pivots.ndim - 1,))
    healthy = jnp.all(least > float(jnp.finfo(lu.dtype).eps) ** 0.5 * most)
    none = lambda: vary_like(jnp.zeros(lu.shape[:-2], bool), varying_axes(lu))
    return jax.lax.cond(healthy, none, lambda: _negligible_pivot(lu))


@_singular.def_vmap
def _singular_batch(axis_size: int, in_batched: list[bool], lu: Array) -> tuple[Array, bool]:
    del axis_size, in_batched
    return _singular(lu), True


class LU(AbstractLinearSolver[_LUState]):
    """PA = LU by Gaussian elimination with partial pivoting (LAPACK `getrf`), for square matrices.

    Singular operators give `RESULTS.singular`. Stable for all but contrived matrices (Golub & Van
    Loan 2013, Matrix Computations, section 3.4).

    `(n, n)`, all four dtypes. **Raises** `StructureError` for an operator that is not square.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[0.0, 2.0], [1.0, 3.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.LU()).value.round(3))
        [1. 2.]
    """

    def init(self, operator: AbstractLinearOperator, options: Options) -> _LUState:
        del options
        require_square(operator, "LU")
        lu, swaps, permutation = lax_linalg.lu(operator.as_matrix())
        permutation = permutation_of(swaps, permutation)
        singular = _singular(jax.lax.stop_gradient(lu))  # `custom_vmap` has no derivative
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

    def slogdet(self, state: _LUState) -> SignAndLog:
        (lu, permutation), *_ = state
        sign, log = of_diagonal(jnp.diagonal(lu))
        return sign * parity(permutation).astype(sign.dtype), log

    def assume_full_rank(self) -> bool:
        return True
