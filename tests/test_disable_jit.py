"""`jax.disable_jit`: solves are still programs of their own, as JAX's primitives are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64

import linsolve_prim as lp

A = jnp.array([[4.0, 1.0, 0.0], [1.0, 5.0, 2.0], [0.0, 2.0, 6.0]])
B = jnp.array([1.0, 2.0, 3.0])
TOL = 1e-6 if X64 else 1e-3
CASES = [
    (lp.GMRES(rtol=1e-4, preconditioner="jacobi"), "callback"),
    (lp.SuperLU(), "callback"),
    (lp.SuperLU(), "buffer"),
]


def _loss(values, b, solver, pattern):
    operator = lp.SparseLinearOperator(values, pattern, lp.positive_semidefinite_tag)
    return jnp.sum(lp.linear_solve(operator, b, solver).value ** 2)


@pytest.mark.parametrize(("solver", "transport"), CASES)
def test_solves_and_their_derivatives(solver, transport):
    operator = lp.SparseLinearOperator.from_dense(A)
    loss = lambda values, b: _loss(values, b, solver, operator.pattern)
    gradient = jax.grad(loss, (0, 1))
    lanes = jnp.stack([operator.values, 2 * operator.values])
    with lp.host.transport(transport):
        want = gradient(operator.values, B)
        with jax.disable_jit():
            value = loss(operator.values, B)
            got = gradient(operator.values, B)
            batch = jax.vmap(loss, (0, None))(lanes, B)
    exact = np.sum(np.linalg.solve(A, B) ** 2)
    np.testing.assert_allclose(value, exact, rtol=TOL)
    np.testing.assert_allclose(batch, [exact, exact / 4], rtol=TOL)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=TOL, atol=TOL), got, want)


def test_failures_and_tapes_and_loops():
    with jax.disable_jit():
        with pytest.raises(lp.SingularMatrixError):
            jax.jit(lp.solve)(jnp.ones((2, 2)), jnp.array([1.0, 2.0]))
        with lp.SolveTape() as tape:
            jax.grad(lambda b: lp.solve(A, b, lp.LU()).sum())(B)
        assert [entry.kind for entry in tape] == ["forward", "adjoint"]
        x, _ = jax.lax.scan(lambda b, _: (lp.solve(A, b), None), B, length=2)
    np.testing.assert_allclose(x, np.linalg.solve(A, np.linalg.solve(A, B)), rtol=TOL)
