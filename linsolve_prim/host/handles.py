"""Handles: 128 bits that stand for the values of a matrix, as four uint32 (which need no x64)."""

from __future__ import annotations

import hashlib

import numpy as np

try:
    import xxhash
except ImportError:  # an extra
    _fast = False
else:
    _fast = True

#: Words of a handle.
WORDS = 4


def handle_of(values: np.ndarray) -> np.ndarray:
    """A hash of the bytes of `values`, `(4,)` uint32: equal bytes give equal handles.

    XXH3 where `xxhash` is installed (the extras of libraries bring it; 0.1 ms for 10⁶ numbers), else
    SHA-1, the fastest hash of the standard library on most machines (4 ms; a sparse factorization of
    that size takes 600 ms).
    """
    data = np.ascontiguousarray(values).view(np.uint8).data
    if _fast:
        digest = xxhash.xxh3_128_digest(data)
    else:
        digest = hashlib.sha1(data, usedforsecurity=False).digest()[: 4 * WORDS]
    return np.frombuffer(digest, np.uint32)
