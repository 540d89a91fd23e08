"""Other libraries' operators and solvers as ours, and the other way. One module for each library.

They are imported when they are first used, since the libraries are extras:
`linsolve_prim.interop.lineax`, `linsolve_prim.interop.scipy`, `linsolve_prim.interop.torch`.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("lineax", "scipy", "torch")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
