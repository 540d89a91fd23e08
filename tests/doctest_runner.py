"""Run the examples in docstrings, in a process of their own: `python doctest_runner.py FILE …`.

As a user runs them: nothing is set but compiler flags, by which examples compile in half the time.
"""

import ast
import doctest
import pathlib
import sys

_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def examples(path: pathlib.Path) -> list[doctest.DocTest]:
    """The examples of a file, one `DocTest` for each docstring that has some.

    They are read from the source: `doctest` itself finds no generic function, which is an object of
    `functools`.
    """
    found, parser = [], doctest.DocTestParser()
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.get_docstring(node, clean=False) if isinstance(node, _DOCUMENTED) else None
        if text and ">>>" in text:
            name, line = getattr(node, "name", path.stem), getattr(node, "lineno", 1)
            found.append(parser.get_doctest(text, {}, name, str(path), line))
    return found


def failures(paths: list[pathlib.Path]) -> int:
    """How many lines of examples do not print what they say; each is shown."""
    runner = doctest.DocTestRunner(verbose=False)
    for path in paths:
        for example in examples(path):
            runner.run(example)
    return runner.failures


if __name__ == "__main__":
    sys.exit(min(failures([pathlib.Path(name) for name in sys.argv[1:]]), 125))
