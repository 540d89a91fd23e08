"""CG, GMRES, BiCGStab, LSMR and Normal: when they stop, what they count, and that they say the truth."""

import equinox as eqx
import hypothesis as hp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as spla
from krylov_four import each_method, matrix, run, vector
from krylov_tools import REAL, relative, succeeded

from linsolve_prim._norms import max_norm
from linsolve_prim.operators import (
    AbstractLinearOperator,
    MatrixLinearOperator,
    positive_semidefinite_tag,
)
from linsolve_prim.results import REASONS, RESULTS
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab, default_rtol
from linsolve_prim.solvers.normal import Normal

# ---- stopping ------------------------------------------------------------------------------------


def test_default_rtol():
    """S0-41: the default depends on the precision."""
    assert default_rtol(jnp.float16) == default_rtol(jnp.bfloat16) == 1e-2
    assert default_rtol(jnp.float32) == default_rtol(jnp.complex64) == 1e-5
    assert default_rtol(np.float64) == default_rtol(np.complex128) == 1e-10


@each_method
def test_tolerances(solver):
    """S0-42: the larger of the two, and the reason says which it was; both may be traced."""
    a, b = matrix(20, REAL, isinstance(solver, CG)), vector(20, REAL)
    size = np.linalg.norm(b)
    tolerance = lambda t: jnp.asarray(t, REAL)
    make = lambda rtol, atol: type(solver)(rtol=tolerance(rtol), atol=tolerance(atol))
    x, result, loose = run(make(0.0, 1e-2 * size), a, b)
    assert succeeded(result)
    assert loose["reason"] == REASONS.atol
    assert relative(a, x, b) <= 1.01e-2
    x, result, tight = run(make(1e-4, 0.0), a, b)
    assert tight["reason"] == REASONS.rtol
    assert relative(a, x, b) <= 1.01e-4
    assert int(tight["num_steps"]) > int(loose["num_steps"])


@pytest.mark.parametrize("solver", [CG(), GMRES(), LSMR()], ids=repr)
def test_norm(solver):
    """The rule is judged in the norm that was asked for."""
    a, b = matrix(20, REAL, isinstance(solver, CG)), vector(20, REAL)
    x, result, stats = run(type(solver)(rtol=1e-3, norm=max_norm), a, b)
    assert succeeded(result)
    r = b - a @ np.asarray(x)
    assert np.abs(r).max() <= 1.01e-3 * np.abs(b).max()
    np.testing.assert_allclose(stats["residual_norm"], np.linalg.norm(r), rtol=1e-3)


@pytest.mark.parametrize(
    ("solver", "max_steps"), [(CG(), 1), (GMRES(), 2), (BiCGStab(), 1), (LSMR(), 2)]
)
def test_few_steps(solver, max_steps):
    """S3-11: one or two steps are legal; x is what they gave, and no success is claimed."""
    a, b = matrix(20, REAL, isinstance(solver, CG)), vector(20, REAL)
    limited = type(solver)(max_steps=max_steps)
    x, result, stats = run(limited, a, b)
    assert bool(result == RESULTS.max_steps_reached)
    assert int(stats["num_steps"]) == int(stats["max_steps"]) == max_steps
    assert 0 < relative(a, x, b) < 1
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=1e-4)


@pytest.mark.parametrize("wrapped", [False, True], ids=["CG", "Normal"])
def test_fixed_number_of_steps(wrapped):
    """Without any tolerance a number of steps is asked for, and taken; the reason says so."""
    a, b = matrix(20, REAL, True), vector(20, REAL)
    solver = CG(0.0, 0.0, max_steps=5)
    x, result, stats = run(Normal(solver) if wrapped else solver, a, b)
    assert 0 < relative(a, x, b) < 1
    assert int(stats["num_steps"]) == 5
    assert succeeded(result)
    assert stats["reason"] == REASONS.steps


@pytest.mark.parametrize(
    "solver", [CG(rtol=1e-12), GMRES(rtol=1e-12), BiCGStab(rtol=1e-12)], ids=repr
)
def test_unattainable(solver):
    """B-03: a tolerance below the rounding errors is not claimed, however small the recurrence."""
    n = 60
    a = np.diag(np.geomspace(1, 1e4, n)).astype(np.float32)
    q = np.linalg.qr(matrix(n, np.float32, False, 5))[0]
    a = (q @ a @ q.T).astype(np.float32)
    b = vector(n, np.float32)
    x, result, stats = run(solver, (a + a.T) / 2, b)
    assert not succeeded(result)
    assert np.isfinite(x).all()
    true = relative((a + a.T) / 2, x, b)
    assert abs(float(stats["relative_residual"]) - true) <= 0.2 * true


def test_stagnation():
    """GMRES with too short a restart."""
    n = 10
    a = np.roll(np.eye(n, dtype=REAL), 1, axis=0)
    _, result, stats = run(GMRES(restart=3, stagnation_iters=4), a, np.eye(n, dtype=REAL)[0])
    assert bool(result == RESULTS.stagnation)
    assert int(stats["num_steps"]) == 12
    _, result, stats = run(GMRES(restart=n), a, np.eye(n, dtype=REAL)[0])
    assert succeeded(result)
    assert int(stats["num_steps"]) == n


def test_conlim():
    a = np.diag(np.geomspace(1, 1e-4, 20)).astype(REAL)
    _, result, stats = run(LSMR(rtol=1e-12, conlim=10.0), a, np.ones(20, REAL))
    assert bool(result == RESULTS.conlim)
    assert float(stats["cond_A"]) > 10


def test_iterations_as_scipy():
    """CG needs SciPy's number of steps, within 10 % and 2."""
    n = 100
    a = (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1) + 1e-2 * np.eye(n)).astype(REAL)
    b = vector(n, REAL)
    for m in (None, np.diag(1 / np.linspace(1, 5, n)).astype(REAL)):
        for rtol in (1e-2, 1e-5):
            count = []
            spla.cg(a, b, rtol=rtol, atol=0, M=m, callback=count.append)
            options = {} if m is None else {"preconditioner": MatrixLinearOperator(jnp.asarray(m))}
            _, result, stats = run(CG(rtol=jnp.asarray(rtol)), a, b, options)
            assert succeeded(result)
            assert abs(int(stats["num_steps"]) - len(count)) <= 0.1 * len(count) + 2


def test_stabilise_every():
    a, b = matrix(20, REAL, True), vector(20, REAL)
    _, _, plain = run(CG(), a, b)
    for every in (3,):
        x, result, stats = run(CG(stabilise_every=every), a, b)
        assert succeeded(result)
        assert abs(int(stats["num_steps"]) - int(plain["num_steps"])) <= 1
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


class Log:
    products = 0

    def add(self):
        self.products += 1


class Counting(AbstractLinearOperator):
    """A matrix that counts its products while the program runs."""

    matrix: jax.Array
    log: Log = eqx.field(static=True)
    tags: frozenset = eqx.field(static=True, default=frozenset([positive_semidefinite_tag]))

    def mv(self, x):
        jax.debug.callback(self.log.add)
        return self.matrix @ x

    def transpose(self):
        return Counting(self.matrix.T, self.log)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)

    out_structure = in_structure


@pytest.mark.parametrize(
    ("solver", "budget"),
    [
        (CG(), lambda k: k + 2),
        (GMRES(restart=4), lambda k: k + (k + 3) // 4 + 1),
        (BiCGStab(), lambda k: 2 * k + 2),
    ],
    ids=["CG", "GMRES", "BiCGStab"],
)
def test_products(solver, budget):
    """Products with A are what an iteration costs."""
    n, log = 20, Log()
    operator = Counting(jnp.asarray(matrix(n, REAL, True)), log)
    _, result, stats = run(solver, None, vector(n, REAL), {}, operator)
    jax.effects_barrier()
    assert succeeded(result)
    assert log.products <= budget(int(stats["num_steps"]))


# ---- honesty -------------------------------------------------------------------------------------

N = 6
_HONEST = {
    "CG": (CG(rtol=1e-4), False),
    "CG preconditioned": (CG(rtol=1e-4), True),
    "GMRES right": (GMRES(rtol=1e-4), True),
    "GMRES left": (GMRES(rtol=1e-4, side="left"), True),
    "BiCGStab preconditioned": (BiCGStab(rtol=1e-4), True),
    "LSMR": (LSMR(rtol=1e-4), False),
    "Normal": (Normal(CG(rtol=1e-4)), False),
}


@pytest.mark.parametrize("name", _HONEST)
@hp.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hp.HealthCheck.function_scoped_fixture],
)
@hp.given(
    seed=st.integers(0, 10**6),
    decades=st.floats(0, 9),
    kind=st.sampled_from(["definite", "indefinite", "general", "singular", "scaled"]),
    scale=st.sampled_from([1.0, 1e-12, 1e12]),
)
def test_honesty(name, seed, decades, kind, scale):
    """B-03, S0-42: success means a small true residual (or normal residual); x is always finite."""
    rng = np.random.default_rng(seed)
    q, p = (np.linalg.qr(rng.normal(size=(N, N)))[0] for _ in range(2))
    d = np.geomspace(1, 10**-decades, N)
    if kind == "indefinite":
        d[::2] *= -1
    if kind == "singular":
        d[-2:] = 0
    a = q @ np.diag(d) @ (p if kind in ("general", "singular") else q.T)
    if kind == "scaled":
        a = np.diag(10.0 ** rng.integers(-3, 3, N)) @ a
    a, b = a.astype(np.float32), (scale * rng.normal(size=N)).astype(np.float32)
    m = np.diag(1 / (np.abs(np.diag(a)) + 1e-3)).astype(np.float32)
    solver, preconditioned = _HONEST[name]
    options = {"preconditioner": MatrixLinearOperator(jnp.asarray(m))} if preconditioned else {}
    x, result, stats = run(solver, a, b, options)
    assert np.isfinite(x).all()
    a, b, x = a.astype(np.float64), b.astype(np.float64), np.asarray(x, np.float64)
    r, size = b - a @ x, np.linalg.norm(a, 2)
    noise = 1e-6 * (size * np.linalg.norm(x) + np.linalg.norm(b))
    assert abs(float(stats["residual_norm"]) - np.linalg.norm(r)) <= noise
    if not succeeded(result):
        assert stats["reason"] == REASONS.failed
    elif stats["reason"] == REASONS.least_squares:
        assert name == "LSMR"
        assert np.linalg.norm(a.T @ r) <= size * (1.01e-4 * np.linalg.norm(r) + noise)
    else:
        assert np.linalg.norm(r) <= 1.01e-4 * np.linalg.norm(b) + noise
