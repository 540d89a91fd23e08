"""Every solver of a host library: values, derivatives and batches, against dense LAPACK.

Rows S0-13 and S0-27 (all of SciPy's), S2-07 (CHOLMOD and its like), S3-09 and S1-08.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_table import BY_ID, COMPLEX, DIRECT, DTYPE, TABLE, X64, close, draw, operator_of, unit
from jax.test_util import check_grads

import linsolve_prim as lp

#: Whose tests all belong to the quick set: one of each family.
QUICK = {
    "superlu",
    "rslab",
    "cholmod",
    "umfpack",
    "klu",
    "pardiso",
    "triangular-lower",
    "gmres",
    "pyamg",
}


def ids(entries, quick=None):
    slow = lambda entry: quick is not None and entry.id not in quick
    marks = lambda entry: pytest.mark.slow if slow(entry) else ()
    return [pytest.param(entry, id=entry.id, marks=marks(entry)) for entry in entries]


class Problem:
    """A matrix, vectors, and what LAPACK says of them."""

    def __init__(self, entry, dtype):
        self.entry, self.solver = entry, entry.solver()
        operator = operator_of(entry.matrix(dtype))
        self.pattern, self.values = operator.pattern, operator.values
        rng = np.random.default_rng(5)
        n = self.pattern.shape[0]
        self.b, self.w = draw(rng, n, dtype), draw(rng, n, dtype)

    def solution(self, values, b, throw=False):
        operator = lp.SparseLinearOperator(values, self.pattern, self.entry.tags())
        return lp.linear_solve(operator, b, self.solver, throw=throw)

    def solve(self, values, b):
        return self.solution(values, b).value

    def pull(self, values, b, w):
        """The solution, its result, and the cotangents of values and b for the cotangent w."""
        (x, result), pull = jax.vjp(lambda v, b: self._pair(v, b), values, b)
        return x, result, *pull((w, np.zeros(result.shape, jax.dtypes.float0)))

    def _pair(self, values, b):
        solution = self.solution(values, b)
        return solution.value, (solution.result == lp.RESULTS.successful).astype(int)

    def expected(self, values, b, w):
        wide = np.complex128 if np.iscomplexobj(values) else np.float64
        a = np.zeros(self.pattern.shape, wide)
        a[self.pattern.rows, self.pattern.indices] = values
        a = unit(self.entry, a)
        x = np.linalg.solve(a, np.asarray(b, wide))
        z = np.linalg.solve(a.T, np.asarray(w, wide))
        return x, -z[self.pattern.rows] * x[self.pattern.indices], z


def check_pull(found, expected):
    x, good, ct_values, ct_b = found
    assert np.all(good == 1)
    for actual, desired in zip((x, ct_values, ct_b), expected):
        close(actual, desired)


def _dtypes(entries):
    return [
        pytest.param(
            entry,
            dtype,
            id=f"{entry.id}-{dtype.name}",
            marks=() if dtype.kind == "f" or entry.id in QUICK else pytest.mark.slow,
        )
        for entry in entries
        for dtype in (DTYPE, COMPLEX)
        if entry.takes_complex or dtype.kind != "c"
    ]


@pytest.mark.parametrize(("entry", "dtype"), _dtypes(TABLE))
def test_jit_vmap_vjp_S0_13_S0_27_S1_08(entry, dtype):
    """Value and gradient of a batch of systems, compiled: all of what is promised at once."""
    problem = Problem(entry, dtype)
    scale = np.asarray([1.0, 2.0], dtype)[:, None]
    args = (problem.values * scale, problem.b * scale[::-1], problem.w * scale)
    found = jax.jit(jax.vmap(problem.pull))(*args)
    for i in range(2):
        lane = [a[i] for a in args]
        check_pull([part[i] for part in found], problem.expected(*lane))


@pytest.mark.parametrize("entry", ids(TABLE))
def test_forward_S0_13(entry):
    """Eager, with all dtypes that there are; a success is a success."""
    for dtype in (DTYPE, COMPLEX) if entry.takes_complex else (DTYPE,):
        problem = Problem(entry, dtype)
        solution = problem.solution(problem.values, problem.b, throw=True)
        close(solution.value, problem.expected(problem.values, problem.b, problem.w)[0])
        assert solution.value.dtype == dtype
        assert int(solution.stats["num_steps"]) >= (0 if entry.direct or "ilu" in entry.id else 1)
        assert float(solution.stats["relative_residual"]) < (1e-9 if X64 else 1e-3)


@pytest.mark.parametrize("entry", ids(DIRECT, {"superlu", "triangular-lower", "cholmod"}))
def test_second_order_S0_13(entry):
    """Against finite differences, forward and reverse."""
    if not X64:
        pytest.skip("finite differences of second order need float64")
    problem = Problem(entry, DTYPE)
    free = problem.pattern.rows >= problem.pattern.indices  # definite matrices stay symmetric

    def f(v, b):
        if entry.kind in ("definite", "negative"):
            half = jnp.where(free, v, 0)
            v = (
                half
                + jnp.where(problem.pattern.rows == problem.pattern.indices, 0, 1)
                * half[problem.pattern.transpose_order]
            )
        return problem.solve(v, b)

    jitted = jax.jit(f)
    modes = ("fwd", "rev") if entry.id in ("superlu", "triangular-lower") else ("rev",)
    check_grads(jitted, (problem.values, problem.b), order=2, modes=modes, rtol=1e-4)


@pytest.mark.parametrize(
    ("entry", "dtype"),
    [
        pytest.param(
            entry,
            dtype,
            id=f"{entry.id}-{dtype.name}",
            marks=() if entry.id == "superlu" and dtype.kind == "c" else pytest.mark.slow,
        )
        for entry in DIRECT
        for dtype in (DTYPE, COMPLEX)
        if "unit" not in entry.kind  # the law of the true residual is not for A + I
    ],
)
def test_laws_S1_08(entry, dtype):
    """Transposed and conjugated states, linearity, vmap, derivatives: see `lp.testing`."""
    operator = operator_of(entry.matrix(dtype), entry.tags())
    lp.testing.check_solver(entry.solver(), operator)


def test_real_and_complex_matrices_of_one_pattern_have_analyses_of_their_own():
    pytest.importorskip("cvxopt")
    entry = BY_ID["umfpack"]
    for dtype in (DTYPE, COMPLEX, DTYPE):
        problem = Problem(entry, dtype)
        x = problem.solution(problem.values, problem.b, throw=True).value
        close(x, problem.expected(problem.values, problem.b, problem.w)[0])


@pytest.mark.parametrize(("entry", "dtype"), _dtypes(DIRECT))
def test_states_S2_18(entry, dtype):
    """A state that was transposed, conjugated or both solves the system that was turned alike."""
    problem = Problem(entry, dtype)
    operator = lp.SparseLinearOperator(problem.values, problem.pattern, entry.tags())
    a = unit(entry, np.asarray(operator.as_matrix(), np.complex128))
    start = (problem.solver.init(operator, {}), {})
    transpose = lambda s: problem.solver.transpose(*s)
    conjugate = lambda s: problem.solver.conj(*s)
    lp.host.registry.reset_stats()
    for turned, matrix in (
        (transpose(start), a.T),
        (conjugate(start), a.conj()),
        (conjugate(transpose(start)), a.conj().T),
        (transpose(conjugate(start)), a.conj().T),
        (transpose(transpose(start)), a),
    ):
        x, result, _ = problem.solver.compute(turned[0], problem.b, turned[1])
        assert result == lp.RESULTS.successful
        close(x, np.linalg.solve(matrix, np.asarray(problem.b)))
    assert lp.host.registry.stats()["factorizations"] <= 1  # all by the same one


@pytest.mark.parametrize("entry", ids(TABLE, QUICK))
def test_many_right_hand_sides_S2_20(entry):
    """A batch of right-hand sides is solved by one callback, of A and of its transpose."""
    problem = Problem(entry, DTYPE)
    rng = np.random.default_rng(9)
    bs, ws = (draw(rng, (5, len(problem.b)), DTYPE) for _ in range(2))
    lp.host.registry.clear()
    lp.host.registry.reset_stats()
    found = jax.jit(jax.vmap(problem.pull, (None, 0, 0)))(problem.values, bs, ws)
    jax.block_until_ready(found)
    stats = lp.host.registry.stats()
    assert (stats["factorizations"], stats["fallbacks"]) == (1, 0)
    assert stats["callbacks"] <= 3
    for i in range(5):
        lane = [part[i] for part in found]
        check_pull(lane, problem.expected(problem.values, bs[i], ws[i]))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("entry", ids(DIRECT, {"superlu", "rslab", "klu"}))
def test_single_precision(entry, dtype):
    dtype = np.dtype(dtype)
    problem = Problem(entry, dtype)
    solution = problem.solution(problem.values, problem.b)
    assert solution.value.dtype == dtype
    assert solution.result == lp.RESULTS.successful
    close(solution.value, problem.expected(problem.values, problem.b, problem.w)[0], 1e-4)
