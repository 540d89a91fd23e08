"""A solver inside of another one: its state turned with the operator, and what it does as an operator."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._norms import max_norm
from .._static import Skeleton, split
from .._tree import tree_all_finite, tree_where, tree_zeros
from .._types import Structure, structure_equal
from ..operators import AbstractLinearOperator, conj
from ..operators.cast import cast_tree
from ..operators.structures import PackedStructure, pack, unpack
from ..results import RESULTS
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

    Where the solver gives nothing of use (zero, NaN), the result is v itself. Its vectors have the
    given structures, which those of the solver's operator may differ from in precision.
    """

    operator: AbstractLinearOperator
    arrays: list[Any]  # of the solver and its state; apart from the rest, `jax.jit` can return them
    rest: Skeleton = eqx.field(static=True)
    input_structure: PackedStructure = eqx.field(static=True)
    output_structure: PackedStructure = eqx.field(static=True)

    def __init__(
        self,
        solver: AbstractLinearSolver[Any],
        state: Any,
        operator: AbstractLinearOperator,
        input_structure: PackedStructure,
        output_structure: PackedStructure,
    ):
        self.operator = operator
        self.arrays, self.rest = split((solver, state))
        self.input_structure = input_structure
        self.output_structure = output_structure

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        return self.solve(vector)[0]

    def solve(self, vector: PyTree[Array]) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """`(x, result, stats)`. The result is `successful` wherever x is of use, and not v instead."""
        rhs = cast_tree(vector, self.operator.out_structure())
        solver, state = self.rest.fill(self.arrays)
        x, result, stats = solver.compute(state, rhs, {})
        x = cast_tree(x, self.out_structure())
        same = structure_equal(self.in_structure(), self.out_structure())
        instead = vector if same else tree_zeros(self.out_structure())
        useful = tree_all_finite(x) & (max_norm(x) > 0)
        failure = RESULTS.where(result == RESULTS.successful, RESULTS.breakdown, result)
        result = RESULTS.where(useful, RESULTS.successful, failure)
        return tree_where(useful, x, instead), result, stats

    def transpose(self) -> InverseOperator:
        return self.turned(self.operator.transpose(), "transpose")

    def turned(
        self, operator: AbstractLinearOperator, way: Literal["transpose", "conj"]
    ) -> InverseOperator:
        """The same for Aᵀ or conj(A), which is given."""
        solver, state = self.rest.fill(self.arrays)
        state = turn_state(solver, operator, state, way)
        structures = self.input_structure, self.output_structure
        structures = structures[::-1] if way == "transpose" else structures
        return InverseOperator(solver, state, operator, *structures)

    def in_structure(self) -> Structure:
        return unpack(self.input_structure)

    def out_structure(self) -> Structure:
        return unpack(self.output_structure)


@conj.register(InverseOperator)
def _conj(inverse: InverseOperator) -> InverseOperator:
    return inverse.turned(conj(inverse.operator), "conj")


def inverse_by(
    solver: AbstractLinearSolver[Any],
    operator: AbstractLinearOperator,
    like: AbstractLinearOperator | None = None,
) -> InverseOperator:
    """What `solver` does for `operator`, as an operator. Its factorization is made here.

    With vectors as those of `like`, if that is the same operator in another precision.
    """
    like = operator if like is None else like
    chosen, state = solver.start(operator, {})
    structures = pack(like.out_structure()), pack(like.in_structure())
    return InverseOperator(chosen, state, operator, *structures)


#: What an inner solver counts, and what it is called in the statistics of the outer one.
_COUNTS = ("num_steps", "matvecs", "rmatvecs")
_NAMES = ("inner_steps", "inner_matvecs", "inner_rmatvecs")


def no_counts() -> Array:
    return jnp.zeros((len(_COUNTS),), jnp.int32)


def counts_of(stats: dict[str, Any]) -> Array:
    """What an inner solver counted; 0 for what it does not count."""
    return jnp.stack([jnp.asarray(stats.get(name, 0), jnp.int32) for name in _COUNTS])


def named_counts(counts: Array) -> dict[str, Array]:
    """Those counts as statistics of the outer solver."""
    return dict(zip(_NAMES, counts))
