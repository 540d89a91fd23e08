"""A tolerance below what the precision can reach ends in `stagnation`, soon, and not at `max_steps`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import quick_jit

import linsolve_prim as lp

SQUARE = "CG FCG CGAdaptive MINRES MINRESQLP SYMMLQ GMRES FGMRES LGMRES GCROT BiCG BiCGStab CGS QMR TFQMR IDR"
CORE = ("CG", "FCG", "MINRES", "GMRES", "BiCGStab")
METHODS = [
    pytest.param(name, marks=[] if name in CORE else [pytest.mark.slow]) for name in SQUARE.split()
]


def laplacian(m):
    one = 2 * np.eye(m) - np.eye(m, k=1) - np.eye(m, k=-1)
    return np.kron(one, np.eye(m)) + np.kron(np.eye(m), one)


def solve(matrix, b, solver):
    dtype = jnp.asarray(b).dtype
    operator = lp.MatrixLinearOperator(jnp.asarray(matrix, dtype), lp.positive_semidefinite_tag)
    run = quick_jit(lambda op, b: lp.linear_solve(op, b, solver, throw=False))
    return run(operator, jnp.asarray(b))


def spectrum(condition, n=60):
    """A matrix with eigenvalues from 1 to 1/condition, and a right-hand side in which all matter."""
    rng = np.random.default_rng(3)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    matrix = (q * np.geomspace(1, 1 / condition, n)) @ q.T
    return (matrix + matrix.T) / 2, matrix @ rng.normal(size=n)


@pytest.mark.parametrize("name", METHODS)
def test_a_tolerance_that_single_precision_cannot_reach_stagnates(name):
    """S0-46: the reason is told, after few times the steps to what can be reached."""
    m = 12
    b = np.random.default_rng(0).normal(size=m * m).astype(np.float32)
    method = getattr(lp, name)
    reachable = solve(laplacian(m), b, method(rtol=1e-5))
    beyond = solve(laplacian(m), b, method(rtol=1e-9))
    assert reachable.result == lp.RESULTS.successful
    assert beyond.result == lp.RESULTS.stagnation
    steps = int(beyond.stats["num_steps"])
    assert steps <= 10 * int(reachable.stats["num_steps"])
    assert steps < int(beyond.stats["max_steps"]) / 2
    assert beyond.stats["relative_residual"] <= 2e-6  # nothing was given up that could be had


@pytest.mark.parametrize("condition", [1e2, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cg_goes_down_again_after_a_claim_that_rounding_made(condition, dtype):
    """The direction of a residual that was rounding is not kept."""
    if dtype == np.float64 and not jax.config.jax_enable_x64:
        pytest.skip("x64 is off")
    matrix, b = spectrum(condition)
    b = jnp.asarray(b, dtype)
    beyond = solve(matrix, b, lp.CG(rtol=1e-2 * float(jnp.finfo(b.dtype).eps), max_steps=3000))
    assert beyond.result == lp.RESULTS.stagnation
    assert beyond.stats["relative_residual"] <= 100 * condition * float(jnp.finfo(b.dtype).eps)


@pytest.mark.parametrize("condition", [1e2, 1e6])
@pytest.mark.parametrize("stabilise_every", [None, 10])
def test_cg_raises_no_false_alarm(condition, stabilise_every):
    """S0-46: on the long plateaus of a bad condition number nothing is given up."""
    matrix, b = spectrum(condition)
    b = jnp.asarray(b)
    rtol = 1e-8 if b.dtype == np.float64 else 1e-3
    solver = lp.CG(rtol=rtol, max_steps=6000, stabilise_every=stabilise_every)
    solution = solve(matrix, b, solver)
    assert solution.result == lp.RESULTS.successful
    residual = np.asarray(b, np.float64) - matrix @ np.asarray(solution.value, np.float64)
    assert np.linalg.norm(residual) <= 1.1 * rtol * np.linalg.norm(b)
