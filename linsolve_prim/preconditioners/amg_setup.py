"""Algebraic multigrid hierarchies by PyAMG, on the host: matrices, and the inverse of the coarsest."""

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
from .amg_spectrum import BLOCK, damping_scale
from .smoothers import cutoff

METHODS = ("smoothed_aggregation", "ruge_stuben", "root_node")
_MAKERS = {
    "smoothed_aggregation": "smoothed_aggregation_solver",
    "ruge_stuben": "ruge_stuben_solver",
    "root_node": "rootnode_solver",
}


#: What may be given for levels that PyAMG makes one by one: what it takes for all levels alike.
_EACH_LEVEL = {
    "symmetry", "B", "BH", "strength", "aggregate", "diagonal_dominance", "max_levels", "max_coarse"
}  # fmt: skip
#: The damping of prolongations that are smoothed, for λmax(SA) = 1: PyAMG's own.
_DAMPING = 4 / 3
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
        make = getattr(pyamg, _MAKERS[method])
        if method == "smoothed_aggregation" and _may_be_one_by_one(settings):
            made = _one_by_one(make, matrix, settings)
        else:
            made = make(matrix, **settings).levels
    return [_host_level(level, dtype) for level in made]


def _may_be_one_by_one(settings: dict[str, Any]) -> bool:
    """Whether all levels are made alike, by prolongations that are smoothed as PyAMG does by default."""
    for_levels = [value for name, value in settings.items() if name not in ("B", "BH")]
    return settings.keys() <= _EACH_LEVEL and not any(
        isinstance(value, list) or (isinstance(value, tuple) and "predefined" in value)
        for value in for_levels
    )


def _one_by_one(make: Any, matrix: Any, settings: dict[str, Any]) -> list[Any]:
    """Smoothed aggregation, each level by a call of its own, which is told how to smooth.

    PyAMG finds λmax(D⁻¹A) of each level to a hundredth, by Arnoldi's method: two thirds of its set-up
    of Poisson's equation on 128³. With the rows' ℓ1 norms in the place of D it takes the damping that
    it is given, and for that a few products are enough: iterations stay as they are. [measured]
    """
    levels: list[Any] = []
    most = settings.pop("max_levels")
    while len(levels) + 1 < most:
        omega = _DAMPING / damping_scale(sp.csr_matrix(matrix))
        smooth = "jacobi", {"weighting": "local", "omega": omega}
        found = make(matrix, max_levels=2, smooth=smooth, **settings).levels
        if len(found) == 1:  # small enough, or without aggregates
            break
        levels.append(found[0])
        matrix = _without_duplicates(found[1].A)
        passed = {name: getattr(found[1], name, None) for name in ("B", "BH")}
        # candidates are improved on the finest level only, as PyAMG does by default
        settings |= {"improve_candidates": None, **passed}
    return [*levels, _Last(matrix)]


def _without_duplicates(matrix: Any) -> Any:
    """A product, known to hold no entry twice: in blocks SciPy looks for them by a loop in Python."""
    if matrix.format == "bsr" and matrix.blocksize == (1, 1):
        return matrix.tocsr()
    matrix.sort_indices()
    matrix.has_canonical_format = True
    return matrix


class _Last(NamedTuple):
    """The coarsest level, as `_host_level` takes those of PyAMG."""

    A: Any


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


def on_threads(tasks: list[Callable[[], Any]], size: int) -> list[Any]:
    """What they return, in order. NumPy and SciPy let go of Python's lock where arrays are large.

    They are many where the finest level has `size` entries; with few a thread is not worth it.
    """
    workers = min(os.cpu_count() or 1, _MOST_THREADS)
    if size < BLOCK or workers == 1:
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
