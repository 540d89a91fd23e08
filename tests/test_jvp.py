"""Forward mode: every solver's tangents against those of dense linear algebra (row S2-01)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_table import BY_ID, COMPLEX, DTYPES, REAL, X64, assert_close, flat, over

import linsolve_prim as lp
from linsolve_prim.testing import random_like

QUICK = ["lu", "qr-tall", "qr-wide", "svd-deficient", "cholesky-psd", "lu-function", "superlu"]


@over()
def test_tangents_in_operator_and_vector_S2_01(case, dtype):
    args = case.params(dtype), case.vector(dtype)
    tangents = case.params(dtype, 5), case.vector(dtype, 6)

    @jax.jit
    def both(args, tangents):
        solve, reference = (jax.jvp(f, args, tangents) for f in (case.solve, case.reference))
        return solve, reference

    (x, dx), (x_ref, dx_ref) = both(args, tangents)
    assert_close(x, x_ref, case.tol())
    assert_close(dx, dx_ref, case.tol(1))


@over(QUICK, (REAL,))
def test_tangents_in_one_argument(case, dtype):
    """Each on its own, so that the rule's shortcuts for symbolic zeros are taken."""
    params, b = case.params(dtype), case.vector(dtype)
    dparams, db = case.params(dtype, 5), case.vector(dtype, 6)

    @jax.jit
    def both(params, b):
        out = []
        for f in (case.solve, case.reference):
            of_operator = jax.jvp(lambda p, f=f: f(p, b), (params,), (dparams,))[1]
            of_vector = jax.jvp(lambda v, f=f: f(params, v), (b,), (db,))[1]
            out.append((of_operator, of_vector))
        return out

    ours, reference = both(params, b)
    assert_close(ours, reference, case.tol(1))


@over(["lu", "qr-tall", "qr-wide", "svd-deficient"], (COMPLEX,))
def test_tangents_equal_finite_differences(case, dtype):
    """Independent of any rule of differentiation."""
    args = case.params(dtype), case.vector(dtype)
    tangents = case.params(dtype, 5), case.vector(dtype, 6)
    solve = jax.jit(case.solve)
    h = 1e-5 if X64 else 4e-3
    moved = lambda s: jax.tree.map(lambda x, t: x + jnp.asarray(s * h, x.dtype) * t, args, tangents)
    difference = (solve(*moved(1)) - solve(*moved(-1))) / jnp.asarray(2 * h, dtype)
    tangent = jax.jit(lambda a, t: jax.jvp(case.solve, a, t)[1])(args, tangents)
    assert_close(tangent, difference, 1e-7 if X64 else 5e-3)


@over(["lu", "svd-deficient", "cg"], (REAL,))
def test_eager_tangents_equal_compiled_ones(case, dtype):
    args = case.params(dtype), case.vector(dtype)
    tangents = case.params(dtype, 5), case.vector(dtype, 6)
    run = lambda a, t: jax.jvp(case.solve, a, t)
    assert_close(run(args, tangents), jax.jit(run)(args, tangents), case.tol())


@over(["lu", "triangular-lower", "tridiagonal"])
def test_jacobian_in_b_is_the_inverse_S1_01(case, dtype):
    params, b = case.params(dtype), case.vector(dtype)
    holomorphic = dtype.kind == "c"
    jacobian = jax.jacfwd(lambda v: case.solve(params, v), holomorphic=holomorphic)(b)
    assert_close(jacobian, jnp.linalg.inv(case.build(params).as_matrix()), case.tol())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_tangents_give_zero(dtype):
    case = BY_ID["lu"]
    args = case.params(dtype), case.vector(dtype)
    _, dx = jax.jvp(case.solve, args, jax.tree.map(jnp.zeros_like, args))
    np.testing.assert_array_equal(dx, 0)


def test_statistics_state_and_result_have_no_tangents():
    case = BY_ID["cg"]
    params, b = case.params(REAL), case.vector(REAL)

    def everything(params, b):
        solution = lp.linear_solve(case.build(params), b, case.solver)
        return solution.value, solution.result, solution.stats, jax.tree.leaves(solution.state)

    _, (dx, *rest) = jax.jvp(everything, (params, b), (params, b))
    assert np.any(np.asarray(dx) != 0)
    for leaf in jax.tree.leaves(rest):
        assert leaf.dtype == jax.dtypes.float0 or not np.any(np.asarray(leaf))


def test_no_derivative_flows_into_tolerances_and_guesses_S1_05():
    case = BY_ID["cg"]
    params, b = case.params(REAL), case.vector(REAL)
    guess = random_like(case.build(params).in_structure(), 9)

    def solve(rtol, guess):
        options = {"y0": guess}
        operator = case.build(params)
        return lp.linear_solve(operator, b, lp.CG(rtol=rtol), options=options).value

    tol = jnp.asarray(1e-4, REAL)
    x, dx = jax.jvp(solve, (tol, guess), (jnp.ones((), REAL), guess))
    assert_close(x, case.reference(params, b), 1e-2)
    np.testing.assert_array_equal(dx, 0)
    gradient = jax.grad(lambda tol: jnp.sum(solve(tol, guess)))(tol)
    assert gradient == 0


def test_tangents_in_the_dtype_of_the_solution():
    """A real operator and a complex direction cannot be mixed up: JAX checks, we keep the dtype."""
    case = BY_ID["lu-pytree"]
    params, b = case.params(REAL), case.vector(REAL)
    structured = lambda p, v: lp.linear_solve(case.build(p), v, case.solver).value
    x, dx = jax.jvp(structured, (params, b), (params, b))
    assert jax.tree.structure(x) == jax.tree.structure(b) == jax.tree.structure(dx)
    assert all(leaf.dtype == REAL for leaf in jax.tree.leaves(dx))
    assert flat(dx).shape == (5,)
