"""LU factorization with partial pivoting.

LAPACK wants columns, and arrays are laid out by rows: what it can factorize without turning it around is
Aᵀ. So that is what is factorized, Aᵀ = PᵀLU; a pivot is the largest entry of its *row* of A.

Everything here is written for few kernels, each of which costs 12 ms of compilation, and in small systems
as much time as LAPACK. [measured: benchmarks/dense.py]
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import linalg as lax_linalg
from jaxtyping import Array, PyTree

from .._second_look import Look, second_look
from .._static import Static
from .._types import Options
from ..operators import AbstractLinearOperator
from ..results import RESULTS, SINGULAR, SUCCESSFUL, result_of_code
from .base import AbstractLinearSolver
from .determinant import SignAndLog, of_diagonal, parity
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
from .swaps import places_of

# The columns of LU one after another: as they lie in memory. (XLA turns a matrix that lies so around
# wherever it leaves a program.) The places of rows; ...; whose factors: Aᵀ's?
_LUState: TypeAlias = tuple[tuple[Array, Array], PackedStructures, Static]


def _reduce(x: tuple[Array, ...], start: tuple[Any, ...], how: Any, axis: int) -> tuple[Array, ...]:
    """A reduction of several arrays at once, which is one kernel. (Of one array XLA may make three.)"""
    start = tuple(jnp.asarray(s, a.dtype) for a, s in zip(x, start))
    return tuple(jax.lax.reduce(x, start, how, (axis,)))


def _pivots(lu: Array) -> Array:
    """Their sizes `(n,)`, of factors `(n, n)`."""
    n = lu.shape[-1]
    return jnp.abs(jax.lax.stop_gradient(lu).reshape(n * n)[:: n + 1])


def _first_look(lu: Array) -> tuple[Array, Array]:
    """The terms of the first look, for factors `(n, n)`: p² and 1/p² for each pivot p."""
    squares = _pivots(lu) ** 2
    return squares, 1 / squares


def _clear(squares: Array, inverse_squares: Array) -> Array:
    """Whether no pivots differ by 1/√ε, from the sums of the terms: (max p / min p)² ≤ Σp²·Σp⁻².

    (Nor do they if that over- or underflows, or is NaN.)
    """
    return squares * inverse_squares < 1 / float(jnp.finfo(squares.dtype).eps)


def _second_look(lu: Array) -> Array:
    """Whether a pivot cannot be told from zero, for factors `(..., n, n)`, as a result code.

    The computed factors are those of a matrix within γₙ|L||U| of A, entry by entry (Higham 2002,
    Accuracy and Stability of Numerical Algorithms, theorem 9.3): a pivot of that size or below may
    as well be zero. The test is blind to any scaling of rows or columns. NaNs are negligible, and
    pivots within √ε of the largest are not. It reads all factors, which costs as much as the
    substitution.
    """
    n, size = lu.shape[-1], jnp.abs(lu)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (n, n), axis) for axis in (0, 1))
    # Σ_k |l_jk||u_kj|, the diagonal of |L||U|, but for the pivots, which are summed beside it
    off_diagonal = jnp.where(row < column, size * jnp.swapaxes(size, -1, -2), 0)
    diagonal = jnp.where(row == column, size, 0)
    add = lambda x, y: (x[0] + y[0], x[1] + y[1])
    rest, pivots = _reduce((off_diagonal, diagonal), (0, 0), add, lu.ndim - 2)
    large = pivots > _ratio(lu) * jnp.max(pivots, axis=-1, keepdims=True, initial=0)
    good = large | (pivots > pivot_threshold(n, lu.dtype) * (pivots + rest))
    both = lambda x, y: (x[0] & y[0], x[1] | y[1])
    all_good, any_bad = _reduce((good, ~good), (True, False), both, good.ndim - 1)
    return jnp.where(any_bad | ~all_good, jnp.int32(SINGULAR), jnp.int32(SUCCESSFUL))


def _second_look_on_host(lu: np.ndarray) -> np.ndarray:
    """The same of factors `(n, n)` or their transpose, in NumPy: reads what belongs to small pivots."""
    pivots = np.abs(np.diagonal(lu))
    small = np.flatnonzero(~(pivots > _ratio(lu) * pivots.max(initial=0)))
    products = np.abs(lu[small]) * np.abs(lu[:, small]).T
    rest = np.sum(products, axis=1, where=np.arange(len(lu)) < small[:, None])
    bound = pivots[small] + rest
    good = np.all(pivots[small] > pivot_threshold(len(lu), lu.dtype) * bound)
    return np.asarray(SUCCESSFUL if good else SINGULAR, np.int32)


def _ratio(lu: Any) -> float:
    return float(jnp.finfo(lu.dtype).eps) ** 0.5


def _look(n: int) -> Look:
    return Look(_clear, _second_look, _second_look_on_host, num_terms=2, small=n <= 32)


def _take(x: Array, permutation: Array) -> Array:
    return x.at[permutation].get(
        mode="promise_in_bounds", unique_indices=True, wrap_negative_indices=False
    )


def _inverse(permutation: Array) -> Array:
    places = jax.lax.broadcasted_iota(permutation.dtype, permutation.shape, 0)
    return permutation.at[permutation].set(  # (every entry is written)
        places, mode="promise_in_bounds", unique_indices=True, wrap_negative_indices=False
    )


class LU(AbstractLinearSolver[_LUState]):
    """PAᵀ = LU by Gaussian elimination with partial pivoting (LAPACK `getrf`), for square matrices.

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
        lu, swaps, _ = lax_linalg.lu(factorizable(operator.as_matrix()).T)
        factor = lu.T.reshape(-1), places_of(swaps)
        return factor, pack_structures(operator), Static(True)

    def compute(
        self, state: _LUState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        (columns, places), structures, transposed = state
        n = len(places)
        lu = columns.reshape(n, n).T
        substitute = functools.partial(lax_linalg.triangular_solve, lu, left_side=True)
        x = factorizable(ravel_vector(vector, structures))[:, None]
        if transposed.value:  # (LU)ᵀ z = b and x = z[places]
            x = substitute(x, lower=False, transpose_a=True)
            x = substitute(x, lower=True, transpose_a=True, unit_diagonal=True)
            x = _take(x, places)[:, 0]
        else:  # LU x = z and z[places] = b
            x = substitute(_take(x, _inverse(places)), lower=True, unit_diagonal=True)
            x = substitute(x, lower=False)[:, 0]
        code = second_look(_look(n), _first_look(lu), lu)
        return unravel_solution(x, structures), result_of_code(code), {}

    def transpose(self, state: _LUState, options: Options) -> tuple[_LUState, Options]:
        factor, structures, transposed = state
        structures = transpose_packed_structures(structures)
        return (factor, structures, Static(not transposed.value)), options

    def conj(self, state: _LUState, options: Options) -> tuple[_LUState, Options]:
        (columns, places), structures, transposed = state
        return ((columns.conj(), places), structures, transposed), options

    def slogdet(self, state: _LUState) -> SignAndLog:
        (columns, places), *_ = state
        sign, log = of_diagonal(columns[:: len(places) + 1])
        return sign * parity(places).astype(sign.dtype), log

    def assume_full_rank(self) -> bool:
        return True
