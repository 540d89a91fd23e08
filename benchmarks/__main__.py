"""`python -m benchmarks [--quick] [--out FILE]`"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import pathlib
import platform
from collections.abc import Callable

import jax

jax.config.update("jax_enable_x64", True)

import linsolve_prim as lp  # noqa: E402

from . import dense, krylov, materialise, multigrid, sparse, sparse_products, sparse_triangular  # noqa: E402

TABLES: dict[str, Callable[[float, bool], str]] = {
    "jitted": lambda seconds, quick: dense.jitted(seconds),
    "eager": lambda seconds, quick: dense.eager(seconds),
    "compilation": lambda seconds, quick: dense.compilation(5 if quick else 11),
    "honesty": lambda seconds, quick: dense.honesty(),
    "products": lambda seconds, quick: sparse_products.products(seconds),
    "krylov": lambda seconds, quick: krylov.iterations(seconds, quick),
    "krylov-compilation": lambda seconds, quick: krylov.compilation(3 if quick else 7),
    "krylov-many": lambda seconds, quick: krylov.many(seconds),
    "multigrid-steps": lambda seconds, quick: multigrid.iterations(quick),
    "multigrid": lambda seconds, quick: multigrid.solves(seconds, quick),
    "multigrid-refreshed": lambda seconds, quick: multigrid.refreshed(quick),
    "substitution": lambda seconds, quick: sparse_triangular.substitution(seconds),
    "materialise": lambda seconds, quick: materialise.materialise(),
    "functions": lambda seconds, quick: materialise.solves(seconds),
    "direct": lambda seconds, quick: sparse.direct(seconds, quick=quick),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, and less certain")
    parser.add_argument("--only", choices=sorted(TABLES), help="one table instead of all")
    parser.add_argument("--out", type=pathlib.Path, help="write the tables to this Markdown file")
    args = parser.parse_args()
    seconds = 2.0 if args.quick else 12.0
    head = (
        f"linsolve_prim {lp.__version__}, JAX {jax.__version__}, Python "
        f"{platform.python_version()}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, float64. "
        "Medians of interleaved rounds; read the ratios.\n"
    )
    tables = [head]
    print(head, flush=True)
    for name, make in TABLES.items():
        if args.only in (None, name):
            tables.append(make(seconds, args.quick))
            print(tables[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(tables))


if __name__ == "__main__":
    main()
