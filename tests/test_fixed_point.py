"""Fixed points with implicit derivatives (row S1-17): `fixed_point`, by Anderson's method and Newton's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.nonlinear import Anderson, Newton

DTYPE = jnp.float64 if X64 else jnp.float32
TOL = 1e-9 if X64 else 2e-4


def contraction(x, theta):
    matrix = jnp.cos(jnp.arange(64.0, dtype=DTYPE)).reshape(8, 8) / 6
    return jnp.tanh(matrix @ x + theta)


PLAIN = pytest.param(Anderson(memory=0), marks=pytest.mark.slow)


@pytest.mark.parametrize("solver", [Anderson(), PLAIN, Newton()], ids=repr)
def test_fixed_point_and_its_derivative_by_unrolling_S1_17(solver):
    theta = jnp.linspace(-1, 1, 8, dtype=DTYPE)
    x0 = jnp.zeros(8, DTYPE)

    def implicit(theta):
        return lp.fixed_point(contraction, x0, solver, args=(theta,)).value

    def unrolled(theta):
        return jax.lax.fori_loop(0, 200, lambda _, x: contraction(x, theta), x0)

    want = jax.jit(jax.jacfwd(unrolled))(theta)
    np.testing.assert_allclose(implicit(theta), unrolled(theta), atol=10 * TOL)
    np.testing.assert_allclose(jax.jacrev(implicit)(theta), want, atol=100 * TOL)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(implicit))(theta), want, atol=100 * TOL)
    if solver == Newton():  # the rule knows no method: one is enough for second order
        return
    loss = lambda f: lambda theta: jnp.sum(f(theta) ** 2)
    np.testing.assert_allclose(
        jax.jit(jax.hessian(loss(implicit)))(theta),
        jax.jit(jax.jacfwd(jax.jacfwd(loss(unrolled))))(theta),
        atol=1000 * TOL,
    )


def test_anderson_takes_fewer_steps_and_solves_what_the_plain_iteration_does_not():
    slow = lambda x: 0.97 * jnp.cos(x) * jnp.linspace(0.2, 1, 6, dtype=DTYPE) + 0.3
    x0 = jnp.zeros(6, DTYPE)
    steps = lambda m: int(lp.fixed_point(slow, x0, Anderson(memory=m)).stats["num_steps"])
    assert steps(5) < steps(0) / 2
    matrix = jnp.diag(jnp.array([1.5, -2.0, 0.5], DTYPE))
    expanding = lambda x: matrix @ x + 1
    with pytest.raises((lp.NotConverged, lp.Diverged)):
        lp.fixed_point(expanding, jnp.zeros(3, DTYPE), Anderson(memory=0))
    solution = lp.fixed_point(expanding, jnp.zeros(3, DTYPE))
    np.testing.assert_allclose(solution.value, 1 / (1 - np.array([1.5, -2.0, 0.5])), rtol=100 * TOL)


def test_fixed_points_of_pytrees_under_vmap():
    g = lambda x, c: {"a": 0.5 * x["a"] + c, "b": 0.5 * jnp.cos(x["b"]) * x["a"]}
    x0 = {"a": jnp.zeros((), DTYPE), "b": jnp.zeros(2, DTYPE)}
    c = jnp.array([0.1, 0.2, 0.4], DTYPE)
    solution = jax.vmap(lambda c: lp.fixed_point(g, x0, args=(c,)))(c)
    np.testing.assert_allclose(solution.value["a"], 2 * c, rtol=100 * TOL)
    assert solution.stats["num_steps"].shape == (3,)
