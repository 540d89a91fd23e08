"""`TridiagonalLinearOperator`: three diagonals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import common_dtype, inexact_asarray
from ..errors import StructureError
from . import functions as fns
from .base import AbstractLinearOperator
from .structures import check_vector


def tridiagonal_product(diagonal: Array, lower: Array, upper: Array, vector: Array) -> Array:
    """The product of a tridiagonal matrix, of `(n,), (n-1,), (n-1,)`, with a vector `(n,)`."""
    above = jnp.pad(upper * vector[1:], (0, 1))
    below = jnp.pad(lower * vector[:-1], (1, 0))
    return diagonal * vector + above + below


class TridiagonalLinearOperator(AbstractLinearOperator):
    """A square matrix whose entries are zero off the main diagonal and its two neighbours.

    - `diagonal`: `(n,)`; `lower_diagonal`, `upper_diagonal`: `(n - 1,)`.

    **Raises** `StructureError` for other shapes.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.TridiagonalLinearOperator(4 * jnp.ones(3), jnp.ones(2), 2 * jnp.ones(2))
        >>> print(A.as_matrix(), lp.solve(A, jnp.array([6.0, 7.0, 5.0])).round(3))
        [[4. 2. 0.]
         [1. 4. 2.]
         [0. 1. 4.]] [1. 1. 1.]
    """

    diagonal: Array
    lower_diagonal: Array
    upper_diagonal: Array

    def __init__(self, diagonal: Any, lower_diagonal: Any, upper_diagonal: Any):
        """**Arguments**: `diagonal` of shape `(n,)`, `lower_diagonal` (entries Aᵢ₊₁,ᵢ) and
        `upper_diagonal` (entries Aᵢ,ᵢ₊₁) of shape `(n - 1,)`. They get one inexact dtype.

        **Raises** `StructureError` if the shapes do not fit.
        """
        bands = [inexact_asarray(x) for x in (diagonal, lower_diagonal, upper_diagonal)]
        if bands[0].ndim != 1:
            raise StructureError(
                f"diagonal: must have shape (n,); got {bands[0].shape}. Use `jax.vmap` for a batch."
            )
        wanted = (max(bands[0].shape[0] - 1, 0),)
        for name, band in zip(("lower_diagonal", "upper_diagonal"), bands[1:]):
            if band.shape != wanted:
                raise StructureError(
                    f"{name}: must have shape {wanted}, one entry less than `diagonal` of shape "
                    f"{bands[0].shape}; got {band.shape}. Leave out the padding, if there is any."
                )
        dtype = common_dtype(*[band.dtype for band in bands])
        self.diagonal, self.lower_diagonal, self.upper_diagonal = [b.astype(dtype) for b in bands]

    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.in_structure())
        return tridiagonal_product(self.diagonal, self.lower_diagonal, self.upper_diagonal, vector)

    def as_matrix(self) -> Array:
        if self.diagonal.shape[0] == 0:
            return jnp.zeros((0, 0), self.diagonal.dtype)
        matrix = jnp.diag(self.diagonal)
        return matrix + jnp.diag(self.lower_diagonal, -1) + jnp.diag(self.upper_diagonal, 1)

    def transpose(self) -> TridiagonalLinearOperator:
        return TridiagonalLinearOperator(self.diagonal, self.upper_diagonal, self.lower_diagonal)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.diagonal.shape, self.diagonal.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@fns.is_tridiagonal.register(TridiagonalLinearOperator)
def _is_tridiagonal(operator: TridiagonalLinearOperator) -> bool:
    return True


@fns.materialise.register(TridiagonalLinearOperator)
def _materialise(operator: TridiagonalLinearOperator) -> TridiagonalLinearOperator:
    return operator


@fns.conj.register(TridiagonalLinearOperator)
def _conj(operator: TridiagonalLinearOperator) -> TridiagonalLinearOperator:
    if not jnp.iscomplexobj(operator.diagonal):
        return operator
    return TridiagonalLinearOperator(*[band.conj() for band in fns.tridiagonal(operator)])


@fns.diagonal.register(TridiagonalLinearOperator)
def _diagonal(operator: TridiagonalLinearOperator) -> Array:
    return operator.diagonal


@fns.tridiagonal.register(TridiagonalLinearOperator)
def _tridiagonal(operator: TridiagonalLinearOperator) -> tuple[Array, Array, Array]:
    return operator.diagonal, operator.lower_diagonal, operator.upper_diagonal
