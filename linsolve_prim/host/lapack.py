"""LAPACK's functions for bands, from SciPy, called without Python's lock: several threads work at once.

`scipy.linalg.cython_lapack` publishes pointers to them with their signatures. (The functions of
`scipy.linalg.lapack` would do the same, one thread at a time.)
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack

_PREFIX = {"f": "s", "d": "d", "F": "c", "D": "z"}


@functools.cache
def _function(name: str) -> Any:
    """The function with this name in LAPACK; it takes pointers only."""
    capsule = cython_lapack.__pyx_capi__[name]
    get_name, get = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = get_name(capsule)
    arguments = [ctypes.c_void_p] * (signature.count(b",") + 1)
    return ctypes.CFUNCTYPE(None, *arguments)(get(capsule, signature))


def _call(name: str, dtype: np.dtype[Any], *args: Any) -> int:
    """LAPACK's `info`, its last argument. It gets pointers to numbers and to the data of arrays."""
    info = ctypes.c_int(0)
    pointers = [
        arg.ctypes.data
        if isinstance(arg, np.ndarray)
        else ctypes.byref(ctypes.c_int(arg))
        if isinstance(arg, int)
        else arg
        for arg in args
    ]
    _function(_PREFIX[dtype.char] + name)(*pointers, ctypes.byref(info))
    return info.value


# Matrices in bands are arrays `(n, height)`: LAPACK stores a band by columns, and NumPy by rows.


def pbtrf(band: np.ndarray) -> int:
    """Cholesky of a lower band `(n, 1 + below)`, in place. If not 0: the pivot that is not positive."""
    n, height = band.shape
    return _call("pbtrf", band.dtype, b"L", n, height - 1, band, height)


def pbtrs(band: np.ndarray, b: np.ndarray) -> None:
    """Solve with what `pbtrf` left, for right-hand sides `(k, n)`, in place."""
    n, height = band.shape
    _call("pbtrs", band.dtype, b"L", n, height - 1, len(b), band, height, b, n)


def gbtrf(band: np.ndarray, below: int, above: int, pivots: np.ndarray) -> int:
    """LU of a band `(n, 2·below + above + 1)`, whose first `below` columns are room for fill, in place.

    `pivots` `(n,)`, int32, are counted from 1. If not 0: the pivot that is zero.
    """
    n, height = band.shape
    return _call("gbtrf", band.dtype, n, n, below, above, band, height, pivots)


def gbtrs(
    band: np.ndarray, below: int, above: int, pivots: np.ndarray, b: np.ndarray, transpose: bool
) -> None:
    """Solve with what `gbtrf` left (A or Aᵀ), for right-hand sides `(k, n)`, in place."""
    n, height = band.shape
    turn = b"T" if transpose else b"N"
    _call("gbtrs", band.dtype, turn, n, below, above, len(b), band, height, pivots, b, n)
