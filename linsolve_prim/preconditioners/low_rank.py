"""`LowRankPlusDiagonal`: D + UVᵀ, whose inverse is of the same kind."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._tree import HIGHEST, tree_dtype
from .._types import inexact_asarray
from ..errors import StructureError
from ..operators import (
    AbstractLinearOperator,
    conj,
    diagonal,
    is_positive_semidefinite,
    is_symmetric,
    positive_semidefinite_tag,
    symmetric_tag,
)
from ..operators.structures import check_vector
from ..operators.tags import transpose_tags
from .parts import is_nonsymmetric, symmetry_of


class LowRankPlusDiagonal(AbstractLinearOperator):
    """The operator x ↦ (D + UVᵀ)x, or with `V=None` the Hermitian (D + UUᴴ)x.

    D is diagonal, U and V are `(n, r)`; nothing of size n² is ever made. The inverse, by Woodbury's
    formula (Hager, "Updating the inverse of a matrix", 1989, doi:10.1137/1031049), is again of this
    kind, and takes one factorization of an r×r matrix. All of it can be differentiated by `d`, `U`
    and `V`, which are what is learned in a learned preconditioner.

    As a preconditioner it stands for A⁻¹, as every operator does; if it is to approximate A itself,
    pass `.inv()`. `CG` and `MINRES` take the Hermitian form only, with positive D
    (`LowRankPlusDiagonal.spd`): D + UVᵀ is not symmetric, and they would not converge.

    - `d`: `(n,)`; real in the Hermitian form.
    - `sign`: 1, or −1 for D − UUᴴ (what the inverse of D + UUᴴ is).

    **Raises** `StructureError` for shapes that do not fit.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.preconditioners.LowRankPlusDiagonal(jnp.array([1.0, 2.0]), jnp.array([[1.0], [1.0]]))
        >>> print(A.as_matrix(), (A.inv() @ A).as_matrix().round(3) + 0.0)
        [[2. 1.]
         [1. 3.]] [[1. 0.]
         [0. 1.]]
    """

    d: Array
    U: Array
    V: Array | None
    sign: Literal[1, -1] = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self, d: Any, U: Any, V: Any = None, *, sign: Literal[1, -1] = 1, tags: Any = frozenset()
    ):
        """**Raises** `StructureError` if shapes do not fit."""
        d, U = inexact_asarray(d), inexact_asarray(U)
        V = None if V is None else inexact_asarray(V)
        if d.ndim != 1 or U.ndim != 2 or U.shape[0] != d.shape[0]:
            raise StructureError(
                f"U: must have shape (n, r) for d of shape (n,); got {U.shape} for {d.shape}. Use "
                "`jax.vmap` for a batch."
            )
        if V is not None and V.shape != U.shape:
            raise StructureError(f"V: must have the shape of U, {U.shape}; got {V.shape}.")
        if V is None and jnp.iscomplexobj(d):
            raise StructureError(
                f"d: must be real in D + UUᴴ, which is Hermitian; got {d.dtype}. Pass `V` for another."
            )
        dtype = tree_dtype((d, U) if V is None else (d, U, V))
        self.d = d if V is None else d.astype(dtype)
        self.U, self.V = U.astype(dtype), None if V is None else V.astype(dtype)
        self.sign, self.tags = sign, frozenset(tags)

    @classmethod
    def spd(cls, d: Any, U: Any) -> LowRankPlusDiagonal:
        """D + UUᴴ, tagged positive definite, for d > 0 (as of `exp` or `softplus` of parameters).

        **Raises** `ValueError` if some d is known not to be positive.
        """
        if not isinstance(d, jax.core.Tracer) and not np.all(np.asarray(d) > 0):
            raise ValueError(
                f"d: must be positive for D + UUᴴ to be definite; the least is {np.min(d):.3g}. Make "
                "it so, as by `jax.nn.softplus`."
            )
        return cls(d, U, tags=(positive_semidefinite_tag,))

    # ---- The operator ----

    def _d(self) -> Array:
        return self.d.astype(self.U.dtype)

    def _right(self) -> Array:
        """V, so that the matrix is D ± UVᵀ."""
        return self.U.conj() if self.V is None else self.V

    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.in_structure())
        low = jnp.matmul(self._right().T, vector, precision=HIGHEST)
        low = jnp.matmul(self.U, low, precision=HIGHEST)
        return self._d() * vector + self.sign * low

    def as_matrix(self) -> Array:
        low = jnp.matmul(self.U, self._right().T, precision=HIGHEST)
        return jnp.diag(self._d()) + self.sign * low

    def transpose(self) -> LowRankPlusDiagonal:
        if is_symmetric(self):
            return self
        if self.V is None:  # the transpose of a Hermitian matrix is its conjugate
            return conj(self)
        tags = transpose_tags(self.tags)
        return LowRankPlusDiagonal(self.d, self.V, self.U, sign=self.sign, tags=tags)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.d.shape, self.U.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()

    # ---- What it is for ----

    def inv(self) -> LowRankPlusDiagonal:
        """The inverse: D⁻¹ − D⁻¹U C⁻¹ VᵀD⁻¹ with C = I + VᵀD⁻¹U, of size r×r."""
        left = self.U / self._d()[:, None]
        if self.V is None and self.sign == 1 and is_positive_semidefinite(self):
            factor = jnp.linalg.cholesky(self._capacitance())
            half = jax.scipy.linalg.solve_triangular(factor, left.conj().T, lower=True)
            return LowRankPlusDiagonal(1 / self.d, half.conj().T, sign=-1, tags=self.tags)
        kept = self.tags & {positive_semidefinite_tag, symmetric_tag}
        right = self._right() / self._d()[:, None]
        left = jnp.linalg.solve(self._capacitance().T, left.T).T
        other: Literal[1, -1] = -1 if self.sign == 1 else 1
        return LowRankPlusDiagonal(1 / self.d, left, right, sign=other, tags=kept)

    def logdet(self) -> Array:
        """log |det|, by the determinant lemma: log |det C| + Σ log |d|."""
        return jnp.linalg.slogdet(self._capacitance())[1] + jnp.sum(jnp.log(jnp.abs(self.d)))

    def _capacitance(self) -> Array:
        """I ± VᵀD⁻¹U, `(r, r)`."""
        left = self.U / self._d()[:, None]
        inner = jnp.matmul(self._right().T, left, precision=HIGHEST)
        return jnp.eye(self.U.shape[1], dtype=inner.dtype) + self.sign * inner


@is_symmetric.register(LowRankPlusDiagonal)
def _is_symmetric(operator: LowRankPlusDiagonal) -> bool:
    real = not jnp.iscomplexobj(operator.U)
    definite = positive_semidefinite_tag in operator.tags
    return symmetric_tag in operator.tags or (real and (definite or operator.V is None))


@conj.register(LowRankPlusDiagonal)
def _conj(operator: LowRankPlusDiagonal) -> LowRankPlusDiagonal:
    if not jnp.iscomplexobj(operator.U):
        return operator
    V = None if operator.V is None else operator.V.conj()
    tags, sign = operator.tags, operator.sign
    return LowRankPlusDiagonal(operator.d.conj(), operator.U.conj(), V, sign=sign, tags=tags)


@diagonal.register(LowRankPlusDiagonal)
def _diagonal(operator: LowRankPlusDiagonal) -> Array:
    low = jnp.sum(operator.U * operator._right(), axis=1)
    return operator._d() + operator.sign * low


@is_nonsymmetric.register(LowRankPlusDiagonal)
def _is_nonsymmetric(operator: LowRankPlusDiagonal) -> bool:
    return operator.V is not None and not symmetry_of(operator)
