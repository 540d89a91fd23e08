"""Damped least squares: LSQR, LSMR and CGLS with `damp=`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import (
    COMPLEX,
    REAL,
    X64,
    assert_gradients,
    normal,
    over,
    quick_jit,
    run,
    succeeded,
)

import linsolve_prim as lp
from linsolve_prim import REASONS

TIGHT = 1e-12 if X64 else 1e-6
TOL = 1e-8 if X64 else 3e-3
LEAST = {"LSQR": lp.LSQR(), "LSMR": lp.LSMR(), "CGLS": lp.CGLS()}
least, two = over(LEAST), over(LEAST, core=("LSQR",))


def tight(solver, **settings):
    return dataclasses.replace(solver, rtol=TIGHT, **settings)


def matrix(a):
    return lp.MatrixLinearOperator(jnp.asarray(a))


def damped(a, b, damp):
    """argmin ‖b − Ax‖² + damp²‖x‖², densely."""
    ah = jnp.conj(a).T
    shift = jnp.asarray(damp**2).astype(a.dtype) * jnp.eye(a.shape[1], dtype=a.dtype)
    return jnp.linalg.solve(ah @ a + shift, ah @ b)


@least
@pytest.mark.parametrize("shape", [pytest.param((12, 5), marks=pytest.mark.slow), (5, 12)])
def test_damp(solver, shape):
    """S3-21: the minimiser of ‖b − Ax‖² + damp²‖x‖², and statistics that belong to it."""
    a, b = normal(shape, COMPLEX), normal(shape[0], COMPLEX, 1)
    solver = tight(solver, damp=0.7)
    solution = quick_jit(lambda b: lp.linear_solve(matrix(a), b, solver))(b)
    x, stats = solution.value, solution.stats
    np.testing.assert_allclose(x, damped(a, b, 0.7), atol=TOL)
    both = np.hypot(np.linalg.norm(b - a @ x), 0.7 * np.linalg.norm(x))
    np.testing.assert_allclose(stats["residual_norm"], both, rtol=1e-5)
    assert stats["reason"] == REASONS.least_squares
    state = solver.init(matrix(a), {})  # by hand: the same, and its transpose
    np.testing.assert_allclose(run(solver, matrix(a), b, state=state)[0], x, atol=TOL)
    c = normal(shape[1], COMPLEX, 2)
    turned, _ = solver.transpose(state, {})
    y, result, _ = run(solver, matrix(a), c, state=turned)
    assert succeeded(result)
    np.testing.assert_allclose(y, damped(a.T, c, 0.7), atol=TOL)


@two
@pytest.mark.parametrize(("shape", "dtype"), [((6, 4), COMPLEX), ((4, 6), REAL)])
def test_damp_gradients(solver, shape, dtype):
    """S3-21: by A, b and damp."""
    a, b = jnp.asarray(normal(shape, dtype)), jnp.asarray(normal(shape[0], dtype, 1))

    def mine(params, b):
        a, damp = params
        return lp.linear_solve(lp.MatrixLinearOperator(a), b, tight(solver, damp=damp)).value

    params = a, jnp.asarray(0.6, REAL)
    assert_gradients(mine, lambda p, b: damped(p[0], b, p[1]), params, b, 10 * TOL)


@pytest.mark.slow
def test_damp_hessian():
    """The second derivative by damp, where it is a tracer of `vmap` too."""
    a, b = jnp.asarray(normal((6, 4))), jnp.asarray(normal(6, seed=1))
    mine = lambda d: jnp.sum(lp.linear_solve(matrix(a), b, tight(lp.LSQR(), damp=d)).value ** 2)
    dense = lambda d: jnp.sum(damped(a, b, d) ** 2)
    ds = jnp.asarray([0.3, 0.9], REAL)
    second = lambda f: quick_jit(jax.vmap(jax.grad(jax.grad(f))))(ds)
    np.testing.assert_allclose(second(mine), second(dense), rtol=100 * TOL)


def test_damp_with_a_preconditioner():
    a, b = normal((12, 5)), normal(12, seed=1)
    options = {"preconditioner": matrix(np.linalg.pinv(a))}
    mine = lambda a, b: (
        lp.linear_solve(
            lp.MatrixLinearOperator(a), b, tight(lp.LSMR(), damp=0.5), options=options
        ).value
    )
    x = quick_jit(mine)(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(x, damped(a, b, 0.5), atol=TOL)
    assert_gradients(mine, lambda a, b: damped(a, b, 0.5), jnp.asarray(a), jnp.asarray(b), 10 * TOL)
    with pytest.raises(ValueError, match=r"preconditioner: must be None for a damped.*wide"):
        run(lp.LSMR(damp=0.5), a.T, b[:5], {"preconditioner": matrix(np.linalg.pinv(a).T)})


def test_refusals():
    with pytest.raises(ValueError, match=r"damp: must be a non-negative real number.*got -1"):
        lp.LSQR(damp=-1.0)
    with pytest.raises(ValueError, match=r"nullspace: must be None with damp=1\.0"):
        lp.LSMR(damp=1.0, nullspace="constant")
    assert repr(lp.LSQR(damp=0.5)).startswith("LSQR(rtol=None, atol=0.0, damp=0.5,")
