"""Algebraic multigrid hierarchies by PyAMG, on the host: matrices, and bounds of their spectra."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from ..host.available import require
from ..host.matrices import csr_of
from ..sparse.pattern import SparsityPattern
from .smoothers import MARGIN, POWER_STEPS, cutoff, start_of_power_steps

METHODS = ("smoothed_aggregation", "ruge_stuben", "root_node")
_MAKERS = {
    "smoothed_aggregation": "smoothed_aggregation_solver",
    "ruge_stuben": "ruge_stuben_solver",
    "root_node": "rootnode_solver",
}


#: So many of the first unknowns may tell that no estimate for all of them is needed.
_BLOCK = 1 << 15
#: A hierarchy has so many large matrices: P, R and the diagonal of the finest level, and A of the next.
_MOST_THREADS = 4


class HostLevel(NamedTuple):
    """A level as PyAMG made it: `csr_matrix` A, and P and R, which the coarsest does not have.

    Columns may be in any order.
    """

    matrix: sp.csr_matrix
    prolongation: sp.csr_matrix | None
    restriction: sp.csr_matrix | None


def build(matrix: sp.csr_matrix, method: str, settings: dict[str, Any]) -> list[HostLevel]:
    """The hierarchy of a matrix, in its dtype; `settings` go to PyAMG as they are.

    It is made in double precision, whatever the dtype: PyAMG's smoothers refuse vectors of another one
    than the matrix has, and it makes those in double precision itself.
    """
    pyamg = require("PyAMG", "pyamg")
    dtype = matrix.dtype
    matrix = matrix.astype(np.result_type(dtype, np.float64), copy=False)
    settings = dict(settings)
    block = settings.pop("block_size", 1)
    if method == "ruge_stuben":
        settings.pop("symmetry", None)
        settings.pop("B", None)
    elif block > 1:
        matrix = matrix.tobsr((block, block))
    if "B" in settings:
        settings["B"] = np.asarray(settings["B"], matrix.dtype)
    with _same_numbers(), np.errstate(all="ignore"):  # who calls looks at what came out
        made = getattr(pyamg, _MAKERS[method])(matrix, **settings)
    return [_host_level(level, dtype) for level in made.levels]


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """PyAMG's estimates start from NumPy's global random numbers: here always from the same."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _host_level(level: Any, dtype: Any) -> HostLevel:
    parts = (getattr(level, name, None) for name in ("A", "P", "R"))
    return HostLevel(
        *(None if part is None else sp.csr_matrix(part, dtype=dtype) for part in parts)
    )


def canonical(matrix: Any) -> sp.csr_matrix:
    """In compressed rows with sorted columns, none of them twice."""
    csr = sp.csr_matrix(matrix)
    csr.sum_duplicates()
    return csr


def is_finite(values: Any) -> bool:
    return bool(np.isfinite(np.asarray(values)).all())


def is_hermitian(matrix: sp.csr_matrix) -> bool:
    """Whether A = Aᴴ, to rounding."""
    size = np.abs(matrix.data).max(initial=0)
    eps = np.finfo(matrix.dtype).eps
    return bool(np.abs((matrix - matrix.conj().T).data).max(initial=0) <= 8 * eps * size)


def diagonal_scale(matrix: sp.csr_matrix) -> np.ndarray:
    """1/(λ dᵢ) with λ ≥ λmax(D⁻¹A), nearly: the estimate of some power steps, with a margin.

    It is at most what the rows' ℓ1 norms prove. Rows without diagonal are left as they are.
    """
    d = matrix.diagonal()
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
    proven = (np.abs(inverse) * row_sums(matrix)).max(initial=0)
    if not (np.isfinite(proven) and proven > 0):
        return inverse
    some = slice(_BLOCK)  # a block has no larger eigenvalues: what it shows need not be looked for
    bound = proven
    if len(d) <= 2 * _BLOCK or _power_steps(matrix[some, some], inverse[some], proven) < proven:
        bound = _power_steps(matrix, inverse, proven)
    real = np.zeros((), matrix.dtype).real.dtype
    return inverse / np.asarray(bound, real)


def _power_steps(matrix: sp.csr_matrix, inverse: np.ndarray, proven: float) -> float:
    """An estimate of λmax(D⁻¹A) with a margin, and at most what is proven."""
    small = inverse / proven  # its powers need no norms on the way: they do not grow
    v = start_of_power_steps(inverse.shape, matrix.dtype)
    size, estimate = float(np.linalg.norm(v)), proven
    for _ in range(POWER_STEPS):
        v = matrix @ v
        v *= small
        before, size = size, float(np.linalg.norm(v))
        if size == 0:
            break
        estimate = proven * size / before
        if MARGIN * estimate >= proven:  # further steps would but raise it
            break
    return float(min(MARGIN * estimate, proven))


def row_sums(matrix: sp.csr_matrix) -> np.ndarray:
    """The ℓ1 norms of the rows."""
    sizes = sp.csr_matrix((np.abs(matrix.data), matrix.indices, matrix.indptr), matrix.shape)
    return sizes @ np.ones(matrix.shape[1], sizes.dtype)


def l1_scale(matrix: sp.csr_matrix) -> np.ndarray:
    """1/‖aᵢ‖₁, with the sign of the diagonal."""
    sums = row_sums(matrix)
    inverse = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    return (inverse * np.where(matrix.diagonal().real < 0, -1, 1)).astype(matrix.dtype)


def on_threads(tasks: list[Callable[[], Any]], size: int) -> list[Any]:
    """What they return, in order. NumPy and SciPy let go of Python's lock where arrays are large.

    They are many where the finest level has `size` entries; with few a thread is not worth it.
    """
    workers = min(os.cpu_count() or 1, _MOST_THREADS)
    if size < _BLOCK or workers == 1:
        return [task() for task in tasks]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda task: task(), tasks))


def inverse_of(matrix: sp.csr_matrix, hermitian: bool) -> np.ndarray:
    """The pseudo-inverse of the coarsest matrix: near null vectors are left to the smoothers."""
    if hermitian and (inverse := _by_cholesky(matrix.toarray())) is not None:
        return inverse
    return np.linalg.pinv(matrix.toarray(), rcond=cutoff(matrix.dtype), hermitian=hermitian)


def _by_cholesky(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse of a matrix that is definite, and far from singular; else None.

    Eigenvalues take ten times as long. [measured for 300 unknowns]
    """
    if len(matrix) == 0 or not np.isfinite(matrix).all():
        return None
    potrf, pocon, potri = scipy.linalg.get_lapack_funcs(("potrf", "pocon", "potri"), (matrix,))
    norm = np.abs(matrix).sum(axis=0).max()
    factor, info = potrf(matrix, lower=True, clean=True)
    if info != 0:
        return None
    reciprocal, info = pocon(factor, norm, uplo="L")
    # of the 1-norm, which differs from the spectral one by √n at most, up and down
    if info != 0 or not reciprocal > len(matrix) * cutoff(matrix.dtype):
        return None
    inverse, info = potri(factor, lower=True)
    if info != 0:
        return None
    below = np.tril(inverse, -1)
    return below + below.conj().T + np.diag(np.diag(inverse))


def graph_laplacian(pattern: SparsityPattern, dtype: np.dtype) -> sp.csr_matrix:
    """A matrix of this pattern of which only the graph is known: all connections are as strong.

    The diagonal is 1/n above the sum of the others' magnitudes, so that it is definite.
    """
    off = pattern.rows != pattern.indices
    degrees = np.bincount(pattern.rows[off], minlength=pattern.shape[0])
    values = np.where(off, -1.0, degrees[pattern.rows] + 1 / max(1, pattern.shape[0]))
    return csr_of(pattern, values.astype(dtype))
