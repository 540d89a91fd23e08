"""`PARDISO`: one factorization for a matrix, one analysis for a pattern (S2-07, S2-13, S2-16, S2-20, B-07)."""

import concurrent.futures
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from host_table import PSD, close

import linsolve_prim as lp
from linsolve_prim.host import pardiso
from linsolve_prim.solvers.host.pardiso_module import ByModule

pytest.importorskip("pymklpardiso")
if pardiso.library() is None:
    pytest.skip("this wheel does not show the library's function", allow_module_level=True)

registry = lp.host.registry
DTYPE = jnp.result_type(float)
N = 12


def _matrix(definite):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((N, N)) < 0.25, rng.normal(size=(N, N)), 0)
    dense = dense + dense.T if definite else dense
    return dense + 9 * np.eye(N)


TAGS = {"general": (), "definite": PSD, "symmetric": lp.symmetric_tag}
OPERATORS = {
    name: lp.SparseLinearOperator.from_scipy(sp.csr_array(_matrix(name != "general")), tags)
    for name, tags in TAGS.items()
}
B = jnp.asarray(np.random.default_rng(1).normal(size=N), DTYPE)


def _solve(name, values, b):
    operator = OPERATORS[name]
    operator = lp.SparseLinearOperator(values, operator.pattern, TAGS[name])
    return lp.linear_solve(operator, b, lp.PARDISO()).value


def _dense(name, values, b):
    pattern = OPERATORS[name].pattern
    matrix = jnp.zeros((N, N), values.dtype).at[pattern.rows, pattern.indices].set(values)
    return jnp.linalg.solve(matrix, b)


def _loss(solve, name, values, b):
    return jnp.sum(jnp.sin(solve(name, values, b)))


def _many(values):
    return values * (1 + 0.1 * jnp.arange(4, dtype=values.dtype))[:, None]


def _newton(solve, name, values, b):
    """Each step with a matrix of its own."""
    step = lambda x, v: (solve(name, v, b - 0.01 * x), None)
    return jax.lax.scan(step, b, _many(values))[0]


DERIVATIVES = {
    "value": (lambda f: f, 1),
    "value_and_grad": (lambda f: jax.value_and_grad(f, (0, 1)), 1),
    "jacrev": (lambda f: jax.jacrev(f, (0, 1)), 1),
    "hessian": (lambda f: jax.hessian(f, 1), 1),
    "vmap": (lambda f: lambda v, b: jax.vmap(f, (0, None))(_many(v), b), 4),
    "vmap of grad": (lambda f: lambda v, b: jax.vmap(jax.grad(f), (0, None))(_many(v), b), 4),
}


def _counts(f, *args):
    registry.clear()
    registry.reset_stats()
    out = jax.block_until_ready(f(*args))
    stats = registry.stats()
    return out, (stats["factorizations"], stats["analyses"], stats["fallbacks"])


@pytest.mark.parametrize("name", TAGS)
@pytest.mark.parametrize("what", DERIVATIVES)
def test_one_factorization_for_each_matrix_and_one_analysis_S2_13(name, what):
    transform, matrices = DERIVATIVES[what]
    values = OPERATORS[name].values.astype(DTYPE)
    ours = jax.jit(transform(functools.partial(_loss, _solve, name)))
    out, counts = _counts(ours, values, B)
    assert counts == (matrices, 1, 0)
    want = transform(functools.partial(_loss, _dense, name))(values, B)
    jax.tree.map(close, out, want)


@pytest.mark.parametrize("gradient", [False, True])
def test_steps_on_one_pattern_share_an_analysis_S2_20(gradient):
    loss = lambda solve: lambda v: jnp.sum(jnp.sin(_newton(solve, "general", v, B)))
    make = jax.grad if gradient else lambda f: f
    values = OPERATORS["general"].values.astype(DTYPE)
    out, counts = _counts(jax.jit(make(loss(_solve))), values)
    assert counts == (4, 1, 0)
    close(out, make(loss(_dense))(values))


def test_complex_symmetric_and_hermitian_ones_too():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N))
    b = jnp.asarray(rng.normal(size=N) + 1j * rng.normal(size=N), jnp.result_type(complex))
    for matrix, tags in [
        (half + half.T, lp.symmetric_tag),
        (half @ half.conj().T + N * np.eye(N), PSD),
        (-half @ half.conj().T - N * np.eye(N), lp.negative_semidefinite_tag),
        (half, ()),
    ]:
        pattern = lp.SparsityPattern.from_dense(np.ones((N, N)))

        def loss(v, b, solve, pattern=pattern, tags=tags):
            return jnp.sum(jnp.abs(solve(lp.SparseLinearOperator(v, pattern, tags), b)) ** 3)

        ours = lambda operator, b: lp.linear_solve(operator, b, lp.PARDISO()).value
        dense = lambda operator, b: jnp.linalg.solve(operator.as_matrix(), b)
        values = jnp.asarray(matrix.reshape(-1), b.dtype)
        out, counts = _counts(jax.jit(jax.grad(functools.partial(loss, solve=ours), 1)), values, b)
        assert counts == (1, 1, 0)
        close(out, jax.grad(functools.partial(loss, solve=dense), 1)(values, b))


def test_six_threads_S2_16():
    """Each with three matrices, of which two are everybody's."""
    values = OPERATORS["general"].values.astype(DTYPE)
    gradient = jax.jit(jax.value_and_grad(functools.partial(_loss, _solve, "general"), (0, 1)))
    jax.block_until_ready(gradient(values, B))

    def work(k):
        return [gradient(values * s, B) for s in (2.0, 3.0, 4.0 + k)]

    registry.clear()
    registry.reset_stats()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    stats = registry.stats()
    assert (stats["factorizations"], stats["analyses"]) == (8, 1)
    want = jax.value_and_grad(functools.partial(_loss, _dense, "general"), (0, 1))
    for k, out in enumerate(found):
        for s, got in zip((2.0, 3.0, 4.0 + k), out, strict=True):
            jax.tree.map(close, got, want(values * s, B))


def test_handles_are_released_with_the_registry_S2_17():
    values = OPERATORS["general"].values.astype(DTYPE)
    _counts(jax.jit(functools.partial(_solve, "general")), values, B)
    gc.collect()
    handles = [x for x in gc.get_objects() if type(x) is pardiso.Handle and x.size == N]
    assert handles
    left = [weakref.ref(handle) for handle in handles]
    before = registry.stats()["bytes"]
    assert before > sum(handle.nbytes for handle in handles)
    del handles
    registry.clear()
    gc.collect()
    assert [ref() for ref in left] == [None] * len(left)
    assert registry.stats()["bytes"] == 0


def test_many_matrices_keep_places_and_bytes_flat_S2_17():
    """Factors that were evicted leave their places to the next; none is left behind."""
    values = OPERATORS["general"].values.astype(DTYPE)
    solve = jax.jit(functools.partial(_solve, "general"))
    registry.clear()
    registry.reset_stats()
    jax.block_until_ready(solve(values, B))
    one = registry.stats()["bytes"]
    with registry.override(budget=2 * one):
        for k in range(600):
            jax.block_until_ready(solve(values * (1 + 1e-3 * k), B))
            assert registry.stats()["bytes"] <= 2 * one
    stats = registry.stats()
    assert (stats["analyses"], stats["fallbacks"]) == (1, 0)
    assert stats["factorizations"] >= 599


def test_a_bad_residual_is_mended_by_a_matching_before_anybody_else_is_asked(monkeypatch):
    solver = lp.PARDISO("general")
    operator = OPERATORS["general"]
    values = np.asarray(operator.values)
    analysis = solver.analyze(operator.pattern, values)
    factor = solver.factorize_with(analysis, operator.pattern, values)
    plain, b = factor.numeric, np.asarray(B)[None].astype(values.dtype)
    monkeypatch.setattr(pardiso.Numeric, "solve", _spoilt(pardiso.Numeric.solve))
    x = solver.solve(factor, b, transpose=True)
    assert factor.numeric.is_matched
    assert not plain.is_matched
    close(x[0], np.linalg.solve(np.asarray(operator.as_matrix()).T, b[0]))


def _spoilt(solve):
    """Of what has no matching."""

    def wrong(self, b, *, transpose=False):
        return solve(self, b, transpose=transpose) * (1 if self.is_matched else 2)

    return wrong


def test_a_matrix_without_a_solution_is_told_and_the_next_one_solved():
    singular = sp.csr_array(np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]]))
    operator = lp.SparseLinearOperator.from_scipy(singular)
    solution = lp.linear_solve(operator, jnp.ones(3), lp.PARDISO(), throw=False)
    assert solution.result != lp.RESULTS.successful
    well = lp.SparseLinearOperator(operator.values.at[0].set(9.0), operator.pattern)
    close(lp.linear_solve(well, jnp.ones(3), lp.PARDISO()).value, [0.0625, 0.21875, 1.0])


@pytest.mark.parametrize("name", TAGS)
def test_by_the_module_where_the_library_is_not_shown(monkeypatch, name):
    monkeypatch.setattr(pardiso, "library", lambda: None)
    solver = lp.PARDISO().specialize(OPERATORS[name])
    assert solver.runs_in_threads()
    pattern, values = OPERATORS[name].pattern, np.asarray(OPERATORS[name].values)
    analysis = solver.analyze(pattern, values)
    assert isinstance(analysis, ByModule)
    dense, b = np.asarray(OPERATORS[name].as_matrix()), np.asarray(B)[None]
    for scale in (1, 2):
        factor = solver.factorize_with(analysis, pattern, values * scale)
        assert solver.nbytes(factor) > values.nbytes
        for transpose in (False, True):
            x = solver.solve(factor, b, transpose=transpose)
            close(x[0], np.linalg.solve(scale * (dense.T if transpose else dense), b[0]))


def test_another_structure_is_an_error():
    with pytest.raises(ValueError, match=r"structure: must be one of .* got 'spd'"):
        lp.PARDISO("spd")
    assert lp.PARDISO("general").specialize(OPERATORS["definite"]).structure == "general"
    got = {
        name: lp.PARDISO().specialize(operator).structure for name, operator in OPERATORS.items()
    }
    assert got == {name: name if name != "symmetric" else "hermitian" for name in TAGS}


def test_the_automatic_choice_for_a_wide_band(monkeypatch):
    dense = np.eye(400) * 4
    dense[0], dense[:, 0] = 1, 1
    dense[0, 0] = 400
    operator = lp.SparseLinearOperator.from_scipy(sp.csr_array(dense))
    choice = lp.AutoLinearSolver().choose(operator)
    assert choice.solver == lp.PARDISO()
    assert "PARDISO is the fastest" in choice.reason
    b = jnp.ones(400, DTYPE)
    solution = lp.linear_solve(operator, b)
    close(solution.value, np.linalg.solve(dense, np.ones(400)))
    monkeypatch.setattr(pardiso, "library", lambda: None)
    assert not isinstance(lp.AutoLinearSolver().choose(operator).solver, lp.PARDISO)
