"""Transformations of transformations: the solve is one more function to JAX (row S1-07)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from solver_table import BY_ID, COMPLEX, REAL, X64, assert_close, over

import linsolve_prim as lp

TOL = 1e-9 if X64 else 1e-3
SOME = ["lu", "qr-wide", "lu-function", "cholesky-psd", "cg", "superlu"]
LU = BY_ID["lu"]


def _args(case, dtype=REAL):
    return case.params(dtype), case.vector(dtype)


def _both(case):
    return case.solve, case.reference


def _everything(f, square):
    """jit ∘ vmap ∘ grad ∘ scan ∘ remat of a solve, as a scalar function of its arguments."""

    def chain(params, b):
        @jax.checkpoint
        def step(carry, scale):
            x = f(params, b * scale + carry if square else b * scale)
            x = jnp.tanh(x) / 2
            return (x if square else carry + jnp.sum(x)), jnp.sum(x**2)

        start = jnp.zeros_like(b) if square else jnp.zeros((), b.dtype)
        _, energies = lax.scan(step, start, jnp.asarray([1.0, 0.5, 0.25], b.dtype))
        return jnp.sum(energies)

    return jax.jit(jax.vmap(jax.grad(chain, argnums=(0, 1)), in_axes=(None, 0)))


@over(SOME, (REAL,))
def test_jit_of_vmap_of_grad_of_scan_of_remat_S1_07(case, dtype):
    params, b = _args(case, dtype)
    many = jnp.stack([b, 2 * b])
    ours, reference = (_everything(f, case.rank == "full")(params, many) for f in _both(case))
    assert_close(ours, reference, 10 * case.tol(1))


@over(["lu", "superlu"], (REAL,))
def test_scan_with_the_state_as_a_carry_S2_14(case, dtype):
    """Backward Euler: one factorization outside of the loop, and its state goes along."""
    params, b = _args(case, dtype)

    def march(params, b, f):
        operator = case.build(params)
        state = case.solver.init(operator, {})

        def step(x, _):
            if f is case.reference:
                return f(params, x), None
            return lp.linear_solve(operator, x, case.solver, state=state, throw=False).value, None

        return jnp.sum(lax.scan(step, b, length=4)[0] ** 2)

    run = lambda f: jax.jit(jax.value_and_grad(functools.partial(march, f=f), argnums=(0, 1)))
    assert_close(run(case.solve)(params, b), run(case.reference)(params, b), case.tol(2))


def test_state_passes_through_scan_S2_14():
    """Row S2-14: a state of arrays alone may itself be a carry."""
    operator, b = LU.build(LU.params(REAL)), LU.vector(REAL)
    state = lp.LU().init(operator, {})

    def step(carry, _):
        state, x = carry
        return (state, lp.linear_solve(operator, x, lp.LU(), state=state).value), None

    (_, x), _ = lax.scan(step, (state, b), length=2)
    matrix = operator.as_matrix()
    assert_close(x, jnp.linalg.solve(matrix, jnp.linalg.solve(matrix, b)), TOL)


@over(["lu", "lu-function", "cg"], (REAL,))
def test_fori_and_while_loops(case, dtype):
    params, b = _args(case, dtype)
    body = lambda f: lambda _, x: f(params, x) + b
    fixed = [lax.fori_loop(0, 3, body(f), b) for f in _both(case)]
    assert_close(*fixed, case.tol(1))
    forward = lambda f: (
        lambda b: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(params, c[1])), (0, b))[
            1
        ]
    )
    tangents = [jax.jvp(forward(f), (b,), (b,))[1] for f in _both(case)]
    assert_close(*tangents, case.tol(1))


def test_cond_and_switch():
    params, b = _args(LU)

    def pick(f, i, params, b):
        branches = [lambda p, v: f(p, v), lambda p, v: 2 * f(p, v), lambda p, v: v]
        return jnp.sum(lax.switch(i, branches, params, b) ** 2)

    for i in range(3):
        ours, reference = (
            jax.grad(functools.partial(pick, f, i), argnums=(0, 1))(params, b) for f in _both(LU)
        )
        assert_close(ours, reference, TOL)
    lanes = jnp.arange(3)
    ours, reference = (
        jax.vmap(functools.partial(pick, f), in_axes=(0, None, None))(lanes, params, b)
        for f in _both(LU)
    )
    assert_close(ours, reference, TOL)


@over(["lu", "lu-function", "svd-deficient", "superlu"], (COMPLEX,))
def test_linear_transpose_S2_02(case, dtype):
    """A solve is linear in b, and only there; its transpose solves with Aᵀ."""
    params, b = _args(case, dtype)
    x = case.solve(params, b)
    ours, reference = (
        jax.linear_transpose(lambda v, f=f: f(params, v), b)(x)[0] for f in _both(case)
    )
    assert_close(ours, reference, case.tol(1))
    twice = jax.linear_transpose(
        lambda ct: jax.linear_transpose(lambda v: case.solve(params, v), b)(ct)[0], x
    )(b)[0]
    assert_close(twice, x, case.tol(1))


def test_not_transposable_in_the_operator():
    params, b = _args(LU)
    with pytest.raises(NotImplementedError, match="linear in its right-hand side only"):
        jax.linear_transpose(lambda p: LU.solve(p, b), params)(b)


@over(["lu", "qr-tall", "cg", "superlu"], (REAL,))
def test_linearize(case, dtype):
    """The linear map of a solve: no factorization is done again for each direction."""
    args = _args(case, dtype)
    tangents = case.params(dtype, 5), case.vector(dtype, 6)
    (x, push), (x_ref, push_ref) = (jax.linearize(f, *args) for f in _both(case))
    assert_close(x, x_ref, case.tol())
    assert_close(push(*tangents), push_ref(*tangents), case.tol(1))
    assert_close(push(*jax.tree.map(lambda t: 2 * t, tangents)), 2 * push(*tangents), case.tol())


@over(["lu", "qr-wide", "svd-deficient", "lu-function"], (REAL,))
def test_forward_and_reverse_jacobians_agree_S2_01(case, dtype):
    args = _args(case, dtype)
    forward = jax.jit(jax.jacfwd(case.solve, argnums=(0, 1)))(*args)
    reverse = jax.jit(jax.jacrev(case.solve, argnums=(0, 1)))(*args)
    assert_close(forward, reverse, case.tol(1))


@over(["lu", "lu-function", "superlu"], (REAL,))
@pytest.mark.parametrize("outer", ["operator", "vector"])
def test_nested_batches_in_both_orders_S2_22(case, dtype, outer):
    params = jax.tree.map(lambda *x: jnp.stack(x), *(case.params(dtype, i) for i in range(2)))
    b = jnp.stack([case.vector(dtype, 10 + i) for i in range(3)])
    axes = [(0, None), (None, 0)] if outer == "operator" else [(None, 0), (0, None)]
    nest = lambda f: jax.vmap(jax.vmap(f, in_axes=axes[1]), in_axes=axes[0])
    ours, reference = (jax.jit(nest(f))(params, b) for f in _both(case))
    assert_close(ours, reference, case.tol())
    # and once more inside, over what both share already
    total = lambda f: lambda params, b: jnp.sum(jnp.sin(nest(f)(params, b)))
    ours, reference = (jax.jit(jax.grad(total(f), argnums=(0, 1)))(params, b) for f in _both(case))
    assert_close(ours, reference, case.tol(1))


@pytest.mark.parametrize("in_axes", [(2, 0), (1, 1), (-1, None), ({"m": 0}, -1)], ids=str)
def test_any_axis_of_any_argument_S2_22(in_axes):
    shared = {"m": LU.params(REAL)}
    m_axis = in_axes[0]["m"] if isinstance(in_axes[0], dict) else in_axes[0]
    m = jnp.stack([LU.params(REAL, i) for i in range(3)], m_axis)
    b = LU.vector(REAL)
    if in_axes[1] is not None:
        b = jnp.stack([LU.vector(REAL, i) for i in range(3)], in_axes[1])
    params = {**shared, "m": m}
    ours, reference = (
        jax.vmap(lambda p, v, f=f: f(p["m"], v), in_axes=({"m": m_axis}, in_axes[1]))(params, b)
        for f in _both(LU)
    )
    assert_close(ours, reference, TOL)


def test_a_solve_inside_the_function_of_an_operator():
    """A Schur complement: each product of the outer solve is an inner solve."""
    d, b = LU.build(LU.params(REAL, 4)).as_matrix(), LU.vector(REAL)
    inner = BY_ID["cholesky-psd"]
    m = inner.params(REAL)

    def ours(m, d, b):
        product = lambda x: d @ x + lp.linear_solve(inner.build(m), x, lp.Cholesky()).value
        return lp.solve(product, b)

    def reference(m, d, b):
        return jnp.linalg.solve(d + jnp.linalg.inv(inner.build(m).as_matrix()), b)

    assert_close(ours(m, d, b), reference(m, d, b), TOL)
    losses = [lambda *a, f=f: jnp.sum(f(*a) ** 2) for f in (ours, reference)]
    got, want = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(m, d, b) for f in losses)
    assert_close(got, want, 10 * TOL)


def test_custom_rules_and_side_outputs_around_a_solve():
    """`has_aux`, `value_and_grad`, `custom_jvp` of a function that solves."""
    params, b = _args(LU)

    @jax.custom_jvp
    def clipped(x):
        return x

    clipped.defjvp(lambda primals, tangents: (primals[0], 2 * tangents[0]))

    def loss(params, b):
        solution = lp.linear_solve(LU.build(params), b, LU.solver)
        return jnp.sum(clipped(solution.value)), solution.stats["residual_norm"]

    (_, norm), gradient = jax.value_and_grad(loss, has_aux=True)(params, b)
    reference = jax.grad(lambda p: 2 * jnp.sum(LU.reference(p, b)))(params)
    assert_close(gradient, reference, TOL)
    assert np.isfinite(norm)
