"""Settings that all Krylov methods share: histories, sides, null spaces, progress, counted products."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_table import REAL, X64

import linsolve_prim as lp
from linsolve_prim.results import REASONS, member_name

N = 14
RNG = np.random.default_rng(0)
SYMMETRIC = np.diag(np.linspace(1, 20, N)) + 0.3 * np.ones((N, N))
GENERAL = SYMMETRIC + np.triu(RNG.normal(size=(N, N))) * 0.3
LAPLACE = np.diag([1, *[2] * (N - 2), 1]) - np.eye(N, k=1) - np.eye(N, k=-1)
RTOL = 1e-9 if X64 else 1e-4
METHODS = [lp.CG, lp.GMRES, lp.BiCGStab, lp.LSMR]


def array(x):
    return jnp.asarray(np.asarray(x), REAL)


def operator(method):
    if method is lp.CG:
        return lp.MatrixLinearOperator(array(SYMMETRIC), lp.positive_semidefinite_tag)
    return lp.MatrixLinearOperator(array(GENERAL))


B = array(RNG.normal(size=N))
INVERSE_DIAGONAL = lp.DiagonalLinearOperator(array(1 / np.diag(SYMMETRIC)))


# ---- histories -----------------------------------------------------------------------------------


CASES = [(method, side) for method in METHODS for side in ("left", "right")]
CASES.remove((lp.LSMR, "left"))
USUAL = [(lp.CG, "left"), (lp.GMRES, "right"), (lp.BiCGStab, "left"), (lp.LSMR, "right")]
CASES = [pytest.param(*c, marks=() if c in USUAL else pytest.mark.slow) for c in CASES]


@pytest.mark.parametrize(("method", "side"), CASES)
def test_history_is_that_of_shorter_runs_S0_47(method, side):
    """Entry k is ‖b − Ax‖ after k steps, also where the recurrences know another norm."""
    op, settings = operator(method), {"preconditioner": INVERSE_DIAGONAL, "side": side}
    full = lp.linear_solve(op, B, method(rtol=RTOL, max_steps=30, history="x", **settings))
    count = int(full.stats["history_length"])
    history, iterates = np.asarray(full.stats["history"]), np.asarray(full.stats["iterates"])
    assert history.shape == (31,)
    assert iterates.shape == (31, N)
    assert count == full.stats["num_steps"] + 1 > 3
    a = np.asarray(op.as_matrix(), float)
    true = np.linalg.norm(np.asarray(B, float)[:, None] - a @ iterates.T.astype(float), axis=0)
    scale = 1e-5 if X64 else 2e-3
    np.testing.assert_allclose(history, true, rtol=scale, atol=scale * RTOL * 10)
    np.testing.assert_allclose(iterates[-1], full.value, rtol=1e-6)
    np.testing.assert_array_equal(history[count:], history[count - 1])  # then it is frozen
    for k in (0, 1, 3):
        short = method(rtol=0.0, max_steps=max(k, 1), **settings)
        if k:
            x = lp.linear_solve(op, B, short, throw=False).value
            np.testing.assert_allclose(iterates[k], x, rtol=scale, atol=scale)
        else:
            np.testing.assert_allclose(history[0], np.linalg.norm(B), rtol=1e-6)


def test_history_under_vmap_has_one_row_for_each_lane():
    solver = lp.CG(rtol=RTOL, max_steps=30, history=True)
    bs = jnp.stack([B, 0 * B, array(SYMMETRIC[:, 0])])
    stats = jax.vmap(lambda b: lp.linear_solve(operator(lp.CG), b, solver).stats)(bs)
    assert stats["history"].shape == (3, 31)
    for b, row, count in zip(bs, stats["history"], stats["history_length"]):
        alone = lp.linear_solve(operator(lp.CG), b, solver).stats
        assert count == alone["history_length"]
        np.testing.assert_allclose(row, alone["history"], rtol=1e-3, atol=RTOL)


def test_bad_histories_are_refused():
    with pytest.raises(ValueError, match=r"history: must be False, True .*got 'all'"):
        lp.CG(history="all")
    with pytest.raises(ValueError, match=r"'x' keeps max_steps \+ 1 iterates"):
        lp.CG(history="x")


# ---- counted products ----------------------------------------------------------------------------


@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_products_are_counted_truly(method, guess):
    calls = {"A": 0, "AT": 0}

    a = np.asarray(operator(method).as_matrix())

    def counted(which, matrix):
        def call(x):
            calls[which] += 1
            return np.asarray(matrix @ x, dtype=REAL)

        like = jax.ShapeDtypeStruct((N,), REAL)
        return lambda x: jax.pure_callback(call, like, x)

    class Counted(lp.AbstractLinearOperator):
        turned: bool = False

        def mv(self, x):
            return counted("AT", a.T)(x) if self.turned else counted("A", a)(x)

        def transpose(self):
            return Counted(not self.turned)

        def in_structure(self):
            return jax.ShapeDtypeStruct((N,), REAL)

        out_structure = in_structure

    op = Counted()
    if method is lp.CG:
        op = lp.TaggedLinearOperator(op, lp.positive_semidefinite_tag)
    solver = method(rtol=RTOL)
    options = {"y0": jnp.ones(N, REAL)} if guess else {}
    state = solver.init(op, options)
    run = jax.jit(lambda b: solver.compute(state, b, options)[2])
    stats = jax.block_until_ready(run(B))
    assert calls == {"A": stats["matvecs"], "AT": stats["rmatvecs"]}
    k = int(stats["num_steps"])
    most = {lp.CG: k + 2, lp.GMRES: k + k // 20 + 2, lp.BiCGStab: 2 * k + 2, lp.LSMR: k + 3}
    assert stats["matvecs"] <= most[method]


# ---- null spaces (B-12) --------------------------------------------------------------------------


def laplace():
    return lp.MatrixLinearOperator(array(LAPLACE), lp.positive_semidefinite_tag)


SPACES = {
    "constant": "constant",
    "auto": "auto",
    "vector": jnp.ones(N, REAL),
    "dependent vectors": jnp.stack([jnp.ones(N, REAL), 2 * jnp.ones(N, REAL)]),
    "both": lp.NullSpace("constant", "constant"),
}
PINV = np.linalg.pinv(LAPLACE)


@pytest.mark.parametrize(
    "space",
    [
        "auto",
        "dependent vectors",
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in SPACES
            if s not in ("auto", "dependent vectors")
        ),
    ],
)
def test_null_space_is_projected_out_B_12(space):
    solver = lp.CG(rtol=RTOL, nullspace=SPACES[space])
    f = lambda b: lp.linear_solve(laplace(), b, solver).value
    b = B - B.mean()
    tol = 1e-7 if X64 else 1e-2
    np.testing.assert_allclose(f(b), PINV @ b, atol=tol)
    x = lp.linear_solve(laplace(), b, solver, options={"y0": 5 * jnp.ones(N, REAL)}).value
    np.testing.assert_allclose(x, PINV @ b, atol=tol)
    for jacobian in (jax.jacrev, jax.jacfwd):  # of x = A†b: any direction of b may be asked for
        np.testing.assert_allclose(jacobian(f)(b), PINV, atol=10 * tol)


@pytest.mark.parametrize("space", ["constant", "auto"])
def test_right_hand_side_out_of_the_range_is_told_B_12(space):
    solver = lp.CG(rtol=RTOL, nullspace=space)
    solution = lp.linear_solve(laplace(), B + 1, solver, throw=False)
    assert solution.result == lp.RESULTS.incompatible
    assert member_name(solution.stats["reason"], REASONS) == "failed"
    r = np.asarray(B + 1) - LAPLACE @ np.asarray(solution.value)
    np.testing.assert_allclose(solution.stats["residual_norm"], np.linalg.norm(r), rtol=1e-4)
    np.testing.assert_allclose(solution.value, PINV @ B, atol=1e-6 if X64 else 1e-2)
    with pytest.raises(lp.IncompatibleRHS, match="not in the range"):
        lp.linear_solve(laplace(), B + 1, solver)
    # its cotangents are projected, and say nothing of the kind
    g = jax.grad(lambda b: lp.linear_solve(laplace(), b - b.mean(), solver).value[0])(B)
    np.testing.assert_allclose(g, PINV[0], atol=1e-6 if X64 else 1e-2)


def test_null_space_of_a_regular_operator_found_automatically_is_empty_B_12():
    op = operator(lp.CG)
    solution = lp.linear_solve(op, B, lp.CG(rtol=RTOL, nullspace="auto"))
    np.testing.assert_allclose(op.mv(solution.value), B, atol=100 * RTOL)


def test_left_and_right_null_spaces_of_a_nonsymmetric_operator_B_12():
    right, left = RNG.normal(size=(2, N))
    u = np.linalg.svd(right[None])[2][1:]
    v = np.linalg.svd(left[None])[2][1:]
    a = v.T @ (np.diag(np.linspace(1, 3, N - 1)) + 0.1) @ u
    op = lp.MatrixLinearOperator(array(a))
    solver = lp.GMRES(rtol=RTOL, nullspace=lp.NullSpace(array(right), array(left)))
    b = array(a @ RNG.normal(size=N))
    f = lambda b: lp.linear_solve(op, b, solver).value
    tol = 1e-6 if X64 else 1e-2
    np.testing.assert_allclose(f(b), np.linalg.pinv(a) @ b, atol=tol)
    np.testing.assert_allclose(jax.jacrev(f)(b), np.linalg.pinv(a), atol=tol)
    np.testing.assert_allclose(jax.jacfwd(f)(b), np.linalg.pinv(a), atol=tol)


@pytest.mark.parametrize(
    ("space", "message"),
    [("all", "nullspace: 'all' is not known"), (np.ones(N + 1), "nullspace: vectors must have")],
)
def test_bad_null_spaces_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        lp.linear_solve(laplace(), B, lp.CG(nullspace=space))


# ---- progress ------------------------------------------------------------------------------------


def test_progress_lines(capfd):
    solver = lp.CG(rtol=RTOL, progress=2)
    steps = int(lp.linear_solve(operator(lp.CG), B, solver).stats["num_steps"])
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"CG step {k}" for k in range(2, steps + 1, 2)
    ]
    jax.block_until_ready(
        jax.vmap(lambda b: lp.linear_solve(operator(lp.CG), b, solver).value)(jnp.stack([B, 2 * B]))
    )
    assert "CG step 2: " in capfd.readouterr().err
    quiet = jax.jit(lambda b: lp.linear_solve(operator(lp.CG), b, lp.CG(), throw=False).value)
    assert "callback" not in quiet.lower(B).as_text()
    with pytest.raises(ValueError, match="progress: must be False, True or"):
        lp.CG(progress=-1)


# ---- sides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [lp.GMRES, lp.BiCGStab])
def test_both_sides_solve_and_differentiate(method):
    for side in ("left", "right"):
        solver = method(rtol=RTOL, preconditioner=INVERSE_DIAGONAL, side=side)
        f = lambda b, s=solver: lp.linear_solve(operator(method), b, s).value
        np.testing.assert_allclose(
            f(B), np.linalg.solve(GENERAL, np.asarray(B, float)), atol=100 * RTOL
        )
        np.testing.assert_allclose(jax.jacrev(f)(B), np.linalg.inv(GENERAL), atol=1000 * RTOL)
    with pytest.raises(ValueError, match="side: must be 'left' or 'right'; got 'both'"):
        method(side="both")
    with pytest.raises(ValueError, match="side: `LSMR` preconditions tall operators on the right"):
        lp.LSMR(side="left")


# ---- solvers as settings -------------------------------------------------------------------------


def test_solvers_are_reusable_specifications_S4_08():
    """S4-08: `("CG", 1e-3, 0)` is `lp.CG(1e-3, 0.0)`: an immutable value, equal and hashed by its settings."""
    solver = lp.CG(1e-3, 0.0)
    assert solver == lp.CG(rtol=1e-3, atol=0.0)
    assert hash(solver) == hash(lp.CG(1e-3, 0.0))
    assert solver not in (lp.CG(1e-4, 0.0), lp.CG(1e-3, 0.0, history=True), lp.MINRES(1e-3, 0.0))
    assert {solver: "found"}[lp.CG(1e-3, 0.0)] == "found"
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.rtol = 1e-4
    assert dataclasses.replace(solver, max_steps=7) == lp.CG(1e-3, 0.0, max_steps=7)
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def solve(solver, b):
        traced.append(solver)
        return lp.solve(operator(lp.CG), b, solver)

    first, again = solve(solver, B), solve(lp.CG(1e-3, 0.0), B)
    assert len(traced) == 1
    np.testing.assert_array_equal(first, again)


def test_guess_is_given_to_the_solve_not_to_the_solver_S4_15():
    """S4-15: one solver serves with and without a first guess; `x0=None` stands for none."""
    solver, a = lp.CG(RTOL), operator(lp.CG)
    plain = lp.linear_solve(a, B, solver, options={"x0": None})
    guessed = lp.linear_solve(a, B, solver, options={"x0": plain.value})
    assert int(plain.stats["num_steps"]) > 0
    assert int(guessed.stats["num_steps"]) == 0
    np.testing.assert_array_equal(guessed.value, plain.value)
    np.testing.assert_array_equal(lp.solve(a, B, solver, x0=plain.value), plain.value)
    np.testing.assert_array_equal(lp.solve(a, B, solver, x0=None), plain.value)


@pytest.mark.parametrize("method", [lp.CG, lp.MINRES, lp.BiCGStab])
def test_methods_fail_alike_S3_23(method):
    """S3-23: too few steps and a singular system raise in every method, and never give NaN."""
    solver = method(RTOL, max_steps=2)
    singular = np.diag(np.r_[0.0, np.linspace(1, 3, N - 1)])
    for matrix, error in ((SYMMETRIC, lp.NotConverged), (singular, lp.LinearSolveError)):
        a = lp.MatrixLinearOperator(array(matrix), lp.positive_semidefinite_tag)
        with pytest.raises(error, match=rf"(?s){method.__name__}.*max_steps = 2") as caught:
            lp.linear_solve(a, B, solver)
        told = lp.linear_solve(a, B, solver, throw=False)
        assert caught.value.solution.result == told.result != lp.RESULTS.successful
        assert bool(jnp.all(jnp.isfinite(told.value)))
