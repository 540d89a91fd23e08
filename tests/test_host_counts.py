"""What a transformation of a host solve costs: factorizations, analyses and callbacks, by the registry's
counters (rows S2-13, S2-16, S2-20, S2-21, B-07, B-08); and its value, against dense LAPACK (S0-34)."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import linsolve_prim as lp
from linsolve_prim.host import primitives

N, M, K, STEPS = 6, 3, 4, 5  # unknowns, matrices, right-hand sides, steps of a loop
DTYPE = jnp.result_type(float)
RTOL = 1e-9 if DTYPE == jnp.float64 else 2e-3
registry = lp.host.registry


class AnalysedLU(lp.AbstractHostSolver):
    """SuperLU with an analysis of its own: an ordering."""

    def separates_analysis(self):
        return True

    def analyze(self, pattern, values):
        return np.argsort(pattern.row_lengths, kind="stable")

    def factorize(self, pattern, values):
        return self.factorize_with(self.analyze(pattern, values), pattern, values)

    def factorize_with(self, analysis, pattern, values):
        matrix = sp.csr_matrix((values, pattern.indices, pattern.indptr), shape=pattern.shape)
        return spla.splu(matrix[analysis][:, analysis].tocsc(), permc_spec="NATURAL"), analysis

    def solve(self, factor, b, *, transpose):
        lu, order = factor
        x = np.empty_like(b)
        x[:, order] = lu.solve(b[:, order].T, trans="T" if transpose else "N").T
        return x

    def nbytes(self, factor):
        return 16 * factor[0].nnz


def _matrix():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((N, N)) < 0.3, rng.normal(size=(N, N)), 0) + 4 * np.eye(N)
    return sp.csr_array(dense)


OPERATOR = lp.SparseLinearOperator.from_scipy(_matrix())
PATTERN = OPERATOR.pattern
V = OPERATOR.values.astype(DTYPE)
B = jnp.asarray(np.random.default_rng(1).normal(size=N), DTYPE)
VS = V * (1 + 0.1 * jnp.asarray(np.random.default_rng(2).normal(size=(M, PATTERN.nnz)), DTYPE))
BS = jnp.asarray(np.random.default_rng(3).normal(size=(K, N)), DTYPE)


def host(solver, throw):
    def solve(v, b):
        operator = lp.SparseLinearOperator(v, PATTERN)
        return lp.linear_solve(operator, b, solver, throw=throw).value

    return solve


def dense(v, b):
    return jnp.linalg.solve(jnp.zeros((N, N), v.dtype).at[PATTERN.rows, PATTERN.indices].set(v), b)


# ---- The situations: what is asked for, and what it may cost ---------------------------------------


@dataclasses.dataclass(frozen=True)
class Situation:
    """`make(f)` is a function of `args` made of a solve `f`; `callbacks` None means any number."""

    name: str
    make: Callable[[Any], Callable[..., Any]]
    args: tuple[Any, ...] = (V, B)
    factorizations: int = 1
    callbacks: int | None = 3


def energy(f):
    return lambda v, b: jnp.sum(jnp.sin(f(v, b)))


def roll(f):
    """A scan over matrices that depend on the state."""

    def run(v, b):
        def step(x, t):
            y = f(v * (1 + 0.05 * t + 0.01 * jnp.tanh(x[0])), x + b)
            return y, y[0]

        x, ys = jax.lax.scan(step, b, jnp.arange(STEPS, dtype=DTYPE))
        return jnp.sum(x**2) + jnp.sum(ys)

    return run


def steps(f):
    """A loop with one matrix."""
    return lambda v, b: jax.lax.fori_loop(0, STEPS, lambda _, x: f(v, x + b), b)


def tangents(f):
    def run(v, b):
        push = jax.linearize(f, v, b)[1]
        return [push(k * v, b + k) for k in range(5)]

    return run


def pair(f):
    return lambda v, b: (f(v, b), f(v, 2 * b))


BOTH = (0, 1)
SITUATIONS = [
    Situation("solve", lambda f: f, callbacks=2),
    Situation("grad", lambda f: jax.grad(energy(f), BOTH)),
    Situation("grad of jit", lambda f: jax.grad(jax.jit(energy(f)), BOTH)),
    Situation("jacrev", lambda f: jax.jacrev(f, BOTH)),
    Situation("jacfwd", lambda f: jax.jacfwd(f, BOTH)),
    Situation("hessian", lambda f: jax.hessian(energy(f), BOTH), callbacks=5),
    Situation("jacrev of jacrev", lambda f: jax.jacrev(jax.jacrev(energy(f))), callbacks=5),
    Situation("linearize, 5 tangents", tangents, callbacks=7),
    Situation("checkpoint", lambda f: jax.grad(jax.checkpoint(energy(f)), BOTH), callbacks=None),
    Situation("vmap b", lambda f: jax.vmap(f, (None, 0)), (V, BS), callbacks=2),
    Situation("vmap v", lambda f: jax.vmap(f, (0, None)), (VS, B), M, 2),
    Situation("vmap both", lambda f: jax.vmap(f), (VS, BS[:M]), M, 2),
    Situation("nest v b", lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None)), (VS, BS), M, None),
    Situation("nest b v", lambda f: jax.vmap(jax.vmap(f, (0, None)), (None, 0)), (VS, BS), M, None),
    Situation("odd axes", lambda f: jax.vmap(f, (1, 1), 1), (VS.T, BS[:M].T), M, 2),
    Situation("vmap b of grad", lambda f: jax.vmap(jax.grad(energy(f), BOTH), (None, 0)), (V, BS)),
    Situation(
        "vmap v of grad", lambda f: jax.vmap(jax.grad(energy(f), BOTH), (0, None)), (VS, B), M
    ),
    Situation(
        "grad of vmap",
        lambda f: jax.grad(lambda v, b: jnp.sum(jax.vmap(energy(f), (0, None))(v, b)), BOTH),
        (VS, B),
        M,
    ),
    Situation(
        "vmap of hessian",
        lambda f: jax.vmap(jax.hessian(energy(f)), (0, None)),
        (VS, B),
        M,
        5,
    ),
    Situation("scan", roll, (V, B), STEPS, 2 * STEPS),
    Situation("grad of scan", lambda f: jax.grad(roll(f), BOTH), (V, B), STEPS, 3 * STEPS),
    Situation(
        "grad of checkpointed scan",
        lambda f: jax.grad(roll(jax.checkpoint(f)), BOTH),
        (V, B),
        STEPS,
        None,
    ),
    Situation("loop, one matrix", steps, callbacks=None),
    Situation("two right-hand sides", pair, callbacks=None),
]
BY_NAME = {situation.name: situation for situation in SITUATIONS}


@functools.cache
def expected(name):
    """From dense LAPACK."""
    situation = BY_NAME[name]
    return jax.jit(situation.make(dense))(*situation.args)


def close(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired)):
        np.testing.assert_allclose(a, d, rtol=0, atol=RTOL * max(1.0, float(jnp.abs(d).max())))


def run(fn, args, transport="callback"):
    """What `fn` returns, and what the registry counted."""
    registry.clear()
    registry.reset_stats()
    with lp.host.transport(transport):
        out = jax.block_until_ready(fn(*args))
    return out, registry.stats()


# ---- Tests ---------------------------------------------------------------------------------------

QUICK_WITH_BUFFER = {"solve", "vmap both", "grad of scan"}
QUICK_WITH_THROW = {"solve", "grad", "vmap v of grad", "scan", "loop, one matrix"}


def _ways():
    for situation in SITUATIONS:
        for transport in ("callback", "buffer"):
            for throw in (False, True):
                quick = transport == "callback" or situation.name in QUICK_WITH_BUFFER
                quick &= not throw or (
                    transport == "callback" and situation.name in QUICK_WITH_THROW
                )
                marks = () if quick else (pytest.mark.slow,)
                name = f"{situation.name}-{transport}-{'throw' if throw else 'code'}"
                yield pytest.param(situation, transport, throw, id=name, marks=marks)


@pytest.mark.parametrize(("situation", "transport", "throw"), list(_ways()))
def test_one_factorization_to_a_matrix_S2_13_B_08(situation, transport, throw, monkeypatch):
    """One factorization of each distinct matrix, one analysis, few callbacks; and the right numbers.

    S2-20, S2-21 and B-07: a batch is one callback to factorize and one to solve, whatever its size.
    Small matrices (here: with `throw`) are factorized by the first solve, and spare the former.
    """
    callbacks = situation.callbacks
    if not throw:
        monkeypatch.setattr(primitives, "SMALL", 0)
    elif callbacks is not None:
        callbacks -= STEPS if "scan" in situation.name else 1
    f = jax.jit(situation.make(host(AnalysedLU(), throw)))
    out, stats = run(f, situation.args, transport)
    assert stats["factorizations"] == situation.factorizations
    assert stats["analyses"] == 1
    if callbacks is not None:
        assert stats["callbacks"] == callbacks
    assert stats["evicted"] == stats["fallbacks"] == 0
    assert stats["live"] == situation.factorizations + 1  # and the analysis
    close(out, expected(situation.name))


@pytest.mark.parametrize("name", ["solve", "grad", "vmap v", "vmap b", "linearize, 5 tangents"])
def test_eager_S2_16(name):
    """The handle travels between programs that are compiled and run one by one."""
    situation = BY_NAME[name]
    out, stats = run(situation.make(host(lp.SuperLU(), True)), situation.args)
    assert stats["factorizations"] == situation.factorizations
    assert stats["analyses"] == 0
    close(out, expected(name))


@pytest.mark.parametrize("name", ["grad", "vmap v", "grad of scan"])
def test_rslab_analyses_once_S2_21(name):
    pytest.importorskip("rslab")
    situation = BY_NAME[name]
    out, stats = run(jax.jit(situation.make(host(lp.RSLab(), False))), situation.args)
    assert stats["factorizations"] == situation.factorizations
    assert stats["analyses"] == 1
    assert stats["fallbacks"] == 0
    close(out, expected(name))


def test_rslab_factorizes_definite_matrices_itself():
    """LDLᵀ of one triangle; not by the fallback, which would hide a mistake."""
    pytest.importorskip("rslab")
    a = np.diag(np.full(N, 3.0)) + np.diag(-np.ones(N - 1), 1) + np.diag(-np.ones(N - 1), -1)
    operator = lp.SparseLinearOperator.from_scipy(
        sp.csr_array(a.astype(DTYPE)), lp.positive_semidefinite_tag
    )
    x, stats = run(lambda b: lp.linear_solve(operator, b, lp.RSLab()).value, (B,))
    assert stats["factorizations"] == 1
    assert stats["fallbacks"] == 0
    close(x, jnp.linalg.solve(jnp.asarray(a, DTYPE), B))


@pytest.mark.parametrize("name", ["grad of scan", "vmap v of grad"])
@pytest.mark.parametrize("budget", [0, 600])
def test_budget_below_what_is_live_S2_16(name, budget):
    """What was evicted is made again: more work, the same numbers."""
    situation = BY_NAME[name]
    f = jax.jit(situation.make(host(AnalysedLU(), False)))
    with registry.override(budget=budget):
        out, stats = run(f, situation.args)
    assert stats["factorizations"] >= situation.factorizations
    assert stats["evicted"] > 0
    assert stats["live"] >= 1
    assert stats["bytes"] <= budget or stats["live"] == 1
    close(out, expected(name))


def test_one_matrix_at_several_places_of_a_batch():
    """Equal lanes of a batch share their factorization."""
    f = jax.jit(jax.vmap(host(lp.SuperLU(), False), (0, None)))
    _, stats = run(f, (jnp.stack([V, 2 * V, V, V]), B))
    assert stats["factorizations"] == 2


def test_second_call_factorizes_nothing():
    f = jax.jit(jax.grad(energy(host(lp.SuperLU(), False)), BOTH))
    first, stats = run(f, (V, B))
    assert stats["factorizations"] == 1
    second = f(V, 3 * B)
    jax.block_until_ready(second)
    assert registry.stats()["factorizations"] == 1
    close(second, jax.grad(energy(dense), BOTH)(V, 3 * B))
    close(first, expected("grad"))


def test_cotangents_live_on_the_pattern_S0_34():
    """The gradient by the operator is one with the same pattern: nothing dense."""
    loss = lambda operator: jnp.sum(lp.linear_solve(operator, B, lp.SuperLU()).value ** 2)
    gradient = jax.grad(loss)(lp.SparseLinearOperator(V, PATTERN))
    assert isinstance(gradient, lp.SparseLinearOperator)
    assert gradient.pattern is PATTERN
    close(gradient.values, jax.grad(lambda v: jnp.sum(dense(v, B) ** 2))(V))


@pytest.mark.parametrize("transport", ["callback", "buffer"])
def test_six_threads(transport):
    """Threads that ask for the same factor wait for one of them; others do not mix up."""
    f = jax.jit(jax.grad(energy(host(AnalysedLU(), False)), BOTH))
    with lp.host.transport(transport):
        jax.block_until_ready(f(V, B))
    registry.clear()
    registry.reset_stats()

    def work(i):
        with lp.host.transport(transport):  # a thread has settings of its own
            return [jax.block_until_ready(f(VS[j], BS[i % K])) for j in range(M)]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    stats = registry.stats()
    assert stats["factorizations"] == M
    assert stats["analyses"] == 1
    reference = jax.jit(jax.grad(energy(dense), BOTH))
    for i, outs in enumerate(found):
        for j, out in enumerate(outs):
            close(out, reference(VS[j], BS[i % K]))
