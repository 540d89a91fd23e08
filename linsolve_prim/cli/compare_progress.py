"""Progress of `compare` on standard error: a bar by rich where that is installed, else lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from .compare_rows import NOT_RUN, SOLVED, Row
from .report import seconds


class Progress(Protocol):
    """What is told before and after each contestant."""

    def begin(self, row: Row) -> None: ...

    def end(self, row: Row) -> None: ...


class _Lines:
    """One line for each contestant."""

    def __init__(self, total: int):
        self.total, self.count = total, 0

    def begin(self, row: Row) -> None:
        self.count += 1

    def end(self, row: Row) -> None:
        if row.outcome != NOT_RUN:
            text = f"[{self.count}/{self.total}] {row.name}: {outcome_words(row)}"
            print(text[:150], file=sys.stderr, flush=True)


class _Bar:
    """rich's bar, with the contestant that is running."""

    def __init__(self, bar: object, total: int):
        self.bar = bar
        self.task = bar.add_task("", total=total)  # type: ignore[attr-defined]

    def begin(self, row: Row) -> None:
        self.bar.update(self.task, description=row.name)  # type: ignore[attr-defined]

    def end(self, row: Row) -> None:
        self.bar.advance(self.task)  # type: ignore[attr-defined]


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Show how far it is: a bar on a terminal with rich, plain lines everywhere else."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress as RichProgress,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError:
        yield _Lines(total)
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, total)


def outcome_words(row: Row) -> str:
    """How a contestant ended, in a few words."""
    if row.outcome != SOLVED:
        return f"{row.outcome}: {row.reason}" if row.reason else row.outcome
    return f"{seconds(row.later)}, residual {row.residual:.1e}"
