"""Derivatives from a few random rows of the adjoint: `StochasticAdjoint` (row S1-23)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64

import linsolve_prim as lp

pytestmark = pytest.mark.skipif(not X64, reason="compares derivatives to many digits")
N = 14
RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(N, N))
GENERAL = jnp.asarray(FACTOR / 4 + 3 * np.eye(N))
B = jnp.asarray(RNG.normal(size=N))


@pytest.mark.parametrize("typed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_mean_over_keys_is_the_gradient_and_the_variance_as_told_S1_23(typed):
    """Each entry within 4σ of the exact one, and σ is √((n − 1)/s)·|Ā|."""
    keys, samples = 4000, 3
    make = jax.random.key if typed else jax.random.PRNGKey
    draws = jax.random.split(make(1), keys)

    def gradient(key):
        mode = lp.StochasticAdjoint(key, samples)
        f = lambda A, b: jnp.sum(jnp.sin(lp.solve(A, b, adjoint=mode)))
        return jax.grad(f, argnums=(0, 1))(GENERAL, B)

    by_a, by_b = jax.jit(jax.vmap(gradient))(draws)
    f = lambda A, b: jnp.sum(jnp.sin(lp.solve(A, b)))
    want_a, want_b = jax.grad(f, argnums=(0, 1))(GENERAL, B)
    np.testing.assert_allclose(by_b, jnp.broadcast_to(want_b, by_b.shape), rtol=1e-9)  # exact
    sigma = np.sqrt((N - 1) / samples) * np.abs(want_a)
    assert np.all(np.abs(by_a.mean(0) - want_a) <= 4 * sigma / np.sqrt(keys))
    np.testing.assert_allclose(by_a.std(0), sigma, rtol=0.15)
    nonzero_rows = np.sum(np.any(np.asarray(by_a) != 0, axis=2), axis=1)
    assert nonzero_rows.max() == samples


def test_a_principal_submatrix_would_be_biased_S1_23():
    """What the estimator is not: solving with A[I, I] has another mean, beyond all chance."""
    keys, samples = 2000, 3

    def submatrix(key):
        rows = jax.random.choice(key, N, (samples,), replace=False)
        x = jnp.linalg.solve(GENERAL, B)
        adjoint = jnp.linalg.solve(GENERAL[rows][:, rows].T, jnp.cos(x)[rows])
        return jnp.zeros(N).at[rows].set(adjoint) * (N / samples)

    estimates = jax.vmap(submatrix)(jax.random.split(jax.random.key(2), keys))
    exact = jnp.linalg.solve(GENERAL.T, jnp.cos(jnp.linalg.solve(GENERAL, B)))
    error = np.abs(estimates.mean(0) - exact) / (estimates.std(0) / np.sqrt(keys))
    assert error.max() > 8


def test_stochastic_works_for_pytrees_sparse_matrices_and_forward_mode():
    mode = lp.StochasticAdjoint(jax.random.key(3), 4)
    sparse = np.asarray(GENERAL) * (np.abs(FACTOR) > 0.5) + 4 * np.eye(N)
    pattern = lp.SparseLinearOperator.from_dense(sparse)
    f = lambda v, mode=None: jnp.sum(
        lp.linear_solve(lp.SparseLinearOperator(v, pattern.pattern), B, adjoint=mode).value
    )
    exact, drawn = jax.jit(lambda v: (jax.grad(f)(v), jax.grad(f)(v, mode)))(pattern.values)
    kept = np.asarray(drawn) != 0
    assert 0 < kept.sum() < kept.size
    ratio = np.asarray(drawn)[kept] / np.asarray(exact)[kept] / (N / 4)
    np.testing.assert_allclose(ratio, np.round(ratio), atol=1e-9)
    forward = jax.jit(lambda v: jax.jvp(lambda v: f(v, mode), (v,), (v,))[1])(pattern.values)
    np.testing.assert_allclose(forward, drawn @ pattern.values, rtol=1e-9)
    tree = {"u": B, "v": B}
    g = lambda s: lp.linear_solve(
        lp.FunctionLinearOperator(lambda t: jax.tree.map(lambda x: s * x, t), tree), tree, lp.GMRES(),
        adjoint=mode,
    ).value["u"].sum()  # fmt: skip
    assert np.isfinite(jax.jit(jax.grad(g))(2.0))


def test_stochastic_settings_are_checked():
    with pytest.raises(ValueError, match="num_samples"):
        lp.StochasticAdjoint(jax.random.key(0), 0)
    with pytest.raises(ValueError, match=r"from 1 to 2³¹ − 1; got 2\.5\.$"):
        lp.StochasticAdjoint(jax.random.key(0), 2.5)
    for mode in (lp.OneStepAdjoint, lambda m: lp.ImplicitAdjoint(preconditioner=m)):
        with pytest.raises(
            TypeError, match=r"preconditioner: must be .* got ndarray\. Wrap a matrix"
        ):
            mode(np.eye(3))
    with pytest.raises(TypeError, match="key: must be a key"):
        lp.StochasticAdjoint(0, 3)
    with pytest.raises(TypeError, match="of a nonlinear solve"):
        lp.root_solve(lambda x: x - 1, B, adjoint=lp.StochasticAdjoint(jax.random.key(0), 3))
