"""What the entries of a matrix show, before any solver is chosen. NumPy and SciPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .reading import Matrix, dense


class Found(NamedTuple):
    """Tags (names of `cli.TAGS`) that the entries justify, and what was seen, in words."""

    tags: frozenset[str]
    words: str


def find_structure(matrix: Matrix, cholesky_up_to: int) -> Found:
    """What the zeros of A and its symmetry say; and whether it is definite.

    Only a Cholesky factorization shows that, so it is tried for Hermitian matrices of up to
    `cholesky_up_to` unknowns.
    """
    if matrix.shape[0] != matrix.shape[1]:
        return Found(frozenset(), "rectangular")
    with np.errstate(all="ignore"):  # NaN and infinity: nothing is found
        found = [_zeros(matrix), _symmetry(matrix), _definiteness(matrix, cholesky_up_to)]
    words = ", ".join(part.words for part in found if part.words)
    return Found(frozenset().union(*(part.tags for part in found)), words)


def _zeros(matrix: Matrix) -> Found:
    coo = sp.coo_array(matrix)
    offsets = (coo.col - coo.row)[coo.data != 0]
    low, high = int(offsets.min(initial=0)), int(offsets.max(initial=0))
    if low == high == 0:
        return Found(frozenset({"diagonal"}), "diagonal")
    if low >= -1 and high <= 1:
        return Found(frozenset({"tridiagonal"}), "tridiagonal")
    if low == 0 or high == 0:
        side = "upper" if low == 0 else "lower"
        return Found(frozenset({f"{side}-triangular"}), f"{side} triangular")
    return Found(frozenset(), "")


def _symmetry(matrix: Matrix) -> Found:
    if is_equal(matrix, matrix.T):
        return Found(frozenset({"symmetric"}), "symmetric")
    hermitian = is_equal(matrix, matrix.conj().T)
    return Found(frozenset(), "Hermitian" if hermitian else "not symmetric")


def _definiteness(matrix: Matrix, cholesky_up_to: int) -> Found:
    diagonal = matrix.diagonal().real
    if not is_equal(matrix, matrix.conj().T):
        return Found(frozenset(), "")
    if not (np.all(diagonal > 0) or np.all(diagonal < 0)):
        return Found(frozenset(), "not definite (its diagonal says so)")
    sign = "positive" if diagonal[0] > 0 else "negative"
    if matrix.shape[0] > cholesky_up_to:
        hint = f"; if it is, say --tag {sign}-definite" if cholesky_up_to else ""
        return Found(frozenset(), f"perhaps {sign} definite (not tried{hint})")
    if not has_cholesky(dense(matrix if sign == "positive" else -matrix)):
        return Found(frozenset(), "not definite (a Cholesky factorization failed)")
    words = f"{sign} definite (a Cholesky factorization succeeded)"
    return Found(frozenset({f"{sign}-definite"}), words)


def is_equal(a: Matrix, b: Matrix | sp.csc_array) -> bool:
    """Whether two matrices agree to a few roundings of the largest entry: assembly leaves those."""
    return bool(abs(a - b).max() <= 8 * np.finfo(np.float64).eps * abs(a).max())


def has_cholesky(matrix: np.ndarray) -> bool:
    """Whether LAPACK finds a Cholesky factor. (NaN and infinity: no.)"""
    try:
        scipy.linalg.cholesky(matrix, lower=True)
    except (np.linalg.LinAlgError, ValueError):
        return False
    return True
