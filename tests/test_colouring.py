"""Colourings, and the number of products that entries take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import linsolve_prim as lp
from linsolve_prim.detection.colouring import colouring
from linsolve_prim.sparse.pattern import SparsityPattern

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")


def grid(m, dimensions, periodic=False):
    """The star of neighbours on a grid."""
    line = sp.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(m, m)).tolil()
    if periodic:
        line[0, -1] = line[-1, 0] = 1
    out = line.tocsr()
    for _ in range(dimensions - 1):
        out = sp.kronsum(out, line, format="csr")
    return SparsityPattern.from_scipy(out)


def random(m, n, density, seed):
    return SparsityPattern.from_scipy(sp.random_array((m, n), density=density, rng=seed))


def arrow(n, width):
    """Dense rows and columns around a diagonal."""
    matrix = sp.eye_array(n).tolil()
    matrix[:width] = 1
    matrix[:, :width] = 1
    return SparsityPattern.from_scipy(matrix)


PATTERNS = {
    "line": (grid(50, 1), 3),
    "grid": (grid(33, 2), 5),
    "grid_3d": (grid(11, 3), 7),
    "periodic": (grid(34, 2, periodic=True), 13),
    "periodic_3d": (grid(10, 3, periodic=True), 18),
    "random": (random(300, 200, 0.02, 0), 30),
    "wide": (random(20, 500, 0.05, 1), 60),
    "tall": (random(500, 20, 0.05, 2), 20),
    "many_colours": (random(60, 300, 0.5, 3), 300),
    "arrow": (arrow(400, 1), 3),
    "arrows": (arrow(400, 3), 8),
    "full": (SparsityPattern.from_dense(np.ones((5, 7))), 7),
    "empty": (SparsityPattern.from_dense(np.zeros((5, 7))), 1),
    "nothing": (SparsityPattern.from_dense(np.zeros((0, 0))), 1),
    "diagonal": (SparsityPattern.from_dense(np.eye(9)), 1),
    "coarse": (SparsityPattern.from_scipy(sp.kron(sp.eye_array(100), np.ones((1, 4)))), 5),
}


@pytest.mark.parametrize("transposable", [True, False])
@pytest.mark.parametrize("name", PATTERNS)
def test_columns_of_a_colour_share_no_row(name, transposable):
    """S0-18: but for the rows that are taken apart. And there are not many more than need be."""
    pattern, most = PATTERNS[name]
    found = colouring(pattern, transposable)
    assert found.colours.shape == pattern.shape[1:]
    near = ~np.isin(pattern.rows, found.apart)
    cells = np.stack([pattern.rows[near], found.colours[pattern.indices[near]]])
    assert np.unique(cells, axis=1).shape == cells.shape
    if pattern.nnz:
        assert set(np.unique(found.colours)) == set(range(found.count))
    if transposable or "arrow" not in name:
        assert found.count + len(found.apart) <= most
    assert transposable or len(found.apart) == 0


def test_large_stencils_are_coloured_by_their_diagonals():
    """B-05: 512² columns; without a boundary in between, five colours for five points."""
    assert colouring(grid(512, 2)).count <= 6
    assert colouring(grid(512, 2, periodic=True)).count <= 14


def test_few_products_for_an_arrow():
    """S0-18: a dense row and a dense column do not make each column a product."""
    n = 200
    w = jnp.asarray(np.random.default_rng(0).normal(size=n), REAL)

    def f(x):
        return 3 * x + w * x[0] + jnp.pad((w * x).sum()[None], (0, n - 1))

    A, _ = lp.materialise_sparse(f, w)
    full = np.asarray(jax.jacfwd(f)(w))
    np.testing.assert_allclose(A.as_matrix(), full, atol=1e-5)
    assert A.pattern.nnz == np.count_nonzero(full)
    plan = colouring(A.pattern)
    assert plan.count + len(plan.apart) <= 3
    gradient = jax.grad(
        lambda w: lp.materialise_sparse(lambda x: w.sum() * x + x[0], w)[0].values.sum()
    )
    np.testing.assert_allclose(gradient(w), np.full(n, n), rtol=1e-5)


def test_functions_without_a_transpose_are_probed_forward():
    """A `custom_vjp` hides the transpose: each column of an arrow is a product then, and is right."""

    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (0 * g,))  # a wrong one
    f = lambda x: doubled(x) + jnp.pad(x.sum()[None], (0, 39))
    A, _ = lp.materialise_sparse(f, jnp.zeros(40, REAL))
    expected = 2 * np.eye(40)
    expected[0] += 1
    np.testing.assert_allclose(A.as_matrix(), expected)


def test_blocks_of_many_products(monkeypatch):
    """Products are made in batches and blocks where all of them would not fit."""
    from linsolve_prim.detection import values

    matrix = np.random.default_rng(0).normal(size=(9, 50)).astype(REAL)
    for batch, block in ((1, 120), (60, 400), (200, 1 << 20)):
        monkeypatch.setattr(values, "_BATCH", batch)
        monkeypatch.setattr(values, "_BLOCK", block)
        f = lambda c: lp.materialise_sparse(lambda x: c @ x, jnp.zeros(50, REAL))[0].as_matrix()
        np.testing.assert_allclose(jax.vmap(f)(jnp.asarray(matrix)[None])[0], matrix, rtol=1e-6)
