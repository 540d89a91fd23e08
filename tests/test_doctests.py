"""S3-22: the examples in docstrings run, and every public name has one."""

import os
import pathlib
import subprocess
import sys

import pytest
from compiler_flags import QUICK_XLA_FLAGS
from doctest_runner import examples
from public_names import ROOT, documented

import linsolve_prim as lp
from linsolve_prim.host.available import has_module

PACKAGE = ROOT / "linsolve_prim"

#: What must be installed for the examples of a file, where that is not the solver's own business.
MODULES = {
    "diagnostics.py": "matplotlib",
    "interop/lineax.py": "lineax",
    "interop/torch.py": "torch",
    "interop/torch_autograd.py": "torch",
    "interop/torch_bridge.py": "torch",
    "interop/torch_sparse.py": "torch",
    "preconditioners/amg.py": "pyamg",
    "preconditioners/galerkin.py": "pyamg",
}

#: Six gradients are compiled and timed there.
LONG = ("learn/compare.py",)


def _with_examples() -> list[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [str(p.relative_to(PACKAGE)) for p in paths if ">>>" in p.read_text()]


def _room(name: str) -> str:
    """What runs in one process: about equally long parts, and what PyTorch is needed for."""
    if MODULES.get(name) == "torch":
        return "torch"
    return "solvers" if name.startswith(("solvers", "preconditioners")) else "the rest"


def _can_run(name: str) -> bool:
    missing = lp.list_solvers().missing
    solver = (PACKAGE / name).read_text().split("\nclass ")[1:]
    lacks = any(text.split("(")[0] in missing for text in solver)
    return not lacks and (name not in MODULES or has_module(MODULES[name]))


def run(names: list[str]) -> None:
    settings = {
        "XLA_FLAGS": QUICK_XLA_FLAGS,
        "JAX_NUMPY_DTYPE_PROMOTION": "standard",
        "MPLBACKEND": "Agg",
    }
    here = pathlib.Path(__file__).parent
    command = [sys.executable, "-W", "error", str(here / "doctest_runner.py")]
    command += [str(PACKAGE / name) for name in names]
    done = subprocess.run(
        command, env={**os.environ, **settings}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ["solvers", "the rest"])
def test_examples_S3_22(room):
    """As a user would run them, in either precision."""
    names = [name for name in _with_examples() if _room(name) == room and name not in LONG]
    assert len(names) >= 10
    run([name for name in names if _can_run(name)])


def test_examples_with_torch_S3_22():
    pytest.importorskip("torch")
    run([name for name in _with_examples() if _room(name) == "torch"])


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_examples_S3_22(name):
    run([name])


def test_every_public_name_has_an_example():
    without = [name for name, item in documented().items() if ">>>" not in (item.__doc__ or "")]
    assert not without, f"give these an example (`>>>`) in their docstring: {', '.join(without)}"


def test_a_wrong_example_is_found(tmp_path):
    """The tests above would fail; and generic functions are among what is found."""
    path = tmp_path / "wrong.py"
    path.write_text('def f():\n    """Text.\n\n    >>> 1 + 1\n    3\n    """\n')
    with pytest.raises(AssertionError, match=r"Expected:\s+3"):
        run([str(path)])
    found = examples(PACKAGE / "operators" / "functions.py")
    assert "is_symmetric" in [example.name for example in found]
