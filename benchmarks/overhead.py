"""What a call of a host library through JAX costs beside the library's work: systems of ten unknowns."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import linsolve_prim as lp

from .report import Table
from .sparse import (
    _FRESH,
    _compiled,
    _ours,
    _raw_band,
    _raw_cholmod,
    _raw_rslab,
    _raw_superlu,
    poisson,
)
from .timing import agree, markdown

_SIZE = 10


def _contestants(matrix: Any, b: np.ndarray) -> dict[str, tuple[Callable[..., Any], str]]:
    """Ours by name, each with the name of what does the same without JAX."""
    found = {library.solver for library in lp.host.available()}
    chosen: dict[str, tuple[Any, str]] = {
        "SuperLU": (lp.SuperLU, "scipy splu"),
        "Banded": (lp.Banded, "lapack band"),
        "RSLab": (lp.RSLab, "rslab"),
        "CHOLMOD": (lp.CHOLMOD, "cvxopt cholmod"),
        "KLU": (lp.KLU, "nothing"),
        "PARDISO": (lp.PARDISO, "nothing"),
    }
    always = ("SuperLU", "Banded")
    return {
        name: (_ours(matrix, b, solver(), True, "forward"), raw)
        for name, (solver, raw) in chosen.items()
        if name in always or name in found
    }


def overhead(seconds: float) -> Table:
    """Medians in µs. Beside each solve the same library from plain Python where it has a row, and a
    jitted program with the same arguments that solves nothing; what is left is the overhead."""
    matrix, b = poisson(_SIZE, 1), np.ones(_SIZE)
    ours = _contestants(matrix, b)
    raw = {"scipy splu": _raw_superlu(matrix, b), "lapack band": _raw_band(matrix, b, True)}
    if "RSLab" in ours:
        raw["rslab"] = _raw_rslab(matrix, b, True)
    if "CHOLMOD" in ours:
        raw["cvxopt cholmod"] = _raw_cholmod(matrix, b)
    empty = _compiled(lambda values, rhs: rhs + values[0], lambda v, b: b, b, "forward")
    runs = {name: run for name, (run, _) in ours.items()} | raw
    values = matrix.data
    agree({name: lambda run=run: jnp.ravel(jnp.asarray(run(values))) for name, run in runs.items()})
    runs["nothing"] = empty
    times = _time(runs, values, seconds)
    rows = []
    for name, (_, other) in ours.items():
        own = 0.0 if other == "nothing" else times[other]
        beyond = times[name] - own - times["nothing"]
        shown = "–" if other == "nothing" else f"{own:.0f} ({other})"
        rows.append([name, f"{times[name]:.0f}", shown, f"{times['nothing']:.0f}", f"{beyond:.0f}"])
    header = [
        "ten unknowns",
        "through JAX, µs",
        "library alone, µs",
        "a jitted call, µs",
        "overhead, µs",
    ]
    return markdown("Host libraries, overhead of a call", header, rows)


def _time(runs: dict[str, Any], values: np.ndarray, seconds: float) -> dict[str, float]:
    """Medians in µs. Each contestant has a turn of many calls, so that its code is in the caches; each
    call has values of its own."""
    turn = 100
    samples: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(runs) / 4:
        for name, run in runs.items():
            fresh = [values * (1 + 1e-6 * next(_FRESH)) for _ in range(turn)]
            for one in fresh:
                began = time.perf_counter()
                jax.block_until_ready(run(one))
                samples[name].append(1e6 * (time.perf_counter() - began))
    return {name: float(np.median(each[turn // 4 :])) for name, each in samples.items()}
