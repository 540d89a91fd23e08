"""`stochastic_logdet`: quadrature, its error, its unbiased gradient (row B-16)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from determinant_operators import (
    COMPLEX,
    PSD,
    REAL,
    TOL,
    X64,
    definite,
)

import linsolve_prim as lp


def laplacian(n, dtype=REAL):
    """(κ(x)u′)′ on a ring, plus u: definite, and known by its products only."""

    def mv(kappa, x):
        flow = kappa * (jnp.roll(x, -1) - x)
        return x - flow + jnp.roll(flow, 1)

    def op(kappa):
        structure = jax.ShapeDtypeStruct((n,), dtype)
        return lp.FunctionLinearOperator(lambda x: mv(kappa.astype(dtype), x), structure, PSD)

    return op


def test_lanczos_quadrature_is_exact_for_a_basis_of_probes():
    """With n steps there is no error of quadrature: Hadamard's probes give the trace itself."""
    from linsolve_prim.determinants.stochastic import _quadrature

    op = lp.MatrixLinearOperator(definite(COMPLEX, n=8), PSD)
    hadamard = jnp.asarray(scipy.linalg.hadamard(8), COMPLEX)
    found = jax.jit(jax.vmap(lambda z: _quadrature(op, z, num_steps=8)))(hadamard)
    want = np.linalg.slogdet(op.as_matrix())[1]
    np.testing.assert_allclose(jnp.mean(found), want, rtol=100 * TOL)


def test_the_estimate_lies_within_its_error_and_identities_are_no_trouble():
    op = laplacian(64)(jnp.linspace(1.0, 3.0, 64).astype(REAL))
    want = float(lp.logdet(op))
    value, error = lp.stochastic_logdet(op, jax.random.key(0), num_samples=64, num_steps=30)
    assert 0 < float(error) < 0.05 * want
    assert abs(float(value) - want) < 4 * float(error)
    keys = jax.random.split(jax.random.key(1), 30)
    one = lambda k: lp.stochastic_logdet(op, k, num_samples=16, num_steps=30)
    values, errors = jax.jit(jax.vmap(one))(keys)
    spread = float(jnp.std(values))  # of estimates, against what each says of itself
    assert 0.6 < float(jnp.mean(errors)) / spread < 1.6
    ones = lp.MatrixLinearOperator(3 * jnp.eye(5), PSD)  # Lanczos is done after one step
    value, error = lp.stochastic_logdet(ones, jax.random.key(0))
    np.testing.assert_allclose([value, error], [5 * np.log(3), 0], atol=1e-5)


@pytest.mark.skipif(not X64, reason="derivatives are compared in double precision")
def test_its_gradient_is_unbiased_and_has_its_own_derivative():
    n, want = 12, None
    make, kappa = laplacian(n), jnp.linspace(1.0, 3.0, n)
    want = jax.grad(lambda k: lp.logdet(make(k)))(kappa)
    estimate = lambda k, key: (
        lp.stochastic_logdet(make(k), key, num_samples=40, num_steps=n, throw=False).value
    )
    gradient = jax.grad(estimate)
    keys = jax.random.split(jax.random.key(0), 60)
    step = 1e-5 * want

    @jax.jit
    def all_of_it(kappa):
        slope = jax.jvp(lambda k: gradient(k, keys[0]), (kappa,), (want,))[1]
        near = [gradient(kappa + s * step, keys[0]) for s in (1, -1)]
        return jax.vmap(gradient, (None, 0))(kappa, keys), slope, (near[0] - near[1]) / 2e-5

    found, slope, difference = all_of_it(kappa)
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(keys))
    assert np.all(np.abs(np.mean(found, axis=0) - want) < 4.5 * error)
    np.testing.assert_allclose(difference, slope, rtol=1e-4, atol=1e-6)
