"""Substitution with triangular matrices, dense or sparse, on the device."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
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
from ..sparse.operator import sparse_of
from ..sparse.substitution import Triangle, prepare, substitute
from .base import AbstractLinearSolver
from .sparse_triangular import is_lower, judge_plus_identity, turned
from .structures import (
    PackedStructures,
    factorizable,
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
    triangle: Triangle | None  # of a sparse matrix


# of a dense matrix: its entries; of a sparse one: its values, and as `prepare` returns them
_TriangularState: TypeAlias = tuple[PyTree[Array], PackedStructures, Static]


class Triangular(AbstractLinearSolver[_TriangularState]):
    """Forward or back substitution, for operators known as lower or upper triangular.

    A dense matrix is solved with by LAPACK's `trsv` (or what the device has for it). A sparse one is
    not made dense: unknowns that do not wait for each other are found at once, level after level, in a
    loop on the device, without a callback (Anderson & Saad 1989; see `sparse/levels.py`).

    - `lower`: by default what the operator's tags or pattern say. If given, it counts as such a tag.
      A sparse operator must have no entries in the other triangle.
    - `unit_diagonal`, for sparse operators: what is solved with is A + I, where the diagonal of A must
      not be stored: for factors that are kept without their ones.

    With `unit_diagonal_tag`, which says that the stored diagonal holds ones, a dense diagonal is never
    read. A zero on the diagonal gives `RESULTS.singular`.

    **Raises** `ValueError` if the operator is not triangular, or if a sparse one stores a diagonal
    against `unit_diagonal=True`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 0.0], [1.0, 4.0]]), lp.lower_triangular_tag)
        >>> print(lp.linear_solve(A, jnp.array([2.0, 9.0]), lp.Triangular()).value)
        [1. 2.]
        >>> ones = lp.SparseLinearOperator.from_coo([1], [0], jnp.array([3.0]), (2, 2))  # A = I + this
        >>> print(lp.solve(ones, jnp.array([1.0, 5.0]), lp.Triangular(lower=True, unit_diagonal=True)))
        [1. 2.]
    """

    lower: bool | None = None
    unit_diagonal: bool = False

    def triangle(self, operator: AbstractLinearOperator) -> Triangle | None:
        """What a sparse operator is solved as; None for others. **Raises** as the class says."""
        sparse = sparse_of(operator)
        if sparse is None:
            return None
        lower = is_lower(operator, sparse.pattern, "Triangular", self.lower, self.unit_diagonal)
        return Triangle(sparse.pattern, lower, self.unit_diagonal)

    def init(self, operator: AbstractLinearOperator, options: Options) -> _TriangularState:
        del options
        require_square(operator, "Triangular")
        structures, sparse = pack_structures(operator), sparse_of(operator)
        triangle = self.triangle(operator)
        if sparse is not None and triangle is not None:
            flags = _Flags(triangle.lower, triangle.unit, False, triangle)
            arrays = sparse.values, prepare(triangle, False, sparse.values)
            return arrays, structures, Static(flags)
        if self.unit_diagonal:
            raise ValueError(
                "operator: `Triangular(unit_diagonal=True)` is for sparse operators that do not "
                f"store their diagonal; got a {type(operator).__name__}. Tag it with "
                "`unit_diagonal_tag` if its diagonal holds ones."
            )
        lower = is_lower_triangular(operator) if self.lower is None else self.lower
        if self.lower is None and not (lower or is_upper_triangular(operator)):
            raise ValueError(
                f"operator: `Triangular` needs a triangular operator, and this "
                f"{type(operator).__name__} does not promise to be one. Tag it with "
                "`lower_triangular_tag` or `upper_triangular_tag` if it is, or use `LU()`."
            )
        flags = _Flags(lower, has_unit_diagonal(operator), False, None)
        return factorizable(operator.as_matrix()), structures, Static(flags)

    def compute(
        self, state: _TriangularState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        arrays, structures, static = state
        flags, b = static.value, ravel_vector(vector, structures)
        if flags.triangle is not None:
            return self._compute_sparse(arrays, flags.triangle, flags.transposed, b)
        x = jsp.linalg.solve_triangular(
            arrays,
            factorizable(b),
            trans="T" if flags.transposed else "N",
            lower=flags.lower,
            unit_diagonal=flags.unit_diagonal,
        )
        return unravel_solution(x, structures), RESULTS.successful, {}

    def _compute_sparse(
        self, arrays: Any, triangle: Triangle, transposed: bool, b: Array
    ) -> tuple[Array, RESULTS, dict[str, Any]]:
        values, prepared = arrays
        x = substitute(triangle, transposed, prepared, b)
        zero = jnp.any(prepared.diagonal == 0)  # also where it is not stored
        result = RESULTS.where(zero, RESULTS.singular, RESULTS.successful)
        if not triangle.unit:
            return x, result, {}
        operator = turned(values, triangle.pattern, transposed)
        result, stats = judge_plus_identity(operator, x, b, result, self.tolerance)
        return x, result, stats

    def transpose(
        self, state: _TriangularState, options: Options
    ) -> tuple[_TriangularState, Options]:
        arrays, structures, static = state
        flags = static.value._replace(transposed=not static.value.transposed)
        if flags.triangle is not None:  # another order of the same values
            values, _ = arrays
            arrays = values, prepare(flags.triangle, flags.transposed, values)
        return (arrays, transpose_packed_structures(structures), Static(flags)), options

    def conj(self, state: _TriangularState, options: Options) -> tuple[_TriangularState, Options]:
        arrays, structures, static = state
        return (jax.tree.map(jnp.conj, arrays), structures, static), options

    def checks_residual(self) -> bool:
        return self.unit_diagonal  # of A + I, which the operator does not know of

    def assume_full_rank(self) -> bool:
        return True
