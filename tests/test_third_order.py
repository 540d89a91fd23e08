"""Hessian products, Hessians and third derivatives through every kind of solve (rows S1-24, S4-20)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64
from jax.test_util import check_grads

import linsolve_prim as lp

pytestmark = pytest.mark.skipif(not X64, reason="third differences need double precision")
N = 6
FACTOR = np.random.default_rng(0).normal(size=(N, N))
DENSE = jnp.asarray(FACTOR @ FACTOR.T / N + 2 * np.eye(N))
MASK = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) <= 1
PATTERN = lp.SparseLinearOperator.from_dense(np.asarray(DENSE) * MASK).pattern
VALUES = lp.SparseLinearOperator.from_dense(np.asarray(DENSE) * MASK).values
B = jnp.linspace(1.0, 2.0, N)


def dense(solver):
    return lambda v: lp.linear_solve(lp.MatrixLinearOperator(_matrix(v)), B, solver).value


def sparse(solver):
    return lambda v: lp.linear_solve(lp.SparseLinearOperator(v, PATTERN), B, solver).value


def tagged(solver):
    def solve(v):
        symmetric = (_matrix(v) + _matrix(v).T) / 2
        operator = lp.MatrixLinearOperator(symmetric, lp.positive_semidefinite_tag)
        return lp.linear_solve(operator, B, solver).value

    return solve


def _matrix(v):
    return jnp.zeros((N, N)).at[PATTERN.rows, PATTERN.indices].set(v)


KINDS = {
    "dense": dense(lp.LU()),
    "dense-cholesky": tagged(lp.Cholesky()),
    "sparse-on-device": sparse(lp.LU()),
    "host": sparse(lp.SuperLU()),
    "cg": tagged(lp.CG(rtol=1e-13)),
    "gmres": sparse(lp.GMRES(rtol=1e-13)),
}


def loss(solve):
    return lambda v: jnp.sum(jnp.sin(solve(v)))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "gmres" else n for n in KINDS]
)
def test_hessian_and_its_products_are_those_of_the_dense_inverse(name):
    symmetric = name in ("cg", "dense-cholesky")
    matrix = (lambda v: (_matrix(v) + _matrix(v).T) / 2) if symmetric else _matrix
    reference = lambda v: jnp.sum(jnp.sin(jnp.linalg.solve(matrix(v), B)))
    f = loss(KINDS[name])
    direction = jnp.cos(jnp.arange(VALUES.size * 1.0))
    want = jax.jit(jax.hessian(reference))(VALUES)
    got = jax.jit(lambda v, d: jax.jvp(jax.grad(f), (v,), (d,))[1])(VALUES, direction)
    np.testing.assert_allclose(got, want @ direction, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.hessian(f))(VALUES), want, rtol=1e-8, atol=1e-10)
    along = lambda f: lambda t: f(VALUES + t * direction)
    third = lambda f: jax.jit(jax.grad(jax.grad(jax.grad(along(f)))))(0.0)
    np.testing.assert_allclose(third(f), third(reference), rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_all_modes_to_third_order(name):
    direction = jnp.cos(jnp.arange(VALUES.size * 1.0))
    f = jax.jit(lambda t: loss(KINDS[name])(VALUES + t * direction))
    check_grads(f, (0.1,), order=3, modes=("fwd", "rev"), rtol=1e-3, atol=1e-3)
