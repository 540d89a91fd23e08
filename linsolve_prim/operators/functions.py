"""What can be asked of an operator or done to it: thirteen generic functions.

Each is a `functools.singledispatch`, open to operators written elsewhere:
`linsolve_prim.is_symmetric.register(MyOperator)`. The defaults stand here and follow from an
operator's `mv`, `transpose`, structures and (if it has them) `tags`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jaxtyping import Array

from . import tags as t

if TYPE_CHECKING:
    from .base import AbstractLinearOperator


def _tags(operator: AbstractLinearOperator) -> frozenset[Any]:
    tags: Any = getattr(operator, "tags", frozenset())
    return t.as_tags(tags)


def is_real(operator: AbstractLinearOperator) -> bool:
    """Whether neither input nor output is complex."""
    from .._tree import tree_dtype

    structures = (operator.in_structure(), operator.out_structure())
    return not jnp.issubdtype(tree_dtype(structures), jnp.complexfloating)


@functools.singledispatch
def is_symmetric(operator: AbstractLinearOperator) -> bool:
    """Whether A = Aᵀ is promised. (Definite operators are Hermitian: symmetric only if real.)

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.eye(2), lp.symmetric_tag)
        >>> lp.is_symmetric(A), lp.is_symmetric(A @ A)
        (True, False)
    """
    tags = _tags(operator)
    if t.symmetric_tag in tags or t.diagonal_tag in tags:
        return True
    definite = t.positive_semidefinite_tag in tags or t.negative_semidefinite_tag in tags
    return definite and is_real(operator)


@functools.singledispatch
def is_diagonal(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be diagonal (as every 1×1 operator is).

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.DiagonalLinearOperator(jnp.ones(2))
        >>> lp.is_diagonal(A), lp.is_diagonal(A + lp.MatrixLinearOperator(jnp.eye(2)))
        (True, False)
    """
    return t.diagonal_tag in _tags(operator) or (operator.in_size() == operator.out_size() == 1)


@functools.singledispatch
def is_tridiagonal(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be tridiagonal.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.is_tridiagonal(lp.TridiagonalLinearOperator(jnp.ones(3), jnp.ones(2), jnp.ones(2)))
        True
    """
    tags = _tags(operator)
    return t.tridiagonal_tag in tags or t.diagonal_tag in tags


@functools.singledispatch
def has_unit_diagonal(operator: AbstractLinearOperator) -> bool:
    """Whether every diagonal entry of A is promised to be one.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.has_unit_diagonal(lp.MatrixLinearOperator(jnp.eye(2), lp.unit_diagonal_tag))
        True
    """
    return t.unit_diagonal_tag in _tags(operator)


@functools.singledispatch
def is_lower_triangular(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be lower triangular.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.tril(jnp.ones((2, 2))), lp.lower_triangular_tag)
        >>> lp.is_lower_triangular(A), lp.is_lower_triangular(A.T)
        (True, False)
    """
    tags = _tags(operator)
    return t.lower_triangular_tag in tags or t.diagonal_tag in tags


@functools.singledispatch
def is_upper_triangular(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be upper triangular.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.triu(jnp.ones((2, 2))))
        >>> lp.is_upper_triangular(A)  # by its pattern
        True
    """
    tags = _tags(operator)
    return t.upper_triangular_tag in tags or t.diagonal_tag in tags


@functools.singledispatch
def is_positive_semidefinite(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be Hermitian with xᴴAx ≥ 0.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.eye(2), lp.positive_semidefinite_tag)
        >>> [lp.is_positive_semidefinite(B) for B in (A, A + A, A - A)]
        [True, True, False]
    """
    return t.positive_semidefinite_tag in _tags(operator)


@functools.singledispatch
def is_negative_semidefinite(operator: AbstractLinearOperator) -> bool:
    """Whether A is promised to be Hermitian with xᴴAx ≤ 0.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.eye(2), lp.positive_semidefinite_tag)
        >>> lp.is_negative_semidefinite(A), lp.is_negative_semidefinite(-A)
        (False, True)
    """
    return t.negative_semidefinite_tag in _tags(operator)


#: What may be promised of an operator.
PREDICATES: tuple[Any, ...] = (
    is_symmetric,
    is_diagonal,
    is_tridiagonal,
    has_unit_diagonal,
    is_lower_triangular,
    is_upper_triangular,
    is_positive_semidefinite,
    is_negative_semidefinite,
)


@functools.singledispatch
def linearise(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The same operator with its products made cheap: a Jacobian evaluates its function once.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> J = lp.JacobianLinearOperator(lambda x, args: x**3, jnp.array([1.0, 2.0]))
        >>> print(lp.linearise(J).mv(jnp.ones(2)))
        [ 3. 12.]
    """
    return operator


@functools.singledispatch
def materialise(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The same operator held as arrays in memory, instead of as a function. O(n) products, once.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> J = lp.JacobianLinearOperator(lambda x, args: x * x[::-1], jnp.array([1.0, 2.0]))
        >>> print(lp.materialise(J).as_matrix())
        [[2. 1.]
         [2. 1.]]
    """
    from .dense import materialise_by_products

    return materialise_by_products(operator)


@functools.singledispatch
def conj(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """The elementwise conjugate, conj(A): x ↦ conj(A conj(x)). A itself if it is real.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1 + 2j]]))
        >>> print(lp.conj(A).as_matrix())
        [[1.-2.j]]
    """
    from .conjugate import ConjLinearOperator

    return operator if is_real(operator) else ConjLinearOperator(operator)


@functools.singledispatch
def diagonal(operator: AbstractLinearOperator) -> Array:
    """The diagonal of A, of shape `(min(out_size, in_size),)`; one product if A is diagonal.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.diagonal(lp.MatrixLinearOperator(jnp.arange(6.0).reshape(2, 3))))
        [0. 4.]
    """
    from .dense import diagonal_by_products

    return diagonal_by_products(operator)


@functools.singledispatch
def tridiagonal(operator: AbstractLinearOperator) -> tuple[Array, Array, Array]:
    """`(diagonal, lower, upper)` of A, of sizes n, n-1, n-1; three products if A is tridiagonal.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.arange(9.0).reshape(3, 3), lp.tridiagonal_tag)
        >>> print(*lp.tridiagonal(A))
        [0. 4. 8.] [3. 7.] [1. 5.]
    """
    from .dense import tridiagonal_by_products

    return tridiagonal_by_products(operator)


def promises_hermitian(operator: AbstractLinearOperator) -> bool:
    """Whether what is promised of an operator implies A = Aᴴ."""
    definite = is_positive_semidefinite(operator) or is_negative_semidefinite(operator)
    return definite or (is_real(operator) and is_symmetric(operator))
