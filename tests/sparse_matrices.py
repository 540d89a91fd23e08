"""Sparse matrices of all layouts, for the tests of `SparseLinearOperator`."""

import os

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

X64 = os.environ.get("JAX_ENABLE_X64", "1") not in ("0", "false", "False")
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
TOL = 1e-12 if X64 else 2e-5
RNG = np.random.default_rng(11)


def close(x, y, tol=50 * TOL):
    np.testing.assert_allclose(x, y, rtol=tol, atol=tol)


def vector(*shape, dtype=REAL):
    x = RNG.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * RNG.normal(size=shape)
    return jnp.asarray(x, dtype)


def matrix(m, n, density=0.4, dtype=REAL):
    out = sp.random_array((m, n), density=density, rng=RNG, format="csr").astype(dtype)
    out.data[:] = vector(out.nnz, dtype=dtype)
    return out


def banded(m, n, offsets, dtype=REAL):
    mask = np.isin(np.subtract.outer(np.arange(m), np.arange(n)), [-k for k in offsets])
    return sp.csr_array(np.where(mask, np.asarray(vector(m, n, dtype=dtype)), 0))


def uneven(n, dtype=REAL, lengths=(0, 1, 2, 2, 34)):
    """Rows with so many entries; the longest are cut into chunks."""
    lengths = np.resize(lengths, n)
    mask = np.arange(n) < RNG.permutation(lengths)[:, None]
    return sp.csr_array(np.where(mask, np.asarray(vector(n, n, dtype=dtype)), 0))


def nearly_even(n, dtype=REAL):
    """Rows with 3 or 4 entries, and few with 7."""
    lengths = np.where(np.arange(n) % 13 == 5, 7, 3 + np.arange(n) % 2)
    mask = np.stack([RNG.permutation(np.arange(n)) < length for length in lengths])
    return sp.csr_array(np.where(mask, np.asarray(vector(n, n, dtype=dtype)), 0))


MATRICES = {
    "square": matrix(6, 6),
    "wide": matrix(4, 9),
    "tall": matrix(9, 4),
    "uneven": uneven(36),
    "powers of two": uneven(20, lengths=(1, 2, 4, 8, 16)),
    "nearly even": nearly_even(30),
    "uneven complex": uneven(36, COMPLEX),
    "diagonal": banded(5, 5, [0]),
    "tridiagonal": banded(8, 8, [-1, 0, 1]),
    "one sided": banded(7, 7, [0, 3]),
    "band, wide": banded(4, 9, [-2, 0, 5], COMPLEX),
    "band, tall": banded(9, 4, [-5, -1, 2]),
    "holes": sp.csr_array(banded(9, 9, [-3, 0, 3]).toarray() * (np.arange(9) % 4 > 0)),
    "full": sp.csr_array(np.asarray(vector(5, 5))),
    "one": sp.csr_array(np.ones((1, 1), REAL)),
    "empty": sp.csr_array((4, 3), dtype=REAL),
    "no rows": sp.csr_array((0, 3), dtype=REAL),
    "complex": matrix(6, 5, dtype=COMPLEX),
}
if X64:
    MATRICES["float32"] = matrix(5, 6, dtype=np.dtype("float32"))
