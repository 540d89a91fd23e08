"""The public names, as the tests of the documentation go through them."""

import importlib
import inspect
import pathlib
import types

import linsolve_prim as lp

ROOT = pathlib.Path(__file__).parent.parent


def _rooms() -> list[str]:
    """Where public names are: the package, and what it lists as rooms of their own."""
    text = pathlib.Path(lp.__file__).read_text()
    listed = text.split("\nfrom . import (\n")[1].split(")")[0]
    rooms = [line.split()[0] for line in listed.splitlines()]
    bridges = [name for name in dir(lp.interop) if _is_bridge(name)]
    return ["", *rooms, *(f"interop.{name}" for name in bridges)]


def _is_bridge(name: str) -> bool:
    """Whether `interop.name` is imported when it is asked for."""
    return name in lp.interop._MODULES


def _module(room: str) -> types.ModuleType | None:
    """None for a bridge to a library that is not installed."""
    try:
        return importlib.import_module(f"linsolve_prim.{room}".rstrip("."))
    except ImportError:
        return None


def public() -> dict[str, object]:
    """Every public object by its name, `lp.solve` or `lp.learn.residual_loss`: once, by the shortest."""
    found: dict[str, object] = {}
    for room in _rooms():
        module, prefix = _module(room), ".".join(filter(None, ("lp", room)))
        for name, item in vars(module).items() if module else ():
            home = getattr(item, "__module__", None) or getattr(type(item), "__module__", "")
            if name.startswith("_") or inspect.ismodule(item):
                continue
            if not home.startswith("linsolve_prim") and not isinstance(item, list | dict | tuple):
                continue
            if not hasattr(module, "__path__") and not home.startswith(module.__name__):
                continue  # what a file imports is no part of it, unless from files named after it
            if all(item is not other for other in found.values()):
                found[f"{prefix}.{name}"] = item
    return found


def documented() -> dict[str, object]:
    """Those with a docstring of their own: classes and functions of the package."""

    def own(item: object) -> bool:
        return inspect.isclass(item) or inspect.isfunction(item)

    return {name: item for name, item in public().items() if own(item)}
