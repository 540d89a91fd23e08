"""`python -m linsolve_prim solve`: formats, choices, exit status, messages."""

import os
import pathlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from cli_tools import (
    MATRICES,
    assert_bad_input,
    laplacian,
    status_and_output,
    unsymmetric,
    write_csr,
    write_dense_mtx,
    write_mtx,
    write_named,
    write_npy,
    write_scipy,
)

from linsolve_prim.cli import BAD_INPUT, FAILURE, SUCCESS
from linsolve_prim.cli.reading import read_system

needs_matrices = pytest.mark.skipif(not MATRICES.is_dir(), reason="../shared/matrices is absent")


# ---- formats -------------------------------------------------------------------------------------


WRITERS = {
    "mtx": write_mtx,
    "mtx-array": write_dense_mtx,
    "npy": write_npy,
    "npz-A": write_named,
    "npz-csr": write_csr,
    **{f"scipy-{kind}": write_scipy(kind) for kind in ("csr", "csc", "coo", "dia", "bsr")},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_reads_the_same_matrix(folder, writer):
    A = unsymmetric()
    system = read_system(WRITERS[writer](A), None)
    matrix = system.matrix.toarray() if sp.issparse(system.matrix) else system.matrix
    np.testing.assert_array_equal(matrix, A.toarray())
    np.testing.assert_allclose(system.rhs, A @ np.ones(12), rtol=1e-15)
    assert system.rhs_from.startswith("A·1")


def test_mtx_kinds(folder):
    A = laplacian()
    scipy.io.mmwrite("symmetric.mtx", sp.coo_array(A), symmetry="symmetric")
    np.testing.assert_array_equal(read_system("symmetric.mtx", None).matrix.toarray(), A.toarray())
    pattern = sp.coo_array((np.ones(3), ([0, 1, 1], [0, 0, 1])), shape=(2, 2))
    scipy.io.mmwrite("pattern.mtx", pattern, field="pattern")
    np.testing.assert_array_equal(read_system("pattern.mtx", None).rhs, [1.0, 2.0])
    integers = sp.coo_array(np.array([[2, 1], [0, 3]]))
    scipy.io.mmwrite("integer.mtx", integers)
    assert read_system("integer.mtx", None).matrix.dtype == np.float64
    hermitian = np.array([[2.0, 1j], [-1j, 3.0]])
    scipy.io.mmwrite("hermitian.mtx", sp.coo_array(hermitian), symmetry="hermitian")
    matrix = read_system("hermitian.mtx", None).matrix.toarray()
    np.testing.assert_array_equal(matrix, hermitian)


def test_solves_and_says_what_it_did(folder, capsys):
    A, b = laplacian(), np.arange(1.0, 13.0)
    scipy.io.mmwrite("A.mtx", sp.coo_array(A))
    scipy.io.mmwrite("b.mtx", b[:, None])
    status, out, _ = status_and_output(capsys, "A.mtx", "b.mtx", "--out", "x.npy")
    assert status == SUCCESS
    np.testing.assert_allclose(np.load("x.npy"), np.linalg.solve(A.toarray(), b), rtol=1e-12)
    for words in ("12 x 12", "Cholesky factorization succeeded", "true residual"):
        assert words in out
    assert any(name in out for name in ("Banded(", "RSLab(", "SuperLU("))
    assert out.rstrip().endswith("solved")


@pytest.mark.parametrize("out", ["x.npy", "x.mtx"])
@pytest.mark.parametrize("columns", [None, 3])
def test_solution_round_trip(folder, capsys, out, columns):
    A = unsymmetric()
    shape = (12,) if columns is None else (12, columns)
    b = np.random.default_rng(0).standard_normal(shape)
    write_npy(A)
    np.save("b.npy", b)
    status, text, _ = status_and_output(capsys, "A.npy", "b.npy", "--out", out)
    assert status == SUCCESS
    x = np.load(out) if out.endswith("npy") else np.asarray(scipy.io.mmread(out)).reshape(shape)
    np.testing.assert_allclose(x, np.linalg.solve(A.toarray(), b), rtol=1e-12)
    assert ("all 3 columns" in text) == (columns == 3)
    # and what was written can be read as a right-hand side
    np.testing.assert_array_equal(read_system("A.npy", out).rhs, x)


def test_b_inside_the_matrix_file(folder, capsys):
    A, b = laplacian().toarray(), np.arange(12)
    np.savez("both.npz", A=A, b=b)
    status, out, _ = status_and_output(capsys, "both.npz", "--out", "x.npy")
    assert status == SUCCESS
    assert "'b' in both.npz" in out
    np.testing.assert_allclose(np.load("x.npy"), np.linalg.solve(A, b), rtol=1e-12)


# ---- choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "chosen"),
    [
        (np.diag([1.0, 2.0, 3.0]), "Diagonal("),
        (np.diag([3.0, 3.0, 3.0]) + np.diag([1.0, 2.0], 1), "Tridiagonal("),
        (np.tri(4) + 3 * np.eye(4), "Triangular("),
        (laplacian(6).toarray(), "Cholesky("),
        (-laplacian(6).toarray(), "Cholesky("),
        (laplacian(6, shift=-3.9).toarray(), "LU("),
        (unsymmetric(6).toarray(), "LU("),
    ],
)
def test_automatic_choice(folder, capsys, matrix, chosen):
    np.save("A.npy", matrix)
    status, out, _ = status_and_output(capsys, "A.npy")
    assert status == SUCCESS
    (line,) = [line for line in out.splitlines() if line.startswith("solver ")]
    assert chosen in line
    assert "because" in line


OTHERS = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("qr", "svd", "cholesky", "bicgstab")
]


@pytest.mark.parametrize("name", ["lu", "cg", "gmres", "lsmr", *OTHERS])
def test_solver_by_name(folder, capsys, name):
    write_csr(laplacian())
    status, out, _ = status_and_output(capsys, "A.npz", "--solver", name)
    assert status == SUCCESS
    assert "as asked for" in out


def test_settings_reach_the_solver(folder, capsys):
    write_csr(unsymmetric(60))
    argv = "A.npz --solver gmres --rtol 1e-4 --atol 1e-9 --max-steps 50 --restart 7".split()
    status, out, _ = status_and_output(capsys, *argv, "--preconditioner", "jacobi")
    assert status == SUCCESS
    for setting in ("rtol=0.0001", "atol=1e-09", "max_steps=50", "restart=7"):
        assert setting in out


@pytest.mark.parametrize(("solver", "name"), [("cg", "ic"), ("gmres", "ilu"), ("cg", "auto")])
def test_preconditioners_by_name(folder, capsys, solver, name):
    write_csr(laplacian())
    status, out, _ = status_and_output(
        capsys, "A.npz", "--solver", solver, "--preconditioner", name
    )
    assert status == SUCCESS
    assert f"preconditioner     {name}, as asked for" in out
    (steps,) = [line.split()[1] for line in out.splitlines() if line.startswith("num_steps")]
    assert int(steps) < 8  # alone it takes 10 and more


def test_sparse_triangular(folder, capsys):
    """It is solved as it is, on the device; and what a small residual does not say is said."""
    lower = sp.csr_array(sp.tril(laplacian()))
    write_csr(lower)
    status, out, _ = status_and_output(capsys, "A.npz")
    assert status == SUCCESS
    assert "Triangular(" in out
    assert "Another x" not in out
    singular = sp.block_diag([laplacian(5), np.ones((2, 2))])
    write_csr(sp.csr_array(singular))
    status, out, _ = status_and_output(capsys, "A.npz", "--solver", "superlu")
    assert ("Another x solves it as well" in out) == (status == SUCCESS)


def test_large_sparse_stays_sparse(folder, capsys):
    write_csr(laplacian(5000, shift=2.0))
    status, out, _ = status_and_output(capsys, "A.npz")
    assert status == SUCCESS
    assert "SparseLinearOperator" in out
    assert any(name in out for name in ("Banded(", "RSLab(", "SuperLU("))
    assert_bad_input(capsys, "A.npz", "--solver", "lu", match=["--solver", "dense", "gmres"])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_dtype(folder, capsys, dtype):
    write_npy(unsymmetric())
    status, out, _ = status_and_output(capsys, "A.npy", "--dtype", dtype, "--out", "x.npy")
    assert status == SUCCESS
    assert np.load("x.npy").dtype == dtype
    assert f"{dtype}[12]" in out


def test_complex_hermitian_is_definite_not_symmetric(folder, capsys):
    rng = np.random.default_rng(1)
    A = rng.standard_normal((5, 5)) + 1j * rng.standard_normal((5, 5))
    A = A @ A.conj().T + 5 * np.eye(5)
    np.save("A.npy", A)
    status, out, _ = status_and_output(capsys, "A.npy", "--out", "x.npy")
    assert status == SUCCESS
    assert "Hermitian, positive definite" in out
    np.testing.assert_allclose(np.load("x.npy"), np.ones(5), rtol=1e-12)


def test_least_squares(folder, capsys):
    rng = np.random.default_rng(2)
    A, b = rng.standard_normal((9, 4)), rng.standard_normal(9)
    np.savez("A.npz", A=A, b=b)
    for solver in ("qr", "svd", "lsmr"):
        argv = ("A.npz", "--solver", solver, "--out", "x.npy")
        status, out, _ = status_and_output(capsys, *argv)
        assert status == SUCCESS
        assert "normal equations hold" in out
        np.testing.assert_allclose(np.load("x.npy"), np.linalg.lstsq(A, b)[0], rtol=1e-8)
    assert_bad_input(capsys, "A.npz", match=["A:", "9 x 4", "qr", "svd", "lsmr"])
    assert_bad_input(capsys, "A.npz", "--solver", "lu", match=["square", "9 x 4"])


# ---- failures ------------------------------------------------------------------------------------


def test_singular_fails(folder, capsys):
    np.savez("A.npz", A=np.ones((3, 3)), b=np.array([1.0, 2.0, 3.0]))
    status, out, _ = status_and_output(capsys, "A.npz", "--out", "x.npy")
    assert status == FAILURE
    assert "singular" in out
    assert "--solver svd" in out
    assert not os.path.exists("x.npy")


def test_too_few_steps_fail(folder, capsys):
    write_csr(unsymmetric(50))
    status, out, _ = status_and_output(capsys, "A.npz", "--solver", "gmres", "--max-steps", "2")
    assert status == FAILURE
    assert "max_steps_reached" in out


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_input_fails(folder, capsys, bad):
    A = laplacian().toarray()
    A[3, 4] = bad
    np.save("A.npy", A)
    status, out, _ = status_and_output(capsys, "A.npy")
    assert status == FAILURE
    assert "nonfinite_input" in out


def test_one_bad_column_fails(folder, capsys):
    b = np.ones((12, 3))
    b[5, 1] = np.nan
    write_npy(laplacian())
    np.save("b.npy", b)
    status, out, _ = status_and_output(capsys, "A.npy", "b.npy")
    assert status == FAILURE
    assert "1 of 3 columns failed" in out


def test_a_false_tag_is_caught_by_the_independent_residual(folder, capsys):
    """With `--tag diagonal` the package reads the diagonal only, and agrees with itself."""
    write_npy(unsymmetric())
    status, out, _ = status_and_output(capsys, "A.npy", "--tag", "diagonal")
    assert status == FAILURE
    assert "successful" in out
    assert "NOT within" in out


def test_rtol_is_what_success_needs(folder, capsys):
    write_npy(unsymmetric())
    assert status_and_output(capsys, "A.npy", "--rtol", "1e-30")[0] == SUCCESS  # to rounding
    status, out, _ = status_and_output(capsys, "A.npy", "--dtype", "float32", "--rtol", "1e-12")
    assert status == SUCCESS, out  # as well as float32 can
    assert "above, by no more than rounding in float32 explains, 1.0e-12" in out
    loose = ("A.npy", "--solver", "gmres", "--rtol", "1e-3", "--out", "x.npy")
    status, out, _ = status_and_output(capsys, *loose)
    assert status == SUCCESS
    assert "1.0e-03·‖b‖" in out


# ---- bad input -----------------------------------------------------------------------------------


def test_files_that_cannot_be_used(folder, capsys):
    write_npy(laplacian())
    np.save("short.npy", np.ones(5))
    np.save("vector.npy", np.ones(12))
    np.save("text.npy", np.array([["a", "b"], ["c", "d"]]))
    np.save("object.npy", np.array([[None, 1], [2, 3]], dtype=object), allow_pickle=True)
    np.savez("other.npz", C=np.eye(3))
    bad = {"data": np.ones(2), "indices": np.array([0, 9]), "indptr": np.array([0, 1, 2])}
    np.savez("range.npz", **bad, shape=np.array([2, 2]))
    pathlib.Path("broken.mtx").write_text("this is no matrix\n")
    pathlib.Path("broken.npz").write_bytes(b"PK neither is this")
    pathlib.Path("A.txt").write_text("1 2\n3 4\n")
    assert_bad_input(capsys, "none.mtx", match=["A:", "no file none.mtx"])
    assert_bad_input(capsys, "A.npy", "none.npy", match=["b:", "no file none.npy"])
    assert_bad_input(capsys, "A.npy", "short.npy", match=["b:", "(5,)", "12 rows"])
    assert_bad_input(capsys, "vector.npy", match=["A:", "(12,)", "two axes"])
    assert_bad_input(capsys, "text.npy", match=["A:", "numbers"])
    assert_bad_input(capsys, "object.npy", match=["A:", "cannot be read"])
    assert_bad_input(capsys, "other.npz", match=["A:", "holds C", "'indptr'"])
    assert_bad_input(capsys, "A.npy", "other.npz", match=["b:", "holds C"])
    assert_bad_input(capsys, "range.npz", match=["A:", "valid sparse matrix"])
    assert_bad_input(capsys, "broken.mtx", match=["A:", "cannot be read as mtx"])
    assert_bad_input(capsys, "broken.npz", match=["A:", "cannot be read as npz"])
    assert_bad_input(capsys, "A.txt", match=["A:", "A.txt", ".npz"])


def test_options_that_do_not_fit(folder, capsys):
    write_npy(unsymmetric())
    bad = lambda *argv, match: assert_bad_input(capsys, "A.npy", *argv, match=match)
    bad("--solver", "bogus", match=["--solver", "bogus", "gmres"])
    bad("--solver", "cg", match=["definite", "--tag positive-definite"])
    bad("--solver", "cholesky", match=["definite"])
    bad("--solver", "triangular", match=["--solver", "triangular"])
    bad("--solver", "lu", "--restart", "5", match=["--restart", "LU"])
    bad("--max-steps", "5", match=["--max-steps", "LU"])
    bad("--preconditioner", "jacobi", match=["--preconditioner", "LU"])
    bad("--solver", "gmres", "--preconditioner", "magic", match=["must be one of", "ilu", "magic"])
    bad("--solver", "gmres", "--rtol", "0", "--atol", "0", match=["rtol"])
    bad("--out", "x.txt", match=["--out", ".npy"])
    bad("--out", "nowhere/x.npy", match=["--out", "nowhere"])
    np.save("A.npy", np.array([[0.0, 1.0], [1.0, 1.0]]))
    bad("--solver", "gmres", "--preconditioner", "jacobi", match=["diagonal"])
    np.save("A.npy", np.array([[1j, 1.0], [1.0, 1.0]]))
    bad("--dtype", "float64", match=["--dtype", "complex128"])
    np.save("A.npy", np.ones((3, 2)))
    bad("--solver", "qr", "--tag", "symmetric", match=["--tag", "3 x 2"])


@needs_matrices
@pytest.mark.parametrize(
    ("name", "argv", "expected"),
    [
        ("airfoil", [], SUCCESS),
        pytest.param(
            *("recirc_flow", ["--solver", "gmres", "--restart", "100"], SUCCESS),
            marks=pytest.mark.slow,
        ),
        pytest.param("cg20", ["--solver", "bicgstab"], SUCCESS, marks=pytest.mark.slow),
        ("Maragal_1", ["--solver", "svd"], SUCCESS),
        ("can_61", ["--solver", "lu"], FAILURE),
        pytest.param("shaw_100", ["--solver", "svd"], SUCCESS, marks=pytest.mark.slow),
        ("Maragal_1", [], BAD_INPUT),
    ],
)
def test_real_matrices(capsys, name, argv, expected):
    assert status_and_output(capsys, MATRICES / f"{name}.npz", *argv)[0] == expected
