"""A solver inside of another one: its state turned with the operator, and what it does as an operator."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._norms import max_norm
from .._tree import tree_all_finite, tree_where, tree_zeros
from .._types import Structure, structure_equal
from ..operators import AbstractLinearOperator, conj
from .base import AbstractLinearSolver


def turn_state(
    solver: AbstractLinearSolver[Any],
    turned: AbstractLinearOperator,
    state: Any,
    way: Literal["transpose", "conj"],
) -> Any:
    """The state of Aᵀ or conj(A) (given as `turned`); made anew where the solver cannot turn it."""
    own = inspect.getattr_static(type(solver), way)
    if own is inspect.getattr_static(AbstractLinearSolver, way):
        return solver.init(turned, {})
    return getattr(solver, way)(state, {})[0]


class InverseOperator(AbstractLinearOperator):
    """v ↦ what a solver makes of Ax = v: it need be neither accurate nor linear.

    Where the solver gives nothing of use (zero, NaN), the result is v itself.
    """

    solver: AbstractLinearSolver[Any]
    state: Any
    operator: AbstractLinearOperator

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return self.solve(vector)[0]

    def solve(self, vector: PyTree[Array]) -> tuple[PyTree[Array], dict[str, Any]]:
        """The solution, and the inner solver's statistics."""
        x, _, stats = self.solver.compute(self.state, vector, {})
        same = structure_equal(self.in_structure(), self.out_structure())
        instead = vector if same else tree_zeros(self.out_structure())
        return tree_where(tree_all_finite(x) & (max_norm(x) > 0), x, instead), stats

    def transpose(self) -> InverseOperator:
        return self._turned(self.operator.transpose(), "transpose")

    def _turned(
        self, operator: AbstractLinearOperator, way: Literal["transpose", "conj"]
    ) -> InverseOperator:
        state = turn_state(self.solver, operator, self.state, way)
        return InverseOperator(self.solver, state, operator)

    def in_structure(self) -> Structure:
        return self.operator.out_structure()

    def out_structure(self) -> Structure:
        return self.operator.in_structure()


@conj.register(InverseOperator)
def _conj(operator: InverseOperator) -> InverseOperator:
    return operator._turned(conj(operator.operator), "conj")


def inverse_by(
    solver: AbstractLinearSolver[Any], operator: AbstractLinearOperator
) -> InverseOperator:
    """What `solver` does for `operator`, as an operator. Its factorization is made here."""
    chosen, state = solver.start(operator, {})
    return InverseOperator(chosen, state, operator)


def counted(stats: dict[str, Any], name: str) -> Array:
    """An inner solver's statistic, as a number of steps; 0 if it does not count them."""
    return jnp.asarray(stats.get(name, 0), jnp.int32)
