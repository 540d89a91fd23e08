"""What `solve` prints: the plan before the solve, and the outcome after it."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NamedTuple

import jax
import numpy as np

import linsolve_prim as lp

from ..results import member_name
from .checking import Check
from .reading import Matrix, System

#: What the message of a result comes to in the shell.
_REMEDIES = {
    "singular": "--solver svd or lsmr gives the least-squares solution of minimum norm",
    "max_steps_reached": "--max-steps, --rtol, --preconditioner jacobi",
    "stagnation": "--rtol, --restart, --dtype, --preconditioner jacobi",
    "conlim": "--solver svd, if the matrix is small enough to be dense",
}
#: From such an error on, a small residual says little about x.
_DOUBTFUL = 0.01
#: Rows of `lp.explain` that are shown, and how they are called here.
_EXPLAINED = {"operator": "operator", "rank": "rank", "success is judged by": "solver's rule"}


class Timed(NamedTuple):
    """A solve: x as NumPy, one result and one set of statistics per column, and seconds."""

    x: np.ndarray
    result: Any
    stats: dict[str, Any]
    first: float
    later: list[float]


def row(label: str, text: str) -> None:
    """One line of a report."""
    print(f"{label:<19}{text}")


def by(shape: tuple[int, ...]) -> str:
    """A shape in words."""
    return " x ".join(str(size) for size in shape)


def report_plan(
    arguments: argparse.Namespace,
    system: System,
    operator: lp.AbstractLinearOperator,
    solver: lp.AbstractLinearSolver[Any],
    reason: str,
    found: str,
) -> None:
    """The system, what is known of it, what solver was chosen, and why."""
    row("matrix", f"{arguments.matrix}: {by(system.matrix.shape)}, {filling(system.matrix)}")
    row("right-hand side", f"{system.rhs_from}, shape {by(system.rhs.shape)}")
    row("entries", found)
    if arguments.tag:
        row("tags", f"{', '.join(arguments.tag)} (yours: believed, not checked)")
    for line in lp.explain(operator, None, solver).splitlines():
        label, text = line.split(": ", 1)
        if label == "solver":
            row("solver", f"{solver!r}, {reason}")
        elif label in _EXPLAINED:
            row(_EXPLAINED[label], text)


def report_outcome(system: System, timed: Timed, check: Check) -> bool:
    """The result, the residual, statistics and times. Whether the solver says that it succeeded."""
    codes = np.atleast_1d(np.asarray(_leaf(timed.result)))
    failed = np.flatnonzero(codes != _leaf(lp.RESULTS.successful))
    print()
    _report_result(timed, codes, failed)
    row("true residual", f"{check.residual:.3e}, computed again from the file by NumPy and SciPy")
    row("relative", f"{check.relative:.3e}; {check.verdict}")
    if system.rhs_from.startswith("A·1") and not failed.size:
        error = abs(timed.x - 1).max()
        row("error", f"max |x - 1| = {error:.3e}, as b is A·1")
        if check.passed and error > _DOUBTFUL:
            row("", "Another x solves it as well: A is singular, or nearly so.")
    for key, value in timed.stats.items():
        row(key, _statistic(key, value))
    row("time", f"{seconds(timed.first)} for the first call, with compilation")
    if timed.later:
        row("", f"{seconds(min(timed.later))} for the best of {len(timed.later)} later")
    return not failed.size


def _report_result(timed: Timed, codes: np.ndarray, failed: np.ndarray) -> None:
    if not failed.size:
        columns = f", all {codes.size} columns" if codes.size > 1 else ""
        row("result", f"successful{columns}")
        return
    item, where = timed.result, ""
    if np.ndim(_leaf(item)):
        item = jax.tree.map(lambda leaf: leaf[failed[0]], item)
    if codes.size > 1:
        where = f"{failed.size} of {codes.size} columns failed; the first of them: "
    name = str(member_name(item))
    row("result", where + name)
    for line in textwrap.wrap(lp.RESULTS[item].splitlines()[0], 80):
        row("", line)
    if name in _REMEDIES:
        row("", f"Here: {_REMEDIES[name]}.")


def _statistic(key: str, value: Any) -> str:
    """One statistic; of several columns, its range."""
    if isinstance(value, str):
        return value
    leaf = np.asarray(_leaf(value))
    if key == "reason":
        return ", ".join(np.unique(np.atleast_1d(member_name(value, lp.REASONS))))
    show = (lambda x: f"{x:.3e}") if leaf.dtype.kind == "f" else str
    low, high = leaf.min(), leaf.max()
    return show(high) if low == high or np.isnan(high) else f"{show(low)} to {show(high)}"


def _leaf(item: Any) -> Any:
    (leaf,) = jax.tree.leaves(item)
    return leaf


def filling(matrix: Matrix) -> str:
    nnz = np.count_nonzero(matrix) if isinstance(matrix, np.ndarray) else matrix.nnz
    return f"{nnz} nonzeros ({100 * nnz / (matrix.shape[0] * matrix.shape[1]):.3g} % full)"


def seconds(value: float) -> str:
    """A time in words."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
