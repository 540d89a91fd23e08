"""`ConjLinearOperator`: the elementwise conjugate of any operator."""

from __future__ import annotations

from jaxtyping import Array, PyTree

from .._tree import tree_conj
from .._types import Structure
from . import functions as fns
from .base import AbstractLinearOperator


class ConjLinearOperator(AbstractLinearOperator):
    """The operator x ↦ conj(A conj(x)), whose matrix is conj(A).

    `conj(A)` makes it where A has no better conjugate of its own. Every structure of A (symmetric,
    triangular, positive semidefinite, …) is one of conj(A) too.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 1j * x, jax.ShapeDtypeStruct((1,), jnp.complex64))
        >>> print(lp.conj(A).mv(jnp.ones(1, jnp.complex64)))
        [0.-1.j]
    """

    operator: AbstractLinearOperator

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return tree_conj(self.operator.mv(tree_conj(vector)))

    def as_matrix(self) -> Array:
        return self.operator.as_matrix().conj()

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        return fns.conj(self.operator.transpose())

    def in_structure(self) -> Structure:
        return self.operator.in_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure()


def _register_predicate(predicate: Any) -> None:
    predicate.register(ConjLinearOperator, lambda op: predicate(op.operator))


for _predicate in fns.PREDICATES:
    _register_predicate(_predicate)


@fns.conj.register(ConjLinearOperator)
def _conj(operator: ConjLinearOperator) -> AbstractLinearOperator:
    return operator.operator


@fns.linearise.register(ConjLinearOperator)
def _linearise(operator: ConjLinearOperator) -> AbstractLinearOperator:
    return fns.conj(fns.linearise(operator.operator))


@fns.materialise.register(ConjLinearOperator)
def _materialise(operator: ConjLinearOperator) -> AbstractLinearOperator:
    return fns.conj(fns.materialise(operator.operator))


@fns.diagonal.register(ConjLinearOperator)
def _diagonal(operator: ConjLinearOperator) -> Array:
    return fns.diagonal(operator.operator).conj()


@fns.tridiagonal.register(ConjLinearOperator)
def _tridiagonal(operator: ConjLinearOperator) -> tuple[Array, ...]:
    return tree_conj(fns.tridiagonal(operator.operator))
