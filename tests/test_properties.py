"""Random systems, good and bad, against LAPACK: what is reported as solved is solved (row B-03).

Systems of 1 to 8 unknowns are padded with an identity to 8, so that each solver compiles once.
"""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings, strategies as st
from solver_table import COMPLEX, DTYPES, REAL, X64

import linsolve_prim as lp

SIZE = 8
EPS = float(np.finfo(REAL).eps)
FULL = settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
FEW = settings(FULL, max_examples=12)

_PSD = lp.positive_semidefinite_tag
SOLVERS = {
    "lu": (lp.LU(), ()),
    "qr": (lp.QR(), ()),
    "svd": (lp.SVD(), ()),
    "cholesky": (lp.Cholesky(), _PSD),
    "normal": (lp.Normal(lp.Cholesky()), ()),
    "cg": (lp.CG(), _PSD),
    "gmres": (lp.GMRES(restart=8), ()),
    "bicgstab": (lp.BiCGStab(), ()),
    "lsmr": (lp.LSMR(), ()),
}
DIRECT = ["lu", "qr", "svd", "cholesky"]
DEMANDING = ["lu", "qr", "cholesky"]
ALL = list(SOLVERS)

seeds = st.integers(0, 2**31)
sizes = st.integers(1, SIZE)
dtypes = st.sampled_from(DTYPES)


def _random(rng, dtype, *shape):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.kind == "c" else x).astype(dtype)


def _padded(matrix, *vectors):
    """diag(A, I) and (b, 0)."""
    n = len(matrix)
    full = np.eye(SIZE, dtype=matrix.dtype)
    full[:n, :n] = matrix
    return full, *(np.concatenate([v, np.zeros(SIZE - n, v.dtype)]) for v in vectors)


@functools.cache
def _compiled(name):
    solver, tags = SOLVERS[name]

    @jax.jit
    def run(matrix, b):
        solution = lp.linear_solve(lp.MatrixLinearOperator(matrix, tags), b, solver, throw=False)
        ok = solution.result == lp.RESULTS.successful
        bad = solution.result == lp.RESULTS.nonfinite_input
        return solution.value, ok, bad, solution.stats["residual_norm"]

    return lambda *args: [np.asarray(x) for x in run(*map(jnp.asarray, args))]


def _system(seed, n, dtype, definite):
    rng = np.random.default_rng(seed)
    m = _random(rng, dtype, n, n)
    matrix = m @ m.conj().T + np.eye(n, dtype=dtype) if definite else m + 2 * np.eye(n, dtype=dtype)
    return matrix, _random(rng, dtype, n), rng


def _true_residual(matrix, x, b):
    """In twice the precision where NumPy has it."""
    wide = np.clongdouble if np.iscomplexobj(matrix) else np.longdouble
    return float(
        np.linalg.norm(
            (b.astype(wide) - matrix.astype(wide) @ x.astype(wide)).astype(
                np.complex128 if np.iscomplexobj(matrix) else np.float64
            )
        )
    )


@pytest.mark.parametrize("name", ALL)
@FULL
@given(seed=seeds, n=sizes, dtype=dtypes)
def test_solutions_equal_those_of_lapack(name, seed, n, dtype):
    """Within what the condition number allows; a failure is only excused where that is large."""
    matrix, b, _ = _system(seed, n, dtype, name in ("cholesky", "cg"))
    x, ok, _, r_norm = _compiled(name)(*_padded(matrix, b))
    condition = np.linalg.cond(matrix)
    limit = EPS**-0.25 if name in ("normal", "lsmr", "bicgstab") else EPS**-0.5
    assert ok or condition > limit
    if not ok:
        return
    tight = name in DIRECT
    tol = condition * (1e3 * EPS if tight else 1e2 * EPS ** (0.6 if name != "lsmr" else 0.5))
    tol = tol * condition if name in ("normal", "lsmr") else tol
    want = scipy.linalg.solve(matrix, b) if condition < 1 / EPS else x[:n]
    assert np.linalg.norm(x[:n] - want) <= tol * np.linalg.norm(want)
    actual = _true_residual(matrix, x[:n], b)
    assert abs(float(r_norm) - actual) <= 0.01 * actual + 100 * EPS * np.linalg.norm(
        np.abs(matrix) @ np.abs(x[:n]) + np.abs(b)
    )


@pytest.mark.parametrize("name", ["qr", "svd"])
@settings(FEW, max_examples=8)
@given(seed=seeds, m=sizes, n=sizes, dtype=dtypes)
def test_least_squares_of_true_shapes_S2_12(name, seed, m, n, dtype):
    rng = np.random.default_rng(seed)
    matrix, b = _random(rng, dtype, m, n), _random(rng, dtype, m)
    solution = lp.linear_solve(lp.MatrixLinearOperator(matrix), b, SOLVERS[name][0], throw=False)
    condition = np.linalg.cond(matrix)
    if condition > EPS**-0.25:
        return
    assert bool(solution.result == lp.RESULTS.successful)
    want = np.linalg.lstsq(matrix, b, rcond=None)[0]
    error = np.linalg.norm(np.asarray(solution.value) - want)
    assert error <= 1e3 * EPS * condition**2 * max(np.linalg.norm(want), 1)


@pytest.mark.parametrize("name", ALL)
@FULL
@given(seed=seeds, n=sizes, dtype=dtypes, spread=st.integers(0, 14), rank=st.integers(0, SIZE))
def test_success_is_never_claimed_against_the_residual_B_03(name, seed, n, dtype, spread, rank):
    """Badly scaled, nearly singular, singular: whatever is called successful fits (row B-03)."""
    matrix, b, rng = _system(seed, n, dtype, False)
    reach = spread if X64 else spread / 3
    if rank < n:  # singular, or nearly so
        u, s, vh = np.linalg.svd(matrix)
        s[rank:] *= rng.choice([0, EPS, EPS**0.5])
        matrix = ((u * s) @ vh).astype(dtype)
    rows, columns = (10.0 ** rng.uniform(-reach, reach, n) for _ in range(2))
    if name in ("cholesky", "cg"):
        matrix = matrix @ matrix.conj().T
        columns = rows
    matrix = (rows[:, None] * matrix * columns).astype(dtype)
    padded, rhs = _padded(matrix, b)
    x, ok, bad, _ = _compiled(name)(padded, rhs)
    assert not bad
    if not ok:
        return
    assert np.all(np.isfinite(x))
    x = x.astype(np.complex128 if dtype.kind == "c" else np.float64)
    r = _true_residual(padded, x, rhs)
    size = np.linalg.norm(rhs)
    if r <= 1.01 * EPS ** (1 / 3) * size:
        return
    # a least-squares solution: Aᴴr vanishes against ‖A‖‖r‖
    assert name in ("svd", "lsmr")
    residual = rhs - padded @ x
    normal = np.linalg.norm(padded.conj().T @ residual)
    assert normal <= 10 * EPS ** (1 / 3) * np.linalg.norm(padded, 2) * np.linalg.norm(residual)


@pytest.mark.parametrize("name", DEMANDING)
@FULL
@given(seed=seeds, n=st.integers(2, SIZE), dtype=dtypes, spread=st.integers(0, 6))
def test_singular_matrices_are_never_solved_S0_39(name, seed, n, dtype, spread):
    """Rank n − 1, and b outside of the range: there is no solution to report."""
    rng = np.random.default_rng(seed)
    factor = np.round(4 * _random(rng, dtype, n, n - 1))
    matrix = factor @ factor.conj().T
    if name != "cholesky":
        matrix = factor @ np.round(4 * _random(rng, dtype, n - 1, n))
    powers = 2.0 ** np.round(rng.uniform(-spread, spread, n))  # exact, so that it stays singular
    matrix = (powers[:, None] * matrix * powers).astype(dtype)
    b = _random(rng, dtype, n)
    _, ok, bad, _ = _compiled(name)(*_padded(matrix, b))
    assert not ok
    assert not bad


@pytest.mark.parametrize("name", ALL)
@FEW
@given(seed=seeds, n=sizes, dtype=dtypes)
def test_zero_gives_zero_B_10(name, seed, n, dtype):
    matrix, b, _ = _system(seed, n, dtype, name in ("cholesky", "cg"))
    if np.linalg.cond(matrix) > EPS**-0.25:
        return
    x, ok, _, r_norm = _compiled(name)(*_padded(matrix, 0 * b))
    assert ok
    np.testing.assert_array_equal(x, 0)
    assert r_norm == 0


@pytest.mark.parametrize("name", ALL)
@FEW
@given(
    seed=seeds,
    dtype=dtypes,
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.sampled_from(["matrix", "vector"]),
    place=st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)),
)
def test_nonfinite_input_is_blamed(name, seed, dtype, bad, where, place):
    """One NaN or infinity, anywhere in A or b."""
    matrix, b, _ = _system(seed, SIZE, dtype, name in ("cholesky", "cg"))
    if where == "matrix":
        matrix[place] = matrix[place[::-1]] = bad
    else:
        b[place[0]] = bad
    _, ok, blamed, _ = _compiled(name)(matrix, b)
    assert not ok
    assert blamed


@functools.cache
def _transformed(name):
    """x, its tangent, the cotangents, and the lanes of a batch: one compilation each."""
    solver, tags = SOLVERS[name]

    def solve(matrix, b):
        if tags:  # a perturbation must keep the promise
            matrix = (matrix + matrix.conj().T) / 2
        operator = lp.MatrixLinearOperator(matrix, tags)
        return lp.linear_solve(operator, b, solver, throw=False).value

    @jax.jit
    def run(args, tangents, w):
        _, dx = jax.jvp(solve, args, tangents)
        _, pull = jax.vjp(solve, *args)
        matrix, b = args
        lanes = jax.vmap(solve, in_axes=(None, 0))(matrix, jnp.stack([b, 2 * b, w]))
        return dx, pull(w), lanes, solve(matrix, w)

    return run


@pytest.mark.parametrize("name", ["lu", "svd", "cholesky"])
@FEW
@given(seed=seeds, n=sizes, dtype=dtypes)
def test_transformations_of_random_systems_S2_01(name, seed, n, dtype):
    """x′ = A⁻¹(b′ − A′x); vjp is the transpose of jvp; lanes equal single solves."""
    matrix, b, rng = _system(seed, n, dtype, name == "cholesky")
    condition = np.linalg.cond(matrix)
    if condition > EPS**-0.2:
        return
    padded, b, w = _padded(matrix, b, _random(rng, dtype, n))
    da, db = 0 * padded, _random(rng, dtype, SIZE)
    da[:n, :n] = _random(rng, dtype, n, n)
    if name == "cholesky":
        da = da + da.conj().T
    dx, (ct_a, ct_b), lanes, single = _transformed(name)((padded, b), (da, db), w)
    x = scipy.linalg.solve(padded, b)
    want = scipy.linalg.solve(padded, db - da @ x)
    tol = 1e4 * EPS * condition**2
    assert np.linalg.norm(dx - want) <= tol * max(np.linalg.norm(want), np.linalg.norm(x), 1)
    left = np.sum(w * np.asarray(dx)).real
    right = (np.sum(np.asarray(ct_a) * da) + np.sum(np.asarray(ct_b) * db)).real
    scale = np.linalg.norm(w) * max(np.linalg.norm(want), np.linalg.norm(x), 1)
    assert abs(left - right) <= tol * scale
    for lane, expected in zip(lanes, (x, 2 * x, np.asarray(single))):
        assert np.linalg.norm(lane - expected) <= tol * max(np.linalg.norm(expected), 1)


def test_the_table_covers_both_kinds():
    assert {dtype.kind for dtype in DTYPES} == {"f", "c"}
    assert COMPLEX.itemsize == 2 * REAL.itemsize
