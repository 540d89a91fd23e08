"""The picture of `compare`. (Figures are made without pyplot, which keeps global state.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from .compare_rows import SOLVED, Row, ranking

_INK, _RED, _BLUE, _GREY = "#222222", "#c8442f", "#2f6fa8", "#9a9a9a"
_MOST = 25


def draw(path: str, rows: Sequence[Row], order: str, title: str) -> None:
    """Times and memory of the best, on a logarithmic and a linear axis."""
    ranked = ranking(rows, order)[:_MOST]
    figure = Figure(figsize=(11, 1.9 + 0.3 * max(len(ranked), 4)), layout="constrained")
    times, memory = figure.subplots(1, 2, sharey=True, width_ratios=[2.2, 1])
    _draw_times(times, ranked)
    _draw_memory(memory, ranked)
    figure.suptitle(title, fontsize=10, color=_INK)
    left = sum(row.outcome != SOLVED for row in rows)
    more = len(rows) - left - len(ranked)
    words = f"{left} others failed, were refused, or were not run" if left else ""
    words = f"{more} more solved it; {words}" if more else words
    figure.supxlabel(words, fontsize=9, color=_GREY)
    figure.savefig(path, dpi=130)


def _draw_times(ax: Any, ranked: Sequence[Row]) -> None:
    places = range(len(ranked))
    started = [row.setup + row.compile + row.first for row in ranked]
    ax.hlines(places, [row.later for row in ranked], started, color="#dddddd", zorder=1)
    ax.scatter(started, places, marker="|", s=90, color=_GREY, label="until the first x")
    gradients = [(row.gradient_later, k) for k, row in enumerate(ranked) if row.gradient_later > 0]
    if gradients:
        ax.scatter(*zip(*gradients), s=34, facecolor="white", edgecolor=_RED, label="with gradient")
    ax.scatter([row.later for row in ranked], places, s=34, color=_BLUE, label="one more solve")
    ax.set_yticks(list(places), [row.name for row in ranked])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("seconds")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8, frameon=False)


def _draw_memory(ax: Any, ranked: Sequence[Row]) -> None:
    places = list(range(len(ranked)))
    ax.barh(places, [row.memory for row in ranked], height=0.36, color=_BLUE)
    shifted = [k + 0.36 for k in places]
    ax.barh(shifted, [row.gradient_memory for row in ranked], height=0.3, color=_RED, alpha=0.6)
    ax.set_xlabel("MiB at the peak (blue: solve, red: gradient)")
    for k, row in enumerate(ranked):
        ax.annotate(f"{row.residual:.0e}", (1.01, k), xycoords=("axes fraction", "data"),
                    va="center", fontsize=8, color=_GREY)  # fmt: skip
    ax.set_title("relative residual", loc="right", fontsize=8, color=_GREY)
