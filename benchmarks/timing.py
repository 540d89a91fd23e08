"""Timing side by side: contestants take turns, so that what else the machine does hits all alike."""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .report import Table


def time_together(
    contestants: dict[str, Callable[[], Any]], seconds: float, rounds: int = 15
) -> dict[str, tuple[float, float]]:
    """`{name: (median, interquartile range)}` in µs for one call.

    Each round times every contestant once, over as many calls as fill its share of `seconds`.
    """
    calls = {}
    for name, fn in contestants.items():
        jax.block_until_ready(fn())
        start = time.perf_counter()
        jax.block_until_ready(fn())
        once = max(time.perf_counter() - start, 1e-7)
        calls[name] = max(1, int(seconds / rounds / len(contestants) / once))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, fn in contestants.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                out = fn()
            jax.block_until_ready(out)
            samples[name].append((time.perf_counter() - start) / calls[name] * 1e6)
    quartiles = {name: np.percentile(times, [25, 50, 75]) for name, times in samples.items()}
    return {name: (float(q[1]), float(q[2] - q[0])) for name, q in quartiles.items()}


def wrong(contestants: dict[str, Callable[[], Any]], rtol: float = 1e-6) -> dict[str, float]:
    """Those whose result is not that of the first one, up to rtol of its norm, and by how much."""
    outs = {name: jax.tree.leaves(jax.device_get(fn())) for name, fn in contestants.items()}
    want, found = next(iter(outs.values())), {}
    for name, out in outs.items():
        errors = [
            np.linalg.norm(np.ravel(x) - np.ravel(y)) / max(np.linalg.norm(y), 1e-300)
            for x, y in zip(out, want, strict=True)
        ]
        if not max(errors) <= rtol:  # NaN as well
            found[name] = float(max(errors))
            print(f"{name}: WRONG, relative error {found[name]:.1e}", file=sys.stderr)
    return found


def agree(contestants: dict[str, Callable[[], Any]], rtol: float = 1e-6) -> None:
    """No contestant is timed before its result is that of the first one.

    **Raises** `AssertionError` that names the contestants of which it is not.
    """
    found = wrong(contestants, rtol)
    assert not found, f"wrong by more than {rtol:.1e}: {found}"


def spread(results: dict[str, tuple[float, float]]) -> str:
    """The largest interquartile range of a row, in per cent of its median."""
    return f"{100 * max(iqr / median for median, iqr in results.values()):.0f} %"


def markdown(title: str, header: list[str], rows: list[list[str]]) -> Table:
    """A table, which prints as Markdown."""
    return Table(title, header, rows)
