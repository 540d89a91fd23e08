"""The Python blocks of the README and of `docs/` run, one after the other, as they stand there."""

import logging
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

README = pathlib.Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
RECIPES = DOCS / "recipes"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```python" in path.read_text())


def run_blocks(path):
    """Execute the Python blocks of a Markdown file, one after the other; what they define."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
    assert blocks
    namespace = {}
    with jax.numpy_dtype_promotion("standard"):
        for block in blocks:
            exec(compile(block, path.name, "exec"), namespace)
    return namespace


def test_python_blocks_run(capsys):
    """S2-25 (and the 15-line solver of S2-03): what the README shows is true."""
    run_blocks(README)
    assert "SingularMatrixError" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_run(page, capsys):
    """S2-25, S4-18, S4-19: so is what the pages show."""
    run_blocks(page)


def test_there_are_pages_for_what_the_readme_leaves_out():
    assert {"coming_from", "krylov", "nonlinear", "preconditioners", "sparse"} <= {
        page.stem for page in PAGES
    }


@pytest.mark.parametrize("page", [README, *PAGES, *RECIPES.glob("*.md")], ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_readme_takes_five_minutes():
    """About 250 words a minute, of prose; code and tables are looked at rather than read."""
    text = re.sub(r"```.*?```", "", README.read_text(), flags=re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert len(" ".join(prose).split()) <= 1250


def test_every_recipe_is_tested():
    assert {path.name for path in RECIPES.glob("*.md")} == {"external_solver.md"}


@pytest.mark.skipif(not jax.config.jax_enable_x64, reason="its numbers are compared in float64")
def test_recipe_of_an_external_solver_S2_25_S2_15():
    """It runs as it stands. Its factor that travels as bytes does so inside of `jit`, in a batch of
    matrices too, with derivatives; a buffer that is too short is an error that says how long."""
    found = run_blocks(RECIPES / "external_solver.md")
    solver = found["PickledLU"]
    matrices = jnp.stack([found["M"], 2 * found["M"].T])
    loss = lambda solve, a: jnp.sum(jax.vmap(lambda a: solve(a, found["c"]))(a) ** 2)
    ours = jax.jit(jax.grad(lambda a: loss(lambda a, c: lp.solve(a, c, solver()), a)))(matrices)
    theirs = jax.grad(lambda a: loss(jnp.linalg.solve, a))(matrices)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    short = jax.jit(lambda a: lp.solve(a, found["c"], solver(nbytes=16)))
    logging.disable(logging.CRITICAL)  # JAX logs the traceback
    try:
        with pytest.raises(Exception, match=r"nbytes: the factor takes \d+ bytes; got nbytes=16"):
            short(found["M"]).block_until_ready()
    finally:
        logging.disable(logging.NOTSET)


def test_there_are_two_commands():
    commands = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert [c.strip() for c in commands] == [
        "pip install -e '.[demo]' && python -m linsolve_prim demo",
        "pip install -e '.[test]' && python -m pytest -q -n 2",
    ]


def test_the_external_solver_is_short():
    """About fifteen lines (blank ones not counted) from the class line to the last return."""
    text = README.read_text()
    body = text[
        text.index("class SpLU") : text.index("dA = jax.grad(lambda A: lp.solve(A, b, SpLU()")
    ]
    assert len([line for line in body.splitlines() if line.strip()]) <= 16
