"""The picture of `demo`. (Figures are made without pyplot, which keeps global state.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from .demo_problem import Problem

if TYPE_CHECKING:
    from .demo_command import Data, Fit

_INK, _RED, _BLUE = "#222222", "#c8442f", "#2f6fa8"


def draw(path: str, problem: Problem, data: Data, fit: Fit, state: np.ndarray) -> None:
    """True field, recovered field and their difference; one state, the convergence, the data."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    axes = figure.subplots(2, 3)
    bound = float(abs(problem.truth).max())
    maps = (
        ("the true field, log κ", problem.truth),
        ("recovered from the data", fit.field),
        ("difference", fit.field - problem.truth),
    )
    for ax, (title, values) in zip(axes[0], maps):
        mappable = _map(ax, problem, values, -bound, bound, "RdBu_r")
        ax.set_title(title)
    figure.colorbar(mappable, ax=axes[0], shrink=0.85, label="log κ")
    _draw_state(figure, axes[1, 0], problem, data, state)
    _draw_history(axes[1, 1], fit)
    _draw_data(axes[1, 2], data, state)
    figure.suptitle(
        f"{problem.title}: {len(problem.points)} unknown coefficients "
        "by differentiating through the solve",
        fontsize=13,
        color=_INK,
    )
    figure.savefig(path, dpi=130)


def _map(ax: Any, problem: Problem, values: np.ndarray, low: float, high: float, cmap: str) -> Any:
    x, y = problem.points.T
    limits = {"vmin": low, "vmax": high, "cmap": cmap}
    if problem.triangles is None:
        drawn = ax.scatter(x, y, c=values, s=12, **limits)
    else:
        drawn = ax.tripcolor(x, y, problem.triangles, values, shading="gouraud", **limits)
        ax.triplot(x, y, problem.triangles, color=_INK, linewidth=0.25, alpha=0.35)
    ax.set(xlim=(-3.3, 3.6), ylim=(-3.0, 3.0), aspect="equal", xticks=[], yticks=[])
    return drawn


def _draw_state(figure: Figure, ax: Any, problem: Problem, data: Data, state: np.ndarray) -> None:
    """The solution for the last load, and where it is observed."""
    values = np.zeros(len(problem.points))
    values[problem.free] = state[-1]
    mappable = _map(ax, problem, values, float(values.min()), float(values.max()), "viridis")
    x, y = problem.points[problem.free[data.sensors]].T
    ax.plot(x, y, "o", markersize=2.2, color="white", markeredgecolor=_INK, markeredgewidth=0.4)
    ax.set_title(f"one of {len(state)} solutions u, and the sensors")
    figure.colorbar(mappable, ax=ax, shrink=0.85, label="u")


def _draw_history(ax: Any, fit: Fit) -> None:
    misfit, _, error = np.array(fit.history).T
    ax.semilogy(misfit, color=_BLUE, label="misfit, mean of ((u − d)/σ)²")
    ax.semilogy(error, color=_RED, label="error of the field, relative")
    ax.axhline(1, color=_BLUE, linewidth=0.8, linestyle=":")
    ax.set(title="convergence", xlabel="iteration of L-BFGS-B")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_data(ax: Any, data: Data, state: np.ndarray) -> None:
    ax.axline((0, 0), slope=1, color=_INK, linewidth=0.8)
    noise = data.sigma / abs(data.values).max()
    size = abs(data.values).max()
    fitted = state[:, data.sensors]
    ax.plot(data.values / size, fitted / size, ".", color=_BLUE, markersize=2.5, alpha=0.6)
    ax.set(
        title=f"{data.values.size} data, noise up to {noise.max():.1g}",
        xlabel="observed",
        ylabel="computed from the recovered field",
    )
    ax.spines[["top", "right"]].set_visible(False)
