"""`python -m linsolve_prim solve`: a system from files, solved, and the answer checked."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import linsolve_prim as lp

from ..auto import MATRIX_FREE_SIZE
from ..solvers.host.scipy_iterative import NAMES as SCIPY_NAMES
from . import FAILURE, SUCCESS, TAGS
from .checking import check_solution
from .reading import BadInput, Matrix, System, check_out, dense, read_system, write_vector
from .report import Timed, by, report_outcome, report_plan, row
from .structure import Found, find_structure

_SETTINGS = ("rtol", "atol", "max_steps", "restart")
_TOLERANCES = ("rtol", "atol")
#: Direct solvers that need no dense matrix, beside those of host libraries.
_LIGHT = ("Diagonal", "Tridiagonal", "Triangular")
#: Iterative methods of SciPy, by the names that --solver takes.
_SCIPY = {f"scipy-{name}": name for name in SCIPY_NAMES}


def run(arguments: argparse.Namespace) -> int:
    """Solve, report, and say by the exit status whether the answer can be trusted."""
    check_out(arguments.out, (".npy", ".mtx"))
    system = read_system(arguments.matrix, arguments.rhs)
    dtype = dtype_of(arguments.dtype, system)
    double = dtype in (np.float64, np.complex128)
    with jax.enable_x64(True) if double else contextlib.nullcontext():
        return _run(arguments, system, dtype)


def _run(arguments: argparse.Namespace, system: System, dtype: np.dtype) -> int:
    matrix = system.matrix
    found = _find(arguments, matrix)
    tags = found.tags | set(arguments.tag)
    operator = make_operator(matrix, dtype, tags, _stays_sparse(arguments.solver, matrix))
    solver, reason = _choose(arguments, operator)
    report_plan(arguments, system, operator, solver, reason, found.words)
    options = _options(arguments, matrix, operator)
    if options:
        row("preconditioner", f"{arguments.preconditioner}, as asked for")
    with np.errstate(over="ignore"):
        rhs = system.rhs.astype(dtype)
    timed = _solve(operator, rhs, solver, options, arguments.repeat)
    check = check_solution(system, timed.x, solver, (arguments.rtol, arguments.atol), dtype)
    good = report_outcome(system, timed, check) and check.passed
    if arguments.out and good:
        write_vector(arguments.out, timed.x)
        row("written", f"{arguments.out}: x, shape {by(timed.x.shape)}, {timed.x.dtype}")
    elif arguments.out:
        row("written", f"nothing: {arguments.out} is for solutions")
    row("status", "solved" if good else "FAILED")
    return SUCCESS if good else FAILURE


# ---- before the solve ----------------------------------------------------------------------------


def dtype_of(name: str | None, system: System) -> np.dtype:
    is_complex = np.iscomplexobj(system.matrix) or np.iscomplexobj(system.rhs)
    if name is None:
        return np.dtype(np.complex128 if is_complex else np.float64)
    dtype = np.dtype(name)
    if is_complex and dtype.kind != "c":
        wide = "complex64" if dtype == np.float32 else "complex128"
        raise BadInput(f"--dtype: the system is complex; got {name}. Pass --dtype {wide}.")
    return dtype


def _find(arguments: argparse.Namespace, matrix: Matrix) -> Found:
    """What the entries show. Cholesky is tried only where its outcome decides something."""
    known = any(tag.endswith("definite") for tag in arguments.tag)
    asks = arguments.solver in ("auto", "cg", "cholesky") and not known
    return find_structure(matrix, MATRIX_FREE_SIZE if asks else 0)


def _infos() -> dict[str, Any]:
    """What --solver takes."""
    infos = {info.name.lower(): info for info in lp.list_solvers()}
    scipy = infos["scipyiterative"]
    named = {name: info for name, info in infos.items() if info.by_name}
    return named | {key: dataclasses.replace(scipy, name=key) for key in _SCIPY}


def _needs_dense(info: Any) -> bool:
    return info.kind == "direct" and not info.on_host and info.name not in _LIGHT


def _stays_sparse(solver: str, matrix: Matrix) -> bool:
    """Whether A stays sparse: unless a solver was named that needs it dense, and can have it."""
    if isinstance(matrix, np.ndarray):
        return False
    info = _infos().get(solver)
    square = matrix.shape[0] == matrix.shape[1]
    dense_needed = (info is None and not square) if info is None else _needs_dense(info)
    return not dense_needed or max(matrix.shape) > MATRIX_FREE_SIZE


def make_operator(
    matrix: Matrix, dtype: np.dtype, tags: Any, sparse: bool
) -> lp.AbstractLinearOperator:
    """The matrix as a dense array, or as it is."""
    tags = frozenset(getattr(lp, TAGS[tag]) for tag in tags)
    if matrix.shape[0] != matrix.shape[1] and tags:
        raise BadInput(
            f"--tag: speaks of square matrices, and A is {by(matrix.shape)}. Leave it out."
        )
    with np.errstate(over="ignore"):  # becomes infinity, which the solve reports
        if isinstance(matrix, np.ndarray) or not sparse:
            return lp.MatrixLinearOperator(jnp.asarray(dense(matrix).astype(dtype)), tags)
        return lp.SparseLinearOperator.from_scipy(matrix.astype(dtype), tags)


def _choose(
    arguments: argparse.Namespace, operator: lp.AbstractLinearOperator
) -> tuple[lp.AbstractLinearSolver[Any], str]:
    """The solver with its settings, and why it is this one."""
    infos = _infos()
    name, rows, columns = arguments.solver.lower(), operator.out_size(), operator.in_size()
    if name != "auto" and name not in infos:
        known = ", ".join(["auto", *infos])
        raise BadInput(f"--solver: must be one of {known}; got {arguments.solver}.")
    if rows != columns and (name == "auto" or not infos[name].rectangular):
        raise BadInput(
            f"A: must be square for --solver {name}; got {rows} x {columns}. For least squares use "
            "--solver qr (full rank), svd or lsmr (any rank)."
        )
    if name == "auto":
        choice = lp.AutoLinearSolver().choose(operator)
        default, reason = choice.solver, f"because {choice.reason}"
        info = infos[type(default).__name__.lower()]
    else:
        info, reason = infos[name], "as asked for"
        default = lp.SciPyIterative(_SCIPY[name]) if name in _SCIPY else getattr(lp, info.name)()
        _check_definite(info, operator)
    if _needs_dense(info) and isinstance(operator, lp.SparseLinearOperator):
        raise BadInput(
            f"--solver: {name} needs a dense matrix, and this sparse one is {rows} x {columns}; up "
            f"to {MATRIX_FREE_SIZE} unknowns are made dense. Use superlu, cg, gmres or lsmr."
        )
    return _with_settings(default, info, arguments), reason


def _check_definite(info: Any, operator: lp.AbstractLinearOperator) -> None:
    definite = lp.is_positive_semidefinite(operator) or lp.is_negative_semidefinite(operator)
    if info.assumes == "definite" and not definite:
        raise BadInput(
            f"--solver: {info.name.lower()} needs a definite matrix, and this one was not found to "
            "be. If you know that it is, pass --tag positive-definite; else use lu or gmres."
        )


def _with_settings(
    solver: lp.AbstractLinearSolver[Any], info: Any, arguments: argparse.Namespace
) -> lp.AbstractLinearSolver[Any]:
    given = {key: getattr(arguments, key) for key in _SETTINGS}
    given = {key: value for key, value in given.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(solver)}
    for key in given.keys() - fields - set(_TOLERANCES):
        raise BadInput(
            f"--{key.replace('_', '-')}: is no setting of {info.name}. Leave it out, or name an "
            "iterative solver, such as --solver gmres."
        )
    plain = info.kind != "iterative" or info.rectangular or info.on_host
    if arguments.preconditioner and plain:
        raise BadInput(
            f"--preconditioner: is not used by {info.name}. Leave it out, or name a solver that "
            "takes one, such as --solver gmres."
        )
    own = {key: value for key, value in given.items() if key in fields}
    try:
        if isinstance(solver, lp.SciPyIterative):
            own["name"] = solver.name
        return type(solver)(**own) if own else solver
    except ValueError as error:
        raise BadInput(f"--solver {info.name.lower()}: {error}") from None


def _options(
    arguments: argparse.Namespace, matrix: Matrix, operator: lp.AbstractLinearOperator
) -> dict[str, Any]:
    name, names = arguments.preconditioner, lp.preconditioners.NAMES
    if name is None:
        return {}
    if name not in names:
        known = ", ".join(sorted(names))
        raise BadInput(f"--preconditioner: must be one of {known}; got {name}.")
    if matrix.shape[0] != matrix.shape[1] or (name == "jacobi" and not np.all(matrix.diagonal())):
        raise BadInput(
            f"--preconditioner: {name} needs a square A"
            + (" without zeros on its diagonal, by which it divides" if name == "jacobi" else "")
            + ". Leave it out."
        )
    made = lp.preconditioners.by_name(name)
    try:
        return {"preconditioner": made.prepare(operator) if made.needs_values else made}
    except (ValueError, ImportError) as error:
        raise BadInput(f"--preconditioner: {error}") from None


# ---- the solve -----------------------------------------------------------------------------------


def _solve(
    operator: lp.AbstractLinearOperator,
    rhs: np.ndarray,
    solver: lp.AbstractLinearSolver[Any],
    options: dict[str, Any],
    repeat: int,
) -> Timed:
    @eqx.filter_jit
    def solve(operator: Any, vector: jax.Array, options: Any) -> tuple[Any, Any, Any]:
        def one(vector: jax.Array) -> tuple[Any, Any, Any]:
            solution = lp.linear_solve(operator, vector, solver, options=options, throw=False)
            return solution.value, solution.result, solution.stats

        return one(vector) if vector.ndim == 1 else jax.vmap(one, in_axes=1)(vector)

    vector, seconds = jnp.asarray(rhs), []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        try:
            value, result, stats = jax.block_until_ready(solve(operator, vector, options))
        except ValueError as error:  # what the package refuses when it traces
            raise BadInput(f"--solver: {error}") from None
        seconds.append(time.perf_counter() - start)
    return Timed(np.asarray(value).T, result, stats, seconds[0], seconds[1:])
