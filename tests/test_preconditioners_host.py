"""Preconditioners on the host: callbacks and factorizations, counted; and what is made while tracing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from krylov_tools import REAL, X64, normal
from preconditioner_problems import advection, hermitian, operator, poisson

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc
from linsolve_prim.host import preconditioning

HOST = pc.ILU(device="host")


@pytest.fixture(autouse=True)
def _fresh():
    lp.host.registry.clear()
    lp.host.registry.reset_stats()


def counted(name):
    return lp.host.registry.stats()[name]


def system(n=12):
    a = operator(advection(n))
    return a, jnp.asarray(normal(n * n))


def assert_solved(a, x, b):
    np.testing.assert_allclose(a.mv(x), b, rtol=0, atol=1e-7 if X64 else 2e-3)


def inverse_diagonal(matrix):
    return sp.diags_array(1 / matrix.diagonal())


@pytest.mark.parametrize("given", [HOST, "ilu", pc.Host("jacobi"), pc.Host(inverse_diagonal)])
def test_one_callback_where_solver_and_preconditioner_are_on_the_host_S0_26(given):
    """S0-26: as a setting of `SciPyIterative`, and as the preconditioner of a solve; eager and compiled."""
    a, b = system()
    own = lp.SciPyIterative("gmres", preconditioner=given)
    assert_solved(a, lp.solve(a, b, own), b)
    assert (counted("callbacks"), counted("factorizations")) == (1, 1)
    by_option = jax.jit(lambda b: lp.solve(a, b, lp.SciPyIterative("gmres"), preconditioner=given))
    by_option(b).block_until_ready()
    lp.host.registry.reset_stats()
    assert_solved(a, by_option(2 * b), 2 * b)
    assert (counted("callbacks"), counted("factorizations")) == (1, 0)


def test_a_callback_for_each_application_in_a_native_method_S0_26():
    """The price of a host preconditioner inside GMRES; its factorization is made once all the same."""
    a, b = system()
    for _ in range(2):
        sol = lp.linear_solve(a, b, lp.GMRES(preconditioner=HOST))
    assert_solved(a, sol.value, b)
    assert counted("factorizations") == 1
    assert counted("callbacks") >= int(sol.stats["num_steps"])


def primitives(jaxpr):
    """The names of all primitives of a program but those inside of `linear_solve`."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and equation.primitive.name != "linear_solve":
                found |= primitives(inner)
    return found


@pytest.mark.parametrize("where", ["setting", "option"])
def test_a_constant_is_factorized_while_tracing_S0_28(where):
    """S0-28: one factorization at trace, none in later calls; the program holds none."""
    a, b = system()
    solver = lp.GMRES(preconditioner=HOST) if where == "setting" else lp.GMRES()
    options = {} if where == "setting" else {"preconditioner": HOST}
    f = jax.jit(lambda b: lp.linear_solve(a, b, solver, options=options).value)
    traced = f.trace(b)
    assert counted("factorizations") == 1
    assert "host_factorize" not in primitives(traced.jaxpr.jaxpr)
    for scale in (1, 2):
        assert_solved(a, f(scale * b), scale * b)
    assert counted("factorizations") == 1


@pytest.mark.parametrize("where", ["setting", "option"])
@pytest.mark.parametrize("make", [pc.ILU, pc.SPAI, lambda: pc.BlockJacobi(6)])
def test_native_factors_of_constants_are_made_while_tracing_S0_28(make, where):
    """The program holds no loop, no sum into slots and no inverse but those of the solve itself."""
    a, b = system(6)
    solver = lp.GMRES(preconditioner=make()) if where == "setting" else lp.GMRES()
    options = {} if where == "setting" else {"preconditioner": make()}
    found = lambda f, *args: primitives(jax.make_jaxpr(f)(*args).jaxpr)
    constant = found(lambda b: lp.linear_solve(a, b, solver, options=options).value, b)
    assert not constant & {"while", "scan", "scatter-add", "scatter_add", "lu", "triangular_solve"}

    def with_values(values, b):
        m = lp.SparseLinearOperator(values, a.pattern)
        return lp.linear_solve(m, b, solver, options=options).value

    assert len(found(with_values, a.values, b)) > len(constant)


def test_functions_make_linear_operators_and_transposes():
    """A `LinearOperator` with and without `rmatvec`; the transpose is that of M, or made from Aᵀ."""
    a, b = system(5)
    matrix = sp.csr_array(a.to_scipy())

    def with_adjoint(m):
        lu = spla.splu(sp.csc_matrix(m))
        adjoint = lambda x: lu.solve(x, "H")
        return spla.LinearOperator(m.shape, lu.solve, adjoint, dtype=m.dtype)

    def without(m):
        return spla.LinearOperator(m.shape, spla.splu(sp.csc_matrix(m)).solve, dtype=m.dtype)

    dense = matrix.toarray()
    for make in (with_adjoint, without):
        m = pc.Host(make).init(a)
        np.testing.assert_allclose(m.mv(b), np.linalg.solve(dense, b), rtol=0, atol=1e-4)
        np.testing.assert_allclose(m.T.mv(b), np.linalg.solve(dense.T, b), rtol=0, atol=1e-4)


def test_a_zero_pivot_does_not_stop_the_incomplete_factorization():
    """SuperLU refuses a matrix with a zero column; M is then that of a matrix which is moved a little."""
    a = lp.SparseLinearOperator.from_dense(
        np.diag([1.0, 2.0, 0.0]).astype(REAL) + np.eye(3, k=1, dtype=REAL)
    )
    pattern = lp.SparsityPattern.from_dense(np.eye(3) + np.eye(3, k=1))
    values = jnp.asarray(a.as_matrix())[pattern.rows, pattern.indices]
    m = HOST.init(lp.SparseLinearOperator(values, pattern))
    assert np.isfinite(m.mv(jnp.ones(3, REAL))).all()


def test_symmetric_host_preconditioners_are_promised():
    a = operator(poisson(8), "definite")
    jacobi = inverse_diagonal
    assert pc.Host(jacobi, symmetric=True).keeps_definite(a)
    b = jnp.asarray(normal(64))
    x = lp.linear_solve(a, b, lp.CG(preconditioner=pc.Host(jacobi, symmetric=True))).value
    assert_solved(a, x, b)
    with pytest.raises(ValueError, match=r"`CG` needs one that is symmetric"):
        lp.linear_solve(a, b, lp.CG(preconditioner=pc.Host(jacobi)))


def test_native_methods_refuse_device_settings_and_scipy_refuses_device_operators():
    a, b = system(5)
    with pytest.raises(ValueError, match=r"a solver on the host takes `ILU\(device='host'\)`"):
        pc.ILU().host_maker()
    with pytest.raises(ValueError, match=r"SciPy's methods take what is made on the host"):
        lp.solve(a, b, lp.SciPyIterative("gmres"), preconditioner=pc.SSOR())


@pytest.mark.parametrize(
    "kind", ["zeros", "zero columns", "zero rows", "no diagonal", "equal rows"]
)
def test_complex_incomplete_factors_survive_pivots_of_zero_S0_24(kind):
    """SuperLU's routine for complex numbers calls `exit` there: this very process would be gone."""
    from linsolve_prim.host.preconditioning import incomplete_lu

    a = hermitian(5).tocoo()
    kept = {
        "zeros": 0 * a.row,
        "zero columns": a.col % 2,
        "zero rows": a.row % 2,
        "no diagonal": a.row != a.col,
        "equal rows": a.row >= 0,
    }[kind]
    values = (1 + 0j if kind == "equal rows" else a.data) * kept
    matrix = sp.csr_matrix((values, (a.row, a.col)), shape=a.shape)
    try:
        made = incomplete_lu(matrix)
    except RuntimeError as error:
        assert "singular" in str(error)
        assert kind == "zeros"  # all others have a part of the largest entry added to the diagonal
    else:
        assert np.all(np.isfinite(made.matvec(np.ones(25) + 0j)))


def test_complex_incomplete_factors_are_those_of_the_matrix_S0_24():
    """As real matrices of twice the size, forward and adjoint, of one vector and of several."""
    from linsolve_prim.host.preconditioning import incomplete_lu

    a = sp.csr_matrix(advection(6) + 0.5j * poisson(6))
    made, b = incomplete_lu(a, 1e-14, 100.0), normal((36, 3), np.complex128)
    np.testing.assert_allclose(a @ made.matmat(b), b, atol=1e-10)
    np.testing.assert_allclose(a @ made.matvec(b[:, 0]), b[:, 0], atol=1e-10)
    np.testing.assert_allclose(a.conj().T @ made.rmatmat(b), b, atol=1e-10)
    single = incomplete_lu(a.astype(np.complex64)).matvec(b[:, 0].astype(np.complex64))
    assert single.dtype == np.complex64


def test_complex_factors_are_linear_over_the_complex_numbers():
    """B-02: i·x gives i times what x gives, and the transpose is one, however much is dropped."""
    rng = np.random.default_rng(0)
    n, draw = 40, lambda *shape: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    a = sp.csr_matrix(np.where(rng.random((n, n)) < 0.2, draw(n, n), 0) + 6 * np.eye(n))
    ilu = preconditioning.incomplete_lu(a, drop_tol=0.1)
    x, y = draw(n), draw(n)
    np.testing.assert_allclose(ilu.matvec(1j * x), 1j * ilu.matvec(x), atol=1e-14)
    np.testing.assert_allclose(np.vdot(y, ilu.matvec(x)), np.vdot(ilu.rmatvec(y), x), rtol=1e-12)
    assert abs(a @ ilu.matvec(x) - x).max() > 1e-3  # something is dropped
