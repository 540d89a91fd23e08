"""`TaggedLinearOperator`: an operator with promises added."""

from __future__ import annotations

from collections.abc import Iterable

import equinox as eqx
from jaxtyping import Array, PyTree

from .._types import Structure
from . import functions as fns
from .base import AbstractLinearOperator
from .dense import diagonal_by_products, materialise_by_products, tridiagonal_by_products
from .tags import as_tags, transpose_tags


class TaggedLinearOperator(AbstractLinearOperator):
    """Another operator with promises: `TaggedLinearOperator(A + A.T, symmetric_tag)`.

    **Raises** `StructureError` if a tag asks for equal structures of input and output, which are not.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> S = lp.TaggedLinearOperator(A + A.T, lp.positive_semidefinite_tag)
        >>> lp.is_symmetric(A + A.T), lp.is_positive_semidefinite(S)
        (False, True)
    """

    operator: AbstractLinearOperator
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, operator: AbstractLinearOperator, tags: object | Iterable[object]):
        """`operator`: any operator; `tags`: one tag or several. They are believed, not checked.

        **Raises** `StructureError` if a tag asks for equal input and output structures.
        """
        self.operator = operator
        self.tags = as_tags(tags)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return self.operator.mv(vector)

    def as_matrix(self) -> Array:
        return self.operator.as_matrix()

    def transpose(self) -> TaggedLinearOperator:
        if fns.is_symmetric(self):
            return self
        return TaggedLinearOperator(self.operator.transpose(), transpose_tags(self.tags))

    def in_structure(self) -> Structure:
        return self.operator.in_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure()


def _register_predicate(predicate: Any) -> None:
    by_tags = predicate.dispatch(object)  # the default looks at `operator.tags`
    predicate.register(TaggedLinearOperator, lambda op: by_tags(op) or predicate(op.operator))


for _predicate in fns.PREDICATES:
    _register_predicate(_predicate)


@fns.linearise.register(TaggedLinearOperator)
def _linearise(operator: TaggedLinearOperator) -> TaggedLinearOperator:
    return TaggedLinearOperator(fns.linearise(operator.operator), operator.tags)


@fns.materialise.register(TaggedLinearOperator)
def _materialise(operator: TaggedLinearOperator) -> AbstractLinearOperator:
    inner = operator.operator
    if (fns.is_diagonal(operator) and not fns.is_diagonal(inner)) or (
        fns.is_tridiagonal(operator) and not fns.is_tridiagonal(inner)
    ):
        return materialise_by_products(operator)
    return TaggedLinearOperator(fns.materialise(inner), operator.tags)


@fns.conj.register(TaggedLinearOperator)
def _conj(operator: TaggedLinearOperator) -> TaggedLinearOperator:
    return TaggedLinearOperator(fns.conj(operator.operator), operator.tags)


@fns.diagonal.register(TaggedLinearOperator)
def _diagonal(operator: TaggedLinearOperator) -> Array:
    if fns.is_diagonal(operator) and not fns.is_diagonal(operator.operator):
        return diagonal_by_products(operator)
    return fns.diagonal(operator.operator)


@fns.tridiagonal.register(TaggedLinearOperator)
def _tridiagonal(operator: TaggedLinearOperator) -> tuple[Array, Array, Array]:
    if fns.is_tridiagonal(operator) and not fns.is_tridiagonal(operator.operator):
        return tridiagonal_by_products(operator)
    return fns.tridiagonal(operator.operator)
