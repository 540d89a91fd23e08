"""Algebraic multigrid under derivatives, batches and values that change (rows S1-25, S2-26, S0-28)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from amg_problems import (
    RS,
    SA,
    cases,
    cg,
    definite,
    diffusion,
    gallery,
    rhs,
    slow,
)
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.preconditioners import AMG, amg_setup

pytestmark = pytest.mark.skipif(not X64, reason="asks for residuals and agreement of 1e-8 and less")


def loss_of(preconditioner, size=12):
    def loss(c, b):
        x = lp.linear_solve(
            diffusion(size, c), b, lp.CG(1e-12, 0.0, preconditioner=preconditioner)
        ).value
        return jnp.sum(jnp.cos(x))

    return loss


def dense_loss(c, b, size=12):
    return jnp.sum(jnp.cos(jnp.linalg.solve(diffusion(size, c).as_matrix(), b)))


WAYS = itertools.product(("rebuilt", "refreshed", "kept"), ("eager", "jit"))


@pytest.mark.parametrize(
    ("way", "how"),
    cases(WAYS, but=[("rebuilt", "eager"), ("rebuilt", "jit"), ("refreshed", "jit")]),
)
def test_gradients_do_not_know_of_it_S1_25(way, how):
    """A preconditioner made from what is differentiated raises nothing and changes nothing."""
    c = jnp.asarray(1 + np.random.default_rng(0).random((12, 12)))
    b = rhs(144)
    base = AMG(max_coarse=20)
    own = {
        "rebuilt": base,
        "refreshed": base.prepare(diffusion(12, c)),
        "kept": base.init(diffusion(12, c)),
    }[way]
    gradient = jax.grad(loss_of(own), (0, 1))
    gradient = jax.jit(gradient) if how == "jit" else gradient
    for got, want in zip(gradient(c, b), jax.grad(dense_loss, (0, 1))(c, b)):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


MODES = {
    "cotangents by another": lambda own: lp.ImplicitAdjoint(lp.LU()),
    "cotangents by its own": lambda own: lp.ImplicitAdjoint(
        lp.GMRES(1e-12, 0.0, preconditioner=AMG(RS, max_coarse=20))
    ),
    "unrolled": lambda own: lp.UnrolledAdjoint(25),
}


@pytest.mark.parametrize(
    ("mode", "cycle"),
    cases(
        itertools.product(MODES, ("V", "W")),
        but=[("unrolled", "V"), ("unrolled", "W"), ("cotangents by its own", "V")],
    ),
)
def test_gradient_modes_with_multigrid_S1_25(mode, cycle):
    """Cycles are differentiated step by step, or not at all: gradients are the same."""
    c = jnp.asarray(1 + np.random.default_rng(0).random((12, 12)))
    b, (want, _) = rhs(144), jax.grad(dense_loss, (0, 1))(c, rhs(144))
    own = AMG(max_coarse=6, cycle=cycle).prepare(diffusion(12, c))
    assert len(own.levels) == 2
    adjoint = MODES[mode](own)

    def loss(c):
        solver = lp.CG(1e-12, 0.0, preconditioner=own)
        found = lp.linear_solve(diffusion(12, c), b, solver, adjoint=adjoint)
        return jnp.sum(jnp.cos(found.value))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(c), want, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_second_derivatives():
    c, b = jnp.asarray(1 + np.random.default_rng(0).random((6, 6))), rhs(36)
    v = rhs(36, 1).reshape(6, 6)
    hvp = lambda loss: jax.jvp(jax.grad(lambda c: loss(c, b)), (c,), (v,))[1]
    got = hvp(functools.partial(loss_of(AMG(max_coarse=8), 6)))
    np.testing.assert_allclose(
        got, hvp(functools.partial(dense_loss, size=6)), rtol=1e-7, atol=1e-9
    )


def test_batches_of_coefficients_share_a_hierarchy():
    c = jnp.asarray(np.exp(np.random.default_rng(0).standard_normal((3, 24, 24))))
    b = rhs(576)
    hierarchy = AMG(max_coarse=30).prepare(diffusion(24, np.ones((24, 24))))
    solver = lp.CG(1e-9, 0.0, preconditioner=hierarchy)
    one = jax.jit(lambda c: lp.linear_solve(diffusion(24, c), b, solver))
    batch = jax.jit(jax.vmap(one))(c)
    for i in range(3):
        single = one(c[i])
        np.testing.assert_allclose(batch.value[i], single.value, rtol=1e-10, atol=1e-12)
        assert int(batch.stats["num_steps"][i]) == int(single.stats["num_steps"]) <= 25


@pytest.fixture
def setups(monkeypatch):
    """How often PyAMG was asked for a hierarchy."""
    made = []
    build = amg_setup.build
    monkeypatch.setattr(amg_setup, "build", lambda *args: made.append(1) or build(*args))
    return made


def test_refreshed_in_a_time_loop_with_one_setup(setups):
    size, steps = 24, 6
    base = diffusion(size, np.ones((size, size)))
    hierarchy = AMG(max_coarse=40).prepare(base)
    solver = lp.CG(1e-9, 0.0, preconditioner=hierarchy)

    def step(u, t):
        c = 1 + 0.5 * jnp.sin(t + jnp.arange(size * size, dtype=float)).reshape(size, size)
        operator = diffusion(size, c) * 0.1 + definite(sp.eye_array(size * size))
        padded = lp.SparseLinearOperator(
            operator.values, base.pattern, lp.positive_semidefinite_tag
        )
        found = lp.linear_solve(padded, u, solver)
        return found.value, found.stats["num_steps"]

    u, counts = jax.jit(lambda u: jax.lax.scan(step, u, jnp.arange(steps, dtype=float)))(
        rhs(size**2)
    )
    assert len(setups) == 1
    assert int(counts.max()) <= 10
    want = np.asarray(rhs(size**2))
    for t in range(steps):
        c = 1 + 0.5 * np.sin(t + np.arange(size * size)).reshape(size, size)
        matrix = 0.1 * diffusion(size, c).to_scipy() + sp.eye_array(size**2)
        want = sp.linalg.spsolve(sp.csc_matrix(matrix), want)
    np.testing.assert_allclose(u, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", [SA, slow(RS)])
def test_refreshing_with_the_same_values_changes_nothing(method):
    """Galerkin products on the device are PyAMG's."""
    operator = definite(gallery.poisson((40, 40)))
    own = AMG(method, max_coarse=30)
    apply = jax.jit(lambda m: m.mv(rhs(1600)))
    refreshed = own.prepare(operator).init(operator)
    np.testing.assert_allclose(apply(refreshed), apply(own.init(operator)), rtol=1e-6, atol=1e-8)


def test_traced_values_take_the_graph_alone():
    matrix = gallery.poisson((64, 64))
    operator = definite(matrix)

    @jax.jit
    def solve(values, b):
        own = lp.SparseLinearOperator(values, operator.pattern, operator.tags)
        return lp.linear_solve(own, b, lp.CG(1e-8, 0.0, preconditioner=AMG()))

    found = solve(operator.values, rhs(4096))
    assert int(found.stats["num_steps"]) <= 15


def test_constants_are_set_up_while_tracing_S0_28(setups):
    operator = definite(gallery.poisson((40, 40)))
    solve = jax.jit(
        lambda b: lp.linear_solve(operator, b, lp.CG(preconditioner=AMG()), throw=False).value
    )
    program = solve.lower(rhs(1600))
    assert len(setups) == 1
    assert "callback" not in program.as_text()
    for seed in range(3):
        solve(rhs(1600, seed))
    assert len(setups) <= 2  # `lower` and the call may trace once each


def test_it_is_rebuilt_for_each_eager_solve_and_kept_on_demand(setups):
    operator = definite(gallery.poisson((16, 16)))
    for _ in range(2):
        cg(operator, rhs(256), AMG())
    assert len(setups) == 2
    kept = AMG().init(operator)
    for _ in range(2):
        cg(operator, rhs(256), kept)
    assert len(setups) == 3


def test_inside_of_others_it_is_made_from_numbers_too(setups):
    operator, b = definite(gallery.poisson((24, 24))), rhs(576)
    pair = lp.preconditioners.Compose(lp.preconditioners.Jacobi(), AMG(max_coarse=40))
    found = cg(operator, b, pair)
    assert len(setups) == 1
    assert int(found.stats["num_steps"]) <= 12
