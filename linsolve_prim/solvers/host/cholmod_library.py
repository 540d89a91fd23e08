"""CHOLMOD by its own functions (`host/cholmod.py`)."""

from __future__ import annotations

import numpy as np

from ...host import cholmod, orderings
from ...host.matrices import in_double
from ...host.tasks import Refused
from ...sparse.pattern import SparsityPattern

ORDERINGS = ("auto", "amd", "metis")

#: METIS is worth its time (about that of 4·10⁴ operations for each unknown) where minimum degree leaves more
#: to do than this: in 3-D, and hardly ever in 2-D. [measured: 40³ takes 0.7 s to order, and 0.78 s instead of
#: 1.4 s to factorize; 400² 1.1 s, and 0.18 s instead of 0.2 s]
_WORK_FOR_DISSECTION = 40_000

library = cholmod.library


def fits(pattern: SparsityPattern) -> bool:
    """Whether the library is there, and counts far enough for a pattern."""
    return pattern.indptr.dtype == np.int32 and library() is not None


class ByLibrary:
    of_transpose = True

    def analyze(
        self, pattern: SparsityPattern, values: np.ndarray, ordering: str
    ) -> cholmod.Symbolic:
        arrays = pattern.indptr, pattern.indices, np.iscomplexobj(values)
        if ordering == "metis":
            return cholmod.Symbolic(*arrays, orderings.metis(pattern))
        found = cholmod.Symbolic(*arrays)
        much = found.flops > _WORK_FOR_DISSECTION * pattern.shape[0]
        if ordering == "auto" and much and orderings.has_metis():
            other = cholmod.Symbolic(*arrays, orderings.metis(pattern))
            found = other if other.flops < found.flops else found
        return found

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
