"""CG, GMRES, BiCGStab, LSMR and Normal where nothing is to be done, or nothing can be."""

import jax.numpy as jnp
import numpy as np
import pytest
from krylov_four import least_methods, least_solvers, matrix, run, vector
from krylov_tools import REAL, relative, succeeded

from linsolve_prim.operators import (
    MatrixLinearOperator,
    positive_semidefinite_tag,
)
from linsolve_prim.results import REASONS, RESULTS
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab, default_rtol


@least_solvers
def test_zero_rhs(solver):
    """B-10: b = 0 gives x = 0 in no step, whatever the initial guess."""
    a = matrix(3, REAL, isinstance(solver, CG))
    for options in ({}, {"y0": jnp.ones(3, REAL)}):
        x, result, stats = run(solver, a, np.zeros(3, REAL), options)
        assert succeeded(result)
        assert stats["reason"] == REASONS.zero_rhs
        assert int(stats["num_steps"]) == 0
        assert float(stats["relative_residual"]) == 0
        np.testing.assert_array_equal(x, np.zeros(3))


@least_solvers
def test_exact_guess(solver):
    """B-10: a guess within the tolerance takes no step."""
    a = np.diag([1.0, 2, 4]).astype(REAL)
    x0 = jnp.asarray([1, -1, 0.5], REAL)
    for key in ("y0", "x0") if isinstance(solver, CG) else ("y0",):
        x, result, stats = run(solver, a, a @ np.asarray(x0), {key: x0})
        assert succeeded(result)
        assert int(stats["num_steps"]) == 0
        np.testing.assert_array_equal(x, x0)


SMALL = {
    "1x1": ([[2.0]], [3.0]),
    "2x2": ([[2.0, 1], [1, 3]], [1.0, 2]),
    "eigenvector": (np.diag([1.0, 2, 3]), [0.0, 1, 0]),
    "identity": (np.eye(3), [1.0, 0, 2]),
    "singular, consistent": (np.diag([1.0, 2, 0]), [1.0, 1, 0]),
    "rank one": ([[1.0, 1], [1, 1]], [2.0, 2]),
}


@least_solvers
def test_small(solver):
    """B-10: small systems, and those that end exactly."""
    for a, b in SMALL.values():
        a, b = np.asarray(a, REAL), np.asarray(b, REAL)
        x, result, _ = run(solver, a, b)
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


@least_solvers
def test_indefinite(solver):
    """S0-08: [[0, 1], [1, 0]] x = [2, 3]: the solution or a breakdown, never NaN."""
    a, b = np.array([[0, 1], [1, 0]], REAL), np.array([2, 3], REAL)
    x, result, _ = run(solver, a, b)
    assert np.isfinite(x).all()
    assert succeeded(result) or bool(result == RESULTS.breakdown)
    if succeeded(result):
        np.testing.assert_allclose(x, [3, 2], rtol=1e-4)
    assert not isinstance(solver, GMRES) or succeeded(result)


@least_solvers
def test_skew(solver):
    a, b = np.array([[0, 1], [-1, 0]], REAL), np.array([2, 3], REAL)
    x, result, _ = run(solver, a, b)
    assert np.isfinite(x).all()
    if isinstance(solver, (CG, BiCGStab)):
        assert bool(result == RESULTS.breakdown)
    else:
        assert succeeded(result)
        np.testing.assert_allclose(x, [-3, 2], rtol=1e-4)


@least_solvers
def test_all_zero_matrix(solver):
    """S0-39: 0·x = b is no success (but for least squares, where x = 0 is one), and x is finite."""
    x, result, stats = run(solver, np.zeros((3, 3), REAL), np.array([1, 2, 3], REAL))
    np.testing.assert_array_equal(x, np.zeros(3))
    np.testing.assert_allclose(stats["relative_residual"], 1, rtol=1e-6)
    if isinstance(solver, LSMR):
        assert stats["reason"] == REASONS.least_squares
    else:
        assert bool(result == RESULTS.breakdown) or bool(result == RESULTS.singular)
        assert stats["reason"] == REASONS.failed


@least_solvers
def test_inconsistent(solver):
    """B-03: a system without a solution is not solved, in the sense of ‖b − Ax‖."""
    a, b = np.array([[1, 1], [1, 1]], REAL), np.array([2, 1], REAL)
    x, result, stats = run(solver, a, b)
    assert np.isfinite(x).all()
    assert succeeded(result) == isinstance(solver, LSMR)
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=1e-4)


@least_solvers
def test_nonfinite(solver):
    """NaN and infinity in A, b or the guess are named, and x stays finite."""
    a, b = np.diag([1.0, 2, 3]).astype(REAL), np.ones(3, REAL)
    bad_a = np.diag([1.0, np.nan, 3]).astype(REAL)
    bad_b = np.array([1, np.inf, 0], REAL)
    cases = [(bad_a, b, {}), (a, bad_b, {}), (a, b, {"y0": jnp.asarray([np.nan, 0, 0], REAL)})]
    for mat, rhs, options in cases:
        x, result, _ = run(solver, mat, rhs, options)
        assert bool(result == RESULTS.nonfinite_input)
        assert np.isfinite(x).all()


@least_methods
@pytest.mark.parametrize("scale_b", [1e-30, 1.0, 1e30])
def test_scales(solver, scale_b):
    """Squares of 1e-30 and 1e30 are no numbers in float32."""
    a, b = np.diag([1, 2, 3]).astype(np.float32), np.array([1, 2, 3], np.float32)
    x, result, _ = run(solver, a, b * np.float32(scale_b))
    assert succeeded(result)
    np.testing.assert_allclose(np.asarray(x) / np.float32(scale_b), [1, 1, 1], rtol=1e-4)


@least_methods
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_operator_scales(solver, scale):
    a, b = np.diag([1, 2, 3]).astype(np.float32), np.array([1, 2, 3], np.float32)
    x, result, _ = run(solver, a * np.float32(scale), b)
    assert succeeded(result)
    np.testing.assert_allclose(np.asarray(x) * np.float32(scale), [1, 1, 1], rtol=1e-4)


def test_overflow_of_the_solution():
    """x = b/A is no number: the solve fails, and says so."""
    a, b = 1e-20 * np.eye(3, dtype=np.float32), 1e37 * np.ones(3, np.float32)
    for solver in (CG(), GMRES(), BiCGStab(), LSMR()):
        x, result, _ = run(solver, a, b)
        assert bool(result == RESULTS.diverged)
        assert np.isfinite(x).all()


def test_bicgstab_on_float32():
    """B-03: forty of forty well-conditioned float32 systems are solved."""
    for seed in range(40):
        a, b = matrix(50, np.float32, False, seed), vector(50, np.float32, seed + 100)
        x, result, _ = run(BiCGStab(), a, b)
        assert succeeded(result)
        assert relative(a, x, b) <= 1.1e-5


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("ell", [2, 4])
def test_bicgstab_l_of_few_unknowns(n, ell):
    """B-03: powers of A need not be numbers (1e-10 to the fifth), and more of them than unknowns do no harm."""
    for seed, scale in enumerate((1e-10, 1e-3, 1, 1e3, 1e10)):
        a, b = matrix(n, np.float32, True, seed), vector(n, np.float32, seed + 100)
        x, result, _ = run(BiCGStab(ell=ell), np.float32(scale) * a, b)
        assert succeeded(result)
        np.testing.assert_allclose(
            np.asarray(x, np.float64) * scale, np.linalg.solve(a, b), rtol=2e-3, atol=2e-4
        )


def test_integers():
    """S0-09: integers are promoted, never truncated."""
    operator = MatrixLinearOperator(
        jnp.asarray([[2.0, 0], [0, 4]], REAL), positive_semidefinite_tag
    )
    for solver in (CG(),):
        x, result, _ = run(
            solver, None, np.array([1, 1]), {"x0": np.array([1, 1])}, operator=operator
        )
        assert succeeded(result)
        np.testing.assert_allclose(x, [0.5, 0.25], rtol=1e-4)
