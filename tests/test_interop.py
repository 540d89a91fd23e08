"""Our solvers in Lineax, Optimistix and Diffrax; our operators in SciPy, and back."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.testing import check_operator

lx = pytest.importorskip("lineax")
pytestmark = pytest.mark.skipif(not X64, reason="asks for residuals and agreement of 1e-8 and less")


def matrix_of(n=6, seed=0, complex_=False):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    return jnp.asarray(a + 2 * n * np.eye(n))


def vector_of(n=6, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(n))


# ---- Lineax --------------------------------------------------------------------------------------

SOLVERS = {
    "LU": lp.LU(),
    "SuperLU": lp.SuperLU(),
    "GMRES": lp.GMRES(1e-12),
    "GMRES, ILU": lp.GMRES(1e-12, preconditioner="jacobi"),
    "Auto": lp.AutoLinearSolver(well_posed=True),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_our_solvers_in_lineax_with_their_derivatives(name):
    solver = lp.interop.lineax.as_lineax(SOLVERS[name])
    a, b = matrix_of(), vector_of()

    def loss(a, b):
        return jnp.sum(jnp.sin(lx.linear_solve(lx.MatrixLinearOperator(a), b, solver).value))

    want = lambda a, b: jnp.sum(jnp.sin(jnp.linalg.solve(a, b)))
    np.testing.assert_allclose(loss(a, b), want(a, b), rtol=1e-9)
    for got, right in zip(jax.jit(jax.grad(loss, (0, 1)))(a, b), jax.grad(want, (0, 1))(a, b)):
        np.testing.assert_allclose(got, right, rtol=1e-7, atol=1e-10)


def test_batches_complex_numbers_and_conjugates():
    solver = lp.interop.lineax.as_lineax(lp.LU())
    a, b = matrix_of(complex_=True), jnp.stack([vector_of(6, k).astype(complex) for k in range(3)])
    solve = lambda b: lx.linear_solve(lx.MatrixLinearOperator(a), b, solver).value
    np.testing.assert_allclose(jax.vmap(solve)(b), jnp.linalg.solve(a, b.T).T, rtol=1e-10)
    jvp = jax.jvp(solve, (b[0],), (b[1],))[1]
    np.testing.assert_allclose(jvp, jnp.linalg.solve(a, b[1]), rtol=1e-10)


def test_failures_are_told_in_lineax_words():
    solver = lp.interop.lineax.as_lineax(lp.LU())
    singular = lx.MatrixLinearOperator(jnp.ones((3, 3)))
    found = lx.linear_solve(singular, jnp.arange(3.0), solver, throw=False)
    assert found.result == lx.RESULTS.singular
    short = lp.interop.lineax.as_lineax(lp.GMRES(1e-12, max_steps=1))
    found = lx.linear_solve(lx.MatrixLinearOperator(matrix_of()), vector_of(), short, throw=False)
    assert found.result == lx.RESULTS.max_steps_reached
    assert float(found.stats["relative_residual"]) > 1e-12


def test_lineax_operators_become_ours_with_their_promises():
    a = matrix_of()
    definite = a @ a.T
    bands = vector_of(), vector_of(5), vector_of(5)
    pairs = [
        (lx.MatrixLinearOperator(a), lp.MatrixLinearOperator),
        (lx.DiagonalLinearOperator(vector_of()), lp.DiagonalLinearOperator),
        (lx.TridiagonalLinearOperator(*bands), lp.TridiagonalLinearOperator),
        (lx.IdentityLinearOperator(jax.eval_shape(vector_of)), lp.IdentityLinearOperator),
        (
            lx.FunctionLinearOperator(lambda x: a @ x, jax.eval_shape(vector_of)),
            lp.FunctionLinearOperator,
        ),
        (
            lx.JacobianLinearOperator(lambda x, _: jnp.sin(a @ x), vector_of()),
            lp.FunctionLinearOperator,
        ),
        (lx.MatrixLinearOperator(a) + lx.MatrixLinearOperator(definite), lp.FunctionLinearOperator),
        (
            lx.TaggedLinearOperator(
                lx.MatrixLinearOperator(definite), lx.positive_semidefinite_tag
            ),
            lp.TaggedLinearOperator,
        ),
    ]
    for theirs, kind in pairs:
        mine = lp.interop.lineax.from_lineax(theirs)
        assert isinstance(mine, kind)
        np.testing.assert_allclose(mine.as_matrix(), theirs.as_matrix(), rtol=1e-12)
        assert lp.is_positive_semidefinite(mine) == lx.is_positive_semidefinite(theirs)
        assert lp.is_symmetric(mine) or not lx.is_symmetric(theirs)
    with pytest.raises(
        TypeError, match=r"operator: must be a `lineax.AbstractLinearOperator`; got int"
    ):
        lp.interop.lineax.from_lineax(3)
    with pytest.raises(TypeError, match=r"solver: must be an `AbstractLinearSolver`"):
        lp.interop.lineax.as_lineax(lx.LU())


def bratu(u, strength):
    """−u″ = λ eᵘ on a line, u = 0 at its ends: a tridiagonal Jacobian."""
    padded = jnp.pad(u, 1)
    h = 1 / (u.shape[0] + 1)
    return (2 * u - padded[2:] - padded[:-2]) / h**2 - strength * jnp.exp(u)


@pytest.mark.parametrize("finder", ["Newton", "Chord"])
@pytest.mark.parametrize(
    ("solver", "sparse"),
    [(lp.SuperLU(), True), (lp.GMRES(1e-10, preconditioner="ilu"), True), (lp.LU(), False)],
    ids=["sparse direct", "GMRES with ILU", "dense"],
)
def test_optimistix_with_our_solvers_and_its_implicit_adjoint(finder, solver, sparse):
    optx = pytest.importorskip("optimistix")
    own = lp.interop.lineax.as_lineax(solver, sparse=sparse)
    method = getattr(optx, finder)(rtol=1e-10, atol=1e-10, linear_solver=own)

    def root(strength):
        adjoint = optx.ImplicitAdjoint(linear_solver=own)
        start = jnp.zeros(30)
        return optx.root_find(bratu, method, start, strength, adjoint=adjoint, max_steps=60).value

    u = root(2.0)
    assert float(jnp.abs(bratu(u, 2.0)).max()) < 1e-6
    slope = jax.grad(lambda s: jnp.max(root(s)))(2.0)
    want = (jnp.max(root(2.0 + 1e-4)) - jnp.max(root(2.0 - 1e-4))) / 2e-4
    assert float(slope) == pytest.approx(float(want), rel=1e-4)


@pytest.mark.parametrize(
    ("method", "solver"),
    [
        ("Kvaerno3", lp.SuperLU()),
        pytest.param("Kvaerno5", lp.GMRES(1e-10, preconditioner="ilu"), marks=pytest.mark.slow),
    ],
    ids=["sparse direct", "GMRES with ILU"],
)
def test_diffrax_implicit_steps_with_our_solver(method, solver):
    """The heat equation, stiff, by an implicit method whose Newton steps are ours."""
    dfx = pytest.importorskip("diffrax")
    n = 20
    laplace = lambda u: (jnp.pad(u, 1)[2:] + jnp.pad(u, 1)[:-2] - 2 * u) * (n + 1) ** 2
    own = lp.interop.lineax.as_lineax(solver, sparse=True)
    finder = dfx.VeryChord(rtol=1e-8, atol=1e-8, linear_solver=own)
    u0 = jnp.sin(jnp.pi * jnp.arange(1, n + 1, dtype=float) / (n + 1))
    found = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, u, k: k * laplace(u)),
        getattr(dfx, method)(root_finder=finder),
        0.0,
        0.1,
        0.01,
        u0,
        args=1.0,
        stepsize_controller=dfx.PIDController(rtol=1e-5, atol=1e-7),
    )
    rate = 4 * (n + 1) ** 2 * np.sin(np.pi / (2 * (n + 1))) ** 2
    np.testing.assert_allclose(found.ys[0], np.exp(-0.1 * rate) * u0, rtol=1e-3)


# ---- SciPy ---------------------------------------------------------------------------------------


def test_our_operators_in_scipys_solvers():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((7, 4)) + 1j * rng.standard_normal((7, 4))
    linear = lp.interop.scipy.to_scipy(lp.MatrixLinearOperator(jnp.asarray(a)))
    x, y = rng.standard_normal(4) + 0j, rng.standard_normal((7, 3)) + 0j
    np.testing.assert_allclose(linear @ x, a @ x)
    np.testing.assert_allclose(linear.H @ y, a.conj().T @ y)
    np.testing.assert_allclose(linear.matmat(np.eye(4)), a)
    matrix = sp.diags_array([np.arange(1.0, 41), -np.ones(39), -np.ones(39)], offsets=[0, 1, -1])
    own = lp.interop.scipy.to_scipy(lp.SparseLinearOperator.from_scipy(matrix))
    np.testing.assert_allclose(
        spla.eigsh(own, 2, return_eigenvectors=False),
        spla.eigsh(matrix, 2, return_eigenvectors=False),
    )


@pytest.mark.parametrize("shape", [(5, 5), (6, 4), (3, 5)])
@pytest.mark.parametrize("dtype", [float, complex])
def test_scipys_operators_become_ours(shape, dtype):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype is complex else 0)
    mine = lp.interop.scipy.from_scipy(spla.aslinearoperator(a))
    x = jnp.asarray(rng.standard_normal(shape[1]), dtype)
    np.testing.assert_allclose(mine.mv(x), a @ np.asarray(x), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda x: mine.T.T.mv(x))(x), a @ np.asarray(x), rtol=1e-12)
    np.testing.assert_allclose(mine.as_matrix(), a, rtol=1e-12)
    np.testing.assert_allclose(mine.T.as_matrix(), a.T, rtol=1e-12)
    np.testing.assert_allclose(lp.conj(mine).as_matrix(), a.conj(), rtol=1e-12)
    np.testing.assert_allclose(lp.conj(mine).T.as_matrix(), a.conj().T, rtol=1e-12)
    np.testing.assert_allclose(jax.jvp(mine.mv, (x,), (x,))[1], mine.mv(x), rtol=1e-12)
    (back,) = jax.linear_transpose(mine.mv, x)(jnp.ones(shape[0], dtype))
    np.testing.assert_allclose(back, a.T @ np.ones(shape[0]), rtol=1e-12)


def test_a_scipy_operator_is_solved_and_differentiated():
    a = matrix_of(8)
    mine = lp.interop.scipy.from_scipy(spla.aslinearoperator(np.asarray(a)))
    solve = lambda b: jnp.sum(jnp.sin(lp.linear_solve(mine, b, lp.GMRES(1e-12)).value))
    want = lambda b: jnp.sum(jnp.sin(jnp.linalg.solve(a, b)))
    b = vector_of(8)
    np.testing.assert_allclose(jax.grad(solve)(b), jax.grad(want)(b), rtol=1e-8)
    assert isinstance(lp.interop.scipy.from_scipy(sp.eye_array(3)), lp.SparseLinearOperator)
    assert isinstance(lp.interop.scipy.from_scipy(np.eye(3)), lp.MatrixLinearOperator)
    with pytest.raises(TypeError, match=r"operator: must be a scipy.sparse.linalg.LinearOperator"):
        lp.interop.scipy.from_scipy("A")


def test_complex_vectors_integers_and_results_that_are_written_to():
    """SciPy's methods give real operators complex vectors, and write into what they get."""
    a = np.array([[2, 1], [0, 3]])
    own = lp.interop.scipy.to_scipy(lp.MatrixLinearOperator(jnp.asarray(a, float)))
    b = np.array([1 + 2j, 3j])
    np.testing.assert_allclose(own @ b, a @ b)
    np.testing.assert_allclose(own.rmatmat(np.eye(2) * 1j), a.T * 1j)
    x, info = spla.gmres(own, b, rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(a, b))
    back = lp.interop.scipy.from_scipy(spla.aslinearoperator(a))
    np.testing.assert_allclose(back.T.mv(jnp.ones(2)), a.T @ np.ones(2))


def test_a_batch_of_products_is_one_call():
    shapes = []

    class Counted(spla.LinearOperator):
        def __init__(self):
            super().__init__(np.dtype(float), (4, 4))

        def _matmat(self, x):
            shapes.append(x.shape)
            return 2 * x

    mine = lp.interop.scipy.from_scipy(Counted())
    np.testing.assert_allclose(jax.jit(jax.vmap(mine.mv))(jnp.eye(4)), 2 * np.eye(4))
    assert shapes == [(4, 4)]


def test_laws():
    check_operator(lp.interop.scipy.from_scipy(spla.aslinearoperator(np.asarray(matrix_of(4)))))


def test_unknown_libraries_are_no_attributes():
    with pytest.raises(AttributeError, match="has no attribute 'numpy'"):
        _ = lp.interop.numpy
    assert {"lineax", "scipy", "torch"} <= set(dir(lp.interop))


def test_importing_the_package_imports_no_torch():
    """The module says what to install where there is none."""
    code = (
        "import sys, linsolve_prim as lp; assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "try: lp.interop.torch\n"
        "except ImportError as error: assert \"pip install 'linsolve-prim[torch]'\" in str(error)\n"
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
