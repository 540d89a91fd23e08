"""Products with values that are known when they are traced: packed once, right everywhere (S3-01)."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax.test_util import check_grads
from solver_table import COMPLEX, REAL, X64

import linsolve_prim as lp
from linsolve_prim.sparse import packed

RNG = np.random.default_rng(0)


def stencil(n, dtype):
    rows = [RNG.normal(size=n - abs(k)) for k in (-7, -1, 0, 1, 7)]
    matrix = sp.csr_array(sp.diags_array(rows, offsets=[-7, -1, 0, 1, 7], shape=(n, n)))
    matrix.data[::11] = 0.0
    matrix.eliminate_zeros()
    return matrix.astype(dtype)


def uneven(n, dtype):
    matrix = sp.random_array((n, n + 5), density=0.05, rng=RNG, dtype=np.float64).tolil()
    matrix[3, :40] = 2.0  # a long row
    return sp.csr_array(matrix.tocsr()).astype(dtype)


CASES = {"stencil": stencil, "uneven": uneven}


@pytest.fixture(params=[(name, dtype) for name in CASES for dtype in (REAL, COMPLEX)], ids=str)
def case(request):
    name, dtype = request.param
    matrix = CASES[name](60, dtype)
    if dtype == COMPLEX:
        matrix.data = matrix.data * np.exp(1j * np.arange(matrix.nnz)).astype(dtype)
    x = RNG.normal(size=(matrix.shape[1], 3)).astype(dtype)
    return lp.SparseLinearOperator.from_scipy(matrix), matrix.toarray(), x


TOL = 1e-12 if X64 else 1e-4


def test_known_and_traced_values_agree(case):
    op, dense, x = case
    known = jax.jit(lambda x: op.mv(x))
    assert "sparse_packed" in str(jax.make_jaxpr(lambda x: op.mv(x))(x[:, 0]))
    assert "sparse_mv" in str(jax.make_jaxpr(lambda op, x: op.mv(x))(op, x[:, 0]))
    for y in (known(x[:, 0]), op.mv(x[:, 0]), op.mv(jnp.asarray(x[:, 0]))):
        np.testing.assert_allclose(y, dense @ x[:, 0], rtol=TOL, atol=TOL)
    for y in (op.mm(x), jax.vmap(op.mv, 1, 1)(jnp.asarray(x)), jax.jit(op.mm.__func__)(op, x)):
        np.testing.assert_allclose(y, dense @ x, rtol=TOL, atol=TOL)
    nested = jax.vmap(jax.vmap(op.mv, 0), 1)(jnp.asarray(np.stack([x.T, 2 * x.T])))
    np.testing.assert_allclose(nested[1, 1], 2 * dense @ x[:, 1], rtol=TOL, atol=TOL)
    values = jnp.stack([op.values, 2 * op.values])
    batch = jax.vmap(lambda v: lp.SparseLinearOperator(v, op.pattern).mv(x[:, 0]))(values)
    np.testing.assert_allclose(batch[1], 2 * dense @ x[:, 0], rtol=TOL, atol=TOL)


def test_derivatives_with_respect_to_the_vector(case):
    op, dense, x = case
    v = jnp.asarray(x[:, 0])
    w = jnp.asarray(RNG.normal(size=dense.shape[0]).astype(x.dtype))
    for wrap in (lambda f: f, jax.jit):
        (back,) = wrap(lambda w: jax.linear_transpose(lambda x: op.mv(x), v)(w))(w)
        np.testing.assert_allclose(back, dense.T @ w, rtol=TOL, atol=TOL)
        tangent = wrap(lambda v: jax.jvp(lambda x: op.mv(x), (v,), (2 * v,))[1])(v)
        np.testing.assert_allclose(tangent, 2 * dense @ v, rtol=TOL, atol=TOL)
    if X64:
        check_grads(lambda x: jnp.sin(op.mv(x).real), (v,), order=2, atol=1e-5, rtol=1e-5)
    rows = jax.vmap(lambda w: jax.vjp(lambda x: op.mv(x), v)[1](w)[0])(jnp.stack([w, 3 * w]))
    np.testing.assert_allclose(rows[1], 3 * dense.T @ w, rtol=TOL, atol=10 * TOL)


def test_values_are_still_differentiated(case):
    """Under `jax.grad` with respect to the operator its values are traced, and nothing is packed."""
    op, _, x = case
    loss = lambda values: jnp.sum(
        jnp.abs(lp.SparseLinearOperator(values, op.pattern).mv(x[:, 0])) ** 2
    )
    assert "sparse_packed" not in str(jax.make_jaxpr(jax.grad(loss))(op.values))
    gradient = jax.grad(loss)(op.values)
    assert gradient.shape == op.values.shape
    assert np.abs(gradient).max() > 0


def test_packed_values_are_made_once_and_forgotten_with_the_values():
    op = lp.SparseLinearOperator.from_scipy(stencil(40, REAL))
    x = jnp.ones(40, REAL)
    gc.collect()
    before = len(packed._kept)
    op.mv(x)
    made = packed._kept[id(op.values)]
    jax.jit(lambda x: op.mv(x))(x)
    assert packed._kept[id(op.values)] is made
    assert len(packed._kept) == before + 1
    jax.clear_caches()
    del op, made
    gc.collect()
    assert len(packed._kept) == before


def test_entries_that_are_not_there_are_not_read():
    matrix = stencil(40, REAL)
    op = lp.SparseLinearOperator.from_scipy(matrix)
    for j in (0, 13, 39):
        x = np.zeros(40, REAL)
        x[j] = np.inf
        bad = ~np.isfinite(np.asarray(op.mv(x)))
        np.testing.assert_array_equal(
            np.flatnonzero(bad), np.unique(matrix.tocsc()[:, [j]].indices)
        )
