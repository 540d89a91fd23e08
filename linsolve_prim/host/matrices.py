"""Values on a pattern as SciPy's matrices."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..sparse.pattern import SparsityPattern


def csr_of(pattern: SparsityPattern, values: np.ndarray) -> sp.csr_matrix:
    """The matrix by rows; nothing is copied."""
    return sp.csr_matrix((values, pattern.indices, pattern.indptr), shape=pattern.shape)


def csc_of_transpose(pattern: SparsityPattern, values: np.ndarray) -> sp.csc_matrix:
    """Aᵀ by columns: the same three arrays as A by rows, so that nothing is converted."""
    return sp.csc_matrix((values, pattern.indices, pattern.indptr), shape=pattern.shape[::-1])


def in_double(x: np.ndarray) -> np.ndarray:
    """The same in float64 or complex128."""
    return np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)
