"""Imports point down, internals of JAX stand in one place, and files stay readable."""

import ast
import pathlib
import re

import linsolve_prim

PACKAGE = pathlib.Path(linsolve_prim.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up: a module may import from its own row, and from rows above it in this list.
LAYERS = [
    ["_types", "errors", "_static", "_varying", "_tree", "_norms", "_recording", "results"]
    + ["_compiled", "_dlpack", "_second_look"],
    ["operators"],
    ["sparse"],
    ["detection"],
    ["host"],
    ["preconditioners"],
    ["solvers"],
    ["primitive"],
    ["adjoint", "auto", "eager", "api", "functions", "simple", "least_squares", "explain"]
    + ["internal", "factorization", "entry"],
    ["nonlinear", "learn"],
    ["tracing"],
    ["diagnostics", "interop", "determinants", "distributions"],
    ["testing", "catalogue", "cli", "support_matrix"],
    ["__init__", "__main__"],
]
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def _part(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: pathlib.Path) -> list[tuple[str, int]]:
    """The parts of the package that a file imports (with their lines); its own part is left out."""
    here = ("linsolve_prim", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = here[: len(here) - node.level]
            module = (*base, *(node.module or "").split("."))
        else:
            module = tuple((node.module or "").split("."))
        module = tuple(part for part in module if part)
        if module[:1] != ("linsolve_prim",):
            continue
        names = [module[1]] if len(module) > 1 else [alias.name for alias in node.names]
        found += [(name, node.lineno) for name in names if name != _part(path)]
    return found


def _called(path: pathlib.Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_imports_point_down():
    wrong = [
        f"{_called(path)}:{line} imports {name}"
        for path in FILES
        if _part(path) not in ("__init__", "__main__")
        for name, line in _imports(path)
        if RANK.get(name, len(LAYERS)) > RANK[_part(path)]
    ]
    assert not wrong, f"from a higher layer, or from none: {wrong}"


def test_every_part_has_a_layer():
    parts = {_part(path) for path in FILES}
    assert parts <= set(RANK), parts - set(RANK)


def test_the_primitive_knows_no_concrete_solver():
    for path in (PACKAGE / "primitive").glob("*.py"):
        for line in re.findall(r"from \.\.solvers\S* import .*", path.read_text()):
            assert "solvers.base import AbstractLinearSolver" in line, f"{path}: {line}"


def test_jax_internals_stand_where_primitives_are():
    """B-15: what JAX may change without notice is used nowhere, and what it may change in few places."""
    primitives = "sparse/products.py", "sparse/packed.py", "host/primitives.py", "host/direct.py"
    primitives += ("_second_look.py",)
    for path in FILES:
        text, name = path.read_text(), _called(path)
        assert "jax._src" not in text, name
        assert "equinox.internal" not in text, name
        assert "import lineax" not in text or _part(path) == "interop", name
        if _part(path) != "primitive" and name not in primitives:
            assert "jax.interpreters" not in text, name


def test_no_global_configuration_is_touched():
    """B-09: the library changes no `jax.config`. (The command line may, for its own process.)"""
    for path in FILES:
        if _part(path) != "cli":
            assert "config.update" not in path.read_text(), path


def test_files_stay_short():
    lines = {_called(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: n for name, n in lines.items() if n > 400}


def test_abstract_or_final():
    """Every solver is a direct child of the abstract base: no override surprises a reader."""
    from linsolve_prim import solvers
    from linsolve_prim.solvers.base import AbstractLinearSolver

    for cls in vars(solvers).values():
        if isinstance(cls, type) and issubclass(cls, AbstractLinearSolver):
            concrete = [b for b in cls.__mro__[1:] if issubclass(b, AbstractLinearSolver)]
            assert all(b.__name__.startswith("Abstract") for b in concrete), cls
