"""Division by a diagonal."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Options
from ..operators import AbstractLinearOperator, diagonal, has_unit_diagonal, is_diagonal
from ..results import RESULTS
from .base import AbstractLinearSolver
from .rank import default_rcond
from .structures import (
    PackedStructures,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)

_DiagonalState: TypeAlias = tuple[Array | None, PackedStructures]


class Diagonal(AbstractLinearSolver[_DiagonalState]):
    """xᵢ = bᵢ / aᵢ, for operators known as diagonal.

    - `well_posed`: if `False`, entries that count as zero give xᵢ = 0 (the pseudo-inverse); if
      `True`, every entry is divided by, and a zero gives `RESULTS.singular`.
    - `rcond`: with `well_posed=False`, entries up to `rcond` times the largest count as zero. `None`
      stands for 2·n·ε, negative values for ε.

    `(n, n)` on pytrees of any shapes, all four dtypes.

    **Raises** `ValueError` for an operator that is not known as diagonal.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.DiagonalLinearOperator(jnp.array([2.0, 0.0]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 1.0]), lp.Diagonal()).value)
        [2. 0.]
    """

    well_posed: bool = False
    rcond: float | Array | None = None

    def init(self, operator: AbstractLinearOperator, options: Options) -> _DiagonalState:
        del options
        require_square(operator, "Diagonal")
        if not is_diagonal(operator):
            raise ValueError(
                f"operator: `Diagonal` needs a diagonal operator, and this "
                f"{type(operator).__name__} does not promise to be one. Use a "
                "`DiagonalLinearOperator`, or tag it with `diagonal_tag`."
            )
        entries = None if has_unit_diagonal(operator) else diagonal(operator)
        return entries, pack_structures(operator)

    def compute(
        self, state: _DiagonalState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        entries, structures = state
        x = ravel_vector(vector, structures)
        if entries is not None:
            if not self.well_posed:
                size = jnp.abs(entries)
                n = entries.shape[0]
                rcond = jnp.asarray(default_rcond(self.rcond, n, n, entries.dtype), size.dtype)
                keep = size > rcond * size.max(initial=0)
                x = jnp.where(keep, x / jnp.where(keep, entries, 1), 0)
            else:
                x = x / entries
        return unravel_solution(x, structures), RESULTS.successful, {}

    def transpose(self, state: _DiagonalState, options: Options) -> tuple[_DiagonalState, Options]:
        entries, structures = state
        return (entries, transpose_packed_structures(structures)), options

    def conj(self, state: _DiagonalState, options: Options) -> tuple[_DiagonalState, Options]:
        entries, structures = state
        return (None if entries is None else entries.conj(), structures), options

    def assume_full_rank(self) -> bool:
        return self.well_posed
