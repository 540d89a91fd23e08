"""Pictures of how solves went. Needs matplotlib: `pip install "linsolve_prim[demo]"`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .results import Solution
from .tracing import Record, SolveTape


def plot_convergence(what: Any, *, ax: Any = None, relative: bool = False) -> Any:
    """Draw residual norms against steps, on a logarithmic scale. Returns the matplotlib axes.

    - `what`: a `SolveTape(record_trajectories=True)`, one of its entries, a `Solution` of a solver
      with `history=True`, a list of those, or a history itself, an array `(..., steps + 1)`. The
      lanes of a batch are one curve each.
    - `ax`: the axes to draw in; default new ones.
    - `relative`: divide each curve by its first value.

    **Raises** `ValueError` if there is no history in `what`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.arange(1.0, 9.0)), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.ones(8), lp.CG(history=True))
        >>> axes = lp.diagnostics.plot_convergence(solution, relative=True)
        >>> axes.get_yscale()
        'log'
    """
    curves = [curve for label, item in _items(what) for curve in _curves(label, item)]
    if not curves:
        raise ValueError(
            "what: holds no history. Record with `SolveTape(record_trajectories=True)`, or give the "
            "solver `history=True`."
        )
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots()
    for label, norms in curves:
        first = norms[0] if relative and norms[0] > 0 else 1.0
        shown = np.where(norms > 0, norms / first, np.nan)  # a zero residual has no logarithm
        ax.semilogy(np.arange(norms.size), shown, label=label, marker=".", markersize=3)
    ax.set_xlabel("steps")
    ax.set_ylabel("‖b − Ax‖ / ‖b − Ax₀‖" if relative else "‖b − Ax‖")
    if any(label for label, _ in curves):
        ax.legend()
    return ax


def _items(what: Any) -> list[tuple[str, Any]]:
    """What is to be drawn, with the label of each."""
    if isinstance(what, (SolveTape, list, tuple)):
        return [pair for item in what for pair in _items(item)]
    if isinstance(what, Record):
        method = what.solver.split("(")[0]
        return [(" ".join(part for part in (what.name, method, what.kind) if part), what.stats)]
    if isinstance(what, Solution):
        return [("", what.stats)]
    return [("", what)]


def _curves(label: str, item: Any) -> list[tuple[str, np.ndarray]]:
    """The curves of one solve, each up to its last step."""
    if not isinstance(item, dict):
        rows = np.atleast_2d(np.asarray(item, float))
        return [(label, row) for row in rows.reshape(-1, rows.shape[-1])]
    if "history" not in item:
        return []
    rows = np.asarray(item["history"], float)
    counts = np.asarray(item["history_length"]).ravel()
    rows = rows.reshape(-1, rows.shape[-1])
    names = [label] if len(rows) == 1 else [f"{label} [{i}]" for i in range(len(rows))]
    return [(name, row[:count]) for name, row, count in zip(names, rows, counts)]
