"""CG, GMRES, BiCGStab, LSMR and Normal, called by hand: solutions, `vmap`, `transpose`, `conj`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_four import (
    NAMES,
    SOLVERS,
    each_solver,
    least,
    least_methods,
    matrix,
    operator_for,
    run,
    vector,
)
from krylov_tools import COMPLEX, EPS, REAL, X64, relative, succeeded

from linsolve_prim.operators import (
    DiagonalLinearOperator,
    MatrixLinearOperator,
    PyTreeLinearOperator,
    negative_semidefinite_tag,
    positive_semidefinite_tag,
)
from linsolve_prim.results import REASONS, RESULTS
from linsolve_prim.solvers.cholesky import Cholesky
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab, default_rtol
from linsolve_prim.solvers.normal import Normal

# ---- solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "dtype"),
    [pytest.param(*p.values, d, marks=p.marks) for p in least(SOLVERS) for d in (REAL, COMPLEX)]
    + [(CG(), np.float32), (GMRES(restart=4), COMPLEX), (BiCGStab(), np.complex64)],
)
def test_solves(solver, dtype):
    """S0-42, B-11: real and complex, in every precision; reported residuals are true."""
    n = 20
    a, b = matrix(n, dtype, isinstance(solver, CG)), vector(n, dtype)
    tol = default_rtol(dtype)
    x, result, stats = run(solver, a, b)
    assert x.dtype == dtype
    assert succeeded(result)
    assert stats["reason"] == REASONS.rtol
    eps = np.finfo(dtype).eps
    true = np.linalg.norm(b.astype(COMPLEX) - a.astype(COMPLEX) @ np.asarray(x).astype(COMPLEX))
    assert true <= (1.01 * tol + 10 * eps) * np.linalg.norm(b)
    assert abs(float(stats["residual_norm"]) - true) <= 0.01 * true + 50 * eps * np.linalg.norm(b)
    assert 0 < int(stats["num_steps"]) <= int(stats["max_steps"])
    assert stats["num_steps"].dtype == jnp.int32


def test_eager():
    """The same without jit."""
    a, b = matrix(6, REAL, True), vector(6, REAL)
    state = CG().init(operator_for(CG(), a), {})
    x, result, _ = CG().compute(state, jnp.asarray(b), {})
    assert succeeded(result)
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-3 if not X64 else 1e-7)


def test_negative_definite():
    a, b = -matrix(10, COMPLEX, True), vector(10, COMPLEX)
    x, result, _ = run(
        CG(), a, b, operator=MatrixLinearOperator(jnp.asarray(a), negative_semidefinite_tag)
    )
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(COMPLEX)


@least_methods
def test_pytrees(solver):
    """Vectors are pytrees."""
    a, b = matrix(5, REAL, isinstance(solver, CG)), vector(5, REAL)
    s = jax.ShapeDtypeStruct((2,), REAL), jax.ShapeDtypeStruct((3, 1), REAL)
    structure = {"u": s[0], "p": s[1]}  # raveled in the order p, u
    blocks = {
        "p": {"p": a[:3, :3].reshape(3, 1, 3, 1), "u": a[:3, 3:].reshape(3, 1, 2)},
        "u": {"p": a[3:, :3].reshape(2, 3, 1), "u": a[3:, 3:]},
    }
    tags = positive_semidefinite_tag if isinstance(solver, CG) else ()
    operator = PyTreeLinearOperator(jax.tree.map(jnp.asarray, blocks), structure, tags)
    rhs = {"p": b[:3].reshape(3, 1), "u": b[3:]}
    x, result, _ = run(solver, None, rhs, operator=operator)
    assert succeeded(result)
    flat = np.concatenate([np.ravel(x["p"]), x["u"]])
    assert relative(a, flat, b) <= 1.01 * default_rtol(REAL)


@pytest.mark.parametrize("solver", [LSMR(), Normal(CG()), Normal(Cholesky())], ids=repr)
@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_least_squares(solver, shape):
    """Rectangular operators: A†b, and which of the two tests was fulfilled."""
    a, b = matrix(shape[1], COMPLEX, False, m=shape[0]), vector(shape[0], COMPLEX)
    x, result, stats = run(solver, a, b)
    assert succeeded(result)
    np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=2e-3 if not X64 else 1e-7)
    if solver.checks_residual():
        tall = shape[0] > shape[1]
        assert stats["reason"] == (REASONS.least_squares if tall else REASONS.rtol)
        np.testing.assert_allclose(
            stats["relative_residual"], relative(a, x, b), rtol=0.01, atol=50 * EPS
        )


def test_rank_deficient():
    """LSMR: the minimum-norm solution of singular systems."""
    a = np.outer([1.0, 2, 3], [1, 1, 0]).astype(REAL)
    for b in (np.array([1, 2, 3], REAL), np.array([1, 0, 0], REAL)):
        x, result, _ = run(LSMR(), a, b)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=1e-5)


# ---- transformations -----------------------------------------------------------------------------


@each_solver
def test_vmap(solver):
    """Lanes equal single runs, and do not depend on their neighbours."""
    n = 20
    a = matrix(n, REAL, isinstance(solver, CG))
    operator = operator_for(solver, a)
    state = solver.init(operator, {})
    batched = jax.jit(jax.vmap(lambda b: solver.compute(state, b, {})))
    bs = np.stack([vector(n, REAL, seed) for seed in range(3)] + [np.zeros(n, REAL)])
    xs, results, stats = batched(jnp.asarray(bs))
    assert bool(jnp.all(results == RESULTS.successful))
    assert int(stats["num_steps"][3]) == 0
    for i in range(4):
        x, _, one = run(solver, a, bs[i])
        # (A batch of products may be rounded differently, and so end a step earlier or later.)
        same = int(one["num_steps"]) == int(stats["num_steps"][i])
        assert abs(int(one["num_steps"]) - int(stats["num_steps"][i])) <= 1
        tol = 200 * EPS if same else 10 * default_rtol(REAL)
        np.testing.assert_allclose(xs[i], x, rtol=tol, atol=tol)
    others = np.stack([bs[0], np.full(n, np.nan, REAL), 1e6 * bs[2], np.eye(n, dtype=REAL)[0]])
    ys, results, _ = batched(jnp.asarray(others))
    np.testing.assert_array_equal(ys[0], xs[0])
    assert (results == RESULTS.nonfinite_input).tolist() == [False, True, False, False]
    assert bool(jnp.all(jnp.isfinite(ys)))


@pytest.mark.parametrize("solver", [CG(), GMRES()], ids=NAMES[:2])
def test_vmap_over_operators(solver):
    n = 6
    mats = np.stack([matrix(n, REAL, isinstance(solver, CG), seed) for seed in range(3)])
    b = vector(n, REAL)
    f = lambda a: solver.compute(solver.init(operator_for(solver, a), {}), jnp.asarray(b), {})
    xs, results, _ = jax.jit(jax.vmap(f))(jnp.asarray(mats))
    assert bool(jnp.all(results == RESULTS.successful))
    for a, x in zip(mats, xs):
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


@pytest.mark.parametrize(
    ("solver", "preconditioned"),
    [
        (GMRES(), False),
        (GMRES(), True),
        (BiCGStab(), True),
        (LSMR(), False),
        (Normal(CG()), True),
        (Normal(Cholesky()), False),
    ],
)
def test_transpose_and_conj(solver, preconditioned):
    """B-11: the laws of states, for a complex operator without symmetry, and a preconditioner."""
    n = 20
    a, b = matrix(n, COMPLEX, False), vector(n, COMPLEX)
    operator = MatrixLinearOperator(jnp.asarray(a))
    m = MatrixLinearOperator(jnp.asarray(np.linalg.inv(a + 0.1 * np.eye(n)).astype(COMPLEX)))
    options = {"preconditioner": m} if preconditioned else {}
    transposed = lambda s: solver.transpose(*s)
    conjugated = lambda s: solver.conj(*s)
    start = solver.init(operator, options), options
    cases = [
        (start, a),
        (transposed(start), a.T),
        (conjugated(start), a.conj()),
        (conjugated(transposed(start)), a.conj().T),
        (transposed(conjugated(start)), a.conj().T),
        (transposed(transposed(start)), a),
    ]
    for (state, turned), mat in cases:
        x, result, stats = run(solver, None, b, turned, operator, state)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.solve(mat, b), atol=1e-3 if not X64 else 1e-7)
        if preconditioned:
            assert int(stats["num_steps"]) <= 8  # the turned preconditioner fits
    state, turned = solver.transpose(start[0], options | {"y0": jnp.ones(n), "x0": jnp.ones(n)})
    assert set(turned) == set(options)
    state, turned = solver.conj(start[0], options | {"y0": jnp.ones(n), "x0": jnp.ones(n)})
    assert set(turned) == set(options)


def test_transpose_of_a_field():
    """A preconditioner that is the solver's own is turned with the state."""
    n = 20
    a, b = matrix(n, COMPLEX, False), vector(n, COMPLEX)
    inverse = np.linalg.inv(a + 0.1 * np.eye(n)).astype(COMPLEX)
    solver = BiCGStab(preconditioner=MatrixLinearOperator(jnp.asarray(inverse)))
    operator = MatrixLinearOperator(jnp.asarray(a))
    state, _ = solver.transpose(solver.init(operator, {}), {})
    x, result, stats = run(solver, None, b, {}, operator, state)
    assert succeeded(result)
    assert int(stats["num_steps"]) <= 5
    np.testing.assert_allclose(x, np.linalg.solve(a.T, b), atol=1e-3 if not X64 else 1e-7)


def test_transpose_and_conj_hermitian():
    a, b = matrix(9, COMPLEX, True), vector(9, COMPLEX)
    solver = CG(preconditioner=DiagonalLinearOperator(jnp.asarray(1 / np.diag(a))))
    state = solver.init(operator_for(solver, a), {})
    for turn, mat in ((solver.transpose, a.T), (solver.conj, a.conj())):
        turned, _ = turn(state, {})
        x, result, _ = run(solver, a, b, {}, None, turned)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.solve(mat, b), atol=1e-3 if not X64 else 1e-8)
