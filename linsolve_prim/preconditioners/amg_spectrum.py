"""What the levels of an algebraic hierarchy need to know of spectra, on the host: scales of smoothers."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .smoothers import MARGIN, POWER_STEPS, start_of_power_steps

#: Products of the estimate for prolongations, and what it is then multiplied by: it is then 94 to 108 %
#: of λmax. [measured on the levels of Poisson's, anisotropic and jumping coefficients, and elasticity]
_PRODUCTS = 4
_MARGIN = 1.1
#: So many of the first unknowns may tell that no estimate for all of them is needed.
BLOCK = 1 << 15
#: So small a part of what a basis spans is rounding: the estimate then takes a smaller one.
_RANK = 1e-12


def diagonal_scale(matrix: sp.csr_matrix) -> np.ndarray:
    """1/(λ dᵢ) with λ ≥ λmax(D⁻¹A), nearly. Rows without diagonal are left as they are."""
    d = matrix.diagonal()
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
    proven = (np.abs(inverse) * row_sums(matrix)).max(initial=0)
    if not (np.isfinite(proven) and proven > 0):
        return inverse
    some = slice(BLOCK)  # a block has no larger eigenvalues: what it shows need not be looked for
    bound = proven
    if len(d) <= 2 * BLOCK or _power_steps(matrix[some, some], inverse[some], proven) < proven:
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


def l1_scale(matrix: sp.csr_matrix) -> np.ndarray:
    """1/‖aᵢ‖₁, with the sign of the diagonal."""
    inverse = inverse_row_sums(matrix)
    return (inverse * np.where(matrix.diagonal().real < 0, -1, 1)).astype(matrix.dtype)


def inverse_row_sums(matrix: sp.csr_matrix) -> np.ndarray:
    """1/‖aᵢ‖₁, and 0 for rows without entries."""
    sums = row_sums(matrix)
    return np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)


def row_sums(matrix: sp.csr_matrix) -> np.ndarray:
    """The ℓ1 norms of the rows."""
    sizes = sp.csr_matrix((np.abs(matrix.data), matrix.indices, matrix.indptr), matrix.shape)
    return sizes @ np.ones(matrix.shape[1], sizes.dtype)


def damping_scale(matrix: sp.csr_matrix) -> float:
    """λmax(SA), nearly, for S = diag(1/‖aᵢ‖₁), of which λmax(SA) ≤ 1."""
    scale = inverse_row_sums(matrix)
    some = slice(BLOCK)
    if len(scale) > 2 * BLOCK and _projected(matrix[some, some], scale[some]) >= 1:
        return 1.0
    return _projected(matrix, scale)


def _projected(matrix: sp.csr_matrix, scale: np.ndarray) -> float:
    """The largest eigenvalue of the projection of SA on what a few products with it span; at most 1.

    Orthogonally by S⁻¹, in which SA is Hermitian if A is: then it is no larger than λmax. (Saad,
    "Numerical methods for large eigenvalue problems", 2011, doi:10.1137/1.9781611970739, chapter 6.)
    Powers of SA do not grow; they are few enough to be a basis.
    """
    there = scale != 0
    dtype = np.result_type(matrix.dtype, np.float64)  # inner products of powers cancel
    v = start_of_power_steps(scale.shape, matrix.dtype) * there
    powers = np.empty((_PRODUCTS + 1, len(v)), dtype)
    powers[0] = v
    for k in range(_PRODUCTS):
        v = matrix @ v
        v *= scale
        powers[k + 1] = v
    weights = np.divide(1, scale, out=np.zeros(len(v)), where=there)
    return float(min(_MARGIN * _of_powers(powers, weights), 1.0))


def _of_powers(powers: np.ndarray, weights: np.ndarray) -> float:
    """The largest |eigenvalue| of S on the span of v, Sv, … by their weighted inner products."""
    gram = (powers.conj() * weights) @ powers.T
    sizes = np.sqrt(np.abs(np.diag(gram)))
    if not (np.isfinite(gram).all() and sizes.all()):
        return 1.0  # nothing is known, but what was proven
    units = gram / np.outer(sizes, sizes)
    basis, images = units[:-1, :-1], units[:-1, 1:] * (sizes[1:] / sizes[:-1])
    projected = np.linalg.lstsq(basis, images, rcond=_RANK)[0]
    return float(np.abs(np.linalg.eigvals(projected)).max())
