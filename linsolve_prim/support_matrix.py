"""`python -m linsolve_prim.support_matrix`: what each solver supports, found by running each cell.

    python -m linsolve_prim.support_matrix                      # print the table
    python -m linsolve_prim.support_matrix --out docs/support_matrix.md
    python -m linsolve_prim.support_matrix --solver CG --solver LU

Nothing in the table is written by hand: rows are those of `list_solvers()`, cells those of
`linsolve_prim.testing.support`. A cell that could not be run here says so.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence

import jax

from .catalogue import SolverInfo, list_solvers
from .testing.support import COLUMNS, Subject, run_cell

NOT_RUN = "not run"
DEVICES = ("cpu", "gpu", "tpu")

EXPLANATION = """\
# Support matrix

Made by `python -m linsolve_prim.support_matrix --out docs/support_matrix.md`, which runs every cell; the
slow tests compare this page with a run.

- **jit**, **vmap** (over matrices and right-hand sides), **jvp** and **vjp** (by both), **second order** (a
  product with a Hessian), **complex** and **float32** (solution and gradients): as the dense reference has it.
- **rectangular**: for tall or wide operators of full rank, x = A†b. With an asterisk: where b is in the range.
- **singular**: "A†b" is the pseudo-inverse solution; "told" a result code that is no success; "told, or
  solved": that, or, where b is in the range, a solution.
- **preconditioner**: the sides on which one was given, with the gradients of that; "inner" and "by name": it
  is a setting of the solver inside, or of the library.
- **runs**: by JAX on the device, or by a library on the host, which each device calls.
- Under the devices: whether this run was on one. A device that was not there is "not run".
"""


def cells(row: SolverInfo, columns: Iterable[str] = COLUMNS) -> dict[str, str]:
    """Run the cells of a row, with 64 bits."""
    with jax.enable_x64(True):
        subject = Subject(row.example(), row.assumes)
        return {column: _cell(column, subject, row) for column in columns}


def _cell(column: str, subject: Subject, row: SolverInfo) -> str:
    if column == "preconditioner" and set(row.preconditioning) <= {"inner", "by name"}:
        # a setting of another solver or library, or none at all
        return f"{row.preconditioning[0]} ({NOT_RUN})" if row.preconditioning else "none"
    return run_cell(column, subject)


def line(row: SolverInfo) -> str:
    """A row of the table."""
    here = jax.default_backend()
    devices = ["yes" if name == here else NOT_RUN for name in DEVICES]
    runs = "on the host" if row.on_host else "on the device"
    return _joined([f"`{row.name}`", row.assumes, *cells(row).values(), runs, *devices])


def missing_line(name: str) -> str:
    """A row of a solver whose library is not installed."""
    return _joined([f"`{name}`", *[NOT_RUN] * (len(COLUMNS) + 1), "on the host", *[NOT_RUN] * 3])


def page(names: Sequence[str] = (), show: Callable[[str], None] = lambda line: None) -> str:
    """The whole page; of the named solvers if there are names. `show` is called with each row."""
    table = list_solvers()
    head = ["solver", "assumes", *COLUMNS, "runs", *(name.upper() for name in DEVICES)]
    lines = [_joined(head), _joined(["---"] * len(head))]
    for name in sorted([*(row.name for row in table), *table.missing], key=str.lower):
        if names and name not in names:
            continue
        lines.append(missing_line(name) if name in table.missing else line(table[name]))
        show(lines[-1])
    libraries = [f"{row.name}: {row.requires}" for row in table if row.requires]
    notes = f"Run with JAX {jax.__version__} on {jax.default_backend()}. " + "; ".join(libraries)
    return "\n".join([EXPLANATION, *lines, "", notes + "."]) + "\n"


def _joined(entries: Iterable[str]) -> str:
    return f"| {' | '.join(entries)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m linsolve_prim.support_matrix")
    parser.add_argument("--out", metavar="PATH", help="write the page there; default: print it")
    parser.add_argument("--solver", action="append", default=[], help="only this one; repeatable")
    arguments = parser.parse_args(argv)
    text = page(arguments.solver, lambda line: print(line, file=sys.stderr))
    if arguments.out:
        pathlib.Path(arguments.out).write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
