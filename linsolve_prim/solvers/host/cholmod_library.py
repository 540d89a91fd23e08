"""CHOLMOD by its own functions (`host/cholmod.py`)."""

from __future__ import annotations

import numpy as np

from ...host import cholmod
from ...host.matrices import in_double
from ...host.tasks import Refused
from ...sparse.pattern import SparsityPattern

library = cholmod.library


def fits(pattern: SparsityPattern) -> bool:
    """Whether the library is there, and counts far enough for a pattern."""
    return pattern.indptr.dtype == np.int32 and library() is not None


class ByLibrary:
    of_transpose = True

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> cholmod.Symbolic:
        return cholmod.Symbolic(pattern.indptr, pattern.indices, np.iscomplexobj(values))

    def factorize(
        self, symbolic: cholmod.Symbolic, pattern: SparsityPattern, values: np.ndarray
    ) -> cholmod.Numeric:
        try:
            return symbolic.factorize(in_double(values))
        except cholmod.NotDefiniteError as error:
            raise Refused("singular", str(error)) from error

    def solve(self, factor: cholmod.Numeric, b: np.ndarray) -> np.ndarray:
        return factor.solve(b)

    def least_pivot(self, factor: cholmod.Numeric) -> float:
        return factor.least_pivot()

    def pivots(self, factor: cholmod.Numeric) -> np.ndarray:
        return factor.diagonal() ** 2

    def nbytes(self, factor: cholmod.Numeric, nnz: int) -> int:
        return factor.nbytes

    def analysis_nbytes(self, symbolic: cholmod.Symbolic, nnz: int) -> int:
        return symbolic.nbytes
