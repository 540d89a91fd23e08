"""A solver as a third party would write it: SuperLU of SciPy, on the host (rows S2-03, S2-09, S2-24).

It knows nothing of derivatives or batches. Everything else in this file is bookkeeping for tests.
"""

import collections

import jax
import numpy as np
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

import linsolve_prim as lp

#: How often the host factorized, and how often it was called.
CALLS = collections.Counter()


class SuperLU(lp.AbstractLinearSolver):
    """LU of a square matrix by SciPy. The state is the matrix, and which turn of it to solve with."""

    vmap_method: str = "sequential"

    def init(self, operator, options):
        return operator.as_matrix(), "N"

    def compute(self, state, vector, options):
        matrix, turn = state
        out = jax.ShapeDtypeStruct(vector.shape, vector.dtype)
        host = lambda a, b: solve_on_host(a, b, turn)
        x = jax.pure_callback(host, out, matrix, vector, vmap_method=self.vmap_method)
        return x, lp.RESULTS.successful, {}

    def transpose(self, state, options):
        matrix, turn = state
        return (matrix, {"N": "T", "T": "N", "C": "H", "H": "C"}[turn]), options

    def conj(self, state, options):
        matrix, turn = state
        return (matrix, {"N": "C", "C": "N", "T": "H", "H": "T"}[turn]), options

    def assume_full_rank(self):
        return True


def solve_on_host(matrix, rhs, turn):
    """Solve with A, Aᵀ, Aᴴ or conj(A) ("C", which SuperLU lacks); A that is shared factorizes once."""
    CALLS["callbacks"] += 1
    matrix, rhs = np.asarray(matrix), np.asarray(rhs)
    batch = np.broadcast_shapes(matrix.shape[:-2], rhs.shape[:-1])
    n = rhs.shape[-1]
    matrices, vectors = matrix.reshape(-1, n, n), rhs.reshape(-1, n)
    if len(matrices) == 1:
        return _solve(matrices[0], vectors.T, turn).T.reshape(*batch, n)
    matrices = np.broadcast_to(matrix, (*batch, n, n)).reshape(-1, n, n)
    vectors = np.broadcast_to(rhs, (*batch, n)).reshape(-1, n)
    lanes = [_solve(a, b[:, None], turn)[:, 0] for a, b in zip(matrices, vectors)]
    return np.stack(lanes).reshape(*batch, n)


def _solve(matrix, columns, turn):
    CALLS["factorizations"] += 1
    columns = np.array(columns, order="F")
    try:
        factor = splu(csc_matrix(matrix))
    except (RuntimeError, ValueError):  # singular
        return np.full_like(columns, np.nan)
    if turn == "C":
        return factor.solve(columns.conj()).conj()
    return factor.solve(columns, turn)
