"""The registry of factorizations: a cache with a byte budget, and never the truth.

A factorization of a host library is an opaque object. What travels through JAX instead is a handle,
a hash of the matrix's values (`handles.py`); the values travel beside it. So a factor that was
evicted is made again, XLA may repeat, drop or reorder callbacks as it likes, nothing has to be
freed, and there are no stale handles.
"""

from __future__ import annotations

import atexit
import collections
import concurrent.futures
import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple


class Failed(NamedTuple):
    """Stands in the registry for a factorization that failed: the result's name, and why."""

    result: str
    message: str


class _Entry(NamedTuple):
    value: Any
    size: int


def _memory_limit() -> int:
    """Bytes of memory that this process may use, as far as it can be found out."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = 8 << 30
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


_COUNTERS = ("factorizations", "analyses", "hits", "joined", "callbacks", "evicted", "fallbacks")


_FIRST_ROOM = 64 << 20
_REMEMBERED = 4096  # evicted keys


class Registry:
    """A thread-safe cache of factorizations and symbolic analyses, least recently used first out.

    Whoever asks for a factor that another thread is making waits for that one.

    - `stats()`: `factorizations`, `analyses`, `hits`, `joined` (waited for another thread),
      `callbacks`, `evicted`, `fallbacks` (to SuperLU) since the last `reset_stats()`; `bytes` and
      `live` (number of entries) now.
    - `budget`: bytes; by default a quarter of the machine's memory. The newest entry is kept even if
      it alone is larger. Unless you set a budget, not all of it is used at once: see `_room`.
    - `clear()` forgets everything; `with override(budget=...)` sets a budget for a while.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.host.registry.clear(); lp.host.registry.reset_stats()
        >>> A = jnp.array([[2.0, 0.0], [0.0, 4.0]])
        >>> xs = [lp.solve(A, b, lp.SuperLU()).tolist() for b in (jnp.ones(2), 2 * jnp.ones(2))]
        >>> lp.host.registry.stats()["factorizations"], xs
        (1, [[0.5, 0.25], [1.0, 0.5]])
    """

    def __init__(self, budget: int | None = None):
        self._budget = _memory_limit() // 4 if budget is None else _checked(budget)
        # Memory that was never used before is slow (a page fault for every 4 KiB), and most factors
        # are not asked for again. So the registry begins with a part of its budget, and takes twice
        # as much whenever it is asked for something that it has evicted.
        self._room = max(_FIRST_ROOM, self._budget // 64) if budget is None else self._budget
        self._adapts = budget is None
        self._evicted: collections.OrderedDict[Hashable, None] = collections.OrderedDict()
        self._entries: collections.OrderedDict[Hashable, _Entry] = collections.OrderedDict()
        self._making: dict[Hashable, concurrent.futures.Future[Any] | None] = {}
        self._bytes = 0
        self._counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._last_error = ""

    # ---- What users see --------------------------------------------------------------------------

    def stats(self) -> dict[str, int]:
        with self._lock:
            counts = {name: self._counts[name] for name in _COUNTERS}
            return {**counts, "bytes": self._bytes, "live": len(self._entries)}

    def reset_stats(self) -> None:
        with self._lock:
            self._counts.clear()

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._evicted.clear()
            self._bytes = 0

    def clear_factors(self) -> None:
        """Forget all factorizations, and keep the symbolic analyses and patterns."""
        with self._lock:
            kept = ("analysis", "pattern")
            others = [k for k in self._entries if not (isinstance(k, tuple) and k[0] in kept)]
            for key in others:
                self._bytes -= self._entries.pop(key).size

    @property
    def budget(self) -> int:
        return self._budget

    @budget.setter
    def budget(self, budget: int) -> None:
        with self._lock:
            self._budget = self._room = _checked(budget)
            self._adapts = False
            self._evict()

    @contextlib.contextmanager
    def override(self, *, budget: int) -> Iterator[Registry]:
        """Another budget inside of a `with` block."""
        before = self._budget, self._room, self._adapts
        self.budget = budget
        try:
            yield self
        finally:
            with self._lock:
                self._budget, self._room, self._adapts = before
                self._evict()

    @property
    def last_error(self) -> str:
        """What the last host library that failed said (libraries never raise through JAX)."""
        return self._last_error

    def __repr__(self) -> str:
        stats = self.stats()
        return f"Registry(live={stats['live']}, bytes={stats['bytes']}, budget={self.budget})"

    # ---- What callbacks use ----------------------------------------------------------------------

    def count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self._counts[name] += by

    def failed(self, error: Failed) -> Failed:
        self._last_error = error.message
        return error

    def peek(self, key: Hashable) -> Any:
        """What is stored, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            self._counts["hits"] += 1
            return entry.value

    def get(
        self,
        key: Hashable,
        make: Callable[[], Any],
        nbytes: Callable[[Any], int],
        counter: str = "factorizations",
    ) -> Any:
        """What is stored, or else `make()`, which must not raise. One thread makes, others wait."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                self._counts["hits"] += 1
                return entry.value
            if key in self._evicted and self._adapts:
                self._room = min(self._budget, 2 * self._room)
                del self._evicted[key]
            if key in self._making:
                self._counts["joined"] += 1
                future = self._making[key]
                if future is None:  # nobody else waits yet
                    future = self._making[key] = concurrent.futures.Future()
            else:
                self._making[key] = future = None
        if future is not None:
            return future.result()
        try:
            value = make()
            size = 64 if isinstance(value, Failed) else int(nbytes(value))
        except BaseException as error:  # those who wait must be woken
            with self._lock:
                future = self._making.pop(key)
            if future is not None:
                future.set_exception(error)
            raise
        with self._lock:
            self._counts[counter] += 1
            future = self._making.pop(key)
            old = self._entries.pop(key, None)
            self._bytes += size - (0 if old is None else old.size)
            self._entries[key] = _Entry(value, size)
            self._evict()
        if future is not None:
            future.set_result(value)
        return value

    def _evict(self) -> None:
        while self._bytes > min(self._room, self._budget) and len(self._entries) > 1:
            key, entry = self._entries.popitem(last=False)
            self._bytes -= entry.size
            self._counts["evicted"] += 1
            self._evicted[key] = None
            if len(self._evicted) > _REMEMBERED:
                self._evicted.popitem(last=False)


def _checked(budget: int) -> int:
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"budget: must be a number of bytes, an int ≥ 0; got {budget!r}.")
    return budget


registry = Registry()
"""The `Registry` that all host solvers share."""

atexit.register(registry.clear)  # some libraries complain of objects that outlive them
