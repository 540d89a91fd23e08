"""`python -m benchmarks [--quick] [--only TABLE] [--out DIR]`"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import importlib
import pathlib
import platform
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import linsolve_prim as lp  # noqa: E402

from .report import Table  # noqa: E402

#: Name: module, function, and its arguments from (seconds for a row, whether it should be quick).
TABLES = {
    "jitted": ("dense", "jitted", lambda s, q: (s,)),
    "eager": ("dense", "eager", lambda s, q: (s,)),
    "compilation": ("dense", "compilation", lambda s, q: (3 if q else 11,)),
    "honesty": ("honesty", "failures", lambda s, q: ()),
    "gradients": ("gradients", "implicit_and_unrolled", lambda s, q: (s, q)),
    "krylov": ("krylov", "iterations", lambda s, q: (s, q)),
    "krylov-compilation": ("krylov", "compilation", lambda s, q: (3 if q else 7,)),
    "krylov-many": ("krylov", "many", lambda s, q: (s, q)),
    "products": ("sparse_products", "products", lambda s, q: (s,)),
    "substitution": ("sparse_triangular", "substitution", lambda s, q: (s, q)),
    "overhead": ("overhead", "overhead", lambda s, q: (s,)),
    "direct": ("sparse", "direct", lambda s, q: (s, q)),
    "materialise": ("materialise", "materialise", lambda s, q: (q,)),
    "functions": ("materialise", "solves", lambda s, q: (s, q)),
    "multigrid-steps": ("multigrid", "iterations", lambda s, q: (q,)),
    "multigrid": ("multigrid", "solves", lambda s, q: (s, q)),
    "multigrid-refreshed": ("multigrid", "refreshed", lambda s, q: (q,)),
}


#: With --quick, the seconds for a row; and those after which no further table is begun.
QUICK_SECONDS, QUICK_END = 0.5, 240


def make(name: str, seconds: float, quick: bool) -> Table | None:
    """One table; None, with a line that says why, where a package is missing that it needs."""
    module, function, arguments = TABLES[name]
    start, cpu = time.perf_counter(), time.process_time()
    try:
        table = getattr(importlib.import_module(f".{module}", __package__), function)(
            *arguments(seconds, quick)
        )
    except ImportError as error:
        print(f"{name}: left out, {error} (pip install -e '.[bench]')", file=sys.stderr)
        return None
    except AssertionError as error:  # a contestant was wrong: it is not timed
        return Table(f"{name}: WRONG", ["what"], [[str(error)]])
    used = f"{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} s of a core"
    print(f"{name}: {used}", file=sys.stderr)
    jax.clear_caches()
    return table


def head() -> str:
    """Versions and machine: a number without them says little."""
    device = jax.devices()[0].device_kind
    return (
        f"linsolve_prim {lp.__version__}, JAX {jax.__version__}, Python {platform.python_version()}, "
        f"{device}, {platform.machine()}, {os.cpu_count()} cores, float64. Medians of interleaved "
        "rounds; “spread” is the largest interquartile range of a row. Read the ratios.\n"
    )


def write(folder: pathlib.Path, tables: list[Table]) -> None:
    """`benchmarks.md` with all tables, and a picture for each that has something to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [head()]
    for table in tables:
        parts.append(str(table))
        picture = table.draw(folder)
        if picture is not None:
            parts.append(f"![{table.title}]({picture.name})\n")
    (folder / "benchmarks.md").write_text("\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="all tables in under five minutes; less certain")
    add("--only", action="append", choices=list(TABLES), help="this table (repeatable)")
    add("--out", type=pathlib.Path, help="a folder for Markdown and SVG")
    args = parser.parse_args()
    print(head(), flush=True)
    tables, start = [], time.perf_counter()
    for name in args.only or TABLES:
        if args.quick and not args.only and time.perf_counter() - start > QUICK_END:
            print(f"{name}: left out, the time is up (--only {name} makes it)", file=sys.stderr)
            continue
        table = make(name, QUICK_SECONDS if args.quick else 12.0, args.quick)
        if table is not None:
            tables.append(table)
            print(table, flush=True)
            if args.out:
                write(args.out, tables)  # so that an interrupt loses nothing


if __name__ == "__main__":
    main()
