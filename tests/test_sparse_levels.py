"""Level scheduling: which steps a sparse triangular system takes, and who asks for them (row S3-20)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import X64
from host_table import DTYPE, UPPER, make_matrix, operator_of

import linsolve_prim as lp
from linsolve_prim.sparse import levels
from linsolve_prim.testing import random_like

RTOL = 1e-8 if X64 else 1e-2
N = 9


# ---- The choice ------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("n", [N, 5000])
def test_auto_takes_it_everywhere_S3_20(platform, n, monkeypatch):
    """By pattern or by tag; and `explain` says how many steps that is."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    lower = sp.csr_array(
        sp.diags_array([2.0, -1.0, 0.5], offsets=[0, -1, -3], shape=(n, n), dtype=DTYPE)
    )
    for operator in (
        operator_of(lower),
        operator_of(lower).T,
        lp.TaggedLinearOperator(operator_of(lower), lp.lower_triangular_tag),
    ):
        assert lp.AutoLinearSolver().select_solver(operator) == lp.Triangular()
        text = lp.explain(operator)
        assert "triangular: substitution on the device" in text
        assert f"in {n} levels" in text


def test_a_tag_that_the_pattern_contradicts_is_refused():
    wrong = operator_of(make_matrix("general", DTYPE, 6), UPPER)
    with pytest.raises(ValueError, match="has entries below the diagonal"):
        lp.linear_solve(wrong, jnp.ones(6, DTYPE))


# ---- Levels ----------------------------------------------------------------------------------------


def grid(m):
    """The lower triangle of the five-point Laplacian: levels are its antidiagonals."""
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))
    return sp.tril(sp.kronsum(line, line))


def arrow(n):
    """A last row that waits for all others."""
    a = np.eye(n)
    a[-1] = 1 / np.arange(1, n + 1)
    return a


def staircase(n):
    """Wide and narrow levels by turns."""
    a = np.eye(n)
    for i in range(1, n):
        a[i, (i // 40) * 40 - 1 if i // 40 else 0] = -0.5
        if i % 40 < 4:
            a[i, i - 1] = -0.5
    return a


SHAPES = {
    "grid": (lambda: grid(12), 23),
    "diagonal": (lambda: np.diag(np.arange(1.0, 31)), 1),
    "bidiagonal": (lambda: np.eye(50) - 0.5 * np.eye(50, k=-1), 50),
    "arrow": (lambda: arrow(700), None),
    "full": (lambda: np.tril(np.ones((60, 60)) / 60) + np.eye(60), None),
    "staircase": (lambda: staircase(400), None),
    "random": (lambda: sp.tril(sp.random(300, 300, 0.02, random_state=0)) + 3 * sp.eye(300), None),
    "one": (lambda: np.ones((1, 1)), 1),
}


@pytest.mark.parametrize("turn", [False, True], ids=["A", "transposed"])
@pytest.mark.parametrize("name", SHAPES)
def test_levels_of_any_shape(name, turn):
    """The solution is that of SciPy; tables stay within four times the entries, loops within a few."""
    make, height = SHAPES[name]
    matrix = sp.csr_array(make(), dtype=DTYPE)
    operator = operator_of(matrix)
    found = levels.levels_of(operator.pattern, True, turn, False)
    n, nnz = matrix.shape[0], operator.pattern.nnz
    width, cells = found.slots.shape
    filled = int(found.solution.max(initial=0))
    assert width <= 16
    assert len(found.runs) <= levels._MOST_RUNS + 1
    assert width * filled <= 4 * (n + nnz)
    assert cells <= filled + 1 + n
    assert height is None or found.height == height
    assert found.height <= n + 2 * int(np.ceil(np.log2(n + 1)))
    b = random_like(jax.ShapeDtypeStruct((n,), DTYPE), 3)
    x = lp.linear_solve(operator.T if turn else operator, b, lp.Triangular()).value
    dense = matrix.toarray()
    expected = np.linalg.solve(dense.T if turn else dense, b)
    assert np.abs(x - expected).max() <= RTOL * np.abs(expected).max()


def test_empty_system():
    operator = lp.SparseLinearOperator.from_coo([], [], jnp.zeros(0, DTYPE), (0, 0))
    assert lp.linear_solve(operator, jnp.zeros(0, DTYPE), lp.Triangular()).value.shape == (0,)


def test_levels_are_found_once_for_a_pattern():
    pattern = operator_of(grid(5)).pattern
    assert levels.levels_of(pattern, True, False, False) is levels.levels_of(
        pattern, True, False, False
    )


@pytest.mark.parametrize("sizes", [[1] * 3000, [1, 5000] * 60, [2000, 1, 1], list(range(1, 300))])
def test_blocks_cost_at_most_three_times_the_least(sizes):
    """Whatever the sizes of levels, the runs cover each cell in order, in few and well-filled steps."""
    sizes, width = np.array(sizes), 3
    runs = levels._runs(sizes, width)
    assert len(runs) <= levels._MOST_RUNS + 1
    ends = 1 + np.cumsum(sizes)
    starts = np.concatenate([run.starts for run in runs])
    assert starts[0] == 1
    assert np.all(np.diff(starts) > 0)
    assert set(ends[:-1]) <= set(starts)  # no step begins before the levels that it waits for end
    step = lambda block: levels._STEP + block * (width + 1)
    cost = sum(len(run.starts) * step(run.block) for run in runs)
    assert cost <= 3 * sum(step(size) for size in sizes)


def test_the_program_does_not_grow_with_the_number_of_levels():
    """A loop, and not an unrolled thousand of steps."""
    lengths = []
    for n in (100, 3000):
        operator = operator_of(
            sp.diags_array([2.0, -1.0], offsets=[0, -1], shape=(n, n), dtype=DTYPE)
        )
        solve = lambda v, b, p=operator.pattern: (
            lp.linear_solve(lp.SparseLinearOperator(v, p), b, lp.Triangular(), throw=False).value
        )
        text = jax.jit(solve).lower(operator.values, jnp.ones(n, DTYPE)).as_text()
        lengths.append(text.count("\n"))
    assert lengths[0] == lengths[1]
