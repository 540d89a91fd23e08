"""`python -m linsolve_prim demo`: a field that is found by differentiating through the solve."""

import pathlib
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from cli_tools import laplacian, unsymmetric

from linsolve_prim.cli import BAD_INPUT, FAILURE, SUCCESS, main


def demo_numbers(out, label):
    """The numbers before and after the arrow of a row of the report."""
    (line,) = [line for line in out.splitlines() if line.startswith(label) and "->" in line]
    words = line.removeprefix(label).replace("%", " ").split()
    arrow = words.index("->")
    return float(words[arrow - 1]), float(words[arrow + 1])


def check_demo(out):
    before, after = demo_numbers(out, "misfit")
    assert after < before / 10
    (line,) = [line for line in out.splitlines() if line.startswith("gradient check")]
    assert float(line.split()[2]) < 1e-5
    assert "last solves        successful" in out
    return demo_numbers(out, "field error")


def test_demo_in_short(folder, capsys):
    pytest.importorskip("pyamg")
    pytest.importorskip("matplotlib")
    assert main(["demo", "--steps", "15", "--out", "demo.png"]) == SUCCESS
    out = capsys.readouterr().out
    before, after = check_demo(out)
    assert after < 0.6 * before
    assert pathlib.Path("demo.png").read_bytes().startswith(b"\x89PNG")
    (line,) = [line for line in out.splitlines() if "own matrix" in line]
    assert float(line.split()[-1]) < 1e-13
    assert any(name in out for name in ("Banded(", "RSLab(", "SuperLU("))


@pytest.mark.slow
def test_demo_in_full(folder, capsys):
    pytest.importorskip("pyamg")
    pytest.importorskip("matplotlib")
    assert main(["demo"]) == SUCCESS
    out = capsys.readouterr().out
    _, after = check_demo(out)
    assert after < 25
    assert demo_numbers(out, "misfit")[1] < 1.2


@pytest.mark.parametrize("matrix", [laplacian(40), unsymmetric(40)], ids=["M-matrix", "other"])
def test_demo_with_a_file(folder, capsys, matrix):
    pytest.importorskip("matplotlib")
    sp.save_npz("A.npz", matrix)
    assert main(["demo", "--file", "A.npz", "--steps", "20", "--out", "a.png"]) == SUCCESS
    before, after = check_demo(capsys.readouterr().out)
    assert after < before


def test_demo_refuses(folder, capsys):
    sp.save_npz("wide.npz", sp.csr_array(np.ones((4, 5))))
    sp.save_npz("complex.npz", sp.csr_array(1j * np.eye(5)))
    assert main(["demo", "--file", "wide.npz"]) == BAD_INPUT
    assert "4 x 5" in capsys.readouterr().err
    assert main(["demo", "--file", "complex.npz"]) == BAD_INPUT
    assert "real" in capsys.readouterr().err
    assert main(["demo", "--out", "demo.txt"]) == BAD_INPUT
    assert ".png" in capsys.readouterr().err


def test_demo_fails_on_a_singular_file(folder, capsys):
    ring = 2 * np.eye(30) - np.roll(np.eye(30), 1, axis=0) - np.roll(np.eye(30), -1, axis=0)
    np.save("ring.npy", ring)
    assert main(["demo", "--file", "ring.npy"]) == FAILURE
    assert "FAILED" in capsys.readouterr().out


def test_demo_without_its_packages(folder, capsys, monkeypatch):
    sp.save_npz("A.npz", laplacian(40))
    monkeypatch.setitem(sys.modules, "pyamg", None)
    assert main(["demo"]) == BAD_INPUT
    assert 'pip install "linsolve-prim[demo]"' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "linsolve_prim.cli.demo_picture", raising=False)
    assert main(["demo", "--file", "A.npz", "--steps", "3"]) == SUCCESS
    out = capsys.readouterr().out
    assert "picture            none" in out
    assert 'pip install "linsolve-prim[demo]"' in out
