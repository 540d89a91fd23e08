"""A preconditioner with parameters: diagonal plus low rank."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._tree import tree_dtype
from .._types import inexact_asarray
from ..errors import StructureError
from ..operators import AbstractLinearOperator, diagonal, is_negative_semidefinite
from ..preconditioners.base import AbstractPreconditioner
from ..preconditioners.low_rank import LowRankPlusDiagonal


class LearnedPreconditioner(AbstractPreconditioner):
    """M = (D + UUᵀ)⁻¹ for CG, or (D + UVᵀ)⁻¹ for GMRES, with D = exp(log_d), by Woodbury.

    One M serves a family of matrices; with `follows_diagonal`, D = diag(A)·exp(log_d) is that of the
    matrix at hand. The symmetric form is positive definite for every value of its parameters (if
    diag(A) > 0); D + UVᵀ is not symmetric, and CG does not converge with it: it is refused there.

    - `log_d`: `(n,)`.
    - `U`, `V`: `(n, r)`; `V=None` is the symmetric form.
    - `follows_diagonal`: whether D follows A. Then log_d = 0 and U = 0 is Jacobi's preconditioner.

    Train it by `condition_number_loss`, or by the residual of an `UnrolledAdjoint`. A converged
    solution does not depend on it, nor does its derivative.

    **Raises** `StructureError` if shapes do not fit.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([2.0, 4.0])), lp.positive_semidefinite_tag)
        >>> M = lp.learn.LearnedPreconditioner(jnp.zeros(2), jnp.zeros((2, 1)))  # before training: Jacobi
        >>> print(M.init(A).mv(jnp.ones(2)))
        [0.5  0.25]
    """

    log_d: Array
    U: Array
    V: Array | None = None
    follows_diagonal: bool = eqx.field(default=True, kw_only=True, static=True)

    def __init__(self, log_d: Any, U: Any, V: Any = None, *, follows_diagonal: bool = True):
        self.follows_diagonal = follows_diagonal
        self.log_d, self.U = inexact_asarray(log_d), inexact_asarray(U)
        self.V = None if V is None else inexact_asarray(V)
        rows = self.log_d.shape
        if self.log_d.ndim != 1 or self.U.ndim != 2 or self.U.shape[:1] != rows:
            raise StructureError(
                f"U: must have shape (n, r) for log_d of shape (n,); got {self.U.shape} for {rows}."
            )
        if self.V is not None and self.V.shape != self.U.shape:
            raise StructureError(
                f"V: must have the shape of U, {self.U.shape}; got {self.V.shape}."
            )

    @classmethod
    def untrained(
        cls,
        key: Array,
        size: int,
        rank: int,
        *,
        symmetric: bool = True,
        scale: float = 1e-2,
        follows_diagonal: bool = True,
    ) -> LearnedPreconditioner:
        """Zeros in `log_d`, and small random numbers in U (and V)."""
        first, second = jax.random.split(key)
        draw = lambda key: scale * jax.random.normal(key, (size, rank))
        V = None if symmetric else draw(second)
        return cls(jnp.zeros(size), draw(first), V, follows_diagonal=follows_diagonal)

    def init(self, operator: AbstractLinearOperator) -> LowRankPlusDiagonal:
        """M for this operator: one r×r factorization, and O(nr) memory."""
        return self.approximation(operator).inv()

    def approximation(self, operator: AbstractLinearOperator) -> LowRankPlusDiagonal:
        """D + UUᵀ or D + UVᵀ, which approximates A (its `logdet` is that of M⁻¹)."""
        if operator.in_size() != self.log_d.shape[0]:
            raise StructureError(
                f"LearnedPreconditioner: is for {self.log_d.shape[0]} unknowns; got an operator with "
                f"{operator.in_size()}."
            )
        dtype = tree_dtype(operator.in_structure())
        d = jnp.exp(self.log_d).astype(dtype)
        if self.follows_diagonal:
            d = diagonal(operator) * d
        if any(map(jnp.iscomplexobj, (self.U, self.V))) and not jnp.iscomplexobj(d):
            raise StructureError(
                "U, V: must be real for a real operator; got complex ones for an operator of "
                f"{dtype}."
            )
        if self.V is not None:
            return LowRankPlusDiagonal(d, self.U.astype(d.dtype), self.V.astype(d.dtype))
        return LowRankPlusDiagonal.spd(d.real, self.U.astype(d.dtype))

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.V is None and not (self.follows_diagonal and is_negative_semidefinite(operator))
