"""Derivatives of derivatives: Hessians, products with them, third order (rows S1-24, B-06, S3-19)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from solver_table import BY_ID, COMPLEX, REAL, X64, assert_close, over

import linsolve_prim as lp

TOL = 1e-9 if X64 else 1e-3
QUICK = ["lu", "lu-pytree", "lu-function", "lu-jacobian", "qr-tall", "qr-wide", "svd-deficient"]
MORE = ["cholesky-nsd", "triangular-lower", "tridiagonal", "diagonal-zero", "cg", "auto-true"]
HOST = ["superlu"]
SLOW = lambda id: pytest.param(id, marks=pytest.mark.slow)
THIRD = ["lu", *map(SLOW, ("superlu", "cholesky-psd", "lu-function", "diagonal-zero"))]


def _loss(f):
    return lambda *args: jnp.sum(jnp.sin(jnp.abs(f(*args)) ** 2))


@over(QUICK + MORE + HOST, (REAL,))
def test_hessian_vector_product_S1_24(case, dtype):
    """Forward over reverse, in operator and vector at once."""
    args = case.params(dtype), case.vector(dtype)
    direction = case.params(dtype, 5), case.vector(dtype, 6)

    @jax.jit
    def both(args, direction):
        return [
            jax.jvp(jax.grad(_loss(f), argnums=(0, 1)), args, direction)[1]
            for f in (case.solve, case.reference)
        ]

    ours, reference = both(args, direction)
    assert_close(ours, reference, case.tol(2))


@over(["lu", "svd-deficient", "lu-function", "superlu"], (COMPLEX,))
def test_hessian_vector_product_of_complex_systems(case, dtype):
    args = case.params(dtype), case.vector(dtype)
    direction = case.params(dtype, 5), case.vector(dtype, 6)

    @jax.jit
    def both(args, direction):
        gradient = lambda f: jax.grad(_loss(f), argnums=(0, 1))
        forward = [jax.jvp(gradient(f), args, direction)[1] for f in (case.solve, case.reference)]
        pulled = [jax.vjp(gradient(f), *args)[1](direction) for f in (case.solve, case.reference)]
        return forward, pulled

    for ours, reference in both(args, direction):
        assert_close(ours, reference, case.tol(2))


@over(["lu", "superlu"], (REAL,))
def test_hessians_by_every_pair_of_modes(case, dtype):
    """Row B-06: `hessian`, `jacrev(jacrev)`, `jacfwd(jacfwd)` and `jacrev(jacfwd)` agree."""
    params, b = case.params(dtype), case.vector(dtype)
    want = jax.jit(jax.hessian(lambda p: _loss(case.reference)(p, b)))(params)
    loss = lambda p: _loss(case.solve)(p, b)
    pairs = [(jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacrev), (jax.jacrev, jax.jacfwd)]
    for outer, inner in [*pairs, (jax.jacfwd, jax.jacfwd)]:
        assert_close(jax.jit(outer(inner(loss)))(params), want, case.tol(2))


@over(["gmres", "cg"], (REAL,))
def test_gradient_of_gradient_of_an_iteration_B_06(case, dtype):
    params, b = case.params(dtype), case.vector(dtype)
    direction = case.params(dtype, 5)

    @jax.jit
    def both(params, direction):
        out = []
        for f in (case.solve, case.reference):
            loss = lambda p, f=f: _loss(f)(p, b)
            along = lambda p, loss=loss: jnp.vdot(jax.grad(loss)(p), direction)
            out.append(jax.grad(along)(params))
        return out

    ours, reference = both(params, direction)
    assert_close(ours, reference, case.tol(2))


@pytest.mark.skipif(not X64, reason="finite differences of third order need float64")
@pytest.mark.parametrize("id", THIRD)
def test_third_order_against_finite_differences_S0_31(id):
    """Rows S0-31, S1-24: forward and reverse in every order, without any reference rule."""
    case = BY_ID[id]
    # `check_grads` differentiates in every leaf; small systems keep third order quick
    args = case.params(REAL), case.vector(REAL)
    check_grads(jax.jit(case.solve), args, order=3, modes=("fwd", "rev"), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not X64, reason="finite differences of second order need float64")
@pytest.mark.parametrize("id", ["diagonal-zero", SLOW("qr-tall"), SLOW("svd-deficient")])
def test_second_order_against_finite_differences_S1_24(id):
    case = BY_ID[id]
    args = case.params(REAL), case.vector(REAL)
    check_grads(jax.jit(case.solve), args, order=2, modes=("fwd", "rev"), rtol=1e-4, atol=1e-4)


def test_second_derivative_of_one_over_a():
    """x = b/a has x″ = 2b/a³ and ∂²x/∂a∂b = −1/a²."""
    x = lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a.reshape(1, 1)), b[None]).value[0]
    a, b = jnp.asarray(2.0, REAL), jnp.asarray(3.0, REAL)
    (aa, ab), (ba, bb) = jax.hessian(x, argnums=(0, 1))(a, b)
    np.testing.assert_allclose([aa, ab, ba, bb], [2 * 3 / 8, -1 / 4, -1 / 4, 0], rtol=1e-6)
    third = jax.grad(jax.grad(jax.grad(x)))(a, b)
    np.testing.assert_allclose(third, -6 * 3 / 16, rtol=1e-6)


def test_hessian_in_b_alone_of_a_quadratic():
    """½xᵀx with x = A⁻¹b has the Hessian A⁻ᵀA⁻¹."""
    case = BY_ID["lu"]
    params, b = case.params(REAL), case.vector(REAL)
    hessian = jax.hessian(lambda b: jnp.sum(case.solve(params, b) ** 2) / 2)(b)
    inverse = jnp.linalg.inv(case.build(params).as_matrix())
    assert_close(hessian, inverse.T @ inverse, TOL)
