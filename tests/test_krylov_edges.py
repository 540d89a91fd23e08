"""Every Krylov method where there is nothing to do, nothing that can be done, or one step is enough.

One compiled program runs all of these systems, once for each and once for all under `vmap`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_problems import BY_NAME, METHODS, each, system, tags
from krylov_tools import EPS, REAL, X64, normal, quick_jit

import linsolve_prim as lp
from linsolve_prim import REASONS, RESULTS
from linsolve_prim.solvers.krylov import default_rtol

HUGE = 1e100 if X64 else 1e25
A = np.array([[2.0, 1, 0], [1, 3, 1], [0, 1, 4]])
X = np.array([1.0, -1, 0.5])
ZERO = np.zeros(3)
SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
TURN = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
ONES = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
#: name → (which methods solve it, matrix, b, first guess). "definite": all of them; "hermitian":
#: those for symmetric systems; "maybe": the solution or an honest failure; "never"; "bad".
EDGES = {
    "ordinary": ("definite", A, A @ X, ZERO),
    "b is zero": ("definite", A, ZERO, ZERO),
    "b is zero, with a guess": ("definite", A, ZERO, X),
    "the guess is exact": ("definite", np.diag([1.0, 2, 4]), [1.0, -2, 2], X),
    "b is an eigenvector": ("definite", np.diag([1.0, 2, 3]), [0.0, 1, 0], ZERO),
    "identity": ("definite", np.eye(3), [1.0, 0, 2], ZERO),
    "small b": ("definite", A, A @ X / HUGE, ZERO),
    "large b": ("definite", A, A @ X * HUGE, ZERO),
    "small A": ("definite", A / HUGE, A @ X, ZERO),
    "large A": ("definite", A * HUGE, A @ X, ZERO),
    "singular, with a solution": ("singular", np.diag([1.0, 2, 0]), [1.0, 1, 0], ZERO),
    "of rank one, with a solution": ("singular", np.ones((3, 3)), [2.0, 2, 2], ZERO),
    "swap": ("hermitian", SWAP, [2.0, 3, 1], ZERO),
    "swap of one": ("hermitian", SWAP, [1.0, 0, 0], ZERO),
    "turn": ("maybe", TURN, [2.0, 3, 1], ZERO),
    "turn of one": ("maybe", TURN, [1.0, 0, 0], ZERO),
    "nilpotent": ("maybe", np.eye(3, k=1), [1.0, 2, 0], ZERO),
    "without a solution": ("never", ONES, [2.0, 1, 1], ZERO),
    "zero": ("never", np.zeros((3, 3)), [1.0, 2, 3], ZERO),
    "zero, with a guess": ("never", np.zeros((3, 3)), [1.0, 2, 3], X),
    "nan in A": ("bad", np.diag([1.0, np.nan, 3]), [1.0, 1, 1], ZERO),
    "infinity in b": ("bad", A, [1.0, np.inf, 0], ZERO),
    "nan in the guess": ("bad", A, [1.0, 1, 1], [np.nan, 0, 0]),
}


def eager_marks(method):
    """An eager call is compiled with all optimisations, which takes seconds."""
    return [] if method.name in ("MINRES", "BiCGStab") else [pytest.mark.slow]


def lanes_marks(method):
    """One method for each way to hold a lane still; `test_edges_under_vmap` looks at all."""
    core = ("CG", "MINRES", "QMR", "BiCGStab(2)", "IDR(4)")
    return [] if method.name in core else [pytest.mark.slow]


def expected(method, name):
    """True or False, or `None` where both are honest."""
    kind = EDGES[name][0]
    if kind in ("bad", "maybe"):
        return None
    if kind == "never":
        return method.least_squares
    if kind == "hermitian":
        return True if method.kind == "hermitian" else None
    return None if kind == "singular" and method.name == "Chebyshev" else True


def check(method, name, x, result, stats):
    """What must be true of the outcome."""
    kind, a, b, x0 = EDGES[name]
    b, x = np.asarray(b), np.asarray(x, np.float64)
    success = bool(result == RESULTS.successful)
    assert np.isfinite(x).all(), name
    want = expected(method, name)
    assert want is None or success == want, (name, lp.RESULTS[result])
    assert (stats["reason"] == REASONS.failed) == (not success), name
    if kind == "bad":
        assert result == RESULTS.nonfinite_input, name
        return
    rest, size = np.linalg.norm(b - a @ x), np.linalg.norm(b)
    if success and stats["reason"] != REASONS.least_squares:
        assert rest <= (1.01 * default_rtol(REAL) + 8 * EPS) * size, name
    if "zero" in name and kind == "definite":
        assert stats["reason"] == REASONS.zero_rhs
        np.testing.assert_array_equal(x, 0)
    if name.startswith(("b is zero", "the guess")):
        assert int(stats["num_steps"]) == 0, name
    if name == "the guess is exact":
        np.testing.assert_array_equal(x, x0)


def stacked():
    """All matrices, right-hand sides and guesses."""
    columns = zip(*[edge[1:] for edge in EDGES.values()])
    return [jnp.asarray(np.stack(column), REAL) for column in columns]


def program(method):
    """From arrays to `(x, result, stats)`."""

    def solve(a, b, x0):
        solver, operator = method(), lp.MatrixLinearOperator(a, tags(method))
        return solver.compute(solver.init(operator, {}), b, {"y0": x0})

    return solve


@functools.cache
def single(method):
    """The compiled program for one system."""
    return quick_jit(program(method))


@functools.cache
def batch(method):
    """The same for a batch."""
    return quick_jit(jax.vmap(program(method)))


@each()
def test_edges(method):
    """B-10, S0-08, S0-36, S0-39: solved or an honest failure, in no step where none is needed."""
    arrays = stacked()
    for i, name in enumerate(EDGES):
        check(method, name, *single(method)(*[array[i] for array in arrays]))


@each()
def test_edges_under_vmap(method):
    """B-10, S3-18: the same in one batch, and bit for bit the same in other places of the batch."""
    lanes = batch(method)(*stacked())
    for i, name in enumerate(EDGES):
        check(method, name, *jax.tree.map(lambda leaf: leaf[i], lanes))
    turned = batch(method)(*[jnp.roll(array, 5, axis=0) for array in stacked()])
    for now, before in zip(jax.tree.leaves(turned), jax.tree.leaves(lanes)):
        np.testing.assert_array_equal(now, np.roll(before, 5, axis=0))


@each()
def test_one_unknown(method):
    """B-10: 1×1, and a right-hand side that is an eigenvector for that reason."""
    compiled = quick_jit(program(method))
    for value, solved in ((2.0, True), (0.0, method.least_squares)):
        a, b = jnp.full((1, 1), value, REAL), jnp.asarray([3.0], REAL)
        x, result, _ = compiled(a, b, jnp.zeros(1, REAL))
        assert bool(result == RESULTS.successful) == solved
        np.testing.assert_allclose(x, [1.5 if value else 0.0], rtol=1e-4)


@pytest.mark.parametrize("name", [pytest.param(m.name, marks=eager_marks(m)) for m in METHODS])
def test_eager_as_jitted(name):
    """S0-36, S0-38: the same failure, raised by an eager call and as a code from a compiled one."""
    method = BY_NAME[name]
    operator = lp.MatrixLinearOperator(jnp.zeros((3, 3), REAL), tags(method))
    b = jnp.asarray([1.0, 2, 3], REAL)
    inside = jax.jit(lambda b: lp.linear_solve(operator, b, method(), throw=False))(b)
    if method.least_squares:
        assert inside.stats["reason"] == REASONS.least_squares
        return
    with pytest.raises(lp.LinearSolveError, match=type(method()).__name__) as caught:
        lp.linear_solve(operator, b, method())
    solution = caught.value.solution
    assert solution.result == inside.result
    np.testing.assert_array_equal(solution.value, inside.value)
    np.testing.assert_allclose(solution.stats["residual_norm"], np.linalg.norm(b), rtol=1e-5)


@pytest.mark.parametrize("name", [pytest.param(m.name, marks=lanes_marks(m)) for m in METHODS])
def test_lanes(name):
    """S3-18: lanes of a `vmap` do not depend on their neighbours, and do what single runs do."""
    method, n = BY_NAME[name], 16
    a, _ = system(method.kind, n)
    rows = normal((5, n), REAL, 4)
    solve = lambda b: program(method)(jnp.asarray(a), b, jnp.zeros(n, REAL))
    compiled = quick_jit(jax.vmap(solve))
    x, result, stats = compiled(jnp.asarray(rows))
    assert bool(jnp.all(result == RESULTS.successful))
    # The neighbours: b = 0, a bad one, one that takes other steps; and another place.
    others = np.stack([np.zeros(n), np.full(n, np.nan), rows[0], np.eye(n)[0], rows[1] * 1e6])
    y, codes, more = compiled(jnp.asarray(others.astype(REAL)))
    np.testing.assert_array_equal(y[2], x[0])
    assert int(more["num_steps"][2]) == int(stats["num_steps"][0])
    assert int(more["num_steps"][0]) == 0
    assert (codes == RESULTS.nonfinite_input).tolist() == [False, True, False, False, False]
    one, _, alone = quick_jit(solve)(jnp.asarray(rows[0]))
    # (A product with many vectors is rounded otherwise than one with one.)
    assert abs(int(alone["num_steps"]) - int(stats["num_steps"][0])) <= 1
    np.testing.assert_allclose(one, x[0], atol=20 * default_rtol(REAL))
