"""Bad systems and bad libraries: each ends in the right answer, in an error at trace time, or in a truthful
result code, for every host solver; never in a crash, in silent NaN, or in an untrue success."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
import scipy.sparse as sp
from host_table import BY_ID, DTYPE, LOWER, PSD, TABLE, make_matrix, operator_of, unit

import linsolve_prim as lp

N = 6
JIT_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # what JAX makes of a callback's exception
R = lp.RESULTS
#: One of each family; the others are a part of the slow set where each test compiles its own program.
QUICK = {
    *("superlu", "triangular-lower", "rslab-definite", "cholmod", "umfpack", "klu", "pardiso"),
    *("pardiso-definite", "gmres", "pyamg"),
}
ENTRIES = [
    pytest.param(entry, id=entry.id, marks=() if entry.id in QUICK else pytest.mark.slow)
    for entry in TABLE
]
B = jnp.arange(1.0, N + 1, dtype=DTYPE)

# Warnings of a library are its own affair: they are no part of what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_callbacks"),
    pytest.mark.filterwarnings("ignore::UserWarning:pyamg"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def name_of(result):
    return next(name for name in R.__annotations__ if bool(result == getattr(R, name)))


def truthful(entry, matrix, b):
    """Solve, and check that what the result says is so. Returns the result's name."""
    operator = operator_of(matrix, entry.tags()) if sp.issparse(matrix) else matrix
    solution = lp.linear_solve(operator, jnp.asarray(b, DTYPE), entry.solver(), throw=False)
    result = name_of(solution.result)
    if result == "successful":
        a, x = unit(entry, np.asarray(operator.as_matrix())), np.asarray(solution.value)
        assert np.all(np.isfinite(x))
        size = np.linalg.norm(b) if len(b) else 0.0
        assert np.linalg.norm(a @ x - b) <= 1e-2 * size
    return result


def still_works(entry):
    """After whatever went wrong, the next solve is as good as ever."""
    assert truthful(entry, entry.matrix(DTYPE, N), np.asarray(B)) == "successful"


def zero_row(entry):
    """A row of stored zeros (and the column, so that symmetry stays)."""
    a = entry.matrix(DTYPE, N).tocoo()
    hit = (a.row == 2) | (a.col == 2)
    return sp.csr_array((np.where(hit, 0, a.data), (a.row, a.col)), shape=a.shape)


def missing_row(entry):
    """A row without entries."""
    a = entry.matrix(DTYPE, N).toarray()
    a[2] = a[:, 2] = 0
    return sp.csr_array(a)


def identical_rows(entry):
    a = entry.matrix(DTYPE, N).toarray()
    a[1], a[:, 1] = a[0], 0
    a[:, 1] = a[:, 0]
    return sp.csr_array(a)


def arrow(entry):
    """A first row and a first column: structurally singular."""
    a = np.zeros((N, N), DTYPE)
    a[0], a[:, 0] = 1, 1
    return sp.csr_array(a)


def neumann(entry):
    """The Laplacian without boundary values: constants are its null space."""
    a = 2 * np.eye(N, dtype=DTYPE)
    a[0, 0] = a[-1, -1] = 1
    return sp.csr_array(a - np.eye(N, k=1, dtype=DTYPE) - np.eye(N, k=-1, dtype=DTYPE))


def nothing(entry):
    """A pattern without entries."""
    return sp.csr_array((N, N), dtype=DTYPE)


SINGULAR = [zero_row, missing_row, identical_rows, arrow, neumann, nothing]


@pytest.mark.parametrize("make", SINGULAR, ids=lambda f: f.__name__)
@pytest.mark.parametrize("entry", ENTRIES)
def test_singular_matrices(entry, make):
    """No success where there is no solution; and what is a success, solves."""
    if "lower" in entry.kind or "upper" in entry.kind:
        if make not in (zero_row, missing_row, nothing):
            pytest.skip("is not triangular")
        if "unit" in entry.kind:
            pytest.skip("with ones on the diagonal nothing is singular")
    result = truthful(entry, make(entry), np.asarray(B))
    assert result != "successful"
    if entry.direct:
        rounded = make in (identical_rows, neumann)  # where a last pivot need not be exactly zero
        rounded &= "cholmod" not in entry.id  # which looks at its pivots then
        assert result == "singular" or (rounded and result == "inaccurate")
    still_works(entry)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("entry", ENTRIES)
def test_nan_and_infinity(entry, bad):
    """In the matrix, in the vector, and in one of several vectors."""
    matrix = entry.matrix(DTYPE, N)
    spoilt = matrix.copy()
    spoilt.data[len(spoilt.data) // 2] = bad
    assert truthful(entry, spoilt, np.asarray(B)) == "nonfinite_input"
    b = np.asarray(B).copy()
    b[3] = bad
    assert truthful(entry, matrix, b) == "nonfinite_input"
    still_works(entry)


@pytest.mark.parametrize("entry", ENTRIES)
def test_smallest_systems(entry):
    """1×1, 1×1 with a zero, and no equations at all."""
    value = {"negative": -4.0}.get(entry.kind, 4.0)
    if "unit" in entry.kind:
        one = sp.csr_array((1, 1), dtype=DTYPE)
    else:
        one = sp.csr_array(np.full((1, 1), value, DTYPE))
        zero = sp.csr_array((np.zeros(1, DTYPE), ([0], [0])), shape=(1, 1))
        assert truthful(entry, zero, np.ones(1)) != "successful"
    assert truthful(entry, one, np.full(1, 8.0)) == "successful"
    assert truthful(entry, sp.csr_array((0, 0), dtype=DTYPE), np.zeros(0)) == "successful"


def test_empty_systems_have_derivatives():
    empty = operator_of(sp.csr_array((0, 0), dtype=DTYPE))
    loss = lambda v, b: jnp.sum(
        lp.linear_solve(lp.SparseLinearOperator(v, empty.pattern), b, lp.SuperLU()).value
    )
    grads = jax.jit(jax.grad(loss, (0, 1)))(empty.values, jnp.zeros(0, DTYPE))
    assert [g.shape for g in grads] == [(0,), (0,)]
    lanes = jax.vmap(jax.grad(loss, 1), (None, 0))(empty.values, jnp.zeros((3, 0), DTYPE))
    assert lanes.shape == (3, 0)


@pytest.mark.parametrize("scale", [1e-300, 1e300] if DTYPE == np.float64 else [1e-36, 1e36])
@pytest.mark.parametrize("entry", ENTRIES)
def test_badly_scaled(entry, scale):
    """Squares of such numbers over- and underflow."""
    if "unit" in entry.kind:
        pytest.skip("the diagonal is one")
    both = entry.matrix(DTYPE, N) * DTYPE.type(scale), np.asarray(B) * DTYPE.type(scale)
    result = truthful(entry, *both)
    if "pyamg" in entry.id:
        assert result == "successful"
    truthful(entry, entry.matrix(DTYPE, N), np.asarray(B) * DTYPE.type(scale))
    still_works(entry)


@pytest.mark.parametrize("entry", ENTRIES)
def test_structures_that_do_not_fit(entry):
    """A vector of the wrong length, and an operator that is not square."""
    operator = operator_of(entry.matrix(DTYPE, N), entry.tags())
    with pytest.raises(ValueError, match="vector: its structure"):
        lp.linear_solve(operator, B[:-1], entry.solver())
    if entry.id in ("lsqr", "lsmr"):
        return
    wide = operator_of(make_matrix("general", DTYPE, N)[:4])
    with pytest.raises(ValueError, match=r"square|definite|triangular"):
        lp.linear_solve(wide, B[:4], entry.solver())


@pytest.mark.parametrize(
    "id", ["superlu-definite", "rslab-definite", "cholmod", "pardiso-definite", "cg"]
)
def test_wrong_definite_tag(id):
    """An indefinite matrix that is said to be definite: solved all the same, or singular."""
    entry = BY_ID[id]
    indefinite = np.diag([1.0, -2, 3, -4, 5, 6]) + 0.1 * np.eye(N, k=1) + 0.1 * np.eye(N, k=-1)
    result = truthful(entry, sp.csr_array(indefinite.astype(DTYPE)), np.asarray(B))
    assert result in ("successful", "singular")
    one_sided = 4 * np.eye(N) + 3 * np.eye(N, k=1)
    truthful(entry, sp.csr_array(one_sided.astype(DTYPE)), np.asarray(B))
    still_works(entry)


def test_cholmod_asks_for_the_tag():
    entry = BY_ID["cholmod"]
    with pytest.raises(ValueError, match="positive_semidefinite_tag"):
        lp.linear_solve(operator_of(entry.matrix(DTYPE, N)), B, entry.solver())


@pytest.mark.parametrize("entry", ENTRIES)
def test_integers_and_unsorted_repeated_triplets(entry):
    """[[4, 0, 0], [0, 2, 0], [0, 0, 5]] in disorder; integers are promoted."""
    if "unit" in entry.kind or entry.kind == "negative":
        pytest.skip("a diagonal matrix with positive entries")
    rows, columns, values = np.array([2, 0, 1, 0]), np.array([2, 0, 1, 0]), np.array([5, 1, 2, 3])
    operator = lp.SparseLinearOperator.from_coo(rows, columns, values, (3, 3), entry.tags())
    solution = lp.linear_solve(operator, np.array([4, 4, 10]), entry.solver())
    np.testing.assert_allclose(solution.value, [1, 2, 2], rtol=1e-5)


# ---- Exceptions and lanes --------------------------------------------------------------------------

DIRECT_IDS = ["superlu", "functions", "rslab", "umfpack", "klu", "pardiso"]


@pytest.mark.parametrize("id", DIRECT_IDS)
def test_named_exceptions_eager_and_jitted(id):
    entry = BY_ID[id]
    operator = operator_of(zero_row(entry))
    solver = entry.solver()
    with pytest.raises(lp.SingularMatrixError, match="singular") as caught:
        lp.linear_solve(operator, B, solver)
    assert caught.value.solution.result == R.singular
    solve = jax.jit(lambda b: lp.linear_solve(operator, b, solver).value)
    with pytest.raises(JIT_ERRORS, match="SingularMatrixError"):
        jax.block_until_ready(solve(B))
    still_works(entry)


@pytest.mark.parametrize("id", [*DIRECT_IDS, "gmres", "pyamg"])
def test_one_bad_lane_fails_alone_B_08(id):
    """Its code is its own, and so is its NaN; also in gradients, where `throw=False` is respected."""
    entry = BY_ID[id]
    operator, solver = operator_of(entry.matrix(DTYPE, N)), entry.solver()
    lanes = jnp.stack([operator.values, jnp.zeros_like(operator.values), 2 * operator.values])

    def one(values):
        a = lp.SparseLinearOperator(values, operator.pattern)
        solution = lp.linear_solve(a, B, solver, throw=False)
        return jnp.sum(solution.value), (solution.value, solution.result == R.successful)

    gradients, (x, good) = jax.jit(jax.vmap(jax.grad(one, has_aux=True)))(lanes)
    assert good.tolist() == [True, False, True]
    a = np.asarray(operator.as_matrix())
    for i, scale in ((0, 1), (2, 2)):
        np.testing.assert_allclose(x[i], np.linalg.solve(scale * a, B), rtol=1e-3)
        assert bool(jnp.all(jnp.isfinite(gradients[i])))
    with pytest.raises(lp.LinearSolveError, match=r"Failed lanes: \(1,\)"):
        jax.vmap(
            lambda v: lp.linear_solve(lp.SparseLinearOperator(v, operator.pattern), B, solver).value
        )(lanes)


# ---- Libraries that misbehave ----------------------------------------------------------------------


def bad_library(factorize=lambda a: a, solve=lambda a, b, transpose: b):
    return lp.HostSolver(factorize=factorize, solve=solve)


def _raises(*_):
    raise KeyError("no such thing")


def _refuses(*_):
    raise lp.host.Refused("breakdown", "I will not")


BAD = {
    "factorize raises": (bad_library(factorize=_raises), "host_failure", lp.HostLibraryError),
    "solve raises": (bad_library(solve=_raises), "host_failure", lp.HostLibraryError),
    "factorize refuses": (bad_library(factorize=_refuses), "breakdown", lp.Diverged),
    "solve refuses": (bad_library(solve=_refuses), "breakdown", lp.Diverged),
    "shape": (bad_library(solve=lambda a, b, t: b[:-1]), "host_failure", lp.HostLibraryError),
    "nothing": (bad_library(solve=lambda a, b, t: None), "host_failure", lp.HostLibraryError),
    "complex": (bad_library(solve=lambda a, b, t: b + 1j), "host_failure", lp.HostLibraryError),
    "text": (bad_library(solve=lambda a, b, t: "x = 3"), "host_failure", lp.HostLibraryError),
    "nan": (bad_library(solve=lambda a, b, t: b * np.nan), "singular", lp.SingularMatrixError),
    "wrong": (bad_library(solve=lambda a, b, t: b + 1), "inaccurate", lp.NotConverged),
    "zero": (bad_library(solve=lambda a, b, t: 0 * b), "inaccurate", lp.NotConverged),
}


@pytest.mark.parametrize(
    ("how", "transport"),
    [(how, "callback") for how in BAD]
    + [pytest.param(how, "buffer", marks=pytest.mark.slow) for how in BAD],
)
def test_a_library_that_misbehaves(how, transport):
    solver, result, error = BAD[how]
    operator = operator_of(make_matrix("general", DTYPE, N))
    with lp.host.transport(transport):
        solution = lp.linear_solve(operator, B, solver, throw=False)
        assert name_of(solution.result) == result
        with pytest.raises(error, match=error.__name__):
            lp.linear_solve(operator, B, solver)
        jitted = jax.jit(lambda b: lp.linear_solve(operator, b, solver).value)
        with pytest.raises(JIT_ERRORS, match=error.__name__):
            jax.block_until_ready(jitted(B))
        loss = lambda b: jnp.sum(lp.linear_solve(operator, b, solver, throw=False).value)
        jax.block_until_ready(jax.jit(jax.grad(loss))(B))  # does not raise
        still_works(BY_ID["superlu"])


def test_the_registry_keeps_what_the_library_said():
    operator = operator_of(make_matrix("general", DTYPE, N))
    lp.linear_solve(operator, B, bad_library(solve=_raises), throw=False)
    assert lp.host.registry.last_error == "KeyError: 'no such thing'"


def test_a_library_that_writes_to_what_it_was_given():
    """Neither the caller's vector nor the values are touched."""

    def factorize(a):
        dense = a.toarray()
        a.data[:] = 0
        return dense

    def solve(dense, b, transpose):
        x = np.linalg.solve(dense.T if transpose else dense, b)
        b[:] = 7
        return x

    operator = operator_of(make_matrix("general", DTYPE, N))
    values, b = np.array(operator.values), np.array(B)
    for transport in ("callback", "buffer"):
        lp.host.registry.clear()
        with lp.host.transport(transport):
            x = lp.linear_solve(operator, B, lp.HostSolver(factorize, solve)).value
        np.testing.assert_allclose(x, np.linalg.solve(operator.as_matrix(), b), rtol=1e-4)
        np.testing.assert_array_equal(operator.values, values)
        np.testing.assert_array_equal(B, b)


def test_unit_diagonal_with_a_stored_diagonal_S3_20():
    """In the forward pass, not only in the backward one."""
    operator = operator_of(make_matrix("lower", DTYPE, N), LOWER)
    with pytest.raises(ValueError, match="stores diagonal entries"):
        lp.linear_solve(operator, B, lp.SpSolveTriangular(unit_diagonal=True))


# ---- Libraries that are missing --------------------------------------------------------------------

MISSING = [
    (lp.RSLab, "rslab", "pip install 'linsolve-prim[rslab]'"),
    (lp.CHOLMOD, "cvxopt", "pip install 'linsolve-prim[cholmod]'"),
    (lp.UMFPACK, "cvxopt", "pip install 'linsolve-prim[cholmod]'"),
    (lp.KLU, "nbklu", "pip install 'linsolve-prim[klu]'"),
    (lp.PARDISO, "pymklpardiso", "pip install 'linsolve-prim[mkl]'"),
    (lp.PyAMG, "pyamg", "pip install 'linsolve-prim[amg]'"),
    (
        lambda: lp.SciPyIterative("cg", preconditioner="amg"),
        "pyamg",
        "pip install 'linsolve-prim[amg]'",
    ),
]


@pytest.mark.parametrize(("make", "module", "command"), MISSING)
def test_missing_library_names_the_remedy(monkeypatch, make, module, command):
    monkeypatch.setitem(sys.modules, "sksparse.cholmod", None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        make()
    assert command in str(caught.value)
    assert module in str(caught.value)


def test_available_lists_what_is_there():
    rows = lp.host.available()
    superlu = rows[0]
    assert (superlu.solver, superlu.licence) == ("SuperLU", "BSD-3-Clause")
    assert superlu.version == scipy.__version__
    assert all(row.version and row.licence for row in rows)


def test_definite_pardiso_is_never_asked_for_a_matrix_without_a_diagonal():
    """Its ordering of symmetric matrices loops for ever on some of those."""
    pytest.importorskip("pymklpardiso")
    operator = operator_of(arrow(None), PSD)
    values = np.asarray(operator.values)
    with pytest.raises(lp.host.Refused, match="not positive"):
        lp.PARDISO("definite").factorize(operator.pattern, values)
    assert truthful(BY_ID["pardiso-definite"], arrow(None), np.asarray(B)) == "singular"
