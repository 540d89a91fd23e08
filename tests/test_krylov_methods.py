"""Every Krylov method on the systems that it is for: solutions, pytrees, transposes, statistics."""

import jax.numpy as jnp
import numpy as np
import pytest
from krylov_problems import DTYPES, blocks, each, operator, system, tags
from krylov_tools import COMPLEX, EPS, REAL, X64, counts, relative, run, succeeded

import linsolve_prim as lp
from linsolve_prim import REASONS
from linsolve_prim.solvers.krylov import default_rtol

N = 30


@each()
@pytest.mark.parametrize(
    "dtype",
    # (In the test's own precision, SciPy's grid is solved: `test_krylov_scipy`.)
    [pytest.param(d, marks=[pytest.mark.slow] if d is np.float64 else []) for d in DTYPES],
    ids=lambda d: np.dtype(d).name,
)
def test_solves(method, dtype):
    """S0-42, B-11: real and complex, in every precision; reported residuals are true."""
    a, b = system(method.kind, N, dtype)
    x, result, stats = run(method(), operator(method, a), b)
    assert x.dtype == dtype
    assert succeeded(result)
    assert stats["reason"] == REASONS.rtol
    noise = 20 * np.finfo(dtype).eps
    true = relative(a, x, b)
    assert true <= 1.01 * default_rtol(dtype) + noise
    np.testing.assert_allclose(stats["relative_residual"], true, rtol=0.01, atol=noise)
    assert 0 < int(stats["num_steps"]) <= method.slow * (N + 10)


@each()
def test_pytrees(method):
    """Vectors are pytrees."""
    a, b = system(method.kind, 6, COMPLEX)
    tree, structure = blocks(a, 2)
    rhs = {"p": b[:2].reshape(2, 1), "u": b[2:]}
    x, result, _ = run(method(), lp.PyTreeLinearOperator(tree, structure, tags(method)), rhs)
    assert succeeded(result)
    flat = np.concatenate([np.ravel(x["p"]), x["u"]])
    assert relative(a, flat, b) <= 1.01 * default_rtol(REAL)


@each()
def test_transpose_and_conj(method):
    """B-11: the states of Aᵀ, conj(A) and Aᴴ, with a preconditioner of the solver's own."""
    n = 12
    a, b = system(method.kind, n, COMPLEX, seed=5)
    m = np.diag(1 / (np.abs(np.diag(a)) + 1)).astype(COMPLEX)
    solver = method(preconditioner=lp.MatrixLinearOperator(jnp.asarray(m)))
    state = solver.init(operator(method, a), {})
    turned = [solver.transpose(state, {})[0], solver.conj(state, {})[0]]
    turned.append(solver.conj(turned[0], {})[0])
    for s, mat in zip(turned, (a.T, a.conj(), a.conj().T)):
        x, result, _ = run(solver, a, b, state=s)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.solve(mat, b), atol=1e-3 if not X64 else 1e-7)


@each()
def test_history(method):
    """S0-47: entry 0 is ‖b − Ax₀‖, the last is the residual; iterates have these residuals."""
    a, b = system(method.kind, N)
    solver = method(history="x", max_steps=60, rtol=1e-4)
    x, _, stats = run(solver, operator(method, a), b)
    length = int(stats["history_length"])
    assert length == int(stats["num_steps"]) + 1
    norms, iterates = stats["history"][:length], stats["iterates"][:length]
    assert stats["history"].shape == (61,)
    np.testing.assert_allclose(norms[0], np.linalg.norm(b), rtol=1e-6)
    np.testing.assert_allclose(norms[-1], stats["residual_norm"], rtol=1e-6)
    np.testing.assert_array_equal(iterates[-1], x)
    true = np.linalg.norm(b - np.asarray(iterates) @ a.T, axis=1)
    np.testing.assert_allclose(norms, true, rtol=1e-3 if not X64 else 1e-9, atol=50 * EPS)
    if method.name.startswith("MINRES"):
        assert (np.diff(norms) <= 10 * EPS * norms[0]).all()


@each()
@pytest.mark.parametrize("preconditioned", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_products(method, preconditioned):
    """The products that an iteration costs are counted, and are no more than it needs."""
    n = 16
    a, b = system(method.kind, n)
    m = lp.DiagonalLinearOperator(jnp.asarray(1 / (1 + np.arange(n)), a.dtype))
    options = {"preconditioner": m} if preconditioned else {}
    result, stats, log = counts(method(rtol=1e-3), a, b, options, tags(method))
    assert succeeded(result)
    assert (log.matvecs, log.rmatvecs) == (int(stats["matvecs"]), int(stats["rmatvecs"]))
    steps, (forward, adjoint, more) = int(stats["num_steps"]), method.products
    assert log.matvecs <= forward * steps + more + 1
    assert log.rmatvecs <= adjoint * steps + 1
