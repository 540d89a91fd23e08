"""`python -m linsolve_prim compare`: every fitting solver, on the user's own matrix."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import linsolve_prim as lp

from ..auto import MATRIX_FREE_SIZE
from . import FAILURE, SUCCESS, TAGS
from .compare_contestants import contestants, facts_of
from .compare_process import Worker, WorkerFailed
from .compare_progress import progress
from .compare_rows import NOT_RUN, STOPPED, Row, ranking
from .compare_table import report, write_csv, write_markdown
from .reading import BadInput, Matrix, System, check_out, read_system
from .report import by, filling, row
from .solve_command import dtype_of
from .structure import find_structure

_TABLES, _PICTURES = (".csv", ".md"), (".png", ".svg")
#: With less time than this left, no contestant is begun.
_LEAST_SECONDS = 0.5


def run(arguments: argparse.Namespace) -> int:
    """Compare, report, save; whether anybody solved the system is the exit status."""
    arguments.out = arguments.out or ["compare.csv", "compare.png"]
    for path in arguments.out:
        check_out(path, (*_TABLES, *_PICTURES))
    system = read_system(arguments.matrix, arguments.rhs)
    dtype = dtype_of(arguments.dtype, system)
    if arguments.rtol is None:
        arguments.rtol = 1e-8 if dtype in (np.float64, np.complex128) else 1e-4
    known = any(tag.endswith("definite") for tag in arguments.tag)
    found = find_structure(system.matrix, 0 if known else MATRIX_FREE_SIZE)
    facts = facts_of(system.matrix, found.tags | set(arguments.tag))
    rows = contestants(facts, arguments)
    title = (
        f"{os.path.basename(arguments.matrix)}: {by(system.matrix.shape)}, {filling(system.matrix)}"
    )
    _report_plan(arguments, system, found.words, title, len(rows))
    setting = {
        "matrix": arguments.matrix, "rhs": arguments.rhs, "dtype": str(dtype),
        "tags": sorted(facts.tags), "rtol": arguments.rtol, "gradient": not arguments.no_gradient,
        "limit": arguments.limit,
    }  # fmt: skip
    try:
        compare(rows, setting, arguments.seconds, arguments.limit)
    except WorkerFailed as error:
        raise BadInput(f"A: {error}") from None
    report(rows, arguments.by)
    _report_winner(rows, arguments.by, facts.tags, system, dtype)
    head = f"{title}\n{dtype}, ‖b − Ax‖ ≤ {arguments.rtol:g}·‖b‖; {machine()}"
    for path in arguments.out:
        _save(path, rows, arguments.by, head)
    return SUCCESS if ranking(rows, arguments.by) else FAILURE


def compare(rows: Sequence[Row], setting: dict[str, Any], budget: float, limit: float) -> None:
    """Let one contestant after another run, each in at most `limit` seconds, all in `budget`.

    An interrupt ends it, and what was measured stays.
    """
    end = time.monotonic() + budget
    worker = Worker(setting)
    try:
        with progress(len(rows)) as shown:
            for one in rows:
                left = end - time.monotonic()
                shown.begin(one)
                if left > _LEAST_SECONDS:
                    worker.run(one, min(limit, left))
                if left < limit:
                    _excuse(one)
                shown.end(one)
    except KeyboardInterrupt:
        print("interrupted: what follows is what was measured until then")
    finally:
        worker.close()


def _excuse(row: Row) -> None:
    """What all of them had no time for is no failure of this one."""
    if row.outcome == STOPPED:
        row.outcome, row.reason = NOT_RUN, "the time for all of them was up"
    if row.gradient_outcome == STOPPED:
        row.gradient_outcome, row.gradient_reason = NOT_RUN, ""


def machine() -> str:
    """Versions and the kind of machine, for those who read the table elsewhere."""
    versions = f"linsolve_prim {lp.__version__}, JAX {importlib.metadata.version('jax')}"
    return f"{versions}, Python {platform.python_version()}, {platform.machine()}"


def _report_plan(
    arguments: argparse.Namespace, system: System, found: str, title: str, count: int
) -> None:
    row("matrix", title)
    row("right-hand side", f"{system.rhs_from}, shape {by(system.rhs.shape)}")
    row("entries", found)
    if arguments.tag:
        row("tags", f"{', '.join(arguments.tag)} (yours: believed, not checked)")
    row("success", f"‖b − Ax‖ ≤ {arguments.rtol:g}·‖b‖, computed again from the file")
    row(
        "contestants",
        f"{count}, up to {arguments.limit:g} s each and {arguments.seconds:g} s in all",
    )


def _report_winner(
    rows: Sequence[Row], order: str, tags: frozenset[str], system: System, dtype: np.dtype
) -> None:
    """The best one, and the lines that solve by it. (`matrix` is what the file holds.)"""
    ranked = ranking(rows, order)
    if not ranked:
        row("status", "FAILED: nobody solved it")
        return
    best = ranked[0]
    row("winner", best.name)
    names = [f"lp.{TAGS[tag]}" for tag in sorted(tags)]
    promise = "" if not names else f", {names[0]}" if len(names) == 1 else f", ({', '.join(names)})"
    make = "SparseLinearOperator.from_scipy" if best.form == "sparse" else "MatrixLinearOperator"
    print("\n    import jax, scipy.sparse, linsolve_prim as lp")
    if dtype in (np.float64, np.complex128):
        print('    jax.config.update("jax_enable_x64", True)')
    print(f"    A = lp.{make}({_as_form(system.matrix, best.form)}{promise})")
    solve = f"lp.solve(A, b, {best.code})"
    columns = system.rhs.ndim == 2
    print(f"    x = {f'jax.vmap(lambda b: {solve}, 1, 1)(b)' if columns else solve}\n")


def _as_form(stored: Matrix, form: str) -> str:
    """How `matrix`, as the file has it, becomes what an operator is made of."""
    if isinstance(stored, np.ndarray):
        return "matrix" if form == "dense" else "scipy.sparse.csr_array(matrix)"
    return "matrix" if form == "sparse" else "matrix.toarray()"


def _save(path: str, rows: Sequence[Row], order: str, head: str) -> None:
    try:
        if path.endswith(".csv"):
            write_csv(path, rows, order)
        elif path.endswith(".md"):
            write_markdown(path, rows, order, head)
        else:
            from .compare_picture import draw

            draw(path, rows, order, head)
    except ImportError:
        row("picture", 'none: pip install "linsolve-prim[compare]" draws it')
        return
    except OSError as error:
        raise BadInput(f"--out: {path} cannot be written: {error.strerror}.") from None
    row("written", path)
