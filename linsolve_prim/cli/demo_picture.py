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
    """True field, recovered field and their difference; one state, the convergence, the misfit."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.0, 0.95], hspace=0.04)
    _draw_fields(above, problem, fit)
    axes = below.subplots(1, 3, width_ratios=[1.25, 1, 1])
    _draw_state(below, axes[0], problem, data, state)
    _draw_history(axes[1], fit)
    _draw_residuals(axes[2], data, state)
    text = "unknown coefficients, found by differentiating through the solve"
    figure.suptitle(f"{problem.title}: {len(problem.points)} {text}", fontsize=14, color=_INK)
    figure.savefig(path, dpi=130)


def _draw_fields(figure: Any, problem: Problem, fit: Fit) -> None:
    axes = figure.subplots(1, 3)
    bound = float(abs(problem.truth).max())
    maps = (
        ("the true field, log κ", problem.truth),
        ("recovered from the data", fit.field),
        ("difference", fit.field - problem.truth),
    )
    for ax, (title, values) in zip(axes, maps):
        mappable = _map(ax, problem, values, -bound, bound, "RdBu_r")
        ax.set_title(title)
    figure.colorbar(mappable, ax=axes, shrink=0.9, label="log κ")


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


def _draw_state(figure: Any, ax: Any, problem: Problem, data: Data, state: np.ndarray) -> None:
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


def _draw_residuals(ax: Any, data: Data, state: np.ndarray) -> None:
    """What is left of the misfit should look like the noise: normal, of variance one."""
    left = ((state[:, data.sensors] - data.values) / data.sigma).ravel()
    bins = np.linspace(-4, 4, 33)
    ax.hist(left, bins, density=True, color=_BLUE, alpha=0.55, label=f"{left.size} data")
    density = np.exp(-0.5 * bins**2) / np.sqrt(2 * np.pi)
    ax.plot(bins, density, color=_INK, linewidth=1, label="the noise: normal")
    ax.set(title="what is left of the misfit", xlabel="(u − d)/σ", yticks=[])
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])
    ax.legend(frameon=False, loc="upper left")
    ax.spines[["top", "right", "left"]].set_visible(False)
