"""`solve_entry`: one entry of a solution from few rows (row S1-21)."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.results import member_name

SIDE = 60
N = SIDE**2
RNG = np.random.default_rng(0)
DTYPE = np.float64 if X64 else np.float32


def dominant(seed=0, margin=6.0):
    """A grid of SIDE × SIDE with random couplings of both signs; dominance by rows, not by columns."""
    random = np.random.default_rng(seed)
    line = scipy.sparse.diags([1.0, 1.0], [-1, 1], shape=(SIDE, SIDE))
    eye = scipy.sparse.eye(SIDE)
    web = (scipy.sparse.kron(line, eye) + scipy.sparse.kron(eye, line)).tocsr()
    web.data = random.uniform(-1, 1, web.nnz)
    diagonal = margin * random.choice([-1, 1], N) * random.uniform(1, 2, N)
    return (web + scipy.sparse.diags(diagonal)).tocsr().astype(DTYPE)


MATRIX = dominant()
OPERATOR = lp.SparseLinearOperator.from_scipy(MATRIX)
B = jnp.asarray(RNG.normal(size=N), DTYPE)
X = scipy.sparse.linalg.spsolve(MATRIX.astype(float).tocsc(), np.asarray(B, float))
ENTRIES = jnp.array([0, N // 2 + SIDE // 2, N - 1])


@pytest.mark.parametrize("rtol", [1e-2, 1e-5])
def test_entries_are_as_near_as_told_and_few_rows_are_touched_S1_21(rtol):
    with lp.SolveTape() as tape:
        got = lp.solve_entry(MATRIX, B, ENTRIES, rtol=rtol, name="near")
    stats = tape["near"].stats
    allowed = np.asarray(stats["relative_residual"]) * np.abs(X).max()
    assert np.all(np.abs(got - X[ENTRIES]) <= allowed + 1e-6 * np.abs(X).max())
    assert np.all(np.asarray(stats["relative_residual"]) <= rtol)
    assert np.all(np.asarray(stats["touched"]) < N / 30)


def sizes(jaxpr):
    """How many numbers each equation computes, at every depth."""
    for equation in jaxpr.eqns:
        if equation.primitive.name != "stop_gradient":  # which computes nothing
            yield from (var.aval.size for var in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from sizes(inner)


def test_work_does_not_grow_with_the_matrix_S1_21():
    """Of 40 copies beside each other the same rows are touched, and nothing of their size is computed."""
    many = lp.SparseLinearOperator.from_scipy(scipy.sparse.block_diag([MATRIX] * 40))
    found = []
    for operator, b in ((OPERATOR, B), (many, jnp.tile(B, 40))):
        with lp.SolveTape() as tape:
            x = lp.solve_entry(operator, b, N // 2, name="near")
        found.append((float(x), int(tape["near"].stats["touched"])))
    assert found[0] == found[1]
    entry = lambda v, b, i: lp.solve_entry(lp.SparseLinearOperator(v, many.pattern), b, i)
    jaxpr = jax.make_jaxpr(entry)(many.values, jnp.tile(B, 40), 0)
    assert max(sizes(jaxpr.jaxpr)) <= 256**2 < 40 * N


@pytest.mark.skipif(not X64, reason="compares to many digits")
def test_gradients_are_near_those_of_the_whole_solve_S1_21():
    i = N // 2 + 7
    entry = lambda v, b: lp.solve_entry(
        lp.SparseLinearOperator(v, OPERATOR.pattern), b, i, rtol=1e-7
    )
    by_a, by_b = jax.jit(jax.grad(entry, argnums=(0, 1)))(OPERATOR.values, B)
    unit = np.zeros(N)
    unit[i] = 1
    y = scipy.sparse.linalg.spsolve(MATRIX.T.tocsc(), unit)
    pattern = OPERATOR.pattern
    np.testing.assert_allclose(by_b, y, atol=1e-6 * np.abs(y).max())
    want = -y[pattern.rows] * X[pattern.indices]
    np.testing.assert_allclose(by_a, want, atol=1e-5 * np.abs(want).max())
    assert np.count_nonzero(by_b) < N / 10
    tangent = jax.jvp(entry, (OPERATOR.values, B), (by_a, by_b))[1]
    np.testing.assert_allclose(tangent, by_a @ by_a + by_b @ by_b, rtol=1e-10)
    along = lambda t: entry(OPERATOR.values * (1 + t), B)  # x/(1 + t)
    np.testing.assert_allclose(jax.grad(jax.grad(along))(0.0), 2 * entry(OPERATOR.values, B))


def test_it_says_when_rows_do_not_suffice(quiet_callbacks):
    """Poisson's equation is not strictly dominant: no few rows know the answer."""
    line = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(SIDE, SIDE))
    eye = scipy.sparse.eye(SIDE)
    poisson = (scipy.sparse.kron(line, eye) + scipy.sparse.kron(eye, line)).tocsr().astype(DTYPE)
    with pytest.raises(lp.NotConverged, match="solve_entry"):
        lp.solve_entry(poisson, B, N // 2, max_rows=64)
    with lp.SolveTape() as tape:
        value = jax.jit(lambda b: lp.solve_entry(poisson, b, N // 2, max_rows=64, throw=False))(B)
    assert np.isfinite(value)
    assert member_name(tape[-1].result) == "max_steps_reached"
    hollow = MATRIX.copy()
    hollow.setdiag(0)
    with pytest.raises(lp.SingularMatrixError):
        lp.solve_entry(hollow, B, 3)
    with pytest.raises(lp.NonFiniteInputError):
        lp.solve_entry(MATRIX, B.at[3].set(np.nan), 3)


def test_complex_matrices_and_traced_indices():
    matrix = (MATRIX * (1 + 0.5j)).tocsr().astype(np.result_type(DTYPE, np.complex64))
    b = B.astype(matrix.dtype)
    got = jax.jit(jax.vmap(lambda i: lp.solve_entry(matrix, b, i)))(ENTRIES)
    np.testing.assert_allclose(got, X[ENTRIES] / (1 + 0.5j), atol=1e-4 * np.abs(X).max())


def test_bad_input_is_told_with_the_remedy():
    with pytest.raises(TypeError, match="A: must be a sparse matrix whose pattern is known"):
        lp.solve_entry(jnp.eye(3), jnp.ones(3), 0)
    with pytest.raises(lp.StructureError, match="A, b: must be a square matrix and a vector"):
        lp.solve_entry(MATRIX, B[:-1], 0)
    with pytest.raises(lp.StructureError, match=f"index: must be from 0 to {N - 1}"):
        lp.solve_entry(MATRIX, B, N)
    with pytest.raises(TypeError, match="index: must be an integer"):
        lp.solve_entry(MATRIX, B, 1.0)
    with pytest.raises(ValueError, match="max_rows"):
        lp.solve_entry(MATRIX, B, 0, max_rows=0)
