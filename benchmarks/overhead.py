"""What a call of a host library through JAX costs beside the library's work: systems of ten unknowns."""

import time
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import linsolve_prim as lp
from linsolve_prim.host.bridge import TRANSPORTS, has_buffer_callback

from .report import Table
from .sparse import (
    _FRESH,
    _compiled,
    _ours,
    _raw_band,
    _raw_cholmod,
    _raw_klu,
    _raw_pardiso,
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
        "KLU": (lp.KLU, "nbklu"),
        "PARDISO": (lp.PARDISO, "pymklpardiso"),
    }
    always = ("SuperLU", "Banded")
    return {
        name: (_ours(matrix, b, solver(), True, "forward"), raw)
        for name, (solver, raw) in chosen.items()
        if name in always or name in found
    }


def overhead(seconds: float) -> Table:
    """Medians in µs. Beside each solve the same library from plain Python, and a
    jitted program with the same arguments that solves nothing; what is left is the overhead, for each
    of the two ways to call the host."""
    matrix, b = poisson(_SIZE, 1), np.ones(_SIZE)
    raw = {"scipy splu": _raw_superlu(matrix, b), "lapack band": _raw_band(matrix, b, True)}
    if "RSLab" in (ours := _contestants(matrix, b)):
        raw["rslab"] = _raw_rslab(matrix, b, True)
    if "CHOLMOD" in ours:
        raw["cvxopt cholmod"] = _raw_cholmod(matrix, b)
    if "KLU" in ours:
        raw["nbklu"] = _raw_klu(matrix, b)
    if "PARDISO" in ours:
        raw["pymklpardiso"] = _raw_pardiso(matrix, b, True)
    found: dict[str, dict[str, float]] = {}
    for transport in TRANSPORTS:
        if transport == "callback" or has_buffer_callback():
            with lp.host.transport(transport):
                found[transport] = _times(matrix, b, raw, seconds)
    rows = []
    for name, (_, other) in ours.items():
        cells = [f"{found['callback'][other]:.0f} ({other})"]
        for times in found.values():
            beyond = times[name] - times[other] - times["nothing"]
            cells += [f"{times[name]:.0f}", f"{beyond:.0f}"]
        rows.append([name, *cells])
    empty = ", ".join(f"{times['nothing']:.0f}" for times in found.values())
    header = ["ten unknowns", "library alone, µs"]
    for transport in found:
        header += [f"{transport}, µs", "overhead, µs"]
    title = f"Host libraries, overhead of a call (an empty jitted call: {empty} µs)"
    return markdown(title, header, rows)


def _times(matrix: Any, b: np.ndarray, raw: dict[str, Any], seconds: float) -> dict[str, float]:
    """Medians in µs by name, of the programs that are traced now."""
    runs = {name: run for name, (run, _) in _contestants(matrix, b).items()} | raw
    values = matrix.data
    agree({name: lambda run=run: jnp.ravel(jnp.asarray(run(values))) for name, run in runs.items()})
    runs["nothing"] = _compiled(lambda values, rhs: rhs + values[0], lambda v, b: b, b, "forward")
    return _medians(runs, raw, values, seconds)


def _medians(
    runs: dict[str, Any], raw: Collection[str], values: np.ndarray, seconds: float
) -> dict[str, float]:
    """Each contestant has a turn of many calls, so that its code is in the caches; each call has values
    of its own, which are already where the contestant takes them from."""
    turn = 100
    samples: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(runs) / 4:
        for name, run in runs.items():
            fresh: list[Any] = [values * (1 + 1e-6 * next(_FRESH)) for _ in range(turn)]
            if name not in raw:
                fresh = jax.block_until_ready([jnp.asarray(one) for one in fresh])
            for i, one in enumerate(fresh):
                began = time.perf_counter()
                run(one)
                if i >= turn // 4:
                    samples[name].append(1e6 * (time.perf_counter() - began))
    return {name: float(np.median(each)) for name, each in samples.items()}
