"""QR factorization."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, PyTree

from .._static import Static
from .._tree import HIGHEST
from .._types import Options
from ..operators import AbstractLinearOperator
from ..results import RESULTS
from .base import AbstractLinearSolver
from .determinant import SignAndLog, of_diagonal
from .rank import pivot_threshold
from .structures import (
    PackedStructures,
    factorizable,
    pack_structures,
    ravel_vector,
    require_square_structures,
    transpose_packed_structures,
    unravel_solution,
)

_QRState: TypeAlias = tuple[Array, Array, Array, PackedStructures, Static]


class QR(AbstractLinearSolver[_QRState]):
    """A = QR (or Aᵀ = QR for wide A) by Householder reflections, for operators of full rank.

    Tall operators give the least-squares solution, wide ones that of minimum norm. Rank-deficient
    ones give `RESULTS.singular`: use `SVD` for them. (Golub & Van Loan 2013, Matrix Computations,
    sections 5.3 and 5.6.)

    `(m, n)`, all four dtypes.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[3.0], [4.0]]))
        >>> print(lp.linear_solve(A, jnp.array([6.0, 8.0]), lp.QR()).value.round(3))
        [2.]
    """

    def init(self, operator: AbstractLinearOperator, options: Options) -> _QRState:
        del options
        matrix = factorizable(operator.as_matrix())
        wide = matrix.shape[0] < matrix.shape[1]
        matrix = matrix.T if wide else matrix
        q, r = jnp.linalg.qr(matrix)
        size = jnp.abs(matrix).max(axis=0, initial=0)
        threshold = pivot_threshold(matrix.shape[0], matrix.dtype)
        singular = jnp.any(jnp.abs(jnp.diagonal(r)) <= threshold * size)
        return q, r, singular, pack_structures(operator), Static(wide)

    def compute(
        self, state: _QRState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        q, r, singular, structures, wide = state
        rhs = factorizable(ravel_vector(vector, structures))
        if wide.value:  # A = RᵀQᵀ, so x = conj(Q) R⁻ᵀ b
            y = jsp.linalg.solve_triangular(r, rhs, trans="T", unit_diagonal=False)
            x = jnp.matmul(q.conj(), y, precision=HIGHEST)
        else:  # x = R⁻¹ Qᴴ b
            y = jnp.matmul(q.conj().T, rhs, precision=HIGHEST)
            x = jsp.linalg.solve_triangular(r, y, trans="N", unit_diagonal=False)
        result = RESULTS.where(singular, RESULTS.singular, RESULTS.successful)
        return unravel_solution(x, structures), result, {}

    def transpose(self, state: _QRState, options: Options) -> tuple[_QRState, Options]:
        q, r, singular, structures, wide = state
        structures = transpose_packed_structures(structures)
        return (q, r, singular, structures, Static(not wide.value)), options

    def conj(self, state: _QRState, options: Options) -> tuple[_QRState, Options]:
        q, r, singular, structures, wide = state
        return (q.conj(), r.conj(), singular, structures, wide), options

    def slogdet(self, state: _QRState) -> SignAndLog:
        """Of R, with the sign of Q. **Raises** `StructureError` if A is not square."""
        q, r, _, structures, _ = state
        require_square_structures(structures, "slogdet")
        sign, log = of_diagonal(jnp.diagonal(r))
        return sign * jnp.linalg.slogdet(q)[0], log

    def assume_full_rank(self) -> bool:
        return True
