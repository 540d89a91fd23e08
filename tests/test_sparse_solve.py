"""`solve` and `factorize` with sparse matrices of every kind."""

import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from conftest import X64
from jax.experimental.sparse import BCOO, BCSR

import linsolve_prim as lp

N = 24
DTYPE = np.float64 if X64 else np.float32
RTOL = 1e-9 if X64 else 2e-4
registry = lp.host.registry


def _matrix(dtype=DTYPE):
    a = sp.random(N, N, 0.2, random_state=1) + 5 * sp.identity(N)
    if np.issubdtype(dtype, np.complexfloating):
        a = a + 1j * sp.random(N, N, 0.1, random_state=2)
    a = sp.csr_matrix(a, dtype=dtype)
    a.sort_indices()
    return a


A = _matrix()
B = np.random.default_rng(0).normal(size=(N, 3)).astype(DTYPE)
DENSE = jnp.asarray(A.toarray())
ROWS, COLS = A.tocoo().row, A.tocoo().col
bcoo = lambda a: BCOO.from_scipy_sparse(a)
bcsr = lambda a: BCSR((jnp.asarray(a.data), a.indices, a.indptr), shape=a.shape)
FORMS = {
    "csr": lambda a: a,
    "csr_array": sp.csr_array,
    "csc": lambda a: a.tocsc(),
    "coo": lambda a: a.tocoo(),
    "dia": lambda a: a.todia(),
    "bcoo": bcoo,
    "bcsr": bcsr,
    "operator": lp.SparseLinearOperator.from_scipy,
}


def _close(actual, desired, rtol=RTOL):
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=rtol * np.abs(desired).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [None, 3])
def test_every_form_and_rank_of_b_S3_01_S3_12(form, columns):
    b = B[:, 0] if columns is None else B
    x = lp.solve(FORMS[form](A), b)
    assert x.shape == b.shape
    _close(x, np.linalg.solve(A.toarray(), b))


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.float64, np.complex128])
def test_dtypes(dtype):
    if not X64 and dtype in (np.float64, np.complex128):
        pytest.skip("needs x64")
    a, b = _matrix(dtype), B.astype(dtype)
    x = jax.jit(lp.solve)(bcoo(a), b)
    assert x.dtype == dtype
    loose = 1e-9 if dtype in (np.float64, np.complex128) else 2e-4
    _close(x, np.linalg.solve(a.toarray(), b), loose)


@pytest.mark.parametrize("make", [bcoo, bcsr])
@pytest.mark.parametrize("solver", [None, lp.SuperLU()], ids=["auto", "superlu"])
def test_gradient_has_the_type_of_the_matrix_S3_03_S3_04_S0_34(make, solver):
    """Jitted, so that the indices are known at run time only; and not."""
    loss = lambda a, b: jnp.sum(lp.solve(a, b, solver) ** 2)
    dense = jax.grad(lambda a: jnp.sum(jnp.linalg.solve(a, jnp.asarray(B)) ** 2))(DENSE)
    for grad in (jax.grad(loss, allow_int=True), jax.jit(jax.grad(loss, allow_int=True))):
        found = grad(make(A), B)
        assert type(found) is type(make(A))
        assert found.data.shape == (A.nnz,)
        _close(found.data, dense[ROWS, COLS])


def test_duplicates_are_summed_and_each_has_its_gradient_S3_17():
    rows, cols = np.r_[ROWS, 0, 0], np.r_[COLS, 0, 0]
    data = np.r_[A.data, [1.0, 2.0]].astype(DTYPE)
    full = sp.coo_matrix((data, (rows, cols)), A.shape).toarray()
    indices = jnp.asarray(np.stack([rows, cols], axis=1))
    solve = lambda data: lp.solve(BCOO((data, indices), shape=A.shape), B[:, 0])
    for fn in (solve, jax.jit(solve)):
        _close(fn(jnp.asarray(data)), np.linalg.solve(full, B[:, 0]))
    dense = jax.grad(lambda a: jnp.sum(jnp.linalg.solve(a, B[:, 0]) ** 2))(jnp.asarray(full))
    found = jax.grad(lambda data: jnp.sum(solve(data) ** 2))(jnp.asarray(data))
    _close(found, dense[rows, cols])
    traced = jax.jit(jax.grad(lambda a: jnp.sum(lp.solve(a, B[:, 0]) ** 2), allow_int=True))
    _close(traced(BCOO((jnp.asarray(data), indices), shape=A.shape)).data, dense[rows, cols])


def test_padding_of_a_bcoo_is_left_out():
    padded = bcoo(A).sum_duplicates(nse=A.nnz + 5)
    for fn in (lp.solve, jax.jit(lp.solve)):
        _close(fn(padded, B[:, 0]), np.linalg.solve(A.toarray(), B[:, 0]))


def test_one_factorization_with_run_time_indices():
    registry.clear()
    registry.reset_stats()
    grad = jax.jit(jax.grad(lambda a: jnp.sum(lp.solve(a, B, lp.SuperLU())), allow_int=True))
    jax.block_until_ready(grad(bcoo(A)).data)
    assert registry.stats()["factorizations"] == 1


def test_memory_of_the_gradient_is_of_the_size_of_the_entries_S3_03():
    """n = 200 000, k = 8: nothing of n² or nnz·k·k is made. Both gradients are right (S3-02, S3-18)."""
    n, k = 200_000, 8
    a = sp.diags([-1.0, 2.5, -1.0], [-1, 0, 1], (n, n), dtype=DTYPE).tocsr()
    operator = lp.SparseLinearOperator.from_scipy(a)
    pattern = operator.pattern

    def loss(values, b):
        return jnp.sum(lp.solve(lp.SparseLinearOperator(values, pattern), b, lp.SuperLU()) ** 2)

    b = jnp.ones((n, k), DTYPE)
    grad = jax.jit(jax.grad(loss, (0, 1)))
    memory = grad.lower(operator.values, b).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 40 * k * a.nnz * np.dtype(DTYPE).itemsize / 8
    dvalues, db = grad(operator.values, b)
    assert dvalues.shape == (a.nnz,)
    x = spla.spsolve(a.tocsc(), np.ones(n))
    y = spla.spsolve(a.T.tocsc(), 2 * x)
    rows = np.repeat(np.arange(n), np.diff(a.indptr))
    _close(dvalues, -k * y[rows] * x[a.indices], 1e-6 if X64 else 1e-3)
    _close(db[:, 0], y, 1e-6 if X64 else 1e-3)


def test_any_function_is_a_solver_S3_06_S3_07_S1_08():
    """S3-05, S3-06: not symmetric, so that a gradient by A instead of Aᵀ would be wrong."""
    calls = []

    def mine(matrix, b):
        calls.append(matrix.shape)
        return spla.spsolve(matrix.tocsc(), b)

    solve = lambda values: lp.solve(
        lp.SparseLinearOperator(values, lp.SparsityPattern.from_scipy(A)), B[:, 0], mine
    )
    _close(solve(jnp.asarray(A.data)), np.linalg.solve(A.toarray(), B[:, 0]))
    found = jax.jit(jax.grad(lambda values: jnp.sum(solve(values) ** 2)))(jnp.asarray(A.data))
    dense = jax.grad(lambda a: jnp.sum(jnp.linalg.solve(a, B[:, 0]) ** 2))(DENSE)
    _close(found, dense[ROWS, COLS])
    assert calls


def test_factorize_once_and_solve_often_S2_13_S2_14():
    registry.clear()
    registry.reset_stats()
    factors = lp.factorize(A, lp.SuperLU())
    want = np.linalg.solve(A.toarray(), B)
    _close(factors.solve(B), want)
    _close(factors.solve(B[:, 0]), want[:, 0])
    _close(factors.T.solve(B), np.linalg.solve(A.toarray().T, B))
    _close(jax.jit(lambda f, b: f.solve(b))(factors, B), want)
    assert registry.stats()["factorizations"] == 1
    assert factors.linear_solve(B[:, 0]).result == lp.RESULTS.successful
    solution = lp.linear_solve(factors.operator, B[:, 0], factors.solver, state=factors.state)
    _close(solution.value, want[:, 0])


def test_factors_go_through_scan_and_are_updated():
    factors = lp.factorize(A, lp.SuperLU())
    values = factors.operator.values

    def step(factors, t):
        factors = lp.update(factors, values * (1 + t))
        return factors, factors.solve(B[:, 0])

    _, found = jax.jit(lambda f: jax.lax.scan(step, f, jnp.arange(4, dtype=DTYPE)))(factors)
    for t, x in enumerate(found):
        _close(x, np.linalg.solve(A.toarray(), B[:, 0]) / (1 + t))


def test_gradient_through_factors():
    loss = lambda f: jnp.sum(f.solve(B[:, 0]) ** 2)
    gradient = jax.grad(loss, allow_int=True)(lp.factorize(A, lp.SuperLU()))
    dense = jax.grad(lambda a: jnp.sum(jnp.linalg.solve(a, B[:, 0]) ** 2))(DENSE)
    _close(gradient.operator.values, dense[ROWS, COLS])


def test_factorize_other_things():
    _close(lp.factorize(A.toarray()).solve(B), np.linalg.solve(A.toarray(), B))
    dense = lp.factorize(A.toarray()).update(2 * A.toarray())
    _close(dense.solve(B), np.linalg.solve(A.toarray(), B) / 2)
    with pytest.raises(TypeError, match="FunctionLinearOperator"):
        lp.factorize(lambda x: x)
    with pytest.raises(ValueError, match=r"values: must be a matrix of shape \(24, 24\)"):
        lp.factorize(A.toarray()).update(np.ones(3))


def test_precision_is_promoted_S3_15():
    b = B[:, 0].astype(np.complex64)
    with jax.numpy_dtype_promotion("standard"):
        if X64:
            with pytest.warns(lp.PrecisionWarning, match="complex128"):
                x = lp.solve(A, b)
        else:
            x = lp.solve(A, b)
    _close(x, np.linalg.solve(A.toarray(), b), 1e-5)
    _close(lp.solve(A, np.arange(N)), np.linalg.solve(A.toarray(), np.arange(N)))


@pytest.mark.parametrize(
    ("b", "error", "match"),
    [
        (np.ones(N - 1), ValueError, r"b: must have shape \(24,\) or \(24, k\).*got \(23,\)"),
        (np.ones((3, N)), ValueError, r"b: must have shape .*got \(3, 24\)"),
        (np.ones((N, 2, 2)), ValueError, r"got \(24, 2, 2\)"),
        ("b", TypeError, "b: must be an array"),
    ],
)
def test_bad_right_hand_sides_S3_13_S3_14(b, error, match):
    with pytest.raises(error, match=match):
        lp.solve(A, b)


def test_not_square_says_what_to_use():
    with pytest.raises(ValueError, match="solves square systems only"):
        lp.solve(sp.csr_matrix(np.ones((3, 4))), np.ones(3))


def test_choice_and_its_reason():
    """The structure that the pattern proves, and what is promised."""
    operator = lp.SparseLinearOperator.from_scipy(A)
    assert "Triangular()" in lp.explain(lp.tril(operator))
    assert "Diagonal()" in lp.explain(sp.identity(5, DTYPE, "csr")) or "Diagonal(" in lp.explain(
        sp.identity(5, DTYPE, "csr")
    )
    assert "Tridiagonal()" in lp.explain(sp.diags([1.0, 2.0], [0, 1], (5, 5), dtype=DTYPE).tocsr())
    text = lp.explain(A)
    assert "Banded(" in text
    assert f"{A.nnz} entries" in text
    wide = _wide_matrix()
    text = lp.explain(wide)
    assert any(name in text for name in ("PARDISO", "RSLab", "SuperLU"))
    choice = lp.AutoLinearSolver().choose(lp.SparseLinearOperator.from_scipy(wide))
    assert type(choice.solver).__name__ in choice.reason


def _wide_matrix(n=400):
    """An arrow: no order brings its first row near the diagonal."""
    arrow = sp.lil_array((n, n), dtype=DTYPE)
    arrow.setdiag(4)
    arrow[0, 1:] = arrow[1:, 0] = 0.1
    return arrow.tocsr()


@pytest.mark.skipif(X64, reason="x64 is on anyway")
@pytest.mark.parametrize("transport", ["callback", "buffer"])
def test_x64_in_this_thread_only(transport):
    """The thread that runs a callback need not be the one that has x64."""
    with jax.enable_x64(True), lp.host.transport(transport):
        for dtype in (np.float64, np.complex128):
            a, b = _matrix(dtype), np.linspace(1, 2, N).astype(dtype)
            fn = jax.jit(lambda v, b, a=a: _solve_values(a, v, b))
            for _ in range(3):  # cold and warm calls take different ways
                x = fn(jnp.asarray(a.data), jnp.asarray(b))
            assert x.dtype == dtype
            _close(x, np.linalg.solve(a.toarray(), b), 1e-12)
            compiled = fn.lower(jnp.asarray(a.data), jnp.asarray(b)).compile()
            args = jnp.asarray(a.data), jnp.asarray(b)
            with concurrent.futures.ThreadPoolExecutor(1) as elsewhere:  # and without x64
                _close(elsewhere.submit(compiled, *args).result(), x, 1e-12)


def _solve_values(a, values, b):
    pattern = lp.SparsityPattern.from_scipy(a)
    return lp.solve(lp.SparseLinearOperator(values, pattern), b, lp.SuperLU())


def test_least_squares_of_a_large_sparse_matrix_uses_its_products():
    rows = 5000
    tall = sp.vstack([sp.identity(rows, DTYPE), sp.identity(rows, DTYPE)]).tocsr()
    operator = lp.SparseLinearOperator.from_scipy(tall)
    solution = lp.linear_solve(
        operator, jnp.ones(2 * rows, DTYPE), lp.AutoLinearSolver(well_posed=None)
    )
    _close(solution.value, np.ones(rows), 1e-4)
