"""`DampedLinearOperator`: an operator above a multiple of the identity, for regularised least squares."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from .._tree import tree_add, tree_scale
from .._types import Structure
from . import functions as fns
from .base import AbstractLinearOperator


class DampedLinearOperator(AbstractLinearOperator):
    """[A; δI]: x ↦ (Ax, δx), for a real δ.

    The least-squares solution for the right-hand side (b, 0) is the x that minimises
    ‖b − Ax‖² + δ²‖x‖².
    """

    operator: AbstractLinearOperator
    damp: ArrayLike

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return self.operator.mv(vector), tree_scale(self.damp, vector)

    def as_matrix(self) -> Array:
        matrix = self.operator.as_matrix()
        damp = jnp.asarray(self.damp).astype(matrix.dtype)
        return jnp.concatenate([matrix, damp * jnp.eye(matrix.shape[1], dtype=matrix.dtype)])

    def transpose(self) -> TransposedDampedOperator:
        return TransposedDampedOperator(self.operator.transpose(), self.damp)

    def in_structure(self) -> Structure:
        return self.operator.in_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure(), self.operator.in_structure()


class TransposedDampedOperator(AbstractLinearOperator):
    """[A, δI]: (x, y) ↦ Ax + δy. (`operator` is already the transpose.)"""

    operator: AbstractLinearOperator
    damp: ArrayLike

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        x, y = vector
        return tree_add(self.operator.mv(x), tree_scale(self.damp, y))

    def as_matrix(self) -> Array:
        return self.transpose().as_matrix().T

    def transpose(self) -> DampedLinearOperator:
        return DampedLinearOperator(self.operator.transpose(), self.damp)

    def in_structure(self) -> Structure:
        return self.operator.in_structure(), self.operator.out_structure()

    def out_structure(self) -> Structure:
        return self.operator.out_structure()


for _kind in (DampedLinearOperator, TransposedDampedOperator):
    for _function in (fns.conj, fns.linearise, fns.materialise):
        _function.register(_kind, lambda op, _f=_function: type(op)(_f(op.operator), op.damp))
