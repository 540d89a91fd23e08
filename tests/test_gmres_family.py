"""FGMRES and its relatives: against SciPy, their products, their derivatives, honesty."""

import dataclasses

import hypothesis as hp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as spla
from krylov_tools import (
    COMPLEX,
    EPS,
    REAL,
    X64,
    assert_gradients,
    convection,
    counts,
    general,
    normal,
    over,
    quick_jit,
    relative,
    run,
    succeeded,
    with_spectrum,
)

import linsolve_prim as lp
from linsolve_prim import RESULTS
from linsolve_prim.solvers.krylov import default_rtol

INNER = lp.GMRES(rtol=0.1, max_steps=4)
FAMILY = {
    "FGMRES": lp.FGMRES(),
    "FGMRES(inner)": lp.FGMRES(preconditioner=INNER),
    "GCROT": lp.GCROT(m=8, k=4),
    "LGMRES": lp.LGMRES(restart=8, outer=2),
}
each, few = over(FAMILY), over(FAMILY, core=("FGMRES(inner)", "GCROT"))


@few
@pytest.mark.parametrize("dtype", [REAL, COMPLEX, np.float32])
def test_solves(solver, dtype):
    """S0-12: real and complex, in both precisions; the reported residual is the true one."""
    n = 40
    a, b = general(n, dtype), normal(n, dtype, 1)
    x, result, stats = run(solver, a, b)
    assert succeeded(result)
    assert x.dtype == dtype
    noise = 20 * np.finfo(dtype).eps
    assert relative(a, x, b) <= 1.01 * default_rtol(dtype) + noise
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=0.01, atol=noise)


@pytest.mark.slow
@each
def test_laws(solver):
    """S2-11: transposes, conjugates, vmap, derivatives, b = 0, NaN, as for every solver."""
    lp.testing.check_solver(solver, lp.MatrixLinearOperator(jnp.asarray(general(6, COMPLEX))))


@each
def test_products(solver):
    """B-18: `matvecs` and `rmatvecs`, with those of an inner solver, are what was really done."""
    result, stats, log = counts(solver, convection(40), normal(40))
    assert succeeded(result)
    inner = [int(stats.get(f"inner_{name}", 0)) for name in ("matvecs", "rmatvecs")]
    assert log.matvecs == int(stats["matvecs"]) + inner[0]
    assert log.rmatvecs == int(stats["rmatvecs"]) + inner[1]


SMALL = {
    "1x1": ([[2.0]], [3.0]),
    "eigenvector": (np.diag([1.0, 2, 3, 4]), [0.0, 1, 0, 0]),
    "identity": (np.eye(4), [1.0, 0, 2, 0]),
    "skew": (np.kron(np.eye(2), [[0.0, 1], [-1, 0]]), [2.0, 3, 0, 1]),
    "permutation": (np.roll(np.eye(4), 1, 0), [1.0, 0, 0, 0]),
    "singular, consistent": (np.diag([1.0, 2, 0, 1]), [1.0, 1, 0, 2]),
}


@each
def test_small(solver):
    """Small systems, b = 0 and exact guesses."""
    for a, b in SMALL.values():
        a, b = np.asarray(a, REAL), np.asarray(b, REAL)
        x, result, _ = run(solver, a, b, {"y0": 0 * b})
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)
        _, result, stats = run(solver, a, b, {"y0": x})
        assert succeeded(result)
        assert int(stats["num_steps"]) == 0
        x, result, stats = run(solver, a, 0 * b, {"y0": x})
        assert succeeded(result)
        np.testing.assert_array_equal(x, 0 * b)


@each
def test_failures(solver):
    """B-04, B-17: what has no solution is no success, and x is finite."""
    b = np.array([1, 2, 3, 4], REAL)
    for a in (np.zeros((4, 4)), np.ones((4, 4)), np.diag([1, np.nan, 1, 1])):
        x, result, stats = run(solver, a.astype(REAL), b, {"y0": 0 * b})
        assert np.isfinite(x).all()
        assert not succeeded(result)
        assert stats["reason"] == lp.REASONS.failed
    _, result, _ = run(solver, np.diag([1, np.inf, 1, 1]).astype(REAL), b, {"y0": 0 * b})
    assert bool(result == RESULTS.nonfinite_input)


def test_too_few_steps():
    """B-17: two steps are not enough, and it is said so."""
    _, result, stats = run(lp.FGMRES(max_steps=2), convection(4), np.ones(4, REAL))
    assert bool(result == RESULTS.max_steps_reached)
    assert int(stats["num_steps"]) == 2


@each
@hp.settings(max_examples=25, deadline=None, derandomize=True)
@hp.given(
    seed=st.integers(0, 10**6),
    decades=st.floats(0, 9),
    rank=st.integers(3, 6),
    scale=st.sampled_from([1.0, 1e-12, 1e12]),
)
def test_honesty(solver, seed, decades, rank, scale):
    """B-17: success means a small true residual, whatever the matrix; x is always finite."""
    a = with_spectrum(np.geomspace(1, 10**-decades, rank), (6, 6), seed).astype(np.float32)
    b = (scale * normal(6, seed=seed + 2)).astype(np.float32)
    x, result, stats = run(solver, a, b)
    assert np.isfinite(x).all()
    x = np.asarray(x, np.float64)
    noise = 1e-6 * (np.linalg.norm(a, 2) * np.linalg.norm(x) / np.linalg.norm(b) + 1)
    assert abs(float(stats["relative_residual"]) - relative(a, x, b)) <= noise
    if succeeded(result):
        assert relative(a, x, b) <= 1.01e-5 + noise


@few
def test_lanes(solver):
    """Lanes of a vmap equal single runs, whatever their neighbours are."""
    n = 40
    operator = lp.MatrixLinearOperator(jnp.asarray(convection(n)))
    bs = np.stack([normal(n, seed=1), np.full(n, np.nan), 1e6 * normal(n, seed=2), np.zeros(n)])
    solve = lambda b: solver.compute(solver.init(operator, {}), b, {})
    xs, results, stats = quick_jit(jax.vmap(solve))(jnp.asarray(bs, REAL))
    assert (results == RESULTS.successful).tolist() == [True, False, True, True]
    for i in (0, 2):
        x, _, one = run(solver, operator, bs[i].astype(REAL))
        assert abs(int(one["num_steps"]) - int(stats["num_steps"][i])) <= 1
        same = int(one["num_steps"]) == int(stats["num_steps"][i])
        tol = 300 * EPS if same else 100 * default_rtol(REAL)
        np.testing.assert_allclose(xs[i], x, rtol=0, atol=tol * np.abs(x).max())


@few
def test_gradients(solver):
    """Gradients by A and b, against dense linear algebra."""
    a, b = jnp.asarray(general(8, COMPLEX)), jnp.asarray(normal(8, COMPLEX, 1))
    mine = lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a), b, solver).value
    assert_gradients(mine, jnp.linalg.solve, a, b, 1e-8 if X64 else 1e-3)


# ---- FGMRES --------------------------------------------------------------------------------------


def test_fgmres_is_gmres_for_a_fixed_preconditioner():
    """S0-12: and takes as many steps as SciPy's."""
    n = 60
    a, b = convection(n) + np.diag(np.linspace(0, 2, n)).astype(REAL), normal(n)
    m = np.diag(1 / np.diag(a)).astype(REAL)
    for restart in (8, 60):
        for precondition in (False, True)[: 1 if restart == 60 else 2]:
            options = {"preconditioner": lp.MatrixLinearOperator(jnp.asarray(m))}
            options = options if precondition else {}
            settings = {"rtol": 1e-5, "restart": restart, "max_steps": 2000}
            _, result, flexible = run(lp.FGMRES(**settings), a, b, options)
            _, _, plain = run(lp.GMRES(**settings), a, b, options)
            assert succeeded(result)
            assert abs(int(flexible["num_steps"]) - int(plain["num_steps"])) <= 1
            if not precondition:
                norms = []
                keep = {"callback": norms.append, "callback_type": "pr_norm"}
                spla.gmres(a, b, rtol=1e-5, atol=0, restart=restart, maxiter=2000, **keep)
                assert abs(int(flexible["num_steps"]) - len(norms)) <= 0.1 * len(norms) + 2


def test_fgmres_with_an_iteration_as_preconditioner():
    """A few steps of BiCGStab differ each time; GMRES with the same as an operator is misled."""
    n = 40
    a, b = convection(n, 0.2), normal(n)
    plain = run(lp.FGMRES(), a, b)[2]
    inner = lp.BiCGStab(rtol=0.1, max_steps=15)
    x, result, stats = run(lp.FGMRES(preconditioner=inner), a, b)
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(REAL)
    assert int(stats["num_steps"]) <= int(plain["num_steps"]) / 3
    assert int(stats["inner_steps"]) >= int(stats["num_steps"])


def test_fgmres_with_a_function_that_is_not_linear():
    n = 40
    a, b = general(n), normal(n)
    d = jnp.asarray(1 / np.diag(a))
    rough = lambda v: d * jnp.sign(v) * jnp.abs(v) ** 0.9
    m = lp.FunctionLinearOperator(rough, jax.ShapeDtypeStruct((n,), REAL))
    x, result, _ = run(lp.FGMRES(preconditioner=m, max_steps=400), a, b)
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


class Broken(lp.AbstractLinearSolver):
    """Gives nothing but zeros, or NaN."""

    bad: float

    def init(self, operator, options):
        return operator

    def compute(self, state, vector, options):
        return vector * 0 + self.bad, RESULTS.successful, {}

    def assume_full_rank(self):
        return True


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_fgmres_with_an_inner_solver_that_fails(bad):
    """It does as well as without."""
    a, b = general(40), normal(40)
    _, result, stats = run(lp.FGMRES(preconditioner=Broken(bad)), a, b)
    assert succeeded(result)
    assert int(stats["num_steps"]) == int(run(lp.FGMRES(), a, b)[2]["num_steps"])
    operator = lp.MatrixLinearOperator(jnp.asarray(a))
    solve = lambda b: lp.linear_solve(operator, b, lp.FGMRES(preconditioner=Broken(bad))).value
    (ct,) = quick_jit(lambda b: jax.vjp(solve, b)[1](b))(b)  # it has no `transpose` of its own
    np.testing.assert_allclose(ct, np.linalg.solve(a.T, b), atol=1e-3 if not X64 else 1e-8)


def test_the_left_is_refused():
    for make in (lp.FGMRES, lp.GCROT, lp.LGMRES):
        what = rf"{make.__name__}.*right.*Leave it out, or use `GMRES`"
        with pytest.raises(ValueError, match=what):
            make(side="left")
    with pytest.raises(ValueError, match=r"preconditioner: .*the solver LU\(\).*`FGMRES`"):
        lp.GMRES(preconditioner=lp.LU())


# ---- GCROT and LGMRES ----------------------------------------------------------------------------


def _scipys(f, a, b, **settings):
    """The products that SciPy's method takes."""
    log = []

    def product(x):
        log.append(None)
        return a @ x

    operator = spla.LinearOperator(a.shape, matvec=product, dtype=a.dtype)
    assert f(operator, b, rtol=1e-5, atol=0, maxiter=1000, **settings)[1] == 0
    return len(log)


@pytest.mark.skipif(not X64, reason="in float32 rounding errors decide after many steps")
@pytest.mark.parametrize("speed", [0.6, pytest.param(0.2, marks=pytest.mark.slow)])
def test_iterations_as_scipy(speed):
    """S0-12: GCROT(m, k) and LGMRES take SciPy's number of steps, within 10 % and 2."""
    n = 120
    a, b = convection(n, speed), normal(n)
    cases = [
        (lp.GCROT(m=8, k=6), spla.gcrotmk, {"m": 8, "k": 6}),
        (lp.GCROT(m=5, k=10), spla.gcrotmk, {"m": 5, "k": 10}),
        (lp.LGMRES(restart=8, outer=3), spla.lgmres,
         {"inner_m": 8, "outer_k": 3, "store_outer_Av": False}),
    ]  # fmt: skip
    for solver, scipys, settings in cases:
        _, result, stats = run(dataclasses.replace(solver, rtol=1e-5, max_steps=3000), a, b)
        assert succeeded(result)
        want = _scipys(scipys, a, b, **settings)
        steps = int(stats["num_steps"])
        if isinstance(solver, lp.LGMRES):  # SciPy counts those for true residuals too
            steps = int(stats["matvecs"])
        assert abs(steps - want) <= 0.1 * want + 2


def _systems(n=60, count=4):
    """A sequence of slowly changing systems."""
    shifts = 1e-3 * np.arange(count)[:, None, None] * np.diag(np.linspace(0, 1, n))
    a = convection(n, 0.2) + 0.02 * np.eye(n) + shifts
    return jnp.asarray(a, REAL), jnp.asarray(normal((count, n)))


def test_recycling_in_a_scan():
    """The space as the carry of `lax.scan`: later solves take clearly fewer steps, and are right."""
    mats, bs = _systems()
    solver = lp.GCROT(m=12, k=8, max_steps=2000)

    def solves(mats, bs):
        def step(space, system):
            a, b = system
            operator = lp.MatrixLinearOperator(a)
            solution = lp.linear_solve(operator, b, solver, options={"recycle": space})
            fresh = lp.linear_solve(operator, b, solver).stats["num_steps"]
            return solution.stats["recycle"], (
                solution.value, solution.stats["num_steps"], fresh, solution.stats["recycle"].count
            )  # fmt: skip

        return jax.lax.scan(step, solver.empty_space(bs[0]), (mats, bs))[1]

    xs, steps, fresh, filled = map(np.asarray, quick_jit(solves)(mats, bs))
    for a, x, b in zip(mats, xs, bs):
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)
    assert int(steps[0]) == int(fresh[0])
    assert (steps[1:] <= 0.8 * fresh[1:]).all()
    assert (filled[1:] == 8).all()
    mine = lambda a, b: solves(a, b)[0]
    dense = lambda a, b: jnp.linalg.solve(a, b[..., None])[..., 0]
    assert_gradients(mine, dense, mats[:3], bs[:3], 1e-5 if X64 else 0.1)


def test_recycled_vectors_of_another_matrix():
    """Whatever the space holds, dependent vectors and NaN too, the result is right."""
    n = 40
    a, b = general(n), normal(n)
    solver = lp.GCROT(m=8, k=4)
    u = normal((4, n), seed=3)
    spaces = {
        "random": u,
        "dependent": np.stack([u[0], u[0], 2 * u[0], u[1]]),
        "zero": 0 * u,
        "nan": np.where(np.arange(4)[:, None] == 2, np.nan, u),
        "large": u * np.geomspace(1e-20, 1e20, 4)[:, None].astype(REAL),
    }
    for vectors in spaces.values():
        space = lp.RecycledSpace(jnp.asarray(vectors), jnp.asarray(4, jnp.int32))
        x, result, stats = run(solver, a, b, {"recycle": space})
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)
        assert np.isfinite(stats["recycle"].vectors).all()
    result, stats, log = counts(solver, a, b, {"recycle": space})
    assert log.matvecs == int(stats["matvecs"])
    again = run(solver, a, b, {"recycle": stats["recycle"]})[2]  # x itself is in the space
    assert int(again["num_steps"]) == 0


def test_recycling_of_turned_states():
    """Conjugated states and batches, with a space; a transposed one goes without."""
    a, b = general(9, COMPLEX), normal(9, COMPLEX, 1)
    solver = lp.GCROT(m=4, k=3, rtol=1e-9 if X64 else 1e-4)
    operator = lp.MatrixLinearOperator(jnp.asarray(a))
    space = run(solver, a, b, {"recycle": solver.empty_space(b)})[2]["recycle"]
    options = {"recycle": space}
    state = solver.init(operator, options)
    turned, rest = solver.conj(state, options)
    x, result, stats = run(solver, operator, a.conj() @ b, rest, turned)
    assert succeeded(result)
    np.testing.assert_allclose(x, b, atol=1e-6 if X64 else 1e-2)
    assert "recycle" not in solver.transpose(state, options)[1]
    spaces = jax.tree.map(lambda v: jnp.stack([v, 0 * v]), space)
    f = lambda space: solver.compute(state, jnp.asarray(b), {"recycle": space})
    _, results, stats = quick_jit(jax.vmap(f))(spaces)
    assert (results == RESULTS.successful).all()
    assert int(stats["num_steps"][0]) == 0 < int(stats["num_steps"][1])


def test_bad_spaces():
    operator = lp.MatrixLinearOperator(jnp.eye(4, dtype=REAL))
    other = lp.GCROT(m=2).empty_space(jnp.zeros(3, REAL))
    for bad in (other, jnp.zeros((4, 4), REAL)):
        with pytest.raises(lp.StructureError, match=r"options\['recycle'\]: must be .*empty_space"):
            lp.linear_solve(operator, jnp.ones(4, REAL), lp.GCROT(), options={"recycle": bad})
    with pytest.raises(ValueError, match="k: must be an integer from 1"):
        lp.GCROT(k=0)
