"""What an import costs and changes, and what the distribution says of itself."""

import pathlib
import subprocess
import sys
import tomllib

import jax
import pytest

import linsolve_prim as lp

ROOT = pathlib.Path(__file__).parent.parent


def _python(code: str, **env: str) -> str:
    import os

    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return out.stdout.strip()


def test_import_changes_no_configuration():
    """B-09, B-20: importing leaves every value of `jax.config` as it was."""
    code = (
        "import jax\n"
        "before = dict(jax.config.values)\n"
        "import linsolve_prim\n"
        "print(dict(jax.config.values) == before)"
    )
    assert _python(code, JAX_ENABLE_X64="0") == "True"


def test_float32_stays_float32_without_x64():
    """B-20: with x64 off, nothing asks for 64 bits (warnings are errors), and x is float32."""
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import jax, jax.numpy as jnp, linsolve_prim as lp\n"
        "A = jnp.array([[2., 1.], [1., 3.]]); b = jnp.ones(2)\n"
        "s = lp.linear_solve(lp.MatrixLinearOperator(A), b)\n"
        "g = jax.grad(lambda A: lp.solve(A, b).sum())(A)\n"
        "print(s.value.dtype, g.dtype, s.stats['residual_norm'].dtype)"
    )
    assert _python(code, JAX_ENABLE_X64="0") == "float32 float32 float32"


def test_import_is_light():
    """An import starts no backend, traces nothing and loads none of the extras' libraries."""
    heavy = "lineax matplotlib networkx nbklu numba optax optimistix pandas pyamg rich rslab sksparse torch"
    code = (
        "import jax, sys, equinox\n"
        "import linsolve_prim\n"
        "from jax._src import xla_bridge\n"
        f"loaded = sorted(set({heavy.split()}) & set(sys.modules))\n"
        "print(loaded, xla_bridge.backends_are_initialized())"
    )
    assert _python(code) == "[] False"


def test_dependencies_are_those_of_the_card():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {d.split(">")[0].split("=")[0] for d in project["dependencies"]}
    assert names == {"jax", "jaxlib", "equinox", "jaxtyping", "numpy", "scipy"}
    assert project["requires-python"] == ">=3.11"


def test_the_oldest_and_the_newest_jax_are_tested_B_15():
    """B-15: the oldest Python has the oldest JAX (which asks for it), and the newest the newest.

    What is deprecated in either is an error in each test.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["pytest"]["ini_options"]["filterwarnings"] == ["error"]
    (oldest,) = [d for d in settings["project"]["dependencies"] if d.startswith("jax>=")]
    assert jax.__version_info__ >= tuple(map(int, oldest.removeprefix("jax>=").split(".")))
    if sys.version_info < (3, 12):
        assert jax.__version_info__[:2] == (0, 10)
    script = ROOT / ".ci" / "run"
    if script.exists():  # (not in a distribution)
        assert "second=$(second_python)" in script.read_text()


def test_version_and_marker():
    assert lp.__version__
    assert (ROOT / "linsolve_prim" / "py.typed").exists()


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "docs/architecture.md"])
def test_documents_exist(name):
    assert (ROOT / name).read_text().strip()
