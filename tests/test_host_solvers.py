"""Every solver of a host library: values, derivatives and batches, against dense LAPACK.

Rows S0-13 and S0-27 (all of SciPy's), S2-07 (CHOLMOD and its like), S3-09, S3-20 (triangular) and S1-08.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from host_table import (
    BY_ID,
    COMPLEX,
    DIRECT,
    DTYPE,
    LOWER,
    METHODS,
    PSD,
    TABLE,
    UPPER,
    X64,
    make_matrix,
    operator_of,
    unit,
)
from jax.test_util import check_grads

import linsolve_prim as lp

RTOL = 1e-9 if X64 else 3e-3
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


draw = lambda rng, shape, dtype: jnp.asarray(
    rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype.kind == "c" else 0), dtype
)


def close(actual, desired, rtol=RTOL):
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max() <= rtol * np.abs(desired).max()


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


# ---- Triangular matrices (S3-20) -------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True], ids=["A", "transposed"])
@pytest.mark.parametrize("without_ones", [False, True], ids=["stored", "unit"])
@pytest.mark.parametrize("lower", [True, False], ids=["lower", "upper"])
def test_triangular_S3_20(lower, without_ones, transposed):
    """All eight combinations, forward and gradient; a stored diagonal is refused in the forward pass."""
    kind = ("unit " if without_ones else "") + ("lower" if lower else "upper")
    matrix = make_matrix(kind, DTYPE, 7)
    operator = operator_of(matrix)
    pattern = operator.pattern
    solver = lp.SpSolveTriangular(lower=lower != transposed, unit_diagonal=without_ones)
    b, w = draw(np.random.default_rng(1), (2, 7), DTYPE)

    def f(values, b):
        a = lp.SparseLinearOperator(values, pattern)
        return lp.linear_solve(a.T if transposed else a, b, solver).value

    x, pull = jax.vjp(jax.jit(f), operator.values, b)
    ct_values, ct_b = pull(w)
    a = matrix.toarray() + (np.eye(7) if without_ones else 0)
    a = a.T if transposed else a
    z = np.linalg.solve(a.T, w)
    outer = -np.outer(z, np.linalg.solve(a, b))
    outer = outer.T if transposed else outer
    close(x, np.linalg.solve(a, b))
    close(ct_b, z)
    close(ct_values, outer[pattern.rows, pattern.indices])


@pytest.mark.parametrize("tags", [(), LOWER, UPPER])
def test_triangular_by_pattern_or_tag_S3_20(tags):
    """Which triangle it is, the pattern knows; a tag that it contradicts is refused."""
    matrix = make_matrix("upper" if tags is UPPER else "lower", DTYPE, 6)
    operator = operator_of(matrix, tags)
    x = lp.linear_solve(operator, jnp.ones(6, DTYPE), lp.SpSolveTriangular()).value
    close(x, np.linalg.solve(matrix.toarray(), np.ones(6)))
    wrong = operator_of(make_matrix("general", DTYPE, 6), LOWER)
    with pytest.raises(ValueError, match="has entries above the diagonal"):
        lp.linear_solve(wrong, jnp.ones(6, DTYPE), lp.SpSolveTriangular())


def test_unit_diagonal_tag_means_stored_ones():
    """The tag is a promise about entries; without entries it is refused with the remedy."""
    matrix = sp.csr_array(make_matrix("unit lower", DTYPE, 6) + sp.eye_array(6, dtype=DTYPE))
    operator = operator_of(matrix, (LOWER, lp.unit_diagonal_tag))
    x = lp.linear_solve(operator, jnp.ones(6, DTYPE), lp.SpSolveTriangular()).value
    close(x, np.linalg.solve(matrix.toarray(), np.ones(6)))
    missing = operator_of(make_matrix("unit lower", DTYPE, 6), (LOWER, lp.unit_diagonal_tag))
    with pytest.raises(ValueError, match="unit_diagonal=True"):
        lp.linear_solve(missing, jnp.ones(6, DTYPE), lp.SpSolveTriangular())


# ---- SciPy's iterative methods ---------------------------------------------------------------------


def test_all_names_S0_27():
    """Every one that the manual names, and nothing else."""
    assert set(METHODS) == {
        *("cg", "cgs", "bicg", "bicgstab", "gmres", "lgmres", "qmr", "minres", "gcrotmk", "tfqmr"),
        *("lsqr", "lsmr"),
    }
    for name in METHODS:
        assert lp.SciPyIterative(name).name == name
    with pytest.raises(ValueError, match="must be one of cg, cgs"):
        lp.SciPyIterative("jacobi")


@pytest.mark.parametrize("name", ["lsqr", "lsmr"])
def test_least_squares_S0_13(name):
    """More equations than unknowns, and fewer: the least-squares and the minimum-norm solution."""
    tall = np.asarray(make_matrix("general", DTYPE, 8).toarray()[:, :5])
    solver = lp.SciPyIterative(name, rtol=1e-12 if X64 else 1e-6)
    for a in (tall, tall.T):
        b = draw(np.random.default_rng(2), a.shape[0], DTYPE)
        solution = lp.linear_solve(operator_of(a), b, solver, throw=False)
        assert solution.result == lp.RESULTS.successful
        close(solution.value, np.linalg.lstsq(a, np.asarray(b), rcond=None)[0], 100 * RTOL)


def test_own_preconditioner_is_made_once_for_a_matrix():
    calls = []

    def make(matrix):
        calls.append(matrix.shape)
        return sp.diags_array(1 / matrix.diagonal())

    solver = lp.SciPyIterative("gmres", preconditioner=make, settings=(("restart", 8),))
    operator = operator_of(make_matrix("general", DTYPE, 8))
    f = jax.jit(lambda b: lp.linear_solve(operator, b, solver).value)
    for i in range(3):
        close(
            f(jnp.ones(8, DTYPE) * (i + 1)),
            (i + 1) * np.linalg.solve(operator.as_matrix(), np.ones(8)),
        )
    assert calls == [(8, 8)]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: lp.SciPyIterative("cg", preconditioner="lu"), "jacobi, ilu, amg"),
        (lambda: lp.SciPyIterative("cg", preconditioner=3), "preconditioner"),
        (lambda: lp.SciPyIterative("lsqr", preconditioner="ilu"), "takes none"),
        (lambda: lp.SciPyIterative("cg", settings=(("restart", 3),)), "no argument 'restart'"),
        (lambda: lp.SuperLU(permc_spec="AMD"), "permc_spec: must be None or one of"),
        (lambda: lp.SuperLU(diag_pivot_thresh=2.0), "between 0 and 1"),
        (lambda: lp.HostSolver(factorize=3, solve=len), "factorize"),
    ],
)
def test_settings_that_make_no_sense(make, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make()


def test_minres_refuses_complex_operators():
    operator = operator_of(make_matrix("definite", COMPLEX, 6), PSD)
    with pytest.raises(ValueError, match="minres"):
        lp.linear_solve(operator, jnp.ones(6, COMPLEX), lp.SciPyIterative("minres"))


def test_dense_and_function_operators_are_taken_S1_08():
    a = make_matrix("general", DTYPE, 6).toarray()
    b = jnp.arange(1.0, 7.0, dtype=DTYPE)
    f = lambda a: lp.linear_solve(lp.MatrixLinearOperator(a), b, lp.SuperLU()).value
    close(jax.jit(f)(jnp.asarray(a)), np.linalg.solve(a, b))
    close(
        jax.jacrev(f)(jnp.asarray(a)), jax.jacrev(lambda a: jnp.linalg.solve(a, b))(jnp.asarray(a))
    )
    function = lp.FunctionLinearOperator(
        lambda x: jnp.asarray(a) @ x, jax.ShapeDtypeStruct((6,), DTYPE)
    )
    close(lp.linear_solve(function, b, lp.SuperLU()).value, np.linalg.solve(a, b))


# ---- Matrices of others ----------------------------------------------------------------------------

FOLDER = pathlib.Path(__file__).parents[2] / "shared" / "matrices"
DEFINITE = ["g20", "airfoil", "nos5", "bar", "662_bus", "1138_bus"]
GENERAL = ["recirc_flow", "pde900", "cg20"]
BEST = ["superlu", "rslab", "umfpack", "klu", "pardiso", "functions"]
BEST_DEFINITE = ["superlu-definite", "rslab-definite", "cholmod", "pardiso-definite"]


def _real_world():
    quick = {"g20", "recirc_flow", "cg20"}
    for names, solvers in ((DEFINITE, BEST_DEFINITE), (GENERAL, BEST)):
        for name in names:
            for solver in solvers:
                marks = () if name in quick and "rslab" not in solver else (pytest.mark.slow,)
                yield pytest.param(name, BY_ID[solver], id=f"{name}-{solver}", marks=marks)


def _gradient(matrix, entry, rtol):
    """Cotangents on the pattern, against LAPACK."""
    operator = operator_of(matrix)
    pattern = operator.pattern
    b, w = draw(np.random.default_rng(0), (2, matrix.shape[0]), np.dtype(operator.values.dtype))

    def f(values, b):
        a = lp.SparseLinearOperator(values, pattern, entry.tags())
        return lp.linear_solve(a, b, entry.solver()).value

    x, pull = jax.vjp(f, operator.values, b)
    ct_values, ct_b = pull(w)
    a = matrix.toarray()
    x_ref, z = np.linalg.solve(a, np.asarray(b)), np.linalg.solve(a.T, np.asarray(w))
    close(x, x_ref, rtol)
    close(ct_b, z, rtol)
    close(ct_values, -z[pattern.rows] * x_ref[pattern.indices], rtol)


@pytest.mark.parametrize(("name", "entry"), list(_real_world()))
def test_gradients_on_matrices_of_applications_S2_07(name, entry):
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip("the matrices are not part of the repository")
    if not X64:
        pytest.skip("condition numbers of up to 10⁷ need float64")
    with np.load(path) as z:
        matrix = sp.csr_array((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"]))
    _gradient(matrix, entry, 1e-9)


@pytest.mark.parametrize(
    "solver", ["pyamg-definite", "pyamg-ruge-stuben", "cg", "superlu", "cholmod"]
)
def test_gradients_on_the_gallery(solver):
    gallery = pytest.importorskip("pyamg.gallery")
    matrix = sp.csr_array(gallery.poisson((12, 11), format="csr").astype(DTYPE))
    _gradient(matrix, BY_ID[solver], 1e-9 if X64 else 1e-2)


def test_nonsymmetric_problem_of_the_gallery():
    gallery = pytest.importorskip("pyamg.gallery")
    stencil = gallery.diffusion_stencil_2d(epsilon=0.1, theta=0.7, type="FE")
    matrix = sp.csr_array(gallery.stencil_grid(stencil, (9, 9), format="csr").astype(DTYPE))
    matrix = sp.csr_array(matrix + sp.diags_array(np.ones(80, DTYPE), offsets=1))
    for solver in ("pyamg", "bicgstab-ilu", "klu"):
        if BY_ID[solver].here():
            _gradient(matrix, BY_ID[solver], 1e-8 if X64 else 1e-2)
