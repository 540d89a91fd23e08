"""The reference has every public name on exactly one page, and only what exists."""

import importlib
import pathlib
import re
from typing import Any

import pytest
from public_names import ROOT, public

from linsolve_prim.host.available import has_module

PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))

#: On which page a new name belongs, by where it is written; the first that fits.
HOMES = {
    "solvers.host": "host",
    "solvers.krylov": "krylov",
    "solvers": "direct",
    "operators": "operators",
    "sparse": "sparse",
    "distributions": "sparse",
    "detection": "sparse",
    "host": "host",
    "preconditioners": "preconditioners",
    "adjoint": "adjoint",
    "learn": "learn",
    "nonlinear": "nonlinear",
    "tracing": "tracing",
    "diagnostics": "tracing",
    "errors": "tracing",
    "testing": "testing",
    "internal": "testing",
    "interop": "interop",
}


def directives() -> list[tuple[str, str]]:
    """What the pages ask for, as (page, dotted path)."""
    found = [(page.name, re.findall(r"^::: (\S+)", page.read_text(), re.M)) for page in PAGES]
    return [(page, path) for page, paths in found for path in paths]


def resolve(path: str) -> Any:
    """The object at a dotted path, as the reference finds it: modules go before names."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            item = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            item = getattr(item, part)
        return item
    raise AssertionError(path)


def line_for(name: str, item: Any) -> str:
    """How to mend a page that lacks a name."""
    home = getattr(item, "__module__", None) or type(item).__module__
    inside = home.removeprefix("linsolve_prim").lstrip(".")
    page = next((p for start, p in HOMES.items() if inside.startswith(start)), "solving")
    short = name.removeprefix("lp.")
    last = short.rsplit(".", 1)[-1]
    path = f"{home}.{last}" if shadowed(home, last) else f"linsolve_prim.{short}"
    return f"`::: {path}` to docs/reference/{page}.md"


def shadowed(home: str, name: str) -> bool:
    """Whether a package on the way to `home` has a module of that name, as `explain.explain`."""
    folders = [ROOT.joinpath(*home.split(".")[:k]) for k in range(1, home.count(".") + 2)]
    return any((folder / f"{name}.py").exists() for folder in folders)


def test_no_module_is_shown_in_the_place_of_a_function():
    """The reference finds modules before names: such functions are asked for where they are written."""
    for page, path in directives():
        if ".torch." in path and not has_module("torch"):
            continue
        last = path.rsplit(".", 1)[-1]
        home = getattr(resolve(path), "__module__", None) or ""
        if home and shadowed(home, last):
            assert path == f"{home}.{last}", f"docs/reference/{page}: write `::: {home}.{last}`"


def test_every_public_name_is_on_one_page_S3_22():
    """S3-22: a name that is new or gone is told, with the line to add or to drop."""
    where: dict[int, list[str]] = {}
    for page, path in directives():
        if ".torch." in path and not has_module("torch"):
            continue
        try:
            where.setdefault(id(resolve(path)), []).append(page)
        except (AssertionError, AttributeError):
            pytest.fail(f"docs/reference/{page} shows {path}, which does not exist: drop the line.")
    names = public()
    lacking = [line_for(name, item) for name, item in names.items() if id(item) not in where]
    assert not lacking, "the reference lacks public names; add " + "; ".join(lacking)
    twice = {name: where[id(item)] for name, item in names.items() if len(where[id(item)]) > 1}
    assert not twice, f"drop all but one: {twice}"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")]
    lacking = [str(page) for page in pages if f": {page}" not in text]
    assert not lacking, f"add these to `nav` in mkdocs.yml: {lacking}"


def test_every_program_is_on_the_page_of_programs():
    text = (ROOT / "docs" / "examples.md").read_text()
    programs = sorted(p.name for p in pathlib.Path(ROOT / "docs" / "examples").glob("*.py"))
    assert [name for name in programs if f"docs/examples/{name}" not in text] == []
