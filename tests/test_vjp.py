"""Reverse mode: every solver's cotangents against those of dense linear algebra (row S0-02)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse
from solver_table import BY_ID, COMPLEX, DTYPES, REAL, X64, assert_close, flat, over

import linsolve_prim as lp
from linsolve_prim.testing import random_like

TOL = 1e-10 if X64 else 1e-4


@over(first=1)
def test_cotangents_of_operator_and_vector_S0_02(case, dtype):
    """Rows S0-02, S0-31 and S1-02; B-01 and S2-24 for the nonsymmetric function and host solver."""
    params, b = case.params(dtype), case.vector(dtype)
    size = case.build(params).in_size()
    ct = random_like(jax.ShapeDtypeStruct((size,), dtype), 7)

    @jax.jit
    def both(params, b):
        return [jax.vjp(f, params, b)[1](ct) for f in (case.solve, case.reference)]

    ours, reference = both(params, b)
    assert_close(ours, reference, case.tol(1))


@over(["lu", "svd-deficient", "superlu"], (REAL,))
def test_eager_gradients_equal_compiled_ones(case, dtype):
    args = case.params(dtype), case.vector(dtype)
    loss = lambda *args: jnp.sum(jnp.abs(case.solve(*args)) ** 2)
    gradient = jax.grad(loss, argnums=(0, 1))
    assert_close(gradient(*args), jax.jit(gradient)(*args), case.tol(1))


@over(["lu", "qr-wide", "gmres", "superlu"], (COMPLEX,))
def test_real_loss_of_complex_system_B_11(case, dtype):
    args = case.params(dtype), case.vector(dtype)

    @jax.jit
    def both(*args):
        loss = lambda f: lambda *args: jnp.sum(jnp.abs(f(*args)) ** 2)
        return [jax.grad(loss(f), argnums=(0, 1))(*args) for f in (case.solve, case.reference)]

    ours, reference = both(*args)
    assert_close(ours, reference, case.tol(1))


@over(["lu", "lu-function"], (COMPLEX,))
def test_holomorphic_gradient_B_11(case, dtype):
    args = case.params(dtype), case.vector(dtype)
    entry = lambda f: lambda *args: jnp.sum(f(*args) ** 2)
    ours, reference = (
        jax.jit(jax.grad(entry(f), argnums=(0, 1), holomorphic=True))(*args)
        for f in (case.solve, case.reference)
    )
    assert_close(ours, reference, case.tol(1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matrix_gradient_is_minus_an_outer_product_S1_02(dtype):
    """−λxᵀ with λ = A⁻ᵀg."""
    case = BY_ID["lu"]
    matrix, b = case.build(case.params(dtype)).as_matrix(), case.vector(dtype)
    g = case.vector(dtype, 8)
    x, pull = jax.vjp(lambda a: lp.solve(a, b), matrix)
    lam = np.linalg.solve(np.asarray(matrix).T, np.asarray(g))
    assert_close(pull(g)[0], np.outer(-lam, np.asarray(x)), TOL)


def test_worked_example_S0_32():
    """Row S0-32: diag(2, 1)x = (2, 3), and the gradient of ½‖x‖² in b."""
    matrix, b = jnp.diag(jnp.asarray([2.0, 1.0])), jnp.asarray([2.0, 3.0])
    gradient = jax.grad(lambda b: jnp.sum(lp.solve(matrix, b) ** 2) / 2)(b)
    np.testing.assert_allclose(gradient, [0.5, 3.0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "sparse", "function"])
def test_matrix_gradient_of_any_kind_of_operator_S0_33(kind):
    """Row S0-33: diag(c)x = (1, 1) at c = (1, 2), and the gradient of ½‖x‖² in c is −1/c³."""
    b = jnp.ones(2, REAL)
    indices = jnp.asarray([[0, 0], [1, 1]])
    system = {
        "dense": jnp.diag,
        "sparse": lambda c: sparse.BCOO((c, indices), shape=(2, 2)),
        "function": lambda c: lambda x: c * x,
    }[kind]
    loss = lambda c: jnp.sum(lp.solve(system(c), b) ** 2) / 2
    c = jnp.asarray([1.0, 2.0], REAL)
    np.testing.assert_allclose(jax.grad(loss)(c), [-1, -0.125], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(c), [-1, -0.125], rtol=1e-5)


@pytest.mark.parametrize("solver", [None, lp.GMRES(rtol=1e-6)], ids=["default", "gmres"])
def test_nonsymmetric_function_uses_its_transpose_B_01(solver):
    """Rows B-01 and S3-07: A⁻ᵀw, which differs much from A⁻¹w."""
    matrix = jnp.asarray([[2.0, 1.5, 0], [0, 2, 1.5], [0.3, 0, 2]], REAL)
    b, w = jnp.asarray([1.0, -1, 2], REAL), jnp.asarray([0.5, 1, -2], REAL)
    gradient = jax.grad(lambda b: w @ lp.solve(lambda x: matrix @ x, b, solver))(b)
    right = np.linalg.solve(np.asarray(matrix).T, np.asarray(w))
    wrong = np.linalg.solve(np.asarray(matrix), np.asarray(w))
    assert np.linalg.norm(gradient - right) < 1e-4 * np.linalg.norm(right)
    assert np.linalg.norm(gradient - wrong) > 0.1 * np.linalg.norm(right)


def test_gradient_in_closed_over_and_passed_arguments_S0_17():
    b = jnp.asarray([1.0, 2.0, 3.0], REAL)
    c = jnp.asarray([2.0, 3.0, 4.0], REAL)
    f = lambda x, c: c * x + jnp.roll(x, 1) / 2
    closed = jax.grad(lambda c: jnp.sum(lp.solve(lambda x: f(x, c), b) ** 2))(c)
    passed = jax.grad(lambda c: jnp.sum(lp.solve(f, b, args=(c,)) ** 2))(c)
    np.testing.assert_array_equal(closed, passed)
    dense = lambda c: jnp.sum(jnp.linalg.solve(jax.jacfwd(lambda x: f(x, c))(b), b) ** 2)
    assert_close(closed, jax.grad(dense)(c), TOL)


def test_gradient_through_a_given_state():
    """The state carries no derivative, and needs none: the operator does."""
    case = BY_ID["lu"]
    params, b = case.params(REAL), case.vector(REAL)

    def loss(params, b):
        operator = case.build(params)
        state = case.solver.init(operator, {})
        first = lp.linear_solve(operator, b, case.solver, state=state).value
        return jnp.sum(lp.linear_solve(operator, first, case.solver, state=state).value ** 2)

    def dense(params, b):
        matrix = case.build(params).as_matrix()
        return jnp.sum(jnp.linalg.solve(matrix, jnp.linalg.solve(matrix, b)) ** 2)

    ours, reference = (jax.grad(f, argnums=(0, 1))(params, b) for f in (loss, dense))
    assert_close(ours, reference, 10 * TOL)


def test_gradient_of_an_inverse():
    """`invert` makes an operator whose products are solves."""
    case = BY_ID["lu"]
    params, b = case.params(REAL), case.vector(REAL)
    loss = lambda p: jnp.sum(lp.invert(case.build(p)).mv(b) ** 2)
    dense = lambda p: jnp.sum(case.reference(p, b) ** 2)
    assert_close(jax.grad(loss)(params), jax.grad(dense)(params), 10 * TOL)


def test_own_solver_for_the_adjoint_S4_14():
    """Another solver for tangents and cotangents; the operator is the same, so is the gradient."""
    case = BY_ID["lu"]
    params, b = case.params(REAL), case.vector(REAL)
    krylov = lp.GMRES(rtol=1e-12 if X64 else 1e-6)
    for adjoint in (krylov, lp.ImplicitAdjoint(solver=krylov)):
        loss = lambda p, b, adjoint=adjoint: jnp.sum(case.solve(p, b, adjoint=adjoint) ** 2)
        ours = jax.grad(loss, argnums=(0, 1))(params, b)
        reference = jax.grad(lambda p, b: jnp.sum(case.reference(p, b) ** 2), argnums=(0, 1))
        assert_close(ours, reference(params, b), 10 * TOL)


def test_unused_solution_has_zero_gradient():
    case = BY_ID["lu"]
    params, b = case.params(REAL), case.vector(REAL)

    def loss(params, b):
        x = lp.linear_solve(case.build(params), b, case.solver)
        return jnp.sum(b**2) + 0 * x.stats["residual_norm"]

    dparams, db = jax.grad(loss, argnums=(0, 1))(params, b)
    np.testing.assert_array_equal(flat(dparams), 0)
    np.testing.assert_allclose(db, 2 * b)
