"""The README's Python blocks run, one after the other, as they stand there."""

import pathlib
import re

import jax

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_python_blocks_run(capsys):
    """S2-25 (and the 15-line solver of S2-03): what the README shows is true."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 3
    namespace = {}
    with jax.numpy_dtype_promotion("standard"):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    assert "SingularMatrixError" in capsys.readouterr().out


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
