"""Singular value decomposition."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import HIGHEST
from .._types import Options
from ..operators import AbstractLinearOperator
from ..results import RESULTS
from .base import AbstractLinearSolver
from .determinant import SignAndLog, of_diagonal
from .rank import default_rcond
from .structures import (
    PackedStructures,
    factorizable,
    pack_structures,
    ravel_vector,
    require_square_structures,
    transpose_packed_structures,
    unravel_solution,
)

_SVDState: TypeAlias = tuple[tuple[Array, Array, Array], PackedStructures]


class SVD(AbstractLinearSolver[_SVDState]):
    """A = UΣVᴴ, for operators of any shape and rank: x = A†b, least squares of minimum norm.

    - `rcond`: singular values up to `rcond` times the largest count as zero. `None` stands for
      2·max(n, m)·ε, negative values for ε.

    `(m, n)`, all four dtypes. (Golub & Van Loan 2013, Matrix Computations, section 5.5.)

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        >>> print(lp.linear_solve(A, jnp.array([2.0, 3.0, 4.0]), lp.SVD()).value.round(3))
        [2. 0.]
    """

    rcond: float | Array | None = None

    def init(self, operator: AbstractLinearOperator, options: Options) -> _SVDState:
        del options
        u, s, vh = jnp.linalg.svd(factorizable(operator.as_matrix()), full_matrices=False)
        return (u, s, vh), pack_structures(operator)

    def compute(
        self, state: _SVDState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        (u, s, vh), structures = state
        rhs = factorizable(ravel_vector(vector, structures))
        rcond = default_rcond(self.rcond, u.shape[0], vh.shape[1], s.dtype)
        keep = s > jnp.asarray(rcond, s.dtype) * s.max(initial=0)
        inverse = jnp.where(keep, 1 / jnp.where(keep, s, 1), 0).astype(u.dtype)
        coefficients = inverse * jnp.matmul(u.conj().T, rhs, precision=HIGHEST)
        x = jnp.matmul(vh.conj().T, coefficients, precision=HIGHEST)
        return unravel_solution(x, structures), RESULTS.successful, {"rank": keep.sum(dtype=int)}

    def transpose(self, state: _SVDState, options: Options) -> tuple[_SVDState, Options]:
        (u, s, vh), structures = state
        return ((vh.T, s, u.T), transpose_packed_structures(structures)), options

    def conj(self, state: _SVDState, options: Options) -> tuple[_SVDState, Options]:
        (u, s, vh), structures = state
        return ((u.conj(), s, vh.conj()), structures), options

    def slogdet(self, state: _SVDState) -> SignAndLog:
        """Of Σ, with the signs of U and V. **Raises** `StructureError` if A is not square."""
        (u, s, vh), structures = state
        require_square_structures(structures, "slogdet")
        sign, log = of_diagonal(s)
        return sign.astype(u.dtype) * jnp.linalg.slogdet(u)[0] * jnp.linalg.slogdet(vh)[0], log

    def assume_full_rank(self) -> bool:
        return False
