"""`list_solvers`: the table of all solvers, as their classes tell it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from . import solvers
from .host.available import available
from .operators import (
    AbstractLinearOperator,
    MatrixLinearOperator,
    diagonal_tag,
    lower_triangular_tag,
    positive_semidefinite_tag,
    symmetric_tag,
    tridiagonal_tag,
)
from .solvers.base import AbstractLinearSolver
from .solvers.host import AbstractHostSolver
from .solvers.krylov.base import AbstractKrylovSolver
from .sparse.operator import SparseLinearOperator
from .sparse.pattern import SparsityPattern

#: The promises that a solver may ask for, from the weakest on.
_PROMISES: dict[str, Any] = {
    "nothing": (),
    "symmetric": symmetric_tag,
    "definite": positive_semidefinite_tag,
    "triangular": lower_triangular_tag,
    "tridiagonal": tridiagonal_tag,
    "diagonal": diagonal_tag,
}

_LOWER = SparsityPattern(np.array([0, 1, 3, 6]), np.array([0, 0, 1, 0, 1, 2]), (3, 3))

#: These take every operator, and find out while they run that it is not symmetric.
_SYMMETRIC = ("CGAdaptive", "MINRES", "MINRESQLP", "SYMMLQ")

#: How to make those that need arguments.
_EXAMPLES = {
    "Normal": lambda: solvers.Normal(solvers.CG()),
    "IterativeRefinement": lambda: solvers.IterativeRefinement(solvers.LU()),
    "SciPyIterative": lambda: solvers.SciPyIterative("lsmr"),
    "HostSolver": lambda: solvers.HostSolver(factorize=_dense, solve=_solve_dense),
}


def _dense(matrix: Any) -> np.ndarray:
    return matrix.toarray()


def _solve_dense(matrix: np.ndarray, b: np.ndarray, transpose: bool) -> np.ndarray:
    return np.linalg.solve(matrix.T if transpose else matrix, b)


@dataclasses.dataclass(frozen=True)
class SolverInfo:
    """A row of `list_solvers()`.

    - `name`: `getattr(lp, name)` is the class.
    - `kind`: "direct" or "iterative".
    - `assumes`: what the operator must be: "nothing", "symmetric", "definite", "triangular", …
    - `rectangular`: whether it takes operators that are not square (least squares, minimum norm).
    - `assumes_full_rank`: else any rank gives the pseudo-inverse solution, with its derivative.
    - `preconditioning`: the sides on which a preconditioner may stand ("middle" for symmetric methods),
      "inner" if it is a matter of the solver inside, or "by name"; empty if there is none.
    - `device`: "any" (in JAX: CPU, GPU, TPU), or "host" (a library, called back from any device).
    - `requires`: what must be installed beside JAX, and is.
    - `by_name`: whether the class makes a solver without arguments.
    """

    name: str
    kind: str
    assumes: str
    rectangular: bool
    assumes_full_rank: bool
    preconditioning: tuple[str, ...]
    device: str
    requires: str
    by_name: bool

    @property
    def on_host(self) -> bool:
        return self.device == "host"

    def example(self) -> AbstractLinearSolver[Any]:
        """A solver of this kind, with default settings."""
        return _EXAMPLES.get(self.name, getattr(solvers, self.name))()


class SolverTable:
    """What `list_solvers()` returns: rows, by position or name, and a table when printed."""

    def __init__(self, rows: list[SolverInfo], missing: dict[str, str]):
        self.rows = rows
        #: Those that cannot be used here, and what to do about it.
        self.missing = missing

    def __iter__(self) -> Iterator[SolverInfo]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> SolverInfo:
        if isinstance(key, str):
            for row in self.rows:
                if row.name == key:
                    return row
            known = ", ".join(row.name for row in self.rows)
            raise KeyError(f"no solver is called {key!r} here; there are {known}")
        return self.rows[key]

    def __repr__(self) -> str:
        head = (
            "solver",
            "kind",
            "assumes",
            "shape",
            "rank",
            "preconditioner",
            "device",
            "requires",
        )
        cells = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
        lines.insert(1, "-" * max(map(len, lines)))
        lines += [f"{name}: not here. {what}" for name, what in self.missing.items()]
        return "\n".join(lines)


def _cells(row: SolverInfo) -> tuple[str, ...]:
    return (
        row.name,
        row.kind,
        row.assumes,
        "any" if row.rectangular else "square",
        "full" if row.assumes_full_rank else "any",
        ", ".join(row.preconditioning),
        row.device,
        row.requires,
    )


def list_solvers() -> SolverTable:
    """Every solver that can be used here, as a table: print it, or go through its rows.

    A row is a `SolverInfo`: name, kind, what it assumes, shapes, sides of a preconditioner, device, library.
    What is missing here is in `.missing`, with the command that installs it.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> table = lp.list_solvers()
        >>> table["LSMR"].rectangular, table["CG"].assumes, table["SuperLU"].device
        (True, 'definite', 'host')
        >>> lp.solve(jnp.eye(2), jnp.ones(2), table["SuperLU"].example()).tolist()
        [1.0, 1.0]
    """
    rows, missing = [], {}
    for name, cls in sorted(vars(solvers).items(), key=lambda item: item[0].lower()):
        is_solver = inspect.isclass(cls) and issubclass(cls, AbstractLinearSolver)
        if not is_solver or inspect.isabstract(cls):
            continue
        try:
            rows.append(_row(name, _EXAMPLES.get(name, cls)()))
        except ImportError as error:  # an extra that is not installed
            missing[name] = str(error)
    return SolverTable(rows, missing)


def _row(name: str, solver: AbstractLinearSolver[Any]) -> SolverInfo:
    return SolverInfo(
        name=name,
        kind="iterative" if _iterates(solver) else "direct",
        assumes=_assumption(solver),
        rectangular=_accepts(solver, (3, 2)) and _accepts(solver, (2, 3)),
        assumes_full_rank=solver.assume_full_rank(),
        preconditioning=_sides(solver),
        device="host" if isinstance(solver, AbstractHostSolver) else "any",
        requires=" or ".join(f"{r.module} {r.version}" for r in available() if r.solver == name),
        by_name=name not in _EXAMPLES,
    )


def _inner(solver: AbstractLinearSolver[Any]) -> AbstractLinearSolver[Any] | None:
    """The solver inside of another one."""
    values = (getattr(solver, field.name) for field in dataclasses.fields(solver))
    return next((value for value in values if isinstance(value, AbstractLinearSolver)), None)


def _has(solver: AbstractLinearSolver[Any], setting: str) -> bool:
    return setting in [field.name for field in dataclasses.fields(solver)]


def _iterates(solver: AbstractLinearSolver[Any]) -> bool:
    inner = _inner(solver)
    return _has(solver, "rtol") or (inner is not None and _iterates(inner))


def _accepts(solver: AbstractLinearSolver[Any], shape: tuple[int, int], tags: Any = ()) -> bool:
    """Whether `init` takes an operator of this shape with these promises. Nothing is computed."""

    def init(matrix: Any) -> None:
        operator: AbstractLinearOperator = MatrixLinearOperator(matrix, tags)
        if tags == lower_triangular_tag:  # some believe a pattern only
            operator = SparseLinearOperator(matrix[_LOWER.rows, _LOWER.indices], _LOWER)
        solver.init(operator, {})

    try:
        jax.eval_shape(init, jax.ShapeDtypeStruct(shape, np.float32))
    except (ValueError, TypeError, NotImplementedError):
        return False
    return True


def _assumption(solver: AbstractLinearSolver[Any]) -> str:
    """The weakest promise with which a square operator is taken."""
    if type(solver).__name__ in _SYMMETRIC:
        return "symmetric"
    accepted = (name for name, tags in _PROMISES.items() if _accepts(solver, (3, 3), tags))
    return next(accepted, "more than a tag says")


def _sides(solver: AbstractLinearSolver[Any]) -> tuple[str, ...]:
    if _inner(solver) is not None:
        return ("inner",)
    if not _has(solver, "preconditioner"):
        return ()
    if not isinstance(solver, AbstractKrylovSolver):
        return ("by name",)
    symmetric = solver.needs_definite or type(solver).__name__ in _SYMMETRIC
    return ("middle",) if symmetric else solver.sides
