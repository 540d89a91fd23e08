"""Tables of results: as Markdown, and as pictures."""

import dataclasses
import math
import pathlib
import re
from typing import Any

_INK, _GREY = "#222222", "#9a9a9a"
_COLOURS = ("#2f6fa8", "#c8442f", "#3f8f5a", "#8a5aa8", "#c28a1f", "#4aa5a5", "#7f7f7f", "#b05a7a")
_MARKS = "osD^vP*X<>"


@dataclasses.dataclass
class Table:
    """A title, column heads, and rows of cells that are text. `str(table)` is Markdown."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        lines = [f"### {self.title}", "", _line(self.header), "|" + "---|" * len(self.header)]
        return "\n".join([*lines, *map(_line, self.rows), ""])

    @property
    def slug(self) -> str:
        """The title as the name of a file."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def draw(self, folder: pathlib.Path) -> pathlib.Path | None:
        """Write the ratios (columns whose head ends in "×"), else the first column with a unit, as SVG.

        None if there is neither.
        """
        ratios = [k for k, head in enumerate(self.header) if head.endswith("×")]
        chosen = ratios or [k for k, head in enumerate(self.header) if _has_unit(head)]
        values = {k: [_number(row[k]) for row in self.rows] for k in chosen}
        values = {k: column for k, column in values.items() if any(v > 0 for v in column)}
        if not values:
            return None
        path = folder / f"{self.slug}.svg"
        self._figure(values, bool(ratios)).savefig(path)
        return path

    def _figure(self, values: dict[int, list[float]], are_ratios: bool) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 1.6 + 0.32 * len(self.rows)), layout="constrained")
        ax = figure.subplots()
        places = range(len(self.rows))
        for i, (k, column) in enumerate(values.items()):
            label = self.header[k].removesuffix("×").rstrip(", ")
            mark, colour = _MARKS[i % len(_MARKS)], _COLOURS[i % len(_COLOURS)]
            ax.scatter(column, places, s=34, marker=mark, color=colour, alpha=0.85, label=label)
        ax.set_yticks(list(places), [row[0] for row in self.rows])
        ax.invert_yaxis()
        ax.set_xscale("log")
        ax.grid(alpha=0.3)
        if are_ratios:
            ax.axvline(1.0, color=_INK, lw=0.8)
            unit = next((h for h in self.header[1:] if _has_unit(h)), self.header[1])
            ax.set_xlabel(f"relative to: {unit.rpartition(',')[0] or unit} (left is better)")
        ax.set_title(self.title, color=_INK, fontsize=11, loc="left")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
        return figure


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _has_unit(head: str) -> bool:
    return bool(re.search(r", (µs|ms|s|MiB)$", head))


def _number(cell: str) -> float:
    """The number at the beginning of a cell; NaN if there is none."""
    found = re.match(r"[+~]?(\d+(\.\d+)?([eE][+-]?\d+)?)", cell)
    return float(found.group(1)) if found else math.nan
