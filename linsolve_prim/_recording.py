"""Whether solves are recorded, and by whom: what stands behind `SolveTape`.

Which programs record is a part of `jax.jit`'s cache key (`jax.make_user_context`): entering a tape
compiles a second version that calls back, and leaving it returns to the first, which does not.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import get_opaque_trace_state, set_current_trace


class Recording(NamedTuple):
    """What programs that are traced now record. Hashable: it is a part of the cache's key."""

    on: bool = False
    values: bool = False  # solutions
    path: int = 0  # how many iterates of Krylov methods, at most


_recording: Any = jax.make_user_context(Recording())


def recording() -> Recording:
    """What is recorded where this is called."""
    return _recording.value


@contextlib.contextmanager
def record(what: Recording) -> Iterator[None]:
    with _recording(what):
        yield


class _Open(NamedTuple):
    """A tape that is open: what takes its entries, and the trace in which it was opened."""

    add: Callable[[Any], None]
    trace: Any


_lock = threading.Lock()
_everywhere: list[_Open] = []


class _Here(threading.local):
    def __init__(self) -> None:
        self.open: list[_Open] = []


_here = _Here()


def _trace() -> Any:
    return get_opaque_trace_state(convention="flax")


@contextlib.contextmanager
def opened(add: Callable[[Any], None], what: Recording) -> Iterator[None]:
    """Hand every solve in this block to `add`."""
    tape = _Open(add, _trace())
    outer = recording()
    both = Recording(True, outer.values or what.values, max(outer.path, what.path))
    with _lock:
        _everywhere.append(tape)
    _here.open.append(tape)
    try:
        with record(both):
            yield
    finally:
        _here.open.remove(tape)
        with _lock:
            _everywhere.remove(tape)


def tapes_of(trace: Any) -> list[_Open]:
    """The tapes that were opened in the given trace, and so take what is computed there at once."""
    if not recording().on or not _here.open:
        return []
    with set_current_trace(trace):
        state = _trace()
    return [tape for tape in _here.open if tape.trace == state]


def told_when_run() -> bool:
    """Whether a program that is traced here shall call back: a tape is open around it."""
    if not recording().on or _trace() == _EVALUATING:
        return False
    return any(tape.trace == _EVALUATING for tape in _here.open)


def tell(entry: Any) -> None:
    """Hand on what a running program says: to this thread's tapes, or if it has none, to all."""
    # A tape that was opened while something was traced cannot tell one run of that from another.
    outside = [tape for tape in _here.open if tape.trace == _EVALUATING]
    if not outside:
        with _lock:
            outside = [tape for tape in _everywhere if tape.trace == _EVALUATING]
    for tape in outside:
        tape.add(entry)


_EVALUATING = _trace()
