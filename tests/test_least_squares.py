"""LSQR, LSMR, CGLS and CRAIG: against SciPy and dense linear algebra, damping, derivatives, honesty."""

import dataclasses

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
    counts,
    general,
    normal,
    over,
    quick_jit,
    relative,
    run,
    succeeded,
    with_spectrum,
)

import linsolve_prim as lp
from linsolve_prim import REASONS, RESULTS
from linsolve_prim.solvers.krylov import default_rtol

TIGHT = 1e-12 if X64 else 1e-6
TOL = 1e-8 if X64 else 3e-3
LEAST = {"LSQR": lp.LSQR(), "LSMR": lp.LSMR(), "CGLS": lp.CGLS()}
ALL = LEAST | {"CRAIG": lp.CRAIG()}
least, each = over(LEAST), over(ALL)
few, two = over(ALL, core=("LSQR", "CRAIG")), over(LEAST, core=("LSQR",))


def tight(solver, **settings):
    return dataclasses.replace(solver, rtol=TIGHT, **settings)


def matrix(a):
    return lp.MatrixLinearOperator(jnp.asarray(a))


# ---- solutions -----------------------------------------------------------------------------------


@each
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((12, 5), REAL),
        ((5, 12), COMPLEX),
        pytest.param((5, 12), np.float32, marks=pytest.mark.slow),
    ],
)
def test_solves(solver, shape, dtype):
    """S3-21: tall and wide, real and complex: A†b, and the reported residual is the true one."""
    a, b = normal(shape, dtype), normal(shape[0], dtype, 1)
    x, result, stats = run(solver, a, b)
    assert x.dtype == dtype
    assert np.isfinite(x).all()
    if isinstance(solver, lp.CRAIG) and shape[0] > shape[1]:
        assert not succeeded(result)  # there is no solution, and least squares is not its business
        return
    assert succeeded(result)
    noise = 100 * np.finfo(dtype).eps
    assert stats["reason"] == (REASONS.least_squares if shape[0] > shape[1] else REASONS.rtol)
    np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=3 * default_rtol(dtype) ** 0.8)
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=0.01, atol=noise)


@least
def test_rank_deficient(solver):
    """The solution of minimum norm, of consistent and of inconsistent systems."""
    a = with_spectrum([3.0, 2, 1], (12, 5)).astype(REAL)
    b = normal(12)
    for rhs in (b, a @ b[:5]):
        x, result, _ = run(solver, a, rhs)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.pinv(a, rcond=1e-5) @ rhs, atol=TOL)


def test_nearly_consistent():
    """A residual of rounding's size, but not zero, is no obstacle to the second test."""
    for noise in (1e-4, 1e-6, 1e-9, 1e-12):
        a = with_spectrum(np.geomspace(1, 1e-2, 5), (12, 5)).astype(REAL)
        b = (a @ normal(5) + noise * normal(12, seed=3)).astype(REAL)
        for solver in LEAST.values():
            x, result, _ = run(solver, a, b)
            assert succeeded(result)
            np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=TOL)


_SCIPY = {"LSQR": spla.lsqr, "CGLS": spla.lsqr, "LSMR": spla.lsmr}


@pytest.mark.parametrize("name", _SCIPY)
def test_iterates_are_those_of_scipy(name):
    """S3-21: the same x after as many steps, damped or not, from a guess."""
    a, b = with_spectrum(np.geomspace(1, 1e-2, 20), (40, 20)).astype(REAL), normal(40)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    steps = 6
    for damp in (0.0, 0.3):
        limit = "maxiter" if name == "LSMR" else "iter_lim"
        x0 = normal(20, seed=3)
        want = _SCIPY[name](a64, b64, damp=damp, atol=0, btol=0, conlim=0, x0=x0, **{limit: steps})[
            0
        ]
        if damp:  # SciPy then damps the correction: ‖x − x0‖
            want = x0 + _SCIPY[name](
                np.vstack([a64, damp * np.eye(20)]),
                np.concatenate([b64 - a64 @ x0, -damp * x0]),
                atol=0, btol=0, conlim=0, **{limit: steps},
            )[0]  # fmt: skip
        solver = dataclasses.replace(
            LEAST[name], rtol=0.0, max_steps=steps, damp=jnp.asarray(damp, REAL)
        )
        x, result, stats = run(solver, a, b, {"y0": x0})
        assert succeeded(result)
        assert int(stats["num_steps"]) == steps
        np.testing.assert_allclose(x, want, rtol=0, atol=TOL)


@pytest.mark.skipif(not X64, reason="in float32 rounding errors decide, and SciPy's are of float64")
@pytest.mark.parametrize("name", _SCIPY)
def test_iterations_as_scipy(name):
    """S3-21: as many steps (10 % and 2) as SciPy takes until the same test holds of the true residual."""
    a, b = with_spectrum(np.geomspace(1, 1e-2, 60), (80, 60)).astype(REAL), normal(80)
    rtol = 1e-4
    _, result, stats = run(dataclasses.replace(LEAST[name], rtol=rtol), a, b)
    assert succeeded(result)
    limit = "maxiter" if name == "LSMR" else "iter_lim"
    a, b = a.astype(np.float64), b.astype(np.float64)
    for steps in range(1, 200):
        r = b - a @ _SCIPY[name](a, b, atol=0, btol=0, conlim=0, **{limit: steps})[0]
        if np.linalg.norm(a.T @ r) <= rtol * np.linalg.norm(a, 2) * np.linalg.norm(r):
            break
    assert abs(int(stats["num_steps"]) - steps) <= 0.1 * steps + 2


@each
@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
def test_products(solver, shape):
    """B-18: `matvecs` and `rmatvecs` are what was really done."""
    a, b = normal(shape), normal(shape[1]) @ normal(shape).T
    result, stats, log = counts(solver, a, b)
    assert succeeded(result)
    assert (log.matvecs, log.rmatvecs) == (int(stats["matvecs"]), int(stats["rmatvecs"]))
    assert log.matvecs <= int(stats["num_steps"]) + 4


SMALL = {
    "1x1": ([[2.0]], [3.0]),
    "eigenvector": (np.diag([1.0, 2, 3, 4]), [0.0, 1, 0, 0]),
    "identity": (np.eye(4), [1.0, 0, 2, 0]),
    "skew": (np.kron(np.eye(2), [[0.0, 1], [-1, 0]]), [2.0, 3, 0, 1]),
    "singular, consistent": (np.diag([1.0, 2, 0, 1]), [1.0, 1, 0, 2]),
    "rank one": (np.ones((4, 4)), [2.0, 2, 2, 2]),
}


@each
def test_small(solver):
    """Small systems, b = 0, exact guesses, an all-zero matrix, NaN."""
    for a, b in SMALL.values():
        a, b = np.asarray(a, REAL), np.asarray(b, REAL)
        x, result, _ = run(solver, a, b, {"y0": 0 * b})
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=TOL)
        _, result, stats = run(solver, a, b, {"y0": x})
        assert succeeded(result)
        assert int(stats["num_steps"]) == 0
        x, result, stats = run(solver, a, 0 * b, {"y0": x})
        assert succeeded(result)
        assert stats["reason"] == REASONS.zero_rhs
        np.testing.assert_array_equal(x, 0 * b)
    b = np.array([1, 2, 3, 4], REAL)
    x, result, stats = run(solver, np.zeros((4, 4), REAL), b, {"y0": 0 * b})
    np.testing.assert_array_equal(x, 0 * b)
    np.testing.assert_allclose(stats["relative_residual"], 1, rtol=1e-6)
    assert succeeded(result) == (not isinstance(solver, lp.CRAIG))
    for bad in (np.nan, np.inf):
        x, result, _ = run(solver, np.diag([1, bad, 3, 1]).astype(REAL), b, {"y0": 0 * b})
        assert bool(result == RESULTS.nonfinite_input)
        assert np.isfinite(x).all()


@each
@hp.settings(max_examples=25, deadline=None, derandomize=True)
@hp.given(
    seed=st.integers(0, 10**6),
    decades=st.floats(0, 8),
    rank=st.integers(2, 5),
    scale=st.sampled_from([1.0, 1e-12, 1e12]),
    size=st.sampled_from([1.0, 1e-12, 1e12]),
)
def test_honesty(solver, seed, decades, rank, scale, size):
    """B-04, B-17: success means that one of the two tests holds for the true residual."""
    a = (size * with_spectrum(np.geomspace(1, 10**-decades, rank), (7, 5), seed)).astype(np.float32)
    b = (scale * normal(7, seed=seed + 2)).astype(np.float32)
    x, result, stats = run(solver, a, b)
    assert np.isfinite(x).all()
    a, b, x = (np.asarray(v, np.float64) for v in (a, b, x))
    r, norm = b - a @ x, np.linalg.norm(a, 2)
    noise = 1e-6 * (norm * np.linalg.norm(x) + np.linalg.norm(b))
    assert abs(float(stats["residual_norm"]) - np.linalg.norm(r)) <= noise
    if not succeeded(result):
        assert stats["reason"] == REASONS.failed
    elif stats["reason"] == REASONS.least_squares:
        assert not isinstance(solver, lp.CRAIG)
        assert np.linalg.norm(a.T @ r) <= norm * (1.01e-5 * np.linalg.norm(r) + noise)
    else:
        assert np.linalg.norm(r) <= 1.01e-5 * np.linalg.norm(b) + noise


@each
def test_lanes(solver):
    """Lanes of a vmap equal single runs, whatever their neighbours are."""
    operator = matrix(normal((6, 20)))
    bs = np.stack([normal(6, seed=1), np.full(6, np.nan), 1e6 * normal(6, seed=2), np.zeros(6)])
    solve = lambda b: solver.compute(solver.init(operator, {}), b, {})
    xs, results, stats = quick_jit(jax.vmap(solve))(jnp.asarray(bs, REAL))
    assert (results == RESULTS.successful).tolist() == [True, False, True, True]
    for i in (0, 2):
        x, _, one = run(solver, operator, bs[i].astype(REAL))
        assert abs(int(one["num_steps"]) - int(stats["num_steps"][i])) <= 1
        same = int(one["num_steps"]) == int(stats["num_steps"][i])
        tol = 300 * EPS if same else 100 * default_rtol(REAL)
        np.testing.assert_allclose(xs[i], x, rtol=0, atol=tol * np.abs(x).max())


# ---- preconditioners -----------------------------------------------------------------------------


@few
@pytest.mark.parametrize("shape", [(20, 8), (8, 20)])
def test_preconditioner(solver, shape):
    """It stands where it changes neither the residual nor the norm; and saves steps, both ways."""
    d = np.geomspace(1, 1e3, 8)
    a = normal(shape) * (d if shape[0] > 8 else d[:, None])
    b = a @ normal(shape[1])
    solver = tight(solver)
    m = matrix(np.linalg.pinv(a) + 1e-4 * normal(shape[::-1], seed=5) / np.linalg.norm(a))
    x, result, stats = run(solver, a.astype(REAL), b.astype(REAL), {"preconditioner": m})
    plain = run(dataclasses.replace(solver, conlim=1e12) if hasattr(solver, "conlim") else solver,
                a.astype(REAL), b.astype(REAL))[2]  # fmt: skip
    assert succeeded(result)
    assert int(stats["num_steps"]) <= int(plain["num_steps"]) / 2 + 4
    np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=10 * TOL)
    state, options = solver.transpose(solver.init(matrix(a), {}), {"preconditioner": m})
    c = normal(shape[1], seed=7)
    y, result, _ = run(solver, matrix(a), c, options, state)
    assert succeeded(result)
    want = np.linalg.pinv(a).T @ c
    np.testing.assert_allclose(y, want, atol=10 * TOL * np.abs(want).max())


# ---- derivatives ---------------------------------------------------------------------------------


def _pinv(a, b):
    return jnp.linalg.pinv(a) @ b


@few
@pytest.mark.parametrize(("shape", "dtype"), [((6, 4), REAL), ((4, 6), COMPLEX)])
def test_gradients(solver, shape, dtype):
    """S3-21: both terms of the pseudo-inverse's derivative (Golub and Pereyra)."""
    if isinstance(solver, lp.CRAIG) and shape[0] > shape[1]:
        return
    a, b = jnp.asarray(normal(shape, dtype)), jnp.asarray(normal(shape[0], dtype, 1))
    mine = lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a), b, tight(solver)).value
    assert_gradients(mine, _pinv, a, b, 10 * TOL)


@two
def test_gradients_where_rank_is_missing(solver):
    """S3-21: the same for a matrix of rank 2 that keeps its rank."""
    params = jnp.asarray(normal((6, 2))), jnp.asarray(normal((2, 4), seed=1))
    build = lambda p: p[0] @ p[1]
    mine = lambda p, b: lp.linear_solve(lp.MatrixLinearOperator(build(p)), b, tight(solver)).value
    # (JAX's derivative of `pinv` is right at constant rank.)
    dense = lambda p, b: jnp.linalg.pinv(build(p), rcond=1e-5) @ b
    assert_gradients(mine, dense, params, jnp.asarray(normal(6, seed=2)), 100 * TOL)


@pytest.mark.slow
@each
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_laws(solver, shape):
    """S2-11: transposes, conjugates, vmap, derivatives, as for every solver."""
    if isinstance(solver, lp.CRAIG) and shape[0] != shape[1]:
        return
    lp.testing.check_solver(tight(solver), matrix(normal(shape, COMPLEX, 7)))


# ---- CRAIG, and what is refused ------------------------------------------------------------------


def test_craig_reduces_the_error():
    """Of all methods it is the one whose ‖x − A†b‖ falls in every step."""
    a = with_spectrum(np.geomspace(1, 1e-2, 15), (15, 30)).astype(REAL)
    want = np.linalg.pinv(a) @ normal(15)
    solver = lp.CRAIG(rtol=1e-9 if X64 else 1e-4, max_steps=100, history="x")
    x, result, stats = run(solver, a, a @ want)
    assert succeeded(result)
    np.testing.assert_allclose(x, want, atol=1e3 * TOL)
    steps = min(int(stats["num_steps"]), 15)
    errors = np.linalg.norm(np.asarray(stats["iterates"])[: steps + 1] - want, axis=1)
    assert (np.diff(errors) <= 1e-3 * errors[:-1]).all()
    xs = np.asarray(stats["iterates"])[: int(stats["num_steps"]) + 1]
    true = np.linalg.norm(a @ want - xs @ a.T, axis=1)
    np.testing.assert_allclose(
        stats["history"][: len(true)], true, atol=1e2 * EPS + 0.01 * true[-1]
    )


def test_craig_without_a_solution():
    """B-17: it says so, and x stays in bounds."""
    for seed in range(5):
        x, result, stats = run(lp.CRAIG(), normal((12, 5), seed=seed), normal(12, seed=9))
        assert not succeeded(result)
        assert stats["reason"] == REASONS.failed
        assert np.isfinite(x).all()


def test_refusals():
    for make in (lp.LSQR, lp.LSMR, lp.CGLS, lp.CRAIG):
        with pytest.raises(ValueError, match=f"side: `{make.__name__}`.*got 'left'. Leave it out"):
            make(side="left")


def test_square_systems():
    """S4-08: settings by position, as for every Krylov method."""
    a, b = general(30), normal(30)
    for make in (lp.LSQR, lp.CRAIG):
        x, result, stats = run(make(1e-3, 0.0), a, b)
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01e-3
        assert int(stats["num_steps"]) < int(run(make(), a, b)[2]["num_steps"])
