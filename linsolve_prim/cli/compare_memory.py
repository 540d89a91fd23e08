"""How far this process grew at its peak. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys


def start() -> float:
    """Give back what is free, forget earlier peaks where the system can, and say where we stand.

    Linux forgets a peak when asked through `/proc/self/clear_refs`. Elsewhere the peak is that of the
    whole life of the process, so that `grown` says too little, never too much.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory otherwise
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return _status("VmRSS")
    except OSError:
        return peak()


def grown(since: float) -> float:
    """MiB between what `start` returned and the peak since then."""
    return max(peak() - since, 0.0)


def peak() -> float:
    """The peak of the resident memory of this process in MiB; NaN where nobody tells."""
    try:
        return _status("VmHWM")
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _status(key: str) -> float:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    raise OSError(key)
