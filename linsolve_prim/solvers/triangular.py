"""Substitution with triangular matrices."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax.scipy as jsp
from jaxtyping import Array, PyTree

from .._static import Static
from .._types import Options
from ..operators import (
    AbstractLinearOperator,
    has_unit_diagonal,
    is_lower_triangular,
    is_upper_triangular,
)
from ..results import RESULTS
from .base import AbstractLinearSolver
from .structures import (
    PackedStructures,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)


class _Flags(NamedTuple):
    lower: bool
    unit_diagonal: bool
    transposed: bool


_TriangularState: TypeAlias = tuple[Array, PackedStructures, Static]


class Triangular(AbstractLinearSolver[_TriangularState]):
    """Forward or back substitution, for operators tagged lower or upper triangular.

    With `unit_diagonal_tag` the diagonal is taken to be one and never read. A zero on the diagonal
    gives `RESULTS.singular`.
    """

    def init(self, operator: AbstractLinearOperator, options: Options) -> _TriangularState:
        del options
        require_square(operator, "Triangular")
        lower = is_lower_triangular(operator)
        if not (lower or is_upper_triangular(operator)):
            raise ValueError(
                f"operator: `Triangular` needs a triangular operator, and this "
                f"{type(operator).__name__} does not promise to be one. Tag it with "
                "`lower_triangular_tag` or `upper_triangular_tag` if it is, or use `LU()`."
            )
        flags = _Flags(lower, has_unit_diagonal(operator), False)
        return operator.as_matrix(), pack_structures(operator), Static(flags)

    def compute(
        self, state: _TriangularState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        matrix, structures, static = state
        flags = static.value
        x = jsp.linalg.solve_triangular(
            matrix,
            ravel_vector(vector, structures),
            trans="T" if flags.transposed else "N",
            lower=flags.lower,
            unit_diagonal=flags.unit_diagonal,
        )
        return unravel_solution(x, structures), RESULTS.successful, {}

    def transpose(
        self, state: _TriangularState, options: Options
    ) -> tuple[_TriangularState, Options]:
        matrix, structures, static = state
        flags = static.value._replace(transposed=not static.value.transposed)
        return (matrix, transpose_packed_structures(structures), Static(flags)), options

    def conj(self, state: _TriangularState, options: Options) -> tuple[_TriangularState, Options]:
        matrix, structures, static = state
        return (matrix.conj(), structures, static), options

    def assume_full_rank(self) -> bool:
        return True
