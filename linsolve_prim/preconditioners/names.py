"""Whatever a `preconditioner=` may be, as one of the classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx

from .._types import Structure
from .amg import AMG
from .auto import Auto
from .base import AbstractPreconditioner
from .block_jacobi import BlockJacobi
from .coarse_grid import CoarseGrid
from .compose import Custom, function_of_vectors
from .ic import IC
from .ilu import ILU
from .jacobi import Jacobi
from .nystrom import Nystrom, PivotedCholesky
from .polynomial import Chebyshev, Neumann
from .schwarz import Schwarz
from .spai import SPAI
from .ssor import SSOR, GaussSeidel

NAMES: dict[str, Callable[[], AbstractPreconditioner]] = {
    "amg": AMG,
    "auto": Auto,
    "block_jacobi": BlockJacobi,
    "chebyshev": Chebyshev,
    "cluster": CoarseGrid,
    "coarse_grid": CoarseGrid,
    "gauss_seidel": GaussSeidel,
    "ic": IC,
    "ilu": ILU,
    "jacobi": Jacobi,
    "neumann": Neumann,
    "nystrom": Nystrom,
    "pivoted_cholesky": PivotedCholesky,
    "schwarz": Schwarz,
    "spai": SPAI,
    "ssor": SSOR,
}
"""What a name stands for, with its default settings."""


def by_name(given: Any) -> Any:
    """A name as the preconditioner that it stands for, and a function as `Custom`; others as they are.

    **Raises** `ValueError` for a name that is not known, and for a class instead of an object.

        >>> import linsolve_prim as lp
        >>> lp.preconditioners.by_name("jacobi")
        Jacobi()
    """
    if isinstance(given, str):
        key = given.lower().replace("-", "_").replace(" ", "_")
        if key not in NAMES:
            raise ValueError(
                f"preconditioner: as a name, must be one of {', '.join(sorted(NAMES))}; got {given!r}."
            )
        return NAMES[key]()
    if inspect.isclass(given) and issubclass(given, AbstractPreconditioner):
        raise ValueError(
            f"preconditioner: must be an object; got the class {given.__name__}. Did you mean "
            f"`{given.__name__}()`?"
        )
    if callable(given) and not inspect.isclass(given) and not isinstance(given, eqx.Module):
        return Custom(given)
    return given


def as_preconditioner(given: Any, takes: Structure, gives: Structure) -> Any:
    """As `by_name`; but a function of vectors of the structure `takes` becomes an operator."""
    if callable(given) and not inspect.isclass(given) and not isinstance(given, eqx.Module):
        return function_of_vectors(given, takes, gives) or Custom(given)
    return by_name(given)
