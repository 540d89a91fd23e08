"""`DiagonalLinearOperator`: entrywise multiplication."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import ravel, tree_conj
from .._types import Structure, inexact_asarray, structure_of
from . import functions as fns
from .base import AbstractLinearOperator
from .structures import check_vector


class DiagonalLinearOperator(AbstractLinearOperator):
    """The operator x ↦ d ∘ x, for a pytree d of arrays of any shapes.

    Its matrix has the raveled d (leaf after leaf) on the diagonal.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.DiagonalLinearOperator({"p": jnp.array([1.0, 2.0]), "q": jnp.array(4.0)})
        >>> jax.tree.map(lambda x: x.tolist(), lp.solve(A, {"p": jnp.ones(2), "q": jnp.array(1.0)}))
        {'p': [1.0, 0.5], 'q': 0.25}
    """

    diagonal: PyTree[Array]

    def __init__(self, diagonal: PyTree):
        """`diagonal`: an array or a pytree of arrays; integers become the default float dtype."""
        self.diagonal = jax.tree.map(inexact_asarray, diagonal)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        check_vector(vector, self.in_structure())
        return jax.tree.map(jnp.multiply, self.diagonal, vector)

    def as_matrix(self) -> Array:
        return jnp.diag(ravel(self.diagonal))

    def transpose(self) -> DiagonalLinearOperator:
        return self

    def in_structure(self) -> Structure:
        return structure_of(self.diagonal)

    def out_structure(self) -> Structure:
        return structure_of(self.diagonal)


def _yes(operator: DiagonalLinearOperator) -> bool:
    return True


for _predicate in (
    fns.is_symmetric,
    fns.is_diagonal,
    fns.is_tridiagonal,
    fns.is_lower_triangular,
    fns.is_upper_triangular,
):
    _predicate.register(DiagonalLinearOperator, _yes)


@fns.materialise.register(DiagonalLinearOperator)
def _materialise(operator: DiagonalLinearOperator) -> DiagonalLinearOperator:
    return operator


@fns.conj.register(DiagonalLinearOperator)
def _conj(operator: DiagonalLinearOperator) -> DiagonalLinearOperator:
    return DiagonalLinearOperator(tree_conj(operator.diagonal))


@fns.diagonal.register(DiagonalLinearOperator)
def _diagonal(operator: DiagonalLinearOperator) -> Array:
    return ravel(operator.diagonal)


@fns.tridiagonal.register(DiagonalLinearOperator)
def _tridiagonal(operator: DiagonalLinearOperator) -> tuple[Array, Array, Array]:
    diagonal = ravel(operator.diagonal)
    zeros = jnp.zeros(max(diagonal.size - 1, 0), diagonal.dtype)
    return diagonal, zeros, zeros
