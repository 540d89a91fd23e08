"""PARDISO by the module `pymklpardiso`, where the library in it cannot be called (`host/pardiso.py`)."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...host.available import require
from ...host.matrices import csr_of, in_double
from ...sparse.pattern import SparsityPattern
from .spare import Lent, Spare

_SCALED_AND_MATCHED = {10: 1, 12: 1, 7: 2}  # scaling, weighted matching, 2 steps of refinement
_TRANSPOSED = {11: 2}
_PERTURBED_PIVOTS = 13


class _Handles:
    """PARDISO's handle for A and, made when asked for, one for Aᵀ. They may be filled again."""

    def __init__(self, kind: int, settings: dict[int, int], both: bool):
        self.kind, self.settings, self.both = kind, settings, both
        self.made: dict[bool, Any] = {}

    def fill(self, transpose: bool, matrix: sp.csr_matrix) -> None:
        if transpose not in self.made:
            iparms = {**self.settings, **(_TRANSPOSED if transpose else {})}
            solver = require("PARDISO", "pymklpardiso").PardisoSolver
            self.made[transpose] = solver(matrix, self.kind, iparms=iparms)
            return
        handle = self.made.pop(transpose)  # it does not come back if this fails
        handle.refactor(matrix.data)
        if handle.get_iparm_value(_PERTURBED_PIVOTS) > 0:  # it needs a matching of its own
            handle.factor(matrix.data)
        self.made[transpose] = handle


class ModuleFactor:
    """A matrix, and the handles that were filled with it."""

    is_matched = True

    def __init__(self, matrix: sp.csr_matrix, lent: Lent):
        self.matrix, self.lent = matrix, lent
        self.filled: set[bool] = set()
        self.lock = threading.Lock()

    def handle(self, transpose: bool) -> Any:
        handles = self.lent.item
        transpose = transpose and not handles.both
        with self.lock:
            if transpose not in self.filled:
                handles.fill(transpose, self.matrix)
                self.filled.add(transpose)
            return handles.made[transpose]

    def solve(self, b: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        rhs = np.array(in_double(b.T), order="F")
        return np.asarray(self.handle(transpose).solve(rhs)).reshape(b.shape[::-1]).T

    @property
    def nbytes(self) -> int:
        return 40 * 8 * int(self.matrix.nnz)


class ByModule:
    """It takes double precision only, and has no transposed solve: Aᵀ is factorized, too, when asked for."""

    def __init__(self, pattern: SparsityPattern, structure: str):
        self.pattern, self.definite = pattern, structure == "definite"
        self.spare = Spare()  # handles, which hold both the analysis and the factors

    def factorize(self, values: np.ndarray) -> ModuleFactor:
        mkl = require("PARDISO", "pymklpardiso")
        is_complex = np.iscomplexobj(values)
        matrix = csr_of(self.pattern, in_double(values))
        definite = self.definite and not is_complex
        if definite:  # its ordering loops for ever on some matrices without entries on the diagonal
            matrix = sp.csr_matrix(sp.triu(matrix))
        handles = self.spare.take()
        if handles is None and definite:
            handles = _Handles(mkl.MTYPE_REAL_SYM_POSDEF, {}, both=True)
        elif handles is None:
            kind = mkl.MTYPE_COMPLEX_NONSYM if is_complex else mkl.MTYPE_REAL_NONSYM
            handles = _Handles(kind, _SCALED_AND_MATCHED, both=False)
        factor = ModuleFactor(matrix, self.spare.lend(handles))
        factor.handle(False)
        return factor

    @property
    def nbytes(self) -> int:
        return 0  # of what is spare: not known before there is one
