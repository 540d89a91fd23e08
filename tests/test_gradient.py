"""`lp.gradient`, by names of arguments (rows S0-35, S4-18, S4-24)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

A = jnp.array([[4.0, 1.0], [0.5, 3.0]])
B = jnp.array([1.0, 2.0])


def loss(A, b, *, power=2):
    return jnp.sum(lp.solve(A, b) ** power)


def with_solution(A, b):
    x = lp.solve(A, b)
    return jnp.sum(x**2), x


def test_by_name_with_and_without_output_S0_35():
    want = jax.grad(loss, argnums=1)(A, B)
    np.testing.assert_allclose(lp.gradient(loss, "b", get_output=False)(A, B), want)
    np.testing.assert_allclose(lp.gradient(loss, "b", get_output=False)(b=B, A=A), want)
    value, gradient = jax.jit(lp.gradient(loss, "b"))(A, B)
    np.testing.assert_allclose(value, loss(A, B))
    np.testing.assert_allclose(gradient, want)
    cubic = lp.gradient(loss, 1, get_output=False)(A, B, power=3)
    np.testing.assert_allclose(cubic, jax.grad(lambda b: loss(A, b, power=3))(B))


def test_several_arguments_and_further_results_S4_18():
    value, x, by_b, by_a = lp.gradient(with_solution, ["b", 0])(A, B)
    np.testing.assert_allclose(x, jnp.linalg.solve(A, B), rtol=1e-6)
    want_a, want_b = jax.grad(loss, argnums=(0, 1))(A, B)
    np.testing.assert_allclose(by_a, want_a, rtol=1e-6)
    np.testing.assert_allclose(by_b, want_b, rtol=1e-6)
    np.testing.assert_allclose(value, loss(A, B), rtol=1e-6)
    alone = lp.gradient(with_solution, ["A"], get_output=False)(A, B)
    assert isinstance(alone, tuple)
    np.testing.assert_allclose(alone[0], want_a, rtol=1e-6)


def test_a_gradient_that_is_stopped_is_zero_S4_24():
    """`stop_gradient` means what it means elsewhere: on the matrix, b keeps its derivative."""
    stopped = lambda A, b: loss(jax.lax.stop_gradient(A), b)
    by_a, by_b = lp.gradient(stopped, ["A", "b"], get_output=False)(A, B)
    assert bool(jnp.all(by_a == 0))
    np.testing.assert_allclose(by_b, jax.grad(loss, argnums=1)(A, B), rtol=1e-6)


def test_arguments_that_are_not_there():
    for which in ([], ["A", 0]):
        with pytest.raises(TypeError, match="wrt: must name each argument once, and at least one"):
            lp.gradient(loss, which)
    for which in ("c", 5, -1):
        with pytest.raises(TypeError, match="wrt: must name arguments of f, A, b"):
            lp.gradient(loss, which)
