"""An operator in another precision."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Structure, is_inexact
from . import functions as fns
from .base import AbstractLinearOperator
from .diagonal import DiagonalLinearOperator
from .matrix import MatrixLinearOperator
from .tagged import TaggedLinearOperator
from .tridiagonal import TridiagonalLinearOperator


def in_precision(dtype: Any, precision: Any) -> Any:
    """The real or complex dtype of that precision: ("complex128", "float32") gives complex64."""
    precision = jnp.dtype(precision)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return precision
    return jnp.dtype(jnp.complex128 if precision.itemsize > 4 else jnp.complex64)


def cast_tree(x: PyTree[Any], structure: Structure) -> PyTree[Array]:
    """A pytree in the dtypes of a structure."""
    return jax.tree.map(lambda a, s: a.astype(s.dtype), x, structure)


def cast_structure(structure: Structure, precision: Any) -> Structure:
    """A structure with all its dtypes in one precision."""
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, in_precision(s.dtype, precision)), structure
    )


class CastLinearOperator(AbstractLinearOperator):
    """Another operator whose vectors have another precision: x is cast, multiplied, and cast back.

    `cast` makes it of operators that it cannot cast themselves.
    """

    operator: AbstractLinearOperator
    precision: str = eqx.field(static=True)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        product = self.operator.mv(cast_tree(vector, self.operator.in_structure()))
        return cast_tree(product, self.out_structure())

    def as_matrix(self) -> Array:
        matrix = self.operator.as_matrix()
        return matrix.astype(in_precision(matrix.dtype, self.precision))

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return CastLinearOperator(self.operator.transpose(), self.precision)

    def in_structure(self) -> Structure:
        return cast_structure(self.operator.in_structure(), self.precision)

    def out_structure(self) -> Structure:
        return cast_structure(self.operator.out_structure(), self.precision)


@functools.singledispatch
def cast(operator: AbstractLinearOperator, precision: str) -> AbstractLinearOperator:
    """The operator with vectors (and where it holds arrays: arrays) of another precision."""
    return CastLinearOperator(operator, precision)


def cast_leaves(operator: Any, precision: str) -> Any:
    """`cast` for operators whose dtypes are those of their arrays."""
    convert = lambda x: x.astype(in_precision(x.dtype, precision)) if is_inexact(x) else x
    return jax.tree.map(convert, operator)


for _kind in (MatrixLinearOperator, DiagonalLinearOperator, TridiagonalLinearOperator):
    cast.register(_kind, cast_leaves)


@cast.register(TaggedLinearOperator)
def _cast_tagged(operator: TaggedLinearOperator, precision: str) -> TaggedLinearOperator:
    return TaggedLinearOperator(cast(operator.operator, precision), operator.tags)


def _register_predicate(predicate: Any) -> None:
    predicate.register(CastLinearOperator, lambda op: predicate(op.operator))


for _predicate in fns.PREDICATES:
    _register_predicate(_predicate)


for _function in (fns.conj, fns.linearise):
    _function.register(
        CastLinearOperator, lambda op, f=_function: CastLinearOperator(f(op.operator), op.precision)
    )


@fns.materialise.register(CastLinearOperator)
def _materialise(operator: CastLinearOperator) -> AbstractLinearOperator:
    return cast(fns.materialise(operator.operator), operator.precision)


@fns.diagonal.register(CastLinearOperator)
def _diagonal(operator: CastLinearOperator) -> Array:
    return _cast_array(fns.diagonal(operator.operator), operator.precision)


@fns.tridiagonal.register(CastLinearOperator)
def _tridiagonal(operator: CastLinearOperator) -> tuple[Array, ...]:
    bands = fns.tridiagonal(operator.operator)
    return tuple(_cast_array(band, operator.precision) for band in bands)


def _cast_array(x: Array, precision: str) -> Array:
    return x.astype(in_precision(x.dtype, precision))
