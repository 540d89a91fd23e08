"""The table of `compare`: on the screen, as CSV, and as Markdown."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from .compare_rows import NOT_RUN, ORDERS, REFUSED, SOLVED, Row, ranking
from .report import row as line, seconds

#: So many of the ranking, and of the failures, are shown on the screen. The files have all.
_SHOWN = 15

_HEADER = (
    "", "solver", "residual", "steps", "set-up", "compile", "first", "later", "±", "MiB", "gradient:",
    "compile", "first", "later", "residual", "MiB",
)  # fmt: skip


def report(rows: Sequence[Row], order: str) -> None:
    """Print the ranking, and those who are not in it with their reasons."""
    ranked = ranking(rows, order)
    print()
    if ranked:
        print(f"Ranking by {ORDERS[order]}:")
        cells = [_HEADER, *(_cells(k, row) for k, row in enumerate(ranked[:_SHOWN], 1))]
        print("\n".join(_aligned(cells)))
        _more(len(ranked))
        print(
            "(later: median of calls with other values of A; ±: half of what its quartiles differ)"
        )
    _report_others(rows)


def _report_others(rows: Sequence[Row]) -> None:
    failures = [row for row in rows if row.outcome not in (SOLVED, NOT_RUN, REFUSED)]
    if failures:
        print("\nFailures:")
        for row in failures[:_SHOWN]:
            print(f"  {row.name}: {row.outcome}, {_short(row.reason)}")
        _more(len(failures))
    gradients = [row for row in rows if row.outcome == SOLVED and row.gradient_reason]
    if gradients:
        print("\nSolved, but without a right gradient:")
        for row in gradients[:_SHOWN]:
            print(f"  {row.name}: {row.gradient_outcome}, {_short(row.gradient_reason)}")
        _more(len(gradients))
    counts = Counter(row.outcome for row in rows)
    print()
    if counts[REFUSED]:
        line("refused", f"{counts[REFUSED]}, for which this matrix is not (reasons: in the table)")
    if counts[NOT_RUN]:
        line(
            "not run", f"{counts[NOT_RUN]}: the time was up. Raise --seconds, or choose by --solver"
        )


def _more(count: int) -> None:
    if count > _SHOWN:
        print(f"  ... and {count - _SHOWN} more, in the table")


def _short(reason: str) -> str:
    return reason if len(reason) <= 120 else reason[:117] + "..."


def _cells(place: int, row: Row) -> tuple[str, ...]:
    return (
        str(place),
        row.name,
        f"{row.residual:.1e}",
        _number(row.steps),
        *(_time(value) for value in (row.setup, row.compile, row.first, row.later)),
        "-" if math.isnan(row.spread) else f"{row.spread / 2:.0%}",
        _number(row.memory),
        "",
        *(_time(v) for v in (row.gradient_compile, row.gradient_first, row.gradient_later)),
        "-" if math.isnan(row.adjoint_residual) else f"{row.adjoint_residual:.1e}",
        _number(row.gradient_memory),
    )


def _time(value: float) -> str:
    return "-" if math.isnan(value) else seconds(value)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [c.ljust(w) if k == 1 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return lines


# ---- files ---------------------------------------------------------------------------------------


def write_csv(path: str, rows: Sequence[Row], order: str) -> None:
    """Everything that is known of every contestant, the ranked ones first. Seconds and MiB."""
    names = [field.name for field in dataclasses.fields(Row)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in _in_order(rows, order):
            values = (getattr(row, name) for name in names)
            writer.writerow("" if value != value else value for value in values)  # NaN: empty


def write_markdown(path: str, rows: Sequence[Row], order: str, head: str) -> None:
    """The ranking as a table, then the others with their reasons."""
    ranked = ranking(rows, order)
    lines = [head.replace("\n", "  \n"), "", _markdown_row(_HEADER), "|" + "---|" * len(_HEADER)]
    lines += [_markdown_row(_cells(k, row)) for k, row in enumerate(ranked, 1)]
    lines += ["", "| not ranked | outcome | reason |", "|---|---|---|"]
    others = [row for row in rows if row.outcome != SOLVED]
    lines += [_markdown_row((row.name, row.outcome, row.reason)) for row in others]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _in_order(rows: Sequence[Row], order: str) -> list[Row]:
    return [*ranking(rows, order), *(row for row in rows if row.outcome != SOLVED)]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
