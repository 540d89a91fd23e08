"""CHOLMOD's own functions, called by `ctypes` (rows S2-07, S2-17)."""

import concurrent.futures
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from host_table import PSD, close

import linsolve_prim as lp
from linsolve_prim.host import cholmod, cholmod_structures
from linsolve_prim.solvers.host import cholmod_library

pytest.importorskip("cvxopt")
if cholmod_structures.library() is None:
    pytest.skip("the library behind this cvxopt has another version", allow_module_level=True)


def _laplacian(m, dims, phase=1.0):
    """On a grid of m points in each dimension; Hermitian with complex entries for another phase."""
    line = sp.diags_array([-phase, 2.0, -np.conj(phase)], offsets=[-1, 0, 1], shape=(m, m))
    out = line
    for _ in range(dims - 1):
        out = sp.kron(out, sp.eye_array(m)) + sp.kron(sp.eye_array(out.shape[0]), line)
    out = sp.csr_array(out)
    out.sort_indices()
    return out


def _symbolic(matrix, order=None):
    indptr, indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return cholmod.Symbolic(indptr, indices, np.iscomplexobj(matrix.data), order)


# Columns for the first one, supernodes for the second one
@pytest.mark.parametrize("shape", [(9, 2), (8, 3)], ids=str)
@pytest.mark.parametrize("phase", [1.0, np.exp(0.3j)], ids=["real", "complex"])
@pytest.mark.parametrize("given", [False, True])
def test_solutions_pivots_and_determinants(shape, phase, given):
    """A factor of Aᵀ, for one right-hand side and for several, in an ordering of its own or a given one."""
    matrix = _laplacian(*shape, phase)
    n, rng = matrix.shape[0], np.random.default_rng(0)
    symbolic = _symbolic(matrix, rng.permutation(n) if given else None)
    assert bool(symbolic._handle[0].is_super) == (shape[1] == 3)
    factor = symbolic.factorize(matrix.data)
    dense = matrix.toarray()
    for k in (1, 5):
        b = rng.normal(size=(k, n)) + (1j * rng.normal(size=(k, n)) if phase != 1.0 else 0)
        np.testing.assert_allclose(factor.solve(b), np.linalg.solve(dense.T, b.T).T, 1e-11, 1e-12)
    pivots = factor.diagonal() ** 2
    assert np.sum(np.log(pivots)) == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    assert factor.least_pivot() == pytest.approx(pivots.min() / pivots.max(), rel=1e-12)
    assert symbolic.nnz >= n
    assert symbolic.flops > symbolic.nnz
    assert factor.nbytes >= symbolic.nnz * matrix.data.itemsize


def test_a_given_order_is_used():
    """The given one of a band fills less than one that is drawn."""
    matrix = _laplacian(200, 1)
    straight = _symbolic(matrix, np.arange(200))
    drawn = _symbolic(matrix, np.random.default_rng(0).permutation(200))
    assert straight.nnz == 399 < drawn.nnz


@pytest.mark.parametrize("shape", [(5, 2), (8, 3)], ids=str)
@pytest.mark.parametrize("phase", [1.0, np.exp(0.3j)], ids=["real", "complex"])
def test_what_lies_right_of_the_diagonal_is_not_read(shape, phase):
    """Whatever the ordering makes of the places: what it brings to the other side is conjugated."""
    matrix = _laplacian(*shape, phase)
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    spoilt = np.where(matrix.indices > rows, np.nan, matrix.data)
    b = np.ones((1, n), matrix.dtype)
    symbolic = _symbolic(matrix)
    assert bool(symbolic._handle[0].is_super) == (shape[1] == 3)
    got, want = (symbolic.factorize(values).solve(b) for values in (spoilt, matrix.data))
    np.testing.assert_array_equal(got, want)


def test_what_is_not_definite_is_refused_and_leaves_no_trace():
    matrix = _laplacian(8, 3)
    symbolic = _symbolic(matrix)
    for data in (-matrix.data, 0 * matrix.data):
        with pytest.raises(cholmod.NotDefiniteError, match="not positive"):
            symbolic.factorize(data)
    assert not symbolic._spare
    b = np.ones((1, matrix.shape[0]))
    np.testing.assert_allclose(matrix @ symbolic.factorize(matrix.data).solve(b)[0], 1, rtol=1e-12)


def test_a_complex_right_hand_side_is_no_real_one():
    factor = _symbolic(_laplacian(4, 1)).factorize(_laplacian(4, 1).data)
    with pytest.raises(TypeError, match="real factor"):
        factor.solve(np.ones((1, 4)) * 1j)


def test_memory_goes_round_S2_17():
    """A factor that ended lends its memory to the next one; one is kept, the others are freed."""
    matrix = _laplacian(8, 3)
    symbolic = _symbolic(matrix)
    factors = [symbolic.factorize(matrix.data * k) for k in (1, 2, 3)]
    assert not symbolic._spare
    del factors
    gc.collect()
    assert len(symbolic._spare) == 1
    kept = symbolic.factorize(matrix.data)
    assert not symbolic._spare
    del symbolic
    np.testing.assert_allclose(matrix @ kept.solve(np.ones((1, 512)))[0], 1, rtol=1e-12)


def test_threads_share_an_analysis_and_a_factor():
    matrix = _laplacian(8, 3)
    symbolic = _symbolic(matrix)
    shared, b = symbolic.factorize(matrix.data), np.random.default_rng(0).normal(size=(2, 512))

    def work(k):
        own = symbolic.factorize(matrix.data * k)
        return np.abs(k * own.solve(b) - shared.solve(b)).max()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert max(pool.map(work, range(1, 41))) < 1e-12


def test_other_versions_are_left_alone(monkeypatch):
    """Then it is the module's turn, which has no such structures."""
    found = cholmod_structures.library()

    class Other:
        def __getattr__(self, name):
            return getattr(found, name)

        def cholmod_version(self, version):
            version[:] = [5, 2, 0]

    monkeypatch.setattr(cholmod_structures.ctypes, "CDLL", lambda path: Other())
    assert cholmod_structures.library.__wrapped__() is None


def test_structures_that_do_not_fit_are_found_out(monkeypatch):
    found = cholmod_structures.library()

    class Other:
        def cholmod_start(self, memory):
            found.cholmod_start(memory)
            memory[48] = 7  # the settings begin elsewhere, or with other defaults
            memory[32] = 7

        cholmod_finish = found.cholmod_finish

    assert cholmod_structures._fits(found)
    assert not cholmod_structures._fits(Other())


def test_what_32_bits_do_not_count_goes_to_the_module(monkeypatch):
    def refuse(*args):
        raise cholmod.TooLargeError("")

    monkeypatch.setattr(cholmod, "Symbolic", refuse)
    operator = lp.SparseLinearOperator.from_scipy(_laplacian(5, 1), PSD)
    solver = lp.CHOLMOD()
    values = np.asarray(operator.values)
    analysis = solver.analyze(operator.pattern, values)
    assert type(analysis.by).__name__ == "ByCvxopt"
    x = solver.solve(
        solver.factorize_with(analysis, operator.pattern, values), np.ones((1, 5)), transpose=False
    )
    close(x[0], [2.5, 4, 4.5, 4, 2.5])


def test_a_batch_runs_in_threads_S2_16():
    """m matrices: m factorizations, one analysis, one callback; without Python's lock."""
    matrix = _laplacian(6, 2)
    operator = lp.SparseLinearOperator.from_scipy(matrix, PSD)
    assert lp.CHOLMOD().runs_in_threads() == (cholmod_library.library() is not None)
    lp.host.registry.clear()
    lp.host.registry.reset_stats()
    many = operator.values * (1 + jnp.arange(5.0, dtype=operator.values.dtype))[:, None]
    b = jnp.ones(36, operator.values.dtype)
    f = lambda v: (
        lp.linear_solve(lp.SparseLinearOperator(v, operator.pattern, PSD), b, lp.CHOLMOD()).value
    )
    xs = jax.jit(jax.vmap(f))(many)
    close(xs, np.linalg.solve(matrix.toarray(), np.ones(36)) / (1 + np.arange(5.0))[:, None])
    stats = lp.host.registry.stats()
    assert (stats["factorizations"], stats["analyses"], stats["callbacks"]) == (5, 1, 1)
