"""Derivatives through every Krylov method against dense linear algebra, and what an adjoint costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_problems import BY_NAME, METHODS, each, system, tags
from krylov_tools import COMPLEX, REAL, X64, normal, quick_jit, run, succeeded

import linsolve_prim as lp

N = 6
RTOL, CLOSE = (1e-13, 1e-8) if X64 else (1e-6, 2e-3)
SLOW = pytest.mark.slow


def solver_of(method):
    """With settings as tight as the dtype allows."""
    return method(rtol=RTOL, max_steps=600)


def loss_of(solve):
    """A function of a matrix parameter and b that is not linear in x."""

    def loss(p, b):
        a = (p + p.conj().T) / 2 if solve.hermitian else p
        x = solve(a, b)
        return jnp.sum(jnp.sin(jnp.abs(x) ** 2)) + jnp.sum(x.real)

    return loss


def solves(method):
    """The same solve by the method, and by dense linear algebra."""

    def ours(a, b):
        operator = lp.MatrixLinearOperator(a, tags(method))
        return lp.linear_solve(operator, b, solver_of(method), throw=False).value

    def dense(a, b):
        return jnp.linalg.solve(a, b)

    # (An unsymmetric change of A takes it out of what a symmetric method is for.)
    ours.hermitian = dense.hermitian = method.kind != "general"
    return ours, dense


def assert_close(got, want, scale=1.0):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        size = max(np.abs(np.asarray(y)).max(), 1e-3)
        assert np.abs(np.asarray(x - y)).max() <= CLOSE * scale * size


@each()
def test_gradients(method):
    """B-11: with respect to A and b, compiled; a zero cotangent gives zeros."""
    a, b = (jnp.asarray(leaf) for leaf in system(method.kind, N))
    ours, dense = solves(method)

    @quick_jit
    def pullback(a, b, ct):
        return jax.vjp(loss_of(ours), a, b)[1](ct)

    one = jnp.ones((), REAL)
    assert_close(pullback(a, b, one), jax.jit(jax.grad(loss_of(dense), (0, 1)))(a, b))
    for leaf in pullback(a, b, 0 * one):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize(
    "name", ["MINRES", "QMR", *(pytest.param(m.name, marks=SLOW) for m in METHODS)]
)
def test_complex_gradients(name):
    """B-11: of a real function of complex arguments, where a missing conjugate would show."""
    method = BY_NAME[name]
    a, b = (jnp.asarray(leaf) for leaf in system(method.kind, N, COMPLEX, 1))
    ours, dense = solves(method)
    got = quick_jit(jax.grad(loss_of(ours), (0, 1)))(a, b)
    assert_close(got, jax.jit(jax.grad(loss_of(dense), (0, 1)))(a, b))


@pytest.mark.parametrize(
    "name", ["MINRES", "IDR(4)", *(pytest.param(m.name, marks=SLOW) for m in METHODS)]
)
def test_gradients_through_vmap_and_scan(name):
    """A gradient of a batch in a scan, in which each step's x is the next one's b."""
    method = BY_NAME[name]
    a, _ = system(method.kind, N)
    a, bs = jnp.asarray(a), jnp.asarray(normal((3, N), REAL, 8))

    def rolled(solve):
        def loss(p, bs):
            a = (p + p.conj().T) / 2 if solve.hermitian else p
            step = lambda x, _: (jax.vmap(lambda b: solve(a, b))(x) * 2, None)
            return jnp.sum(jnp.cos(jax.lax.scan(step, bs, None, length=2)[0]))

        return quick_jit(jax.grad(loss, (0, 1)))

    ours, dense = solves(method)
    assert_close(rolled(ours)(a, bs), rolled(dense)(a, bs), 10)


@pytest.mark.parametrize(
    "name",
    ["BiCGStab(2)", *(pytest.param(n, marks=SLOW) for n in ("CGAdaptive", "MINRES", "QMR"))],
)
def test_second_order(name):
    """The product of the Hessian with a vector, forward over reverse."""
    method = BY_NAME[name]
    a, b = (jnp.asarray(leaf) for leaf in system(method.kind, N, seed=2))
    da, db = jnp.asarray(normal((N, N), REAL, 6)), jnp.asarray(normal(N, REAL, 7))

    def product(solve):
        gradient = jax.grad(loss_of(solve), (0, 1))
        return quick_jit(lambda a, b: jax.jvp(gradient, (a, b), (da, db))[1])(a, b)

    ours, dense = solves(method)
    assert_close(product(ours), product(dense), 100)


@pytest.mark.parametrize("consistent", [True, pytest.param(False, marks=SLOW)])
def test_gradients_of_the_pseudo_inverse(consistent):
    """MINRES-QLP has the derivative of A†b at constant rank, also where b is out of the range."""
    q = normal((N, 3), REAL, 3)
    d, b = jnp.asarray([2.0, -1.0, 1.5], REAL), jnp.asarray(normal(N, REAL, 4))

    def loss_by(solve):
        def loss(q, d, b):
            a = (q * d) @ q.T
            x = solve(a, a @ b if consistent else b)
            return jnp.sum(jnp.sin(x)) + jnp.sum(x**2)

        return quick_jit(jax.grad(loss, (0, 1, 2)))

    def ours(a, b):
        solver = lp.MINRESQLP(rtol=RTOL, max_steps=600)
        return lp.linear_solve(lp.MatrixLinearOperator(a), b, solver, throw=False).value

    dense = lambda a, b: jnp.linalg.pinv(a, rtol=1e-4) @ b
    q = jnp.asarray(q)
    assert_close(loss_by(ours)(q, d, b), loss_by(dense)(q, d, b), 100)


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=SLOW)])
@each(kinds=("general",))
def test_the_adjoint_costs_what_the_solve_costs(method, side):
    """B-02: with the preconditioner transposed, an adjoint takes at most 1.5 × the iterations."""
    n = 10
    one, up, down = np.eye(n), np.eye(n, k=1), np.eye(n, k=-1)
    line = 2 * one - 0.2 * up - 1.8 * down  # advection–diffusion
    a = (np.kron(line, one) + np.kron(one, line)).astype(REAL)
    lower = np.linalg.inv(np.tril(a)).astype(REAL)  # a sweep of Gauss–Seidel, far from symmetric
    m = lp.MatrixLinearOperator(jnp.asarray(lower))
    b, rtol = normal(n * n, REAL, 5), 1e-8 if X64 else 1e-4
    solver = method(rtol=rtol, side=side, preconditioner=m)
    state = solver.init(lp.MatrixLinearOperator(jnp.asarray(a)), {})
    _, result, there = run(solver, a, b, state=state)
    assert succeeded(result)
    x, result, back = run(solver, a, b, state=solver.transpose(state, {})[0])
    assert succeeded(result)
    assert int(back["num_steps"]) <= 1.5 * int(there["num_steps"]) + 1
    np.testing.assert_allclose(a.T @ np.asarray(x), b, atol=2 * rtol * np.linalg.norm(b))
