"""Substitution with a sparse triangular matrix, by SciPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from ...host.tasks import Refused
from ...operators import (
    AbstractLinearOperator,
    has_unit_diagonal,
    is_lower_triangular,
    is_upper_triangular,
)
from ...sparse.pattern import SparsityPattern
from .base import AbstractHostSolver
from .parts import sparse_parts


class _Factor(NamedTuple):
    matrix: sp.csr_array
    transposed: sp.csr_array


class SpSolveTriangular(AbstractHostSolver):
    """Forward or back substitution by `scipy.sparse.linalg.spsolve_triangular`.

    - `lower`: by default what the operator's pattern or tags say. If given, the other triangle must
      have no entries.
    - `unit_diagonal`: the diagonal is taken to be one, and must not be stored. By default what the
      operator's tags say.

    A zero on the diagonal gives `RESULTS.singular`.
    """

    lower: bool | None = None
    unit_diagonal: bool | None = None

    def specialize(self, operator: AbstractLinearOperator) -> SpSolveTriangular:
        _, pattern = sparse_parts(operator)
        rows, columns = pattern.rows, pattern.indices
        lower, unit = self.lower, self.unit_diagonal
        if lower is None:
            if not (is_lower_triangular(operator) or is_upper_triangular(operator)):
                raise ValueError(
                    "operator: `SpSolveTriangular` needs a triangular operator, and neither the "
                    "pattern nor the tags say that it is one. Use `tril`/`triu`, or `SuperLU()`."
                )
            lower = is_lower_triangular(operator)
        if np.any(columns > rows if lower else columns < rows):
            side, other = ("lower", "above") if lower else ("upper", "below")
            raise ValueError(
                f"operator: is to be {side} triangular, but has entries {other} the diagonal. Take "
                f"`{'tril' if lower else 'triu'}(operator)` first."
            )
        unit = has_unit_diagonal(operator) if unit is None else unit
        if unit and np.any(rows == columns):
            raise ValueError(
                "operator: stores diagonal entries, but `unit_diagonal=True` says that they are one "
                "and are not read, so they would get no gradient. Leave them out of the pattern."
            )
        return SpSolveTriangular(lower, unit)

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        if not self.unit_diagonal:
            slots = pattern.diagonal_slots()
            if np.any(slots == pattern.nnz) or np.any(values[slots] == 0):
                raise Refused("singular", "zero on the diagonal of a triangular matrix")
        matrix = sp.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)
        return _Factor(matrix, matrix.T.tocsr())

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        matrix = factor.transposed if transpose else factor.matrix
        return spla.spsolve_triangular(
            matrix, b.T, lower=self.lower != transpose, unit_diagonal=bool(self.unit_diagonal)
        ).T

    def nbytes(self, factor: Any) -> int:
        return 2 * (factor.matrix.data.nbytes + factor.matrix.indices.nbytes)
