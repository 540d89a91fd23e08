"""Which host libraries are installed (solvers, and METIS, which orders for them), and how to get the others."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from typing import Any, NamedTuple


class _Known(NamedTuple):
    solver: str
    module: str
    distribution: str
    licence: str
    install: str


_EXTRA = "pip install 'linsolve-prim[{}]'"
_KNOWN = [
    _Known("SuperLU", "scipy", "scipy", "BSD-3-Clause", "pip install scipy"),
    _Known("RSLab", "rslab", "rslab", "MIT", _EXTRA.format("rslab")),
    _Known("CHOLMOD", "sksparse.cholmod", "scikit-sparse", "BSD-2-Clause; CHOLMOD: LGPL and GPL",
           "pip install scikit-sparse"),
    _Known("CHOLMOD", "cvxopt", "cvxopt", "GPL-3.0-or-later", _EXTRA.format("cholmod")),
    _Known("UMFPACK", "cvxopt", "cvxopt", "GPL-3.0-or-later", _EXTRA.format("cholmod")),
    _Known("KLU", "nbklu", "nbklu", "BSD-3-Clause; KLU: LGPL-2.1-or-later", _EXTRA.format("klu")),
    _Known("PARDISO", "pymklpardiso", "py-mkl-pardiso", "MIT; MKL: Intel Simplified Software License",
           _EXTRA.format("mkl")),
    _Known("METIS", "pymetis", "pymetis", "MIT; METIS: Apache-2.0", _EXTRA.format("metis")),
    _Known("PyAMG", "pyamg", "pyamg", "MIT", _EXTRA.format("amg")),
]  # fmt: skip


class Library(NamedTuple):
    """A row of `available()`."""

    solver: str
    module: str
    version: str
    licence: str


def has_module(name: str) -> bool:
    """Whether a module is installed (it is not imported)."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent
        return False


def available() -> list[Library]:
    """The host libraries that are installed, with version and licence.

    For example:

        >>> import linsolve_prim as lp
        >>> [library.solver for library in lp.host.available()][0]
        'SuperLU'
    """
    rows = []
    for known in _KNOWN:
        if has_module(known.module):
            version = importlib.metadata.version(known.distribution)
            rows.append(Library(known.solver, known.module, version, known.licence))
    return rows


@functools.cache
def versions(solver: str) -> str:
    """The installed libraries behind a solver with their versions; its own name if it is none of ours."""
    found = [f"{row.module} {row.version}" for row in available() if row.solver == solver]
    return " or ".join(found) or solver


def require(solver: str, module: str) -> Any:
    """Import a module that a solver needs.

    To be called where the solver is made, never inside of a callback: some libraries must be imported
    by a thread that lives on.

    **Raises** `ImportError` with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        known = [k for k in _KNOWN if k.solver == solver and k.module == module]
        raise ImportError(
            f"`{solver}` needs the module `{module}`, which is not installed. "
            f"Get it with: {known[0].install}"
        ) from error
