"""The notebooks run, and end in the number that they claim."""

import json
import pathlib

import jax
import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"


def run(name: str) -> dict:
    """Execute the code cells of a notebook, and return what they define."""
    cells = json.loads((NOTEBOOKS / name).read_text())["cells"]
    namespace: dict = {}
    with jax.numpy_dtype_promotion("standard"):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), name, "exec"), namespace)
    return namespace


def test_first_solve(capsys, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(plt, "show", lambda: None)  # there is no screen
    namespace = run("first_solve.ipynb")
    plt.close("all")
    assert namespace["error"] < 0.1
    assert "False" not in capsys.readouterr().out


def test_multigrid(capsys, monkeypatch):
    """S2-26: steps do not grow with the grid; a gradient through 20 solves with a refreshed hierarchy."""
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("pyamg")
    monkeypatch.setattr(plt, "show", lambda: None)
    namespace = run("multigrid.ipynb")
    plt.close("all")
    assert namespace["growth"] < 2
    assert namespace["steps"]["none"][-1] > 3 * namespace["steps"]["none"][1]
    assert namespace["error"] < (1e-4 if jax.config.jax_enable_x64 else 1e-1)
