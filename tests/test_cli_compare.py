"""`python -m linsolve_prim compare`: who fits, measured in a process that can be killed; the ranking."""

import argparse
import csv
import math
import os
import pathlib
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from cli_tools import MATRICES, laplacian, unsymmetric

import linsolve_prim as lp
from linsolve_prim.cli import BAD_INPUT, SUCCESS, compare_memory, main
from linsolve_prim.cli.compare_command import compare
from linsolve_prim.cli.compare_contestants import Facts, contestants
from linsolve_prim.cli.compare_picture import draw
from linsolve_prim.cli.compare_process import Worker
from linsolve_prim.cli.compare_progress import progress
from linsolve_prim.cli.compare_rows import CRASHED, FAILED, SOLVED, STOPPED, Row, ranking
from linsolve_prim.cli.compare_table import report, write_csv, write_markdown
from linsolve_prim.cli.reading import BadInput

MINE = """
import ctypes, time
import linsolve_prim as lp

def forever(matrix):
    while True:
        time.sleep(1)

HANGS = lp.HostSolver(factorize=forever, solve=lambda factor, b, transpose: b)
DIES = lp.HostSolver(factorize=lambda A: ctypes.string_at(0), solve=lambda factor, b, transpose: b)
WRONG = lp.HostSolver(factorize=lambda A: A, solve=lambda factor, b, transpose: b)
"""


def asked(**given):
    defaults = {"solver": [], "preconditioner": [], "also": [], "rtol": 1e-8}
    return argparse.Namespace(**(defaults | given))


def facts(shape=(50, 50), sparse=True, tags=("symmetric", "positive-definite"), real=True):
    return Facts(shape, sparse, frozenset(tags), real)


def names(*args, **settings):
    return [row.name for row in contestants(facts(*args, **settings), asked())]


# ---- who fits ------------------------------------------------------------------------------------


def test_who_fits():
    """Nothing whose assumptions are not met is tried, and everything that is left is."""
    definite, general = names(), names(tags=())
    assert {"SuperLU", "Cholesky", "SVD", "CG", "CG + ic", "MINRES", "SciPy cg"} <= set(definite)
    assert {"LU", "GMRES", "GMRES + ilu", "BiCGStab + jacobi", "LSMR"} <= set(general)
    assert not {"CG", "Cholesky", "MINRES", "GMRES + ic"} & set(general)
    assert general.index("SuperLU") < general.index("GMRES + ilu") < general.index("LSMR")
    assert "Triangular" in names(tags=("lower-triangular",))
    wide = names(shape=(50, 80), tags=())
    assert {"QR", "SVD", "LSMR", "Normal"} <= set(wide)
    assert not {"LU", "GMRES", "SuperLU"} & set(wide)
    middling = names(shape=(2000, 2000))
    assert middling.index("CG + ic") < middling.index("Cholesky") < middling.index("SVD")
    large = names(shape=(5000, 5000))
    assert "Cholesky" not in large
    assert "SuperLU" in large
    for row in contestants(facts(), asked()):  # every expression makes a solver
        if "prepare(A)" not in row.code:
            assert isinstance(eval(row.code, {"lp": lp}), lp.AbstractLinearSolver)


def test_choices_of_the_user():
    rows = contestants(facts(), asked(solver=["cg", "scipy-cg"], preconditioner=["none", "ic"]))
    assert [row.name for row in rows] == ["CG", "CG + ic", "SciPy cg"]
    with pytest.raises(BadInput, match="--solver, --preconditioner: leave no contestant"):
        contestants(facts(tags=()), asked(solver=["cg"]))
    with pytest.raises(BadInput, match=r"--also: must be module:expression.*got mine"):
        contestants(facts(), asked(also=["mine"]))


# ---- the worker ----------------------------------------------------------------------------------


def test_a_contestant_that_hangs_is_killed_and_the_next_one_runs(folder):
    """One that never returns, one that is right, one that takes the process with it, one that lies."""
    pathlib.Path("mine.py").write_text(MINE)
    sp.save_npz("A.npz", unsymmetric())
    setting = {"matrix": "A.npz", "rhs": None, "dtype": "float64", "tags": [], "rtol": 1e-8,
               "gradient": True, "limit": 1.0}  # fmt: skip
    rows = {
        row.code.rpartition(".")[2]: row
        for row in contestants(
            facts(shape=(12, 12), tags=()),
            asked(
                also=["mine:HANGS", "mine:WRONG", "mine:DIES"],
                solver=["superlu"],
                preconditioner=["none"],
            ),
        )
    }
    worker = Worker(setting)
    try:
        worker.run(rows["WRONG"], 120.0)
        hanging = worker._process
        worker.run(rows["HANGS"], 2.0)  # (which never ends by itself)
        assert hanging.returncode == -9  # really ended
        worker.run(rows["SuperLU()"], 120.0)
        worker.run(rows["DIES"], 120.0)
    finally:
        worker.close()
    assert rows["HANGS"].outcome == STOPPED
    assert "more than 2 s, in" in rows["HANGS"].reason
    assert rows["WRONG"].outcome == FAILED
    assert rows["WRONG"].reason == "inaccurate"
    assert rows["DIES"].outcome == CRASHED
    assert "SIGSEGV" in rows["DIES"].reason
    best = rows["SuperLU()"]
    assert (best.outcome, best.gradient_outcome) == (SOLVED, SOLVED)
    assert max(best.residual, best.adjoint_residual) < 1e-12
    for key in ("setup", "compile", "first", "later", "gradient_compile", "gradient_later"):
        assert getattr(best, key) > 0
    assert best.memory < 2000


def test_who_is_cut_off_by_the_time_of_all_has_not_failed(folder, monkeypatch):
    """No process here: only the bookkeeping of `compare`."""
    monkeypatch.setattr(Worker, "run", lambda self, row, limit: row.end(STOPPED, "more than that"))
    rows = some_rows()[2:]
    for row in rows:
        row.outcome = "not run"
    compare(rows, {}, budget=5.0, limit=10.0)
    assert [row.outcome for row in rows] == ["not run", "not run"]
    compare(rows, {}, budget=50.0, limit=10.0)
    assert [row.outcome for row in rows] == [STOPPED, STOPPED]


def solved_as_told(out, matrix, b):
    """x by the lines that `compare` prints for the winner."""
    lines = [line.strip() for line in out.splitlines() if line.startswith("    ")]
    lines = [line for line in lines if line.startswith(("import", "A = ", "x = "))]
    scope = {"matrix": matrix, "b": b}
    exec("\n".join(lines), scope)
    return scope["x"]


def test_a_singular_system(folder, capsys):
    """LU's failure is a row with its reason; the line of the winner solves, and the files are there."""
    matrix = np.outer(np.arange(1.0, 5.0), np.ones(4))
    np.save("A.npy", matrix)
    argv = "compare A.npy --solver lu --solver svd --out t.csv --out t.md --limit 100".split()
    assert main(argv) == SUCCESS
    out = capsys.readouterr().out
    assert "LU: FAILED, singular" in out
    assert "winner             SVD" in out
    x = solved_as_told(out, matrix, matrix.sum(1))
    np.testing.assert_allclose(matrix @ x, matrix.sum(1), rtol=1e-4)
    with open("t.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["solver"], first["outcome"], second["outcome"]) == ("SVD", "solved", "FAILED")
    assert float(first["later"]) > 0
    assert second["later"] != ""  # measured, though wrong
    assert "| 1 | SVD |" in pathlib.Path("t.md").read_text()


def test_a_rectangular_system(folder, capsys):
    """Least squares: the residual need not vanish, and several right-hand sides are one row."""
    rng = np.random.default_rng(0)
    matrix, b = rng.standard_normal((9, 4)), rng.standard_normal((9, 2))
    np.savez("A.npz", A=matrix, b=b)
    argv = "compare A.npz --solver qr --out t.csv --limit 100".split()
    assert main(argv) == SUCCESS
    with open("t.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["solver"], row["outcome"], row["gradient_outcome"]) == ("QR", SOLVED, SOLVED)
    assert float(row["residual"]) > 0.01
    x = solved_as_told(capsys.readouterr().out, matrix, b)
    np.testing.assert_allclose(x, np.linalg.lstsq(matrix, b)[0], rtol=1e-4)
    assert float(row["adjoint_residual"]) < 1e-12


def test_bad_input(folder, capsys):
    np.save("A.npy", laplacian().toarray())
    for argv, words in (
        (["none.mtx"], "no file none.mtx"),
        (["A.npy", "--out", "x.txt"], "--out: must end in .csv or .md or .png or .svg"),
        (["A.npy", "--solver", "bogus"], "leave no contestant"),
    ):
        assert main(["compare", *argv]) == BAD_INPUT
        assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not MATRICES.is_dir(), reason="../shared/matrices is absent")
def test_a_real_matrix(folder, capsys):
    """Within its seconds (what did not fit is listed), with preconditioners, and with a picture."""
    pytest.importorskip("matplotlib")
    argv = ["compare", str(MATRICES / "1138_bus.npz"), "--seconds", "60", "--limit", "30"]
    assert main(argv) == SUCCESS
    assert "not run" in capsys.readouterr().out
    assert os.path.getsize("compare.png") > 10_000


# ---- what is shown -------------------------------------------------------------------------------


def some_rows():
    solved = [
        Row("A", "", "lp.A()", "dense", SOLVED, residual=1e-9, later=2.0, spread=0.1, memory=5.0),
        Row("B", "ic", "lp.B()", "sparse", SOLVED, residual=1e-9, later=1.0, spread=0.2,
            memory=9.0, gradient_outcome=STOPPED, gradient_reason="more than 3 s"),
    ]  # fmt: skip
    return [
        *solved,
        Row("C", "", "lp.C()", "dense", FAILED, "sing|ular"),
        Row("D", "", "", "dense"),
    ]


def test_ranking_and_report(capsys):
    rows = some_rows()
    assert [row.solver for row in ranking(rows, "later")] == ["B", "A"]
    assert [row.solver for row in ranking(rows, "memory")] == ["A", "B"]
    report(rows, "later")
    out = capsys.readouterr().out
    for words in ("B + ic", "C: FAILED, sing|ular", "B + ic: STOPPED, more than 3 s", "not run"):
        assert words in out
    assert "nan" not in out


def test_files(folder):
    pytest.importorskip("matplotlib")
    rows = some_rows()
    write_csv("t.csv", rows, "later")
    write_markdown("t.md", rows, "later", "head")
    draw("t.svg", rows, "later", "title")
    with open("t.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["solver"] for row in table] == ["B", "A", "C", "D"]
    assert table[0]["first"] == ""
    assert "sing\\|ular" in pathlib.Path("t.md").read_text()
    assert "<svg" in pathlib.Path("t.svg").read_text()


def test_progress_is_lines_where_nobody_watches(capsys):
    with progress(1) as shown:
        shown.begin(some_rows()[0])
        shown.end(some_rows()[0])
    assert "[1/1] A: 2 s, residual 1.0e-09" in capsys.readouterr().err


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("TERM", "xterm")
    with progress(2) as shown:
        shown.begin(some_rows()[1])
        shown.end(some_rows()[1])
    err = capsys.readouterr().err
    assert "B + ic" in err
    assert "1/2" in err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not forget a peak")
def test_memory_is_that_of_the_peak():
    before = compare_memory.start()
    np.ones(2**24)  # 128 MiB, gone at once
    grown = compare_memory.grown(before)
    assert grown > 100 or math.isnan(grown)
