"""Objects of libraries that are used again: a factorization is made in the memory of one that ended."""

from __future__ import annotations

from typing import Any


class Spare:
    """Keeps one object that was lent, after the last who used it is gone. Threads may share it.

    Where a library keeps its symbolic work in the same object as the numbers, it is done once for a
    sequence of matrices, and memory is warm. Count its bytes with the analysis that owns this.
    """

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def take(self) -> Any:
        """The object that is kept, or None."""
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def lend(self, item: Any) -> Lent:
        return Lent(item, self._kept)


class Lent:
    """An `item` that goes back to where it came from when this object dies."""

    __slots__ = ("_home", "item")

    def __init__(self, item: Any, home: list[Any]):
        self.item, self._home = item, home

    def __del__(self) -> None:
        if not self._home:
            self._home.append(self.item)
