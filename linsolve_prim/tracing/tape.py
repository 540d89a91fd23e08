"""`SolveTape`: every solve in a block, forward and derivative, with its statistics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from .._recording import Recording, opened
from ..primitive.told import Record
from ..results import REASONS, RESULTS, member_name

_log = logging.getLogger("linsolve_prim")
_COLUMNS = ("", "name", "kind", "solver", "result", "steps", "matvecs", "relative residual")


class SolveTape:
    """`with lp.SolveTape() as tape:` records every solve in the block.

    ```python
    with lp.SolveTape() as tape:
        gradient = jax.grad(loss)(b)
    tape[0].stats["num_steps"], tape["pressure"].kind, len(tape), [entry.result for entry in tape]
    print(tape)
    ```

    It works around eager code, around compiled functions, also such as were compiled before (they
    are compiled once more, with recording), and inside of a function that is being traced, where
    entries hold tracers that the function may return. There it records the solves of that very
    function; those inside of a `scan`, a `while_loop` or another `jit` only run later, and are for a
    tape around the whole.

    **Arguments**

    - `values`: keep each solution, as `entry.value`.
    - `record_trajectories`: keep the residual norms and iterates of Krylov methods after each step,
      as `entry.stats["history"]` and `["iterates"]`, at most `max_length` steps.

    An entry is a `Record(name, kind, solver, result, stats, value)`, where `kind` is "forward",
    "tangent" or "adjoint". Solves of a `vmap` are one entry, with one leading axis for each. Solves in
    other threads are recorded if they were compiled under a tape. At level DEBUG each entry is also
    written to the logger "linsolve_prim".

    **Raises** `ValueError` if `max_length` is less than 1; `KeyError` for a name that no solve has.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> with lp.SolveTape() as tape:
        ...     gradient = jax.grad(lambda b: lp.solve(2 * jnp.eye(2), b, name="pressure").sum())(jnp.ones(2))
        >>> [(entry.name, entry.kind) for entry in tape]
        [('pressure', 'forward'), ('pressure', 'adjoint')]
    """

    def __init__(
        self, *, values: bool = False, record_trajectories: bool = False, max_length: int = 1000
    ):
        if max_length < 1:
            raise ValueError(f"max_length: must be at least 1; got {max_length}.")
        path = max_length if record_trajectories else 0
        self._what = Recording(True, values or record_trajectories, path)
        self._entries: list[Record] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SolveTape:
        self._stack.enter_context(opened(self._add, self._what))
        return self

    def __exit__(self, *error: Any) -> None:
        _wait_for_programs()
        self._stack.__exit__(*error)

    def _add(self, entry: Record) -> None:
        self._entries.append(entry)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s", "  ".join(_row(len(self._entries) - 1, entry)))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._entries))

    def __getitem__(self, key: int | slice | str) -> Any:
        """By position, or the first forward solve (else any solve) of a name."""
        if not isinstance(key, str):
            return self._entries[key]
        found = [entry for entry in self._entries if entry.name == key]
        if not found:
            names = sorted({repr(entry.name) for entry in self._entries if entry.name})
            raise KeyError(
                f"no solve is named {key!r}; recorded names: {', '.join(names) or 'none'}"
            )
        return min(found, key=lambda entry: entry.kind != "forward")

    def named(self, name: str) -> list[Record]:
        """All solves of a name, in the order in which they ran."""
        return [entry for entry in self._entries if entry.name == name]

    def __repr__(self) -> str:
        if not self._entries:
            return "SolveTape: no solves"
        rows = [_COLUMNS, *(_row(i, entry) for i, entry in enumerate(self._entries))]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_COLUMNS))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


def _wait_for_programs() -> None:
    """Until everything that was started has run, and so has called back."""
    with contextlib.suppress(Exception):  # a failed program's arrays raise; its user will see that
        jax.block_until_ready([x for x in jax.live_arrays() if not x.is_deleted()])


def _row(index: int, entry: Record) -> tuple[str, ...]:
    solver = entry.solver if len(entry.solver) <= 48 else entry.solver[:47] + "…"
    stats = entry.stats
    return (
        str(index),
        entry.name or "",
        entry.kind,
        solver,
        _shown_results(entry.result),
        _shown(stats.get("num_steps"), "d"),
        _shown(stats.get("matvecs"), "d"),
        _shown(stats.get("relative_residual"), ".1e"),
    )


def _is_traced(x: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x))


def _shown_results(result: RESULTS) -> str:
    if _is_traced(result):
        return "traced"
    names = member_name(result)
    if isinstance(names, str):
        return names
    kinds, counts = np.unique(names, return_counts=True)
    return ", ".join(f"{count} {kind}" for kind, count in zip(kinds, counts))


def _shown(value: Any, form: str) -> str:
    """A number, or the range over the lanes of a `vmap`."""
    if value is None:
        return ""
    if _is_traced(value):
        return "traced"
    array = np.asarray(value)
    if array.size == 0:
        return ""
    low, high = format(array.min(), form), format(array.max(), form)
    return low if low == high else f"{low} … {high}"


def reason_name(entry: Record) -> Any:
    """Which test ended the solve, as the name of a member of `REASONS`."""
    reason = entry.stats.get("reason")
    return None if reason is None or _is_traced(reason) else member_name(reason, REASONS)


__all__ = ["Record", "SolveTape", "reason_name"]
