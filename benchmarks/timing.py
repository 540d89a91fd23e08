"""Timing side by side: contestants take turns, so that what else the machine does hits all alike."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


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


def markdown(title: str, header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, ""])
