"""Gaussian elimination with tridiagonal matrices."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Options
from ..operators import AbstractLinearOperator, is_tridiagonal, tridiagonal
from ..results import RESULTS
from .base import AbstractLinearSolver
from .structures import (
    PackedStructures,
    factorizable,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)

_TridiagonalState: TypeAlias = tuple[tuple[Array, Array, Array], PackedStructures]


class Tridiagonal(AbstractLinearSolver[_TridiagonalState]):
    """O(n) elimination with partial pivoting (LAPACK `gtsv`), for operators known as tridiagonal.

    `(n, n)`, all four dtypes. (Golub & Van Loan 2013, Matrix Computations, section 4.3.)

    **Raises** `ValueError` for an operator that is not known as tridiagonal.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.TridiagonalLinearOperator(4 * jnp.ones(3), jnp.ones(2), 2 * jnp.ones(2))
        >>> print(lp.linear_solve(A, jnp.array([6.0, 7.0, 5.0]), lp.Tridiagonal()).value.round(3))
        [1. 1. 1.]
    """

    def init(self, operator: AbstractLinearOperator, options: Options) -> _TridiagonalState:
        del options
        require_square(operator, "Tridiagonal")
        if not is_tridiagonal(operator):
            raise ValueError(
                f"operator: `Tridiagonal` needs a tridiagonal operator, and this "
                f"{type(operator).__name__} does not promise to be one. Use a "
                "`TridiagonalLinearOperator`, or tag it with `tridiagonal_tag`."
            )
        main, lower, upper = map(factorizable, tridiagonal(operator))
        return (main, lower, upper), pack_structures(operator)

    def compute(
        self, state: _TridiagonalState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        (main, lower, upper), structures = state
        rhs = factorizable(ravel_vector(vector, structures))
        if main.shape[0] == 0:
            x = rhs
        elif main.shape[0] == 1:
            x = rhs / main
        else:
            edge = jnp.zeros((1,), main.dtype)
            dl = jnp.concatenate([edge, lower])
            du = jnp.concatenate([upper, edge])
            x = jax.lax.linalg.tridiagonal_solve(dl, main, du, rhs[:, None])[:, 0]
        return unravel_solution(x, structures), RESULTS.successful, {}

    def transpose(
        self, state: _TridiagonalState, options: Options
    ) -> tuple[_TridiagonalState, Options]:
        (main, lower, upper), structures = state
        return ((main, upper, lower), transpose_packed_structures(structures)), options

    def conj(self, state: _TridiagonalState, options: Options) -> tuple[_TridiagonalState, Options]:
        (main, lower, upper), structures = state
        return ((main.conj(), lower.conj(), upper.conj()), structures), options

    def assume_full_rank(self) -> bool:
        return True
