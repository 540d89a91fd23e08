"""The command line as a whole: usage errors, help, `info`, and as a process."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from cli_tools import ROOT, laplacian, write_csr

import linsolve_prim as lp
from linsolve_prim.cli import BAD_INPUT, SUCCESS, main


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required"),
        (["bogus"], "bogus"),
        (["solve", "A.npy", "--rtol", "-1"], "from 0 up; got -1"),
        (["solve", "A.npy", "--rtol", "nan"], "from 0 up; got nan"),
        (["solve", "A.npy", "--max-steps", "few"], "integer from 1 up; got few"),
        (["solve", "A.npy", "--tag", "blue"], "positive-definite"),
        (["demo", "--noise", "loud"], "got loud"),
    ],
)
def test_usage_errors(capsys, argv, words):
    assert main(argv) == BAD_INPUT
    assert words in capsys.readouterr().err


def run_python(*argv, **environment):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(
        [sys.executable, *map(str, argv)], capture_output=True, env=variables, check=False
    )


def test_as_a_process(folder):
    """`python -m linsolve_prim`, with JAX in its default precision and a terminal of ASCII."""
    write_csr(laplacian())
    settings = {"JAX_ENABLE_X64": "0", "PYTHONIOENCODING": "ascii"}
    done = run_python("-m", "linsolve_prim", "solve", "A.npz", "--out", "x.npy", **settings)
    assert done.returncode == SUCCESS, done.stderr
    assert b"float64" in done.stdout
    np.testing.assert_allclose(np.load("x.npy"), np.ones(12), rtol=1e-12)


def test_help_needs_no_jax():
    """The parser imports the standard library only. (The package around it imports JAX.)"""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('linsolve_prim')\n"
        f"package.__path__ = [{str(ROOT / 'linsolve_prim')!r}]\n"
        "sys.modules['linsolve_prim'] = package\n"
        "from linsolve_prim.cli import main\n"
        "status = [main(['--help']), main(['solve', '--help']), main(['demo', '--help'])]\n"
        "heavy = {'jax', 'numpy', 'scipy', 'matplotlib', 'pyamg'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert status == [0, 0, 0], status\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert b"--preconditioner" in done.stdout


def test_info_S0_14(capsys):
    """Versions, devices, host libraries with their licences, the registry and the table of solvers."""
    assert main(["info"]) == SUCCESS
    out = capsys.readouterr().out
    for words in (f"jax                {jax.__version__}", "device", "x64", "Cholesky", "GMRES"):
        assert words in out
    for library in lp.host.available():
        words = f"{library.solver}: {library.module} {library.version} ({library.licence})"
        assert f"host library       {words}" in out
    assert "factors            " in out
    assert f"{lp.host.registry.budget / 2**30:.1f} GiB" in out
