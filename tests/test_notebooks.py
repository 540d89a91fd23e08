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
