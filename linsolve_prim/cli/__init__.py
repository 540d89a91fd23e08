"""The command line: `python -m linsolve_prim solve | compare | demo | info`.

Exit status: 0 for a true success, 1 for a solve (or a demonstration) that failed, 2 for bad input.

Nothing but the standard library is imported until a command runs. A command works in the precision
it needs through `jax.enable_x64` as a context, so that `main` leaves JAX's settings alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

SUCCESS, FAILURE, BAD_INPUT = 0, 1, 2

#: What `--tag` takes, and the name of the package's tag behind it.
TAGS = {
    "symmetric": "symmetric_tag",
    "positive-definite": "positive_semidefinite_tag",
    "negative-definite": "negative_semidefinite_tag",
    "diagonal": "diagonal_tag",
    "tridiagonal": "tridiagonal_tag",
    "lower-triangular": "lower_triangular_tag",
    "upper-triangular": "upper_triangular_tag",
    "unit-diagonal": "unit_diagonal_tag",
}
DTYPES = ("float32", "float64", "complex64", "complex128")

_SOLVE_EXAMPLES = """\
examples:
  python -m linsolve_prim solve A.mtx b.mtx
  python -m linsolve_prim solve A.npz --solver gmres --rtol 1e-8 --restart 50 --out x.npy
  python -m linsolve_prim solve A.npy --tag positive-definite --solver cg --preconditioner jacobi

exit status: 0 if the solve succeeded and the residual, computed again from the file, agrees;
1 if not; 2 for input that cannot be read or does not fit."""


_COMPARE_EXAMPLES = """\
examples:
  python -m linsolve_prim compare A.mtx
  python -m linsolve_prim compare A.mtx b.mtx --seconds 600 --by gradient --out table.md --out plot.svg
  python -m linsolve_prim compare A.npz --solver cg --solver gmres --preconditioner ic
  python -m linsolve_prim compare A.npz --also "my_solvers:MySolver()"

Every contestant runs in a worker process that is killed when it overruns. Times are those of compiled
programs in which the values of A are traced, and new in each call; memory is how far the worker grew.

exit status: 0 if somebody solved the system, by the residual computed again from the file; 1 if
nobody did; 2 for input that cannot be read or does not fit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the command line and return its exit status."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its message, or the help
        return SUCCESS if stop.code is None else int(stop.code)
    if hasattr(sys.stdout, "reconfigure") and "utf" not in (sys.stdout.encoding or "").lower():
        sys.stdout.reconfigure(errors="replace")  # a terminal without ‖ still shows the rest
    from .reading import BadInput

    try:
        return _run(arguments)
    except BadInput as error:
        message = " ".join(str(error).split())
        print(f"linsolve_prim {arguments.command}: {message}", file=sys.stderr)
        return BAD_INPUT


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "solve":
        from .solve_command import run
    elif arguments.command == "compare":
        from .compare_command import run
    elif arguments.command == "demo":
        from .demo_command import run
    else:
        from .info_command import run
    return run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="linsolve_prim", description="Differentiable linear solves, from the shell."
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{solve,compare,demo,info}"
    )
    _add_solve(commands)
    _add_compare(commands)
    _add_demo(commands)
    commands.add_parser("info", help="versions, devices and the table of solvers")
    return parser


def _add_system(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "matrix", metavar="A", help="the matrix: .mtx, .npy or .npz (scipy.sparse or CSR arrays)"
    )
    command.add_argument(
        "rhs", metavar="b", nargs="?", help="right-hand side(s): .mtx or .npy; default A·1"
    )


def _add_solve(commands: argparse._SubParsersAction) -> None:
    solve = commands.add_parser(
        "solve",
        help="solve a system from files",
        epilog=_SOLVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_system(solve)
    add = solve.add_argument
    add("--solver", default="auto", help="auto (default), lu, qr, svd, cholesky, cg, gmres, ...")
    add("--rtol", type=_tolerance, help="success needs a residual up to rtol·‖b‖ ...")
    add("--atol", type=_tolerance, help="... or up to atol")
    add("--max-steps", type=_count, help="of an iterative solver")
    add("--restart", type=_count, help="steps between restarts, of gmres")
    add("--dtype", choices=DTYPES, help="default: the file's, at least float64")
    add("--tag", action="append", default=[], choices=list(TAGS), help="a promise about A")
    add(
        "--preconditioner",
        metavar="NAME",
        help="of iterative solvers: jacobi, ic, ilu, amg, auto, ...",
    )
    add("--out", metavar="X", help="write the solution to this .npy or .mtx file")
    add("--repeat", type=_natural, default=1, help="later calls to time (default 1)")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    compare = commands.add_parser(
        "compare",
        help="time every fitting solver and preconditioner on your matrix",
        epilog=_COMPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_system(compare)
    add = compare.add_argument
    add("--solver", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    add("--preconditioner", action="append", default=[], metavar="NAME",
        help="only with this one, or 'none' (repeatable)")  # fmt: skip
    add("--also", action="append", default=[], metavar="MODULE:EXPRESSION",
        help="a solver of your own beside them (repeatable)")  # fmt: skip
    add("--rtol", type=_tolerance, help="‖b − Ax‖ ≤ rtol·‖b‖ (default 1e-8; single precision 1e-4)")
    add("--dtype", choices=DTYPES, help="default: the file's, at least float64")
    add("--tag", action="append", default=[], choices=list(TAGS), help="a promise about A")
    add("--by", choices=["later", "gradient", "first", "memory"], default="later",
        help="what the ranking is by (default later: one more solve)")  # fmt: skip
    add("--seconds", type=_tolerance, default=120.0, help="for all of them (default 120)")
    add(
        "--limit",
        type=_tolerance,
        default=15.0,
        help="for each of them, and for its gradient (default 15)",
    )
    add("--no-gradient", action="store_true", help="leave gradients out")
    add("--out", action="append", metavar="FILE",
        help="save to .csv, .md, .png or .svg (repeatable; default compare.csv, compare.png)")  # fmt: skip


def _add_demo(commands: argparse._SubParsersAction) -> None:
    demo = commands.add_parser(
        "demo", help="fit a coefficient field to noisy data by differentiating through the solve"
    )
    add = demo.add_argument
    add("--file", metavar="A", help="a real symmetric matrix; default: PyAMG's airfoil mesh")
    add("--out", default="demo.png", help="where to draw the picture (default demo.png)")
    add("--steps", type=_count, default=100, help="most steps of the optimiser (default 100)")
    add("--noise", type=_tolerance, default=0.01, help="relative noise (default 0.01)")
    add("--seed", type=_natural, default=0, help="of noise and sensors (default 0)")


def _tolerance(text: str) -> float:
    return _number(text, float, 0, "a finite number from 0 up")


def _count(text: str) -> int:
    return int(_number(text, int, 1, "an integer from 1 up"))


def _natural(text: str) -> int:
    return int(_number(text, int, 0, "an integer from 0 up"))


def _number(text: str, kind: type, least: int, rule: str) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be {rule}; got {text}")
    return value
