"""`MatrixLinearOperator`: a dense matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import HIGHEST
from .._types import inexact_asarray
from ..errors import StructureError
from . import functions as fns
from .base import AbstractLinearOperator
from .dense import materialise_by_products
from .structures import check_vector
from .tags import as_tags, transpose_tags
from .tridiagonal import tridiagonal_product


class _CallsInitOnly(type(eqx.Module)):  # type: ignore[misc]
    """Makes an instance by calling `__init__`, and nothing around it.

    Equinox's checks of every field cost 6 of 9 µs per operator [measured, 2-core CPU]; eager solves
    of small systems make several operators each.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        self: Any = object.__new__(cls)
        cls.__init__(self, *args, **kwargs)
        return self


class MatrixLinearOperator(AbstractLinearOperator, metaclass=_CallsInitOnly):
    """The operator x ↦ Mx of an array M of shape `(rows, columns)`.

    If it is tagged diagonal or tridiagonal, only those entries of M are ever read.

    - `matrix`: any array; integers are promoted to the default float.
    - `tags`: what is promised about it, as `lp.symmetric_tag` or several of them.

    **Raises** `StructureError` for an array that does not have two axes, or is not square where a tag
    says so.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        >>> print(A.mv(jnp.ones(3)), A.T.mv(jnp.ones(2)), A.out_size(), A.in_size())
        [ 6. 15.] [5. 7. 9.] 2 3
    """

    matrix: Array
    tags: frozenset[object] = eqx.field(static=True)
    # Whether `matrix` is the transpose of what lies in memory. XLA folds no transpose into a
    # matrix-vector product, and walks such a matrix across its rows: 10 times slower on CPU.
    _is_view: bool = eqx.field(static=True, repr=False)

    def __init__(self, matrix: Any, tags: object | Iterable[object] = ()):
        """**Arguments**

        - `matrix`: shape `(rows, columns)`, JAX or NumPy; integers are promoted to the default
          float dtype.
        - `tags`: what is promised about the matrix, e.g. `symmetric_tag` or several tags.

        **Raises** `StructureError` if `matrix` does not have two axes, or if a tag asks for a
        square matrix and it is not.
        """
        matrix = inexact_asarray(matrix)
        if matrix.ndim != 2:
            raise StructureError(
                f"matrix: must have two axes, (rows, columns); got shape {matrix.shape}. Use "
                "`jax.vmap` for a batch of matrices, and `PyTreeLinearOperator` for more axes."
            )
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "tags", as_tags(tags) if tags else frozenset())
        object.__setattr__(self, "_is_view", False)
        if tags and matrix.shape[0] != matrix.shape[1]:
            self.__check_init__()

    def mv(self, vector: PyTree[Array]) -> Array:
        check_vector(vector, self.in_structure())
        if fns.is_diagonal(self):
            return jnp.diagonal(self.matrix) * vector
        if fns.is_tridiagonal(self) and self.in_size() == self.out_size():
            return tridiagonal_product(*fns.tridiagonal(self), vector)
        if self._is_view:
            return jnp.matmul(vector, self.matrix.T, precision=HIGHEST)
        return jnp.matmul(self.matrix, vector, precision=HIGHEST)

    def as_matrix(self) -> Array:
        return self.matrix

    def transpose(self) -> MatrixLinearOperator:
        if fns.is_symmetric(self):
            return self
        out = MatrixLinearOperator(self.matrix.T, transpose_tags(self.tags))
        object.__setattr__(out, "_is_view", not self._is_view)
        return out

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.matrix.shape[1:], self.matrix.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)

    def in_size(self) -> int:
        return self.matrix.shape[1]

    def out_size(self) -> int:
        return self.matrix.shape[0]


@fns.conj.register(MatrixLinearOperator)
def _conj(operator: MatrixLinearOperator) -> MatrixLinearOperator:
    if not jnp.iscomplexobj(operator.matrix):
        return operator
    out = MatrixLinearOperator(operator.matrix.conj(), operator.tags)
    object.__setattr__(out, "_is_view", operator._is_view)
    return out


@fns.materialise.register(MatrixLinearOperator)
def _materialise(operator: MatrixLinearOperator) -> AbstractLinearOperator:
    if fns.is_diagonal(operator) or fns.is_tridiagonal(operator):
        return materialise_by_products(operator)
    return operator


@fns.diagonal.register(MatrixLinearOperator)
def _diagonal(operator: MatrixLinearOperator) -> Array:
    return jnp.diagonal(operator.matrix)


@fns.tridiagonal.register(MatrixLinearOperator)
def _tridiagonal(operator: MatrixLinearOperator) -> tuple[Array, Array, Array]:
    from .dense import bands_of

    return bands_of(operator.matrix)
