"""FGMRES and its relatives: against SciPy, their products, their derivatives, honesty."""

import hypothesis as hp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as spla
from krylov_tools import (
    COMPLEX,
    EPS,
    REAL,
    X64,
    assert_gradients,
    convection,
    counts,
    general,
    normal,
    quick_jit,
    relative,
    run,
    succeeded,
    with_spectrum,
)

import linsolve_prim as lp
from linsolve_prim import RESULTS
from linsolve_prim.solvers.krylov import default_rtol

INNER = lp.GMRES(rtol=0.1, max_steps=4)
FAMILY = {
    "FGMRES": lp.FGMRES(),
    "FGMRES(inner)": lp.FGMRES(preconditioner=INNER),
}
each = pytest.mark.parametrize("solver", FAMILY.values(), ids=FAMILY)


@each
@pytest.mark.parametrize("dtype", [REAL, COMPLEX, np.float32])
def test_solves(solver, dtype):
    """S0-12: real and complex, in both precisions; the reported residual is the true one."""
    n = 40
    a, b = general(n, dtype), normal(n, dtype, 1)
    x, result, stats = run(solver, a, b)
    assert succeeded(result)
    assert x.dtype == dtype
    noise = 20 * np.finfo(dtype).eps
    assert relative(a, x, b) <= 1.01 * default_rtol(dtype) + noise
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=0.01, atol=noise)


@pytest.mark.slow
@each
def test_laws(solver):
    """S2-11: transposes, conjugates, vmap, derivatives, b = 0, NaN, as for every solver."""
    lp.testing.check_solver(solver, lp.MatrixLinearOperator(jnp.asarray(general(6, COMPLEX))))


@each
def test_products(solver):
    """B-18: `matvecs` and `rmatvecs`, with those of an inner solver, are what was really done."""
    result, stats, log = counts(solver, convection(40), normal(40))
    assert succeeded(result)
    inner = [int(stats.get(f"inner_{name}", 0)) for name in ("matvecs", "rmatvecs")]
    assert log.matvecs == int(stats["matvecs"]) + inner[0]
    assert log.rmatvecs == int(stats["rmatvecs"]) + inner[1]


SMALL = {
    "1x1": ([[2.0]], [3.0]),
    "eigenvector": (np.diag([1.0, 2, 3, 4]), [0.0, 1, 0, 0]),
    "identity": (np.eye(4), [1.0, 0, 2, 0]),
    "skew": (np.kron(np.eye(2), [[0.0, 1], [-1, 0]]), [2.0, 3, 0, 1]),
    "permutation": (np.roll(np.eye(4), 1, 0), [1.0, 0, 0, 0]),
    "singular, consistent": (np.diag([1.0, 2, 0, 1]), [1.0, 1, 0, 2]),
}


@each
def test_small(solver):
    """Small systems, b = 0 and exact guesses."""
    for a, b in SMALL.values():
        a, b = np.asarray(a, REAL), np.asarray(b, REAL)
        x, result, _ = run(solver, a, b, {"y0": 0 * b})
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)
        _, result, stats = run(solver, a, b, {"y0": x})
        assert succeeded(result)
        assert int(stats["num_steps"]) == 0
        x, result, stats = run(solver, a, 0 * b, {"y0": x})
        assert succeeded(result)
        np.testing.assert_array_equal(x, 0 * b)


@each
def test_failures(solver):
    """B-04, B-17: what has no solution is no success, and x is finite."""
    b = np.array([1, 2, 3, 4], REAL)
    for a in (np.zeros((4, 4)), np.ones((4, 4)), np.diag([1, np.nan, 1, 1])):
        x, result, stats = run(solver, a.astype(REAL), b, {"y0": 0 * b})
        assert np.isfinite(x).all()
        assert not succeeded(result)
        assert stats["reason"] == lp.REASONS.failed
    _, result, _ = run(solver, np.diag([1, np.inf, 1, 1]).astype(REAL), b, {"y0": 0 * b})
    assert bool(result == RESULTS.nonfinite_input)


def test_failures_raise():
    """B-17: two steps are not enough, and that is an exception."""
    operator, few = lp.MatrixLinearOperator(jnp.asarray(convection(4))), lp.FGMRES(max_steps=2)
    with pytest.raises(lp.ConvergenceError, match="FGMRES"):
        lp.linear_solve(operator, jnp.ones(4, REAL), few)


@each
@hp.settings(max_examples=25, deadline=None, derandomize=True)
@hp.given(
    seed=st.integers(0, 10**6),
    decades=st.floats(0, 9),
    rank=st.integers(3, 6),
    scale=st.sampled_from([1.0, 1e-12, 1e12]),
)
def test_honesty(solver, seed, decades, rank, scale):
    """B-17: success means a small true residual, whatever the matrix; x is always finite."""
    a = with_spectrum(np.geomspace(1, 10**-decades, rank), (6, 6), seed).astype(np.float32)
    b = (scale * normal(6, seed=seed + 2)).astype(np.float32)
    x, result, stats = run(solver, a, b)
    assert np.isfinite(x).all()
    noise = 1e-6 * (np.linalg.norm(a, 2) * np.linalg.norm(x) / np.linalg.norm(b) + 1)
    assert abs(float(stats["relative_residual"]) - relative(a, x, b)) <= noise
    if succeeded(result):
        assert relative(a, x, b) <= 1.01e-5 + noise


@each
def test_lanes(solver):
    """Lanes of a vmap equal single runs, whatever their neighbours are."""
    n = 40
    operator = lp.MatrixLinearOperator(jnp.asarray(convection(n)))
    bs = np.stack([normal(n, seed=1), np.full(n, np.nan), 1e6 * normal(n, seed=2), np.zeros(n)])
    solve = lambda b: solver.compute(solver.init(operator, {}), b, {})
    xs, results, stats = quick_jit(jax.vmap(solve))(jnp.asarray(bs, REAL))
    assert (results == RESULTS.successful).tolist() == [True, False, True, True]
    for i in (0, 2):
        x, _, one = run(solver, operator, bs[i].astype(REAL))
        assert abs(int(one["num_steps"]) - int(stats["num_steps"][i])) <= 1
        same = int(one["num_steps"]) == int(stats["num_steps"][i])
        tol = 300 * EPS if same else 100 * default_rtol(REAL)
        np.testing.assert_allclose(xs[i], x, rtol=0, atol=tol * np.abs(x).max())


@each
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_gradients(solver, dtype):
    """Gradients by A and b, against dense linear algebra."""
    a, b = jnp.asarray(general(8, dtype)), jnp.asarray(normal(8, dtype, 1))
    mine = lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a), b, solver).value
    assert_gradients(mine, jnp.linalg.solve, a, b, 1e-8 if X64 else 1e-3)


# ---- FGMRES --------------------------------------------------------------------------------------


def test_fgmres_is_gmres_for_a_fixed_preconditioner():
    """S0-12: and takes as many steps as SciPy's."""
    n = 60
    a, b = convection(n) + np.diag(np.linspace(0, 2, n)).astype(REAL), normal(n)
    m = np.diag(1 / np.diag(a)).astype(REAL)
    for restart in (8, 60):
        for precondition in (False, True)[: 1 if restart == 60 else 2]:
            options = {"preconditioner": lp.MatrixLinearOperator(jnp.asarray(m))}
            options = options if precondition else {}
            settings = {"rtol": 1e-5, "restart": restart, "max_steps": 2000}
            _, result, flexible = run(lp.FGMRES(**settings), a, b, options)
            _, _, plain = run(lp.GMRES(**settings), a, b, options)
            assert succeeded(result)
            assert abs(int(flexible["num_steps"]) - int(plain["num_steps"])) <= 1
            if not precondition:
                norms = []
                keep = {"callback": norms.append, "callback_type": "pr_norm"}
                spla.gmres(a, b, rtol=1e-5, atol=0, restart=restart, maxiter=2000, **keep)
                assert abs(int(flexible["num_steps"]) - len(norms)) <= 0.1 * len(norms) + 2


def test_fgmres_with_an_iteration_as_preconditioner():
    """A few steps of BiCGStab differ each time; GMRES with the same as an operator is misled."""
    n = 40
    a, b = convection(n, 0.2), normal(n)
    plain = run(lp.FGMRES(), a, b)[2]
    inner = lp.BiCGStab(rtol=0.1, max_steps=15)
    x, result, stats = run(lp.FGMRES(preconditioner=inner), a, b)
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(REAL)
    assert int(stats["num_steps"]) <= int(plain["num_steps"]) / 3
    assert int(stats["inner_steps"]) >= int(stats["num_steps"])


def test_fgmres_with_a_function_that_is_not_linear():
    n = 40
    a, b = general(n), normal(n)
    d = jnp.asarray(1 / np.diag(a))
    rough = lambda v: d * jnp.sign(v) * jnp.abs(v) ** 0.9
    m = lp.FunctionLinearOperator(rough, jax.ShapeDtypeStruct((n,), REAL))
    x, result, _ = run(lp.FGMRES(preconditioner=m, max_steps=400), a, b)
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


class Broken(lp.AbstractLinearSolver):
    """Gives nothing but zeros, or NaN."""

    bad: float

    def init(self, operator, options):
        return operator

    def compute(self, state, vector, options):
        return vector * 0 + self.bad, RESULTS.successful, {}

    def assume_full_rank(self):
        return True


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_fgmres_with_an_inner_solver_that_fails(bad):
    """It does as well as without."""
    a, b = general(40), normal(40)
    _, result, stats = run(lp.FGMRES(preconditioner=Broken(bad)), a, b)
    assert succeeded(result)
    assert int(stats["num_steps"]) == int(run(lp.FGMRES(), a, b)[2]["num_steps"])
    operator = lp.MatrixLinearOperator(jnp.asarray(a))
    solve = lambda b: lp.linear_solve(operator, b, lp.FGMRES(preconditioner=Broken(bad))).value
    (ct,) = quick_jit(lambda b: jax.vjp(solve, b)[1](b))(b)  # it has no `transpose` of its own
    np.testing.assert_allclose(ct, np.linalg.solve(a.T, b), atol=1e-3 if not X64 else 1e-8)


def test_fgmres_refuses_the_left():
    with pytest.raises(ValueError, match=r"FGMRES.*right.*Leave it out, or use `GMRES`"):
        lp.FGMRES(side="left")
    with pytest.raises(ValueError, match=r"preconditioner: .*the solver LU\(\).*`FGMRES`"):
        lp.GMRES(preconditioner=lp.LU())
