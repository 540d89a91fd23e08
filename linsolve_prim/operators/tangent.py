"""`TangentLinearOperator`: the derivative of an operator along a change of its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Structure
from . import functions as fns
from .base import AbstractLinearOperator


class TangentLinearOperator(AbstractLinearOperator):
    """The operator x ↦ d/dε (A + εA′)x, where A′ holds the tangents of A's arrays.

    `primal` is A. `tangent` is a copy of it with tangents in place of its inexact arrays; `None` in
    place of an array (or of anything else) is a zero. It keeps the sparsity of A, and its symmetry,
    but neither its definiteness nor a unit diagonal.

    **Raises** `TypeError` if `tangent` is of another type than `primal`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A, dA = lp.DiagonalLinearOperator(jnp.array([1.0, 2.0])), lp.DiagonalLinearOperator(jnp.ones(2))
        >>> print(lp.TangentLinearOperator(A, dA).mv(jnp.array([3.0, 4.0])))
        [3. 4.]
    """

    primal: AbstractLinearOperator
    tangent: AbstractLinearOperator

    def __check_init__(self) -> None:
        if type(self.primal) is not type(self.tangent):
            raise TypeError(
                f"tangent: must have the type of `primal`, {type(self.primal).__name__}; got "
                f"{type(self.tangent).__name__}. Make it with `jax.tree.map` over `primal`."
            )

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return _derivative(lambda operator: operator.mv(vector), self)

    def as_matrix(self) -> Array:
        return _derivative(lambda operator: operator.as_matrix(), self)

    def transpose(self) -> TangentLinearOperator:
        return _push(lambda operator: operator.transpose(), self)

    def in_structure(self) -> Structure:
        return self.primal.in_structure()

    def out_structure(self) -> Structure:
        return self.primal.out_structure()


def _jvp(f: Callable[[Any], Any], operator: TangentLinearOperator) -> tuple[Any, Any]:
    return eqx.filter_jvp(f, (operator.primal,), (operator.tangent,))


def _derivative(f: Callable[[Any], PyTree[Array]], operator: TangentLinearOperator) -> PyTree:
    """The derivative of arrays f(A); zeros where A′ says nothing."""
    out, tangent = _jvp(f, operator)
    fill = lambda x, dx: jnp.zeros_like(x) if dx is None else dx
    return jax.tree.map(fill, out, tangent, is_leaf=lambda x: x is None)


def _push(f: Callable[[Any], Any], operator: TangentLinearOperator) -> TangentLinearOperator:
    """The tangent operator of another operator f(A)."""
    return TangentLinearOperator(*_jvp(f, operator))


def _register(function: Any, rule: Callable) -> None:
    function.register(TangentLinearOperator, lambda operator: rule(function, operator))


for _transform in (fns.linearise, fns.materialise, fns.conj):
    _register(_transform, _push)
for _entries in (fns.diagonal, fns.tridiagonal):
    _register(_entries, _derivative)
for _predicate in (
    fns.is_symmetric,
    fns.is_diagonal,
    fns.is_tridiagonal,
    fns.is_lower_triangular,
    fns.is_upper_triangular,
):
    _register(_predicate, lambda predicate, operator: predicate(operator.primal))
