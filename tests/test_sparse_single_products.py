"""One product with values that are too large for the cache: in one pass over them (S3-01, S3-17)."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import sparse_matrices
from sparse_matrices import COMPLEX, MATRICES, REAL, TOL, close, vector

import linsolve_prim as lp
from linsolve_prim.sparse import layouts

ONLY_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA for CPU")


def many_holes():
    """Twelve diagonals, of which eleven have holes: two rows of bits."""
    dense = np.zeros((40, 40), REAL)
    for k in [-20, -9, -4, -3, -2, 0, 1, 2, 5, 8, 13, 19]:
        entries = np.arange(1, 41 - abs(k), dtype=REAL) * (np.arange(40 - abs(k)) % (k + 25) > 0)
        dense += np.diag(entries, k)
    return sp.csr_array(dense)


CASES = {**{name: m for name, m in MATRICES.items() if m.nnz}, "many holes": many_holes()}


@pytest.fixture(params=[0, 1 << 20], ids=["one pass", "packed"])
def limit(request, monkeypatch):
    monkeypatch.setattr(layouts, "_STAYS_IN_CACHE", request.param)
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_batches_of_matrices_and_of_vectors(name, monkeypatch):
    monkeypatch.setattr(layouts, "_STAYS_IN_CACHE", 0)  # small ones: tests/test_sparse_operator.py
    dense = CASES[name].toarray()
    op = lp.SparseLinearOperator.from_scipy(CASES[name])
    m, n = dense.shape
    values = jnp.stack([op.values, 2 * op.values])
    tol = 50 * TOL if dense.dtype in (REAL, COMPLEX) else 1e-4
    for matrices, count in ((1, 1), (2, 1), (1, 3), (2, 3)):
        for transpose, a, size in ((False, dense, n), (True, dense.T, m)):
            x = vector(matrices, count, size, dtype=dense.dtype)
            y = layouts.product(op.pattern, transpose, values[:matrices], x)
            scale = np.arange(1, matrices + 1)[:, None, None]
            close(y, scale * np.einsum("ij,bkj->bki", a, x), tol)


@pytest.mark.parametrize("name", ["uneven", "nearly even", "band, tall", "many holes"])
def test_what_is_not_there_is_not_read(name, limit):
    """An infinite entry of x reaches the rows that have it, and no others; so do entries of A."""
    matrix = CASES[name]
    op = lp.SparseLinearOperator.from_scipy(matrix)
    rows, columns = op.pattern.rows, op.pattern.indices
    m, n = matrix.shape
    for j in (0, n // 2, n - 1):
        for count in (1, 2):
            x = jnp.ones((1, count, n), REAL).at[:, 0, j].set(jnp.inf)
            y = layouts.product(op.pattern, False, op.values[None], x)
            np.testing.assert_array_equal(
                np.flatnonzero(~np.isfinite(y[0, 0])), np.unique(rows[columns == j])
            )
            assert np.isfinite(y[0, 1:]).all()
    for k in (0, op.pattern.nnz // 2, op.pattern.nnz - 1):
        bad = op.values.at[k].set(jnp.inf)[None]
        for transpose, size, at in ((False, n, rows[k]), (True, m, columns[k])):
            y = layouts.product(op.pattern, transpose, bad, jnp.ones((1, 1, size), REAL))
            np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(y[0, 0])), [at])


def poisson(n):
    second = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    return sp.csr_array(sp.kron(eye, second) + sp.kron(second, eye)).astype(REAL)


@ONLY_CPU
@pytest.mark.parametrize("transpose", [False, True])
def test_one_kernel_reads_the_values_and_nothing_is_copied(transpose, limit):
    op = lp.SparseLinearOperator.from_scipy(poisson(150))
    assert layouts.is_dia(op.pattern)

    def product(values, x):
        return layouts.product(op.pattern, transpose, values[None], x[None, None])[0, 0]

    x = jnp.ones(op.in_size(), REAL)
    text = jax.jit(product).lower(op.values, x).compile().as_text()
    values = rf"\w+\[(1,)?{op.pattern.nnz}\]"
    fused = [part for part in text.split("\n\n") if re.match(r"\s*%fused", part)]
    reads = [part for part in fused if re.search(values + r".* parameter\(", part)]
    assert len(reads) == (1 if limit == 0 else 5)  # one for each diagonal, if it is packed
    assert not re.search(rf"\w+\[[\d,]*\b{x.size}\]\S* copy\(", text)


@ONLY_CPU
def test_several_vectors_are_gathered_as_rows():
    """Entries of K vectors side by side: XLA gathers slices of K, and indices are read once."""
    matrix = sparse_matrices.uneven(300)
    op = lp.SparseLinearOperator.from_scipy(matrix)
    assert not layouts.is_dia(op.pattern)
    x = vector(1, 4, 300)
    product = lambda values, x: layouts.product(op.pattern, False, values, x)
    text = jax.jit(product).lower(op.values[None], x).compile().as_text()
    assert "slice_sizes={1,1,4}" in text
    close(product(op.values[None], x)[0], np.asarray(x[0]) @ matrix.toarray().T)


@ONLY_CPU
def test_rows_that_are_longer_by_little_leave_the_others_in_order():
    """All rows have one width, and what is left of a few is added, entry by entry: sums are not gathered, nor
    joined."""
    op = lp.SparseLinearOperator.from_scipy(sparse_matrices.nearly_even(260))
    layout = layouts.layout_ell.make(op.pattern, False)
    assert [group.columns.shape for group in layout.groups] == [(4, 260), (1, 60)]
    product = lambda values, x: layouts.product(op.pattern, False, values[None], x[None, None])
    x = jnp.ones(260, REAL)
    text = jax.jit(product).lower(op.values, x).compile().as_text()
    assert not re.search(r"\bf\d+\S* concatenate\(", text)
    close(product(op.values, x)[0, 0], op.as_matrix().sum(1))
