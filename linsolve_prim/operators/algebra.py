"""Sums, products and multiples of operators."""

from __future__ import annotations

from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from .._tree import ravel, tree_add, tree_neg, tree_scale, unravel
from .._types import Structure, inexact_asarray, sentinel, structure_equal, structure_str
from ..errors import StructureError
from . import functions as fns
from .base import AbstractLinearOperator


class AddLinearOperator(AbstractLinearOperator):
    """The sum A + B of two operators of the same structures, made by `A + B`.

    **Raises** `StructureError` if the structures differ.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A, B = (lp.DiagonalLinearOperator(d * jnp.ones(2)) for d in (1.0, 2.0))
        >>> print((A + B).mv(jnp.ones(2)))
        [3. 3.]
    """

    operator1: AbstractLinearOperator
    operator2: AbstractLinearOperator

    def __check_init__(self) -> None:
        one, two = self.operator1, self.operator2
        if not structure_equal(one.in_structure(), two.in_structure()):
            _do_not_fit("Two added", "input structures", one.in_structure(), two.in_structure())
        if not structure_equal(one.out_structure(), two.out_structure()):
            _do_not_fit("Two added", "output structures", one.out_structure(), two.out_structure())

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return tree_add(self.operator1.mv(vector), self.operator2.mv(vector))

    def as_matrix(self) -> Array:
        return self.operator1.as_matrix() + self.operator2.as_matrix()

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return self.operator1.transpose() + self.operator2.transpose()

    def in_structure(self) -> Structure:
        return self.operator1.in_structure()

    def out_structure(self) -> Structure:
        return self.operator1.out_structure()


class ComposedLinearOperator(AbstractLinearOperator):
    """The product AB of two operators, x ↦ A(Bx), made by `A @ B`.

    **Raises** `StructureError` if what B returns is not what A takes.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 1.0]]))  # 1×2
        >>> B = lp.DiagonalLinearOperator(jnp.array([2.0, 3.0]))  # 2×2
        >>> print((A @ B).as_matrix(), (A @ B).T.mv(jnp.ones(1)))
        [[2. 3.]] [2. 3.]
    """

    operator1: AbstractLinearOperator
    operator2: AbstractLinearOperator

    def __check_init__(self) -> None:
        inner, outer = self.operator2.out_structure(), self.operator1.in_structure()
        if not structure_equal(outer, inner):
            _do_not_fit("Two composed", "inner structures", outer, inner)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return self.operator1.mv(self.operator2.mv(vector))

    def as_matrix(self) -> Array:
        between, out = self.operator1.in_structure(), self.out_structure()

        def column(b: Array) -> Array:
            return ravel(self.operator1.mv(unravel(b, between)), out)

        return jax.vmap(column, in_axes=1, out_axes=1)(self.operator2.as_matrix())

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return self.operator2.transpose() @ self.operator1.transpose()

    def in_structure(self) -> Structure:
        return self.operator2.in_structure()

    def out_structure(self) -> Structure:
        return self.operator1.out_structure()


class NegLinearOperator(AbstractLinearOperator):
    """The negative −A, made by `-A`.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = -lp.MatrixLinearOperator(jnp.eye(2), lp.positive_semidefinite_tag)
        >>> print(A.mv(jnp.ones(2)), lp.is_negative_semidefinite(A))
        [-1. -1.] True
    """

    operator: AbstractLinearOperator

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return tree_neg(self.operator.mv(vector))

    def as_matrix(self) -> Array:
        return -self.operator.as_matrix()

    def transpose(self) -> AbstractLinearOperator:
        return self if fns.is_symmetric(self) else -self.operator.transpose()

    def in_structure(self) -> Structure:
        return self.operator.in_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure()


class MulLinearOperator(AbstractLinearOperator):
    """The multiple sA, made by `A * s` or `s * A`.

    `scalar` is differentiable. Its sign is remembered if it is a Python or NumPy number, so that
    `2.0 * A` is positive semidefinite if A is. Products keep the dtypes of A.

    **Raises** `StructureError` for a scalar with axes, or a complex one for a real operator.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = 2.0 * lp.MatrixLinearOperator(jnp.eye(2), lp.positive_semidefinite_tag)
        >>> print(A.mv(jnp.ones(2)), [lp.is_positive_semidefinite(B) for B in (A, -1.0 * A)])
        [2. 2.] [True, False]
    """

    operator: AbstractLinearOperator
    scalar: Array
    sign: int | None = eqx.field(static=True)

    def __init__(self, operator: AbstractLinearOperator, scalar: Any, *, sign: Any = sentinel):
        """`sign` (−1, 0, 1 or None) is read from `scalar`, if it is not given.

        **Raises** `StructureError` if `scalar` is complex and the operator is not.
        """
        self.operator = operator
        self.scalar = _scalar(operator, scalar)
        self.sign = _sign(scalar) if sign is sentinel else sign

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return tree_scale(self.scalar, self.operator.mv(vector))

    def as_matrix(self) -> Array:
        return tree_scale(self.scalar, self.operator.as_matrix())

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return MulLinearOperator(self.operator.transpose(), self.scalar, sign=self.sign)

    def in_structure(self) -> Structure:
        return self.operator.in_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure()


class DivLinearOperator(AbstractLinearOperator):
    """The multiple A / s, made by `A / s`. See `MulLinearOperator`.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print((lp.DiagonalLinearOperator(jnp.array([2.0, 4.0])) / 2.0).mv(jnp.ones(2)))
        [1. 2.]
    """

    operator: AbstractLinearOperator
    scalar: Array
    sign: int | None = eqx.field(static=True)

    def __init__(self, operator: AbstractLinearOperator, scalar: Any, *, sign: Any = sentinel):
        """`sign` (−1, 0, 1 or None) is read from `scalar`, if it is not given.

        **Raises** `StructureError` if `scalar` is complex and the operator is not.
        """
        self.operator = operator
        self.scalar = _scalar(operator, scalar)
        self.sign = _sign(scalar) if sign is sentinel else sign

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda a: a / _cast(self.scalar, a), self.operator.mv(vector))

    def as_matrix(self) -> Array:
        matrix = self.operator.as_matrix()
        return matrix / _cast(self.scalar, matrix)

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return DivLinearOperator(self.operator.transpose(), self.scalar, sign=self.sign)

    def in_structure(self) -> Structure:
        return self.operator.in_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure()


def _do_not_fit(what: str, which: str, one: Structure, two: Structure) -> NoReturn:
    raise StructureError(
        f"{what} operators must have equal {which}; got {structure_str(one)} and "
        f"{structure_str(two)}. Reshape or cast one of them."
    )


def _scalar(operator: AbstractLinearOperator, scalar: Any) -> Array:
    scalar = inexact_asarray(scalar)
    if scalar.shape != ():
        raise StructureError(
            f"scalar: must have shape (); got {scalar.shape}. Compose operators with `@`."
        )
    leaves = jax.tree.leaves(operator.out_structure())
    if jnp.iscomplexobj(scalar) and not all(
        jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves
    ):
        raise StructureError(
            f"scalar: is complex ({scalar.dtype}), but the operator's output structure is "
            f"{structure_str(operator.out_structure())}. Make the operator complex first."
        )
    return scalar


def _sign(scalar: Any) -> int | None:
    """The sign of a number known when tracing; None for JAX arrays and complex numbers."""
    if isinstance(scalar, jax.Array) or isinstance(scalar, complex | np.complexfloating):
        return None
    array = np.asarray(scalar)
    if array.dtype.kind not in "biuf" or np.isnan(array):
        return None
    return int(np.sign(array.astype(float)))


def _cast(scalar: ArrayLike, like: Array) -> Array:
    return jnp.asarray(scalar).astype(like.dtype)
