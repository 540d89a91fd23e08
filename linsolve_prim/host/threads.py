"""Several matrices at once, each by one thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any


@functools.cache  # asking the system costs as much as a tenth of a small solve's overhead
def cores() -> int:
    return os.cpu_count() or 1


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(cores(), "linsolve_prim")


@functools.cache
def _blas() -> Any:
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController()


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """BLAS kept to one thread while several matrices are worked on at once (with `threadpoolctl`)."""
    controller = _blas()
    with contextlib.nullcontext() if controller is None else controller.limit(limits=1):
        yield


def for_each(fn: Callable[[int], None], count: int, parallel: bool) -> None:
    """`fn(i)` for each i below `count`; if `parallel`, by as many threads as there are cores."""
    workers = min(count, cores()) if parallel else 1
    if workers == 1:
        return _run(fn, range(count))
    with _one_blas_thread():  # this thread works, too
        parts = [_pool().submit(_run, fn, range(k, count, workers)) for k in range(1, workers)]
        _run(fn, range(0, count, workers))
        for part in parts:
            part.result()
    return None


def _run(fn: Callable[[int], None], which: range) -> None:
    for i in which:
        fn(i)
