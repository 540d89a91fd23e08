"""Derivatives by unrolling and by one step (rows S1-09, S1-11, S1-25)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from conftest import X64
from jax.test_util import check_grads

import linsolve_prim as lp
from linsolve_prim.adjoint import RichardsonSteps
from linsolve_prim.results import REASONS, RESULTS, member_name

pytestmark = pytest.mark.skipif(not X64, reason="compares derivatives to many digits")
N = 14
RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(N, N))
SPD = jnp.asarray(FACTOR @ FACTOR.T / N + np.eye(N))
GENERAL = jnp.asarray(FACTOR / 4 + 3 * np.eye(N))
B = jnp.asarray(RNG.normal(size=N))
SOLVERS = {
    "cg": lp.CG(),
    "fcg": lp.FCG(),
    "minres": lp.MINRES(),
    "minresqlp": lp.MINRESQLP(),
    "symmlq": lp.SYMMLQ(),
    "gmres": lp.GMRES(),
    "restarted": lp.GMRES(restart=3),
    "fgmres": lp.FGMRES(),
    "bicgstab": lp.BiCGStab(),
    "bicg": lp.BiCG(),
    "cgs": lp.CGS(),
    "qmr": lp.QMR(),
    "tfqmr": lp.TFQMR(),
    "idr": lp.IDR(),
    "richardson": lp.Richardson(omega=0.2),
    "chebyshev": lp.Chebyshev(lower=0.9, upper=6.0),
}


def operator(A):
    return lp.MatrixLinearOperator(A, lp.positive_semidefinite_tag)


def solve(A, b, solver=lp.CG(), adjoint=None, **settings):
    return lp.linear_solve(operator(A), b, solver, adjoint=adjoint, **settings).value


def loss(A, b, *args, **settings):
    return jnp.sum(jnp.sin(solve(A, b, *args, **settings)))


def close(got, want, rtol=1e-9):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.max(np.abs(b)) + 1e-30))


def hand_cg(A, b, steps):
    """The loop as it stands in textbooks."""
    x, r, p, rho = jnp.zeros_like(b), b, b, b @ b
    for _ in range(steps):
        q = A @ p
        alpha = rho / (p @ q)
        x, r = x + alpha * p, r - alpha * q
        rho, old = r @ r, rho
        p = r + rho / old * p
    return x


# ---- unrolled -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "checkpoint"), [(4, False), (9, True)])
def test_unrolled_cg_is_the_hand_written_loop_S1_09(steps, checkpoint):
    mode = lp.UnrolledAdjoint(steps, checkpoint=checkpoint)
    f = lambda A, b: loss(A, b, adjoint=mode)
    g = lambda A, b: jnp.sum(jnp.sin(hand_cg(A, b, steps)))
    close(solve(SPD, B, adjoint=mode), hand_cg(SPD, B, steps))
    direction = jnp.cos(jnp.arange(N * N * 1.0)).reshape(N, N), B[::-1]

    def derivatives(h):
        along = lambda A: jax.grad(h)(A, B)
        twice = jax.jvp(along, (SPD,), direction[:1])[1] if steps == 4 else 0
        return jax.grad(h, argnums=(0, 1))(SPD, B), jax.jvp(h, (SPD, B), direction)[1], twice

    close(*jax.jit(lambda: (derivatives(f), derivatives(g)))())


QUICK = ("cg", "restarted", "bicgstab", "chebyshev")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SOLVERS]
)
def test_every_method_unrolls_to_its_own_first_steps_S1_09(name):
    """Value: the solver stopped after 5 steps. Gradient: finite differences of that."""
    solver, steps = SOLVERS[name], 5
    stopped = dataclasses.replace(solver, rtol=0.0, atol=0.0, max_steps=steps)
    mode = lp.UnrolledAdjoint(steps)
    solution = lp.linear_solve(operator(SPD), B, solver, adjoint=mode)
    reference = lp.linear_solve(operator(SPD), B, stopped)
    close(solution.value, reference.value, 1e-12)
    assert solution.result == RESULTS.successful
    assert member_name(solution.stats["reason"], REASONS) == "steps"
    assert int(solution.stats["num_steps"]) == int(reference.stats["num_steps"])
    np.testing.assert_allclose(
        solution.stats["residual_norm"], reference.stats["residual_norm"], rtol=1e-6
    )
    change = jnp.asarray(FACTOR + FACTOR.T) / 10
    along = jax.jit(lambda t: loss(SPD + t * change, B * (1 + t), stopped))
    h = 1e-5
    finite = (along(h) - along(-h)) / (2 * h)
    gradient = jax.jit(jax.grad(lambda A, b: loss(A, b, solver, mode), argnums=(0, 1)))
    by_a, by_b = gradient(SPD, B)
    np.testing.assert_allclose(jnp.vdot(by_a, change) + by_b @ B, finite, rtol=2e-6)


def test_unrolled_gradients_tend_to_the_implicit_ones_S1_09():
    want = jax.grad(loss)(SPD, B, lp.LU())
    errors = []
    for steps in (2, 6, 14):
        got = jax.jit(jax.grad(lambda A, k=steps: loss(A, B, adjoint=lp.UnrolledAdjoint(k))))(SPD)
        errors.append(float(jnp.linalg.norm(got + got.T - want - want.T) / jnp.linalg.norm(want)))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-7


def test_more_steps_than_there_is_to_do_leave_no_nan_S1_11():
    """The iteration ends by itself after some of 60 steps, to 1e-14, with finite gradients."""
    mode = lp.UnrolledAdjoint(60)
    x = solve(SPD, B, adjoint=mode)
    assert float(jnp.linalg.norm(SPD @ x - B) / jnp.linalg.norm(B)) < 1e-14
    gradient = jax.jit(lambda: jax.grad(loss, argnums=(0, 1))(SPD, B, lp.CG(), mode))()
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradient)
    zero = jax.grad(loss, argnums=1)(SPD, 0 * B, lp.CG(), lp.UnrolledAdjoint(3))
    assert bool(jnp.all(jnp.isfinite(zero)))


def test_truncation_starts_from_where_the_warmup_ended():
    """Value: 6 + 3 steps (with a restart between); gradient: of the last 3 from a held start."""
    mode = lp.UnrolledAdjoint(3, warmup=6)
    start = hand_cg(SPD, B, 6)
    from_start = lambda A, b: start + hand_cg(A, b - A @ start, 3)
    close(solve(SPD, B, adjoint=mode), from_start(SPD, B))
    f = lambda A, b: loss(A, b, adjoint=mode)
    g = lambda A, b: jnp.sum(jnp.sin(from_start(A, b)))
    gradients = jax.jit(lambda: [jax.grad(h, argnums=(0, 1))(SPD, B) for h in (f, g)])
    close(*gradients(), 1e-7)


def test_unrolled_solves_go_through_jit_vmap_and_scan():
    mode = lp.UnrolledAdjoint(4)
    batch = jnp.stack([B, 0 * B, B[::-1]])
    f = jax.jit(jax.grad(lambda b: loss(SPD, b, adjoint=mode)))
    got = jax.jit(jax.vmap(f))(batch)
    close(got[0], f(B))
    close(got[2], f(B[::-1]))
    assert bool(jnp.all(jnp.isfinite(got)))
    chain = lambda A: jax.lax.scan(lambda b, _: (solve(A, b, adjoint=mode), 0), B, length=3)[0]
    by_hand = lambda A: hand_cg(A, hand_cg(A, hand_cg(A, B, 4), 4), 4)
    total = lambda h: lambda A: jnp.sum(h(A))
    close(*jax.jit(lambda A: [jax.grad(total(h))(A) for h in (chain, by_hand)])(SPD))


def test_the_gradient_by_a_preconditioner_and_by_a_guess_S1_25():
    """Zero where the solution does not depend on them (implicit), and not where it does (unrolled)."""

    def by(mode, diagonal, guess):
        m = lp.DiagonalLinearOperator(diagonal)
        tagged = lp.TaggedLinearOperator(m, lp.positive_semidefinite_tag)
        options = {"preconditioner": tagged, "y0": guess}
        return loss(SPD, B, adjoint=mode, options=options)

    args = 1 / jnp.diag(SPD), 0.1 * B
    implicit = jax.grad(by, argnums=(1, 2))(None, *args)
    assert all(bool(jnp.all(g == 0)) for g in implicit)
    mode = lp.UnrolledAdjoint(3)
    unrolled = jax.jit(jax.grad(lambda d, g: by(mode, d, g), argnums=(0, 1)))(*args)
    h = 1e-6
    for i, one in enumerate(args):
        moved = lambda t, i=i, one=one: [a + t * B if j == i else a for j, a in enumerate(args)]
        finite = (by(mode, *moved(h)) - by(mode, *moved(-h))) / (2 * h)
        assert abs(finite) > 1e-4
        np.testing.assert_allclose(unrolled[i] @ B, finite, rtol=1e-5)
        del one


@pytest.mark.parametrize("where", ["setting", "option"])
def test_the_unrolled_gradient_by_what_a_preconditioner_is_made_of_S1_25(where):
    """A learned one follows A, and so does the derivative; Jacobi's is held as it is."""
    learned = lp.learn.LearnedPreconditioner(jnp.zeros(N), 0.3 * jnp.asarray(FACTOR[:, :2]))
    mode = lp.UnrolledAdjoint(3)

    def f(d, m):
        operator = lp.MatrixLinearOperator(SPD + jnp.diag(d), lp.positive_semidefinite_tag)
        settings = {"preconditioner": m}
        if where == "setting":
            return jnp.sum(jnp.sin(lp.solve(operator, B, lp.CG(**settings), adjoint=mode)))
        return jnp.sum(jnp.sin(lp.solve(operator, B, lp.CG(), adjoint=mode, **settings)))

    at, h = jnp.zeros(N), 1e-6
    finite = (f(h * B, learned) - f(-h * B, learned)) / (2 * h)
    np.testing.assert_allclose(jax.grad(f)(at, learned) @ B, finite, rtol=1e-6)
    held = lp.TaggedLinearOperator(
        lp.DiagonalLinearOperator(1 / jnp.diag(SPD)), lp.positive_semidefinite_tag
    )
    np.testing.assert_allclose(
        jax.grad(f)(at, lp.preconditioners.Jacobi()), jax.grad(f)(at, held), rtol=1e-10
    )


@pytest.mark.parametrize(
    "name", ["ic", *(pytest.param(n, marks=pytest.mark.slow) for n in ("ilu", "ssor"))]
)
def test_unrolled_iterations_pass_through_substitutions(name):
    """Reverse mode through preconditioners that are applied level by level, beside M as a matrix."""
    band = scipy.sparse.diags([-1.0, 3.0, -1.0], [-1, 0, 1], (N, N)).tocsr()
    made = lp.SparseLinearOperator.from_scipy(band, lp.positive_semidefinite_tag)
    m = lp.preconditioners.by_name(name)
    dense = lp.MatrixLinearOperator(m.init(made).as_matrix(), lp.positive_semidefinite_tag)

    def f(b, m):
        x = lp.solve(made, b, lp.CG(preconditioner=m), adjoint=lp.UnrolledAdjoint(2))
        return jnp.sum(jnp.sin(x))

    close(jax.grad(f)(B, m), jax.grad(f)(B, dense))
    batch = jnp.stack([B, B[::-1]])
    close(jax.vmap(jax.grad(f), (0, None))(batch, m)[1], jax.grad(f)(B[::-1], dense))


def test_unrolled_solves_are_on_the_tape_and_raise():
    with lp.SolveTape() as tape:
        jax.grad(lambda b: loss(SPD, b, adjoint=lp.UnrolledAdjoint(4), name="u"))(B)
    assert [entry.kind for entry in tape] == ["forward"]
    assert int(tape["u"].stats["num_steps"]) == 4
    with pytest.raises(lp.NonFiniteInputError):
        solve(SPD, B.at[0].set(np.nan), adjoint=lp.UnrolledAdjoint(4))
    overflow = lp.Richardson(omega=1e200)
    with pytest.raises(lp.Diverged):
        solve(SPD, B, overflow, lp.UnrolledAdjoint(4))


def test_what_cannot_be_unrolled_says_so():
    mode = lp.UnrolledAdjoint(3)
    with pytest.raises(TypeError, match="differentiates the steps of a Krylov"):
        solve(SPD, B, lp.LU(), mode)
    for solver in (lp.LGMRES(), lp.CG(nullspace="constant")):
        with pytest.raises(ValueError, match="does not differentiate"):
            solve(SPD, B, solver, mode)
    with pytest.raises(ValueError, match="`Chebyshev` with both bounds"):
        solve(SPD, B, lp.Chebyshev(), mode)
    with pytest.raises(ValueError, match="num_steps"):
        lp.UnrolledAdjoint(0)
    with pytest.raises(TypeError, match="UnrolledAdjoint differentiates the iterations"):
        lp.root_solve(lambda x: x - 1, B, adjoint=mode)
    with pytest.raises(TypeError, match="adjoint: must be None"):
        solve(SPD, B, adjoint="unrolled")


# ---- one step -------------------------------------------------------------------------------------


def test_one_step_puts_the_preconditioner_in_the_place_of_the_inverse_S1_09():
    m = jnp.linalg.inv(GENERAL + 0.05 * jnp.asarray(FACTOR))
    mode = lp.OneStepAdjoint(lp.MatrixLinearOperator(m))
    f = lambda A, b: jnp.sum(jnp.sin(lp.solve(A, b, adjoint=mode)))
    x = jnp.linalg.solve(GENERAL, B)
    by_a, by_b = jax.grad(f, argnums=(0, 1))(GENERAL, B)
    adjoint = m.T @ jnp.cos(x)
    close(by_b, adjoint)
    close(by_a, -jnp.outer(adjoint, x))
    tangent = jax.jvp(f, (GENERAL, B), (jnp.zeros_like(GENERAL), B))[1]
    close(tangent, jnp.cos(x) @ (m @ B))


@pytest.mark.parametrize("steps", [1, 5])
def test_one_step_errs_by_a_power_of_what_the_preconditioner_misses(steps):
    m = jnp.linalg.inv(GENERAL + 0.05 * jnp.asarray(FACTOR))
    mode = lp.OneStepAdjoint(lp.MatrixLinearOperator(m), num_steps=steps)
    jacobian = jax.jacrev(lambda b: lp.solve(GENERAL, b, adjoint=mode))(B)
    exact = jnp.linalg.inv(GENERAL)
    missed = jnp.eye(N) - m @ GENERAL
    close(jacobian, (jnp.eye(N) - jnp.linalg.matrix_power(missed, steps)) @ exact)


@pytest.mark.parametrize("given", ["jacobi", lp.preconditioners.Jacobi()], ids=["name", "object"])
def test_preconditioners_of_derivatives_are_made_from_the_operator(given):
    """By name or as an object, in every mode that has one; for nonlinear equations too."""
    f = lambda b, mode: jnp.sum(lp.linear_solve(operator(SPD), b, lp.CG(), adjoint=mode).value)
    made = jax.grad(f)(B, lp.OneStepAdjoint(given))
    close(made, 1 / jnp.diag(SPD))
    exact = jnp.linalg.solve(SPD, jnp.ones(N))
    close(jax.grad(f)(B, lp.ImplicitAdjoint(preconditioner=given)), exact, 1e-7)
    stochastic = lp.StochasticAdjoint(jax.random.key(0), 2, preconditioner=given)
    close(jax.grad(f)(B, stochastic), exact, 1e-7)
    root = lambda c, mode: lp.root_solve(
        lambda x: x**3 - c,
        jnp.ones(3),
        jacobian=lambda x: lp.MatrixLinearOperator(jnp.diag(3 * x**2)),
        adjoint=mode,
    ).value.sum()
    close(jax.grad(root)(jnp.full(3, 8.0), lp.OneStepAdjoint(given)), jnp.full(3, 1 / 12))


def test_one_step_without_a_preconditioner_is_a_descent_direction():
    f = lambda b, mode=None: jnp.sum(lp.solve(SPD, b, adjoint=mode) ** 2)
    exact, cheap = jax.grad(f)(B), jax.grad(f)(B, lp.OneStepAdjoint())
    assert float(exact @ cheap) > 0
    scale = float(jnp.linalg.norm(cheap) / jnp.linalg.norm(2 * jnp.linalg.solve(SPD, B)))
    np.testing.assert_allclose(scale, 1 / np.linalg.norm(np.asarray(SPD), 2), rtol=0.05)


def test_one_step_is_on_the_tape_as_what_it_is():
    with lp.SolveTape() as tape:
        jax.grad(lambda b: jnp.sum(lp.solve(SPD, b, adjoint=lp.OneStepAdjoint())))(B)
    entry = tape[1]
    assert entry.kind == "adjoint"
    assert "RichardsonSteps" in entry.solver
    assert float(entry.stats["relative_residual"]) > 0.1  # and nobody was told that it converged
    with pytest.raises(ValueError, match="num_steps"):
        RichardsonSteps(num_steps=0)
    with pytest.raises(TypeError, match="preconditioner: must be"):
        lp.OneStepAdjoint(np.eye(3))


@pytest.mark.slow  # test_second_order.py has these for all solvers
def test_default_derivatives_are_unchanged():
    check_grads(
        lambda A: loss((A + A.T) / 2, B, lp.Cholesky()), (SPD,), order=2, rtol=1e-4, atol=1e-4
    )
