"""The notebooks are stored as they are written, run, and end in the numbers that they claim."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

#: For each notebook: what it ends in, between which bounds, and what it needs beside JAX.
CLOSING = {
    "first_solve": ({"error": (0, 0.1)}, ["matplotlib"]),
    # S2-26: steps do not grow with the grid; a gradient through 20 solves with a refreshed hierarchy.
    "multigrid": ({"growth": (0.5, 2), "error": (0, 1e-4)}, ["matplotlib", "pyamg"]),
    # S1-06, S1-27: a network that makes A and b, trained end to end; at times seen and not seen.
    "learned_system": ({"fall": (20, 1e4), "unseen_fall": (20, 1e4)}, ["matplotlib", "optax"]),
    # S1-18: solves in the right-hand side of an ODE, differentiated through its trajectory.
    "neural_ode": ({"ratio": (0, 0.25)}, ["matplotlib", "optax", "diffrax"]),
    # S4-21, S4-22, S4-25: U-Net → pressure projection → loss, several steps in a row.
    "pressure_correction": (
        {"ratio": (0.2, 0.9), "left_over": (0, 1e-5)},
        ["matplotlib", "optax"],
    ),
    # S4-02: many right-hand sides, their adjoints and `minimize` on one factorization for each guess.
    "heat_inverse": ({"error": (0.05, 0.35), "factorizations": (0.5, 1.01)}, ["matplotlib"]),
    # SIMP on scikit-fem's matrix; one factorization for each compliance with its gradient.
    "topology_optimisation": (
        {"fall": (4, 6), "gradient_error": (0, 1e-5), "factorizations": (0.99, 1.01)},
        ["matplotlib", "skfem"],
    ),
    # A singular system of a real network: relief as asked for, Foster's theorem, dflow/dreactance.
    "power_network": (
        {"relief": (49.999, 50.001), "foster": (116.9999, 117.0001), "gradient_error": (0, 1e-5)},
        ["matplotlib"],
    ),
    # S1-12, S1-14, S1-26: on matrices that were not seen, beside the best of none, Jacobi's, untrained.
    "learned_preconditioner": (
        {"ratio": (0.2, 0.5), "ratio_general": (0.3, 1)},
        ["matplotlib", "optax"],
    ),
    # Implicit beside unrolled: the gradient of CG's steps is not that of the solution, which is nearly found.
    "gradients": (
        {
            "solution_error": (0, 1e-2),
            "implicit_error": (0, 2e-2),
            "unrolled_error": (10, 1e5),
            "second": (0, 1e-6),
        },
        ["matplotlib"],
    ),
    # Result codes of a sweep over resonances, beside residuals in double precision.
    "when_it_fails": (
        {"happened": (2, 40), "told": (1, 1), "alarms": (0, 0.05)},
        ["matplotlib"],
    ),
    # Seven methods on one system; products by CG with a preconditioner beside those without a promise.
    "choosing_a_solver": (
        {"error": (0, 1e-7), "saved": (5, 200), "untrue": (0, 0)},
        ["matplotlib"],
    ),
    # 48 matrices of one pattern: factorized once each, also for gradients.
    "factor_reuse": (
        {
            "first": (0.99, 1.01),
            "again": (0, 0.01),
            "duality": (0, 1e-10),
            "gradient_error": (0, 1e-5),
        },
        ["matplotlib", "rslab"],
    ),
    # Failures that were told, and wrong gradients that were not, beside Lineax, JAX and SciPy.
    "comparison": (
        {"told": (1, 1), "alarms": (0, 0.08), "silent_gradients": (0, 0)},
        ["matplotlib", "lineax"],
    ),
    "write_your_own": ({"apart": (0, 1e-10), "fall": (1.2, 5)}, ["matplotlib"]),
}
QUICK = {"first_solve", "learned_system"}

#: The script as a user runs it, and what it ends in as JSON.
RUN = """
import json, runpy, sys
path, *names = sys.argv[1:]
found = runpy.run_path(path)
print("\\n" + json.dumps({name: float(found[name]) for name in names}))
"""


def run(name, wanted):
    """Run a notebook's code in a process of its own, with the settings that JAX has by itself."""
    ours = ("JAX_ENABLE_X64", "JAX_NUMPY_DTYPE_PROMOTION", "XLA_FLAGS")
    env = {key: value for key, value in os.environ.items() if key not in ours}
    env |= {"MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN, f"{name}.py", *wanted]
    process = subprocess.run(
        command, cwd=FOLDER, env=env, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    # what they check themselves (messages may name a setting, as in `well_posed=False`)
    assert not re.search(r"(?<!=)\bFalse\b", process.stdout)
    return json.loads(process.stdout.splitlines()[-1])


def marked(names):
    slow = lambda name: () if name in QUICK else pytest.mark.slow
    return [pytest.param(name, marks=slow(name)) for name in names]


@pytest.mark.parametrize("name", marked(NAMES))
def test_it_ends_in_its_numbers(name):
    bounds, needed = CLOSING[name]
    for module in needed:
        pytest.importorskip(module)
    found = run(name, bounds)
    for key, (low, high) in bounds.items():
        assert low <= found[key] <= high, found


def cells_of_script(text):
    """Kind and source of each cell of a script in the percent format."""
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            yield "markdown", re.sub(r"^# ?", "", body.strip("\n"), flags=re.MULTILINE)
        else:
            yield "code", body.strip("\n")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_stored_with_outputs_of_the_same_cells(name):
    """`python notebooks/store.py NAME` was run after the last change, and its pictures are small."""
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    stored = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    written = list(cells_of_script((FOLDER / f"{name}.py").read_text()))
    assert stored == written
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [
        output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})
    ]
    assert pictures
    assert max(len(base64.b64decode(picture)) for picture in pictures) < 100_000


def test_each_notebook_is_a_pair_and_has_a_number():
    if not FOLDER.exists():
        pytest.skip("notebooks are not part of an installed package")
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"store"}
    assert set(NAMES) == scripts == set(CLOSING)
