"""What single host solvers promise: triangular ones, SciPy's iterative ones, settings, operators."""

import contextlib
import importlib.machinery
import itertools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from host_table import (
    BY_ID,
    COMPLEX,
    DTYPE,
    LOWER,
    METHODS,
    PSD,
    RTOL,
    UPPER,
    X64,
    close,
    draw,
    make_matrix,
    operator_of,
)

import linsolve_prim as lp
from linsolve_prim.solvers.host import cholmod, cholmod_library

# ---- Triangular matrices (S3-20) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "without_ones", "transposed"),
    [
        # each pair of values is met by default
        pytest.param(*case, marks=() if sum(case) % 2 else pytest.mark.slow)
        for case in itertools.product((True, False), repeat=3)
    ],
)
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


# ---- CHOLMOD, by either library --------------------------------------------------------------------


@pytest.mark.parametrize("by", ["ByLibrary", "ByCvxopt", "_ByScikitSparse"])
@pytest.mark.parametrize("dtype", [DTYPE, COMPLEX], ids=str)
def test_cholmod_by_each_library_S2_07(monkeypatch, by, dtype):
    """scikit-sparse is used where it is installed; else the library in cvxopt, or its module. All give the
    same, and the same gradient."""
    pytest.importorskip("sksparse.cholmod" if by == "_ByScikitSparse" else "cvxopt")
    if by != "_ByScikitSparse":
        monkeypatch.setattr(cholmod, "scikit_sparse", lambda: None)
    if by == "ByCvxopt":
        monkeypatch.setattr(cholmod_library, "library", lambda: None)
    elif by == "ByLibrary" and cholmod_library.library() is None:
        pytest.skip("the library behind this cvxopt has another version")
    lp.host.registry.clear()
    matrix = make_matrix("definite", dtype, 9)
    operator = operator_of(matrix)
    b, w = draw(np.random.default_rng(0), (2, 9), dtype)

    def f(values, b):
        a = lp.SparseLinearOperator(values, operator.pattern, PSD)
        return lp.linear_solve(a, b, lp.CHOLMOD()).value

    x, pull = jax.vjp(jax.jit(f), operator.values, b)
    ct_values, ct_b = pull(w)
    a = matrix.toarray()
    z = np.linalg.solve(a.T, w)
    close(x, np.linalg.solve(a, b))
    close(ct_b, z)
    outer = -np.outer(z, x)
    close(ct_values, outer[operator.pattern.rows, operator.pattern.indices])
    keys = lp.host.registry._entries.values()
    found = {type(entry.value.by).__name__ for entry in keys if hasattr(entry.value, "by")}
    assert found == {by}
    lp.host.registry.clear()


def test_versions_of_scikit_sparse_with_other_functions_are_left_alone(monkeypatch):
    """0.5 has no `analyze`: then it is `cvxopt`'s turn."""
    fake = types.ModuleType("sksparse.cholmod")
    monkeypatch.setitem(sys.modules, "sksparse", types.ModuleType("sksparse"))
    monkeypatch.setitem(sys.modules, "sksparse.cholmod", fake)
    fake.__spec__ = importlib.machinery.ModuleSpec("sksparse.cholmod", None)
    assert cholmod.scikit_sparse() is None
    fake.analyze = len
    assert cholmod.scikit_sparse() is fake


@pytest.mark.parametrize("seed", range(4))
def test_cholmod_calls_a_matrix_of_lost_rank_singular(seed):
    """Two rows are equal: the last pivot is rounding, positive or not."""
    if not BY_ID["cholmod"].here():
        pytest.skip("needs scikit-sparse or cvxopt")
    half = np.random.default_rng(seed).normal(size=(19, 20))
    half = np.concatenate([half[:1], half]).astype(DTYPE)
    b = draw(np.random.default_rng(seed), 20, DTYPE)
    solution = lp.linear_solve(operator_of(half @ half.T, PSD), b, lp.CHOLMOD(), throw=False)
    assert solution.result == lp.RESULTS.singular


# ---- Memory that is used again ---------------------------------------------------------------------


def _small(matrix):
    pattern = lp.SparsityPattern.from_dense(np.ones(matrix.shape))
    return pattern, np.asarray(matrix, float).reshape(-1)


@pytest.mark.parametrize("id", ["cholmod", "klu", "pardiso", "pardiso-definite"])
def test_a_factor_is_made_in_a_spare_one_and_never_in_one_that_lives_S2_17(id):
    """Nothing is shared by two factors that are in use, also after a matrix was refused."""
    if not BY_ID[id].here():
        pytest.skip("its library is not installed")
    rng = np.random.default_rng(0)
    matrices = [np.eye(5) * 9 + (m + m.T) for m in rng.normal(size=(4, 5, 5))]
    promised = operator_of(matrices[0].astype(DTYPE), BY_ID[id].tags())
    solver = BY_ID[id].solver().specialize(promised)
    pattern, values = _small(matrices[0])
    analysis = solver.analyze(pattern, values)
    b = rng.normal(size=(2, 5))

    def check(factor, matrix):
        out = solver.solve(factor, b, transpose=False)
        np.testing.assert_allclose(out, np.linalg.solve(matrix, b.T).T, rtol=1e-12)

    make = lambda matrix: solver.factorize_with(analysis, pattern, _small(matrix)[1])
    held = [make(m) for m in matrices[:2]]
    for factor, matrix in zip(held, matrices):
        check(factor, matrix)
    del held[0], factor
    refused = pytest.raises(Exception, match=r"(?i)singular|positive|^[0-9]+$")
    with contextlib.nullcontext() if id == "pardiso" else refused:  # which is silent
        make(np.zeros((5, 5)))
    third = make(matrices[2])
    check(held[0], matrices[1])
    del held[0]
    check(make(matrices[3]), matrices[3])
    check(third, matrices[2])


@pytest.mark.parametrize("reuse", [True, False])
def test_klu_takes_old_pivots_only_if_they_fit(reuse):
    if not BY_ID["klu"].here():
        pytest.skip("needs nbklu")
    solver = lp.KLU(reuse_pivots=reuse)
    pattern, values = _small(np.array([[2.0, 1.0], [1.0, 2.0]]))
    analysis = solver.analyze(pattern, values)
    b = np.array([[1.0, 2.0]])
    for matrix in ([[2, 1], [1, 2]], [[1e-14, 1], [1, 1e-14]], [[0, 1], [1, 0]], [[3, 1], [1, 2]]):
        factor = solver.factorize_with(analysis, pattern, _small(np.array(matrix))[1])
        x = np.linalg.solve(matrix, b[0])
        np.testing.assert_allclose(solver.solve(factor, b, transpose=False)[0], x, rtol=1e-12)
        del factor
