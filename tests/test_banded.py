"""`Banded`: LAPACK on the band, in an order that makes it narrow (rows S3-01, S3-03: sparse direct solves)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from host_table import COMPLEX, DTYPE, NSD, PSD, close, operator_of

import linsolve_prim as lp
from linsolve_prim.sparse.band import may_be_narrow, narrow_band

registry = lp.host.registry


def strip(length, width, dtype=DTYPE, shift=0.5):
    """A definite five-point Laplacian, numbered along the strip: the wide way."""
    line = lambda n: sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    along, across = sp.eye_array(length), sp.eye_array(width)
    out = sp.kron(across, line(length)) + sp.kron(line(width), along)
    return sp.csr_array(out + shift * sp.eye_array(length * width)).astype(dtype)


def test_the_band_is_that_of_the_narrow_side():
    """Numbered along a strip its entries lie 40 apart; the ordering brings them within its width of 4."""
    matrix = strip(40, 4)
    pattern = operator_of(matrix).pattern
    assert pattern.bandwidth() == (40, 40)
    band = narrow_band(pattern)
    assert band.width <= 5
    assert sorted(band.order) == list(range(160))
    dense = np.zeros(pattern.shape)
    dense[band.rows, band.columns] = matrix.data
    np.testing.assert_array_equal(dense, matrix.toarray()[band.order][:, band.order])
    assert narrow_band(pattern) is band  # made once


def test_an_order_that_is_narrow_is_kept():
    pattern = operator_of(strip(1, 30)).pattern
    band = narrow_band(pattern)
    assert band.order is None
    assert (band.below, band.above) == (1, 1)


def test_an_unsymmetric_pattern_keeps_its_sides():
    """Entries on three diagonals above and none below: no exchange of rows has any fill."""
    matrix = sp.diags_array([4.0, 1.0, 1.0], offsets=[0, 1, 3], shape=(9, 9))
    band = narrow_band(operator_of(matrix).pattern)
    assert (band.below, band.above) == (0, 3)


def test_a_quick_look_spares_the_search():
    """No order brings an arrow's 50 entries of one row within 20 places of the diagonal."""
    arrow = sp.lil_array((50, 50))
    arrow.setdiag(2.0)
    arrow[0] = 1.0
    for pattern in (operator_of(arrow).pattern, operator_of(arrow.T).pattern):
        assert not may_be_narrow(pattern, 20)
        assert may_be_narrow(pattern, 25)


@pytest.mark.parametrize("tags", [(), PSD])
@pytest.mark.parametrize("reorder", [True, False])
def test_against_lapack_of_the_dense_matrix(tags, reorder):
    """Values, and gradients with respect to the entries and b, jitted, on a strip."""
    matrix, rng = strip(20, 3), np.random.default_rng(0)
    operator = operator_of(matrix, tags)
    b, w = (jnp.asarray(rng.normal(size=60), DTYPE) for _ in range(2))
    solver = lp.Banded(reorder=reorder)

    def loss(values, b):
        a = lp.SparseLinearOperator(values, operator.pattern, tags)
        return jnp.vdot(w, lp.linear_solve(a, b, solver).value)

    value, (ct_values, ct_b) = jax.jit(jax.value_and_grad(loss, (0, 1)))(operator.values, b)
    dense = matrix.toarray()
    x, y = np.linalg.solve(dense, b), np.linalg.solve(dense.T, w)
    close(value, w @ x)
    close(ct_b, y)
    close(ct_values, -(y[operator.pattern.rows] * x[operator.pattern.indices]))


@pytest.mark.parametrize("tag", [PSD, NSD])
def test_hermitian_reads_the_lower_triangle(tag):
    """In the new order entries of the lower triangle lie above the diagonal: they are conjugated."""
    rng = np.random.default_rng(1)
    phases = np.exp(1j * rng.normal(size=80))
    matrix = strip(20, 4).toarray() * phases[:, None] * phases.conj()
    matrix = (matrix if tag is PSD else -matrix).astype(COMPLEX)
    b = jnp.asarray(rng.normal(size=80) + 1j * rng.normal(size=80), COMPLEX)
    close(lp.solve(operator_of(matrix, tag), b, lp.Banded()), np.linalg.solve(matrix, b))
    lower = operator_of(np.tril(matrix) + 7j * np.triu(matrix, 1), tag)
    assert narrow_band(lower.pattern).order is not None
    solver = lp.Banded().specialize(lower)
    factor = solver.factorize(lower.pattern, np.asarray(lower.values))
    for transpose, a in ((False, matrix), (True, matrix.T)):  # what lies above is not looked at
        close(
            solver.solve(factor, np.asarray(b)[None], transpose=transpose)[0], np.linalg.solve(a, b)
        )


def test_one_analysis_and_one_factorization_for_each_matrix_S2_13():
    """S2-13: a batch of values on one pattern, and its gradient."""
    operator = operator_of(strip(12, 3))
    batch = jnp.stack([operator.values * k for k in (1.0, 2.0, 3.0)]).astype(DTYPE)
    b = jnp.ones(36, DTYPE)
    solve = lambda v: lp.linear_solve(
        lp.SparseLinearOperator(v, operator.pattern), b, lp.Banded()
    ).value.sum()
    registry.clear()
    registry.reset_stats()
    jax.block_until_ready(jax.jit(jax.grad(lambda v: jax.vmap(solve)(v).sum()))(batch))
    stats = registry.stats()
    assert (stats["factorizations"], stats["analyses"]) == (3, 1)


def test_what_is_not_definite_goes_to_superlu():
    """A wrong tag is found by the factorization: the system is solved, or said to be singular."""
    matrix = strip(10, 3).toarray()
    matrix[4, 4] = -3.0
    operator = operator_of(matrix, PSD)
    registry.clear()
    registry.reset_stats()
    b = jnp.ones(30, DTYPE)
    close(lp.linear_solve(operator, b, lp.Banded()).value, np.linalg.solve(matrix, b))
    assert registry.stats()["fallbacks"] == 1
    assert "of the band is not positive" in registry.last_error
    matrix[4], matrix[:, 4] = 0, 0
    for tags in (PSD, ()):
        solution = lp.linear_solve(operator_of(matrix, tags), b, lp.Banded(), throw=False)
        assert solution.result == lp.RESULTS.singular
    with pytest.raises(lp.SingularMatrixError):
        lp.linear_solve(operator_of(matrix), b, lp.Banded())


def test_a_band_beyond_the_budget_goes_to_superlu():
    """An arrow of 2000 unknowns has a band of 8 MB for its 6000 entries, and more for LU."""
    n = 2000
    arrow = sp.lil_array((n, n), dtype=DTYPE)
    arrow.setdiag(4.0)
    arrow[0, 1:] = arrow[1:, 0] = 1e-3
    arrow, b = arrow.tocsr(), jnp.ones(n, DTYPE)
    registry.clear()
    registry.reset_stats()
    with registry.override(budget=4_000_000):
        x = lp.linear_solve(operator_of(arrow), b, lp.Banded()).value
    np.testing.assert_allclose(arrow @ np.asarray(x), b, rtol=1e-4)
    assert "more than the budget" in registry.last_error
    assert registry.stats()["fallbacks"] == 1


def test_cholesky_wants_a_promise():
    with pytest.raises(ValueError, match=r"Banded\(cholesky=True\)` needs a positive or negative"):
        lp.solve(strip(3, 3), np.ones(9), lp.Banded(cholesky=True))
    operator, b = operator_of(strip(5, 3), PSD), jnp.ones(15, DTYPE)
    a = operator.as_matrix()
    for cholesky in (True, False):
        close(lp.solve(operator, b, lp.Banded(cholesky=cholesky)), np.linalg.solve(a, b))


def test_chosen_where_the_band_is_narrow():
    choose = lp.AutoLinearSolver().choose
    choice = choose(operator_of(strip(300, 8)))
    assert isinstance(choice.solver, lp.Banded)
    assert "within 8 places" in choice.reason or "within 9 places" in choice.reason
    assert not isinstance(choose(operator_of(strip(120, 120))).solver, lp.Banded)


@pytest.mark.parametrize("dtype", [DTYPE, COMPLEX], ids=str)
def test_bytes_are_counted_in_the_matrix_s_own_dtype(dtype):
    """With an analysis, those of the band that it keeps; with a factor, those of its own."""
    matrix = strip(20, 3, dtype)
    pattern = operator_of(matrix).pattern
    solver = lp.Banded(cholesky=True)
    analysis = solver.analyze(pattern, matrix.data)
    factor = solver.factorize_with(analysis, pattern, matrix.data)
    stored = 60 * (1 + narrow_band(pattern).width) * np.dtype(dtype).itemsize
    assert solver.nbytes(factor) == stored
    assert solver.analysis_nbytes(pattern, analysis) >= stored + 16 * pattern.nnz
