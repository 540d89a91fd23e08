"""The structures of CHOLMOD 3.0 (Chen, Davis, Hager & Rajamanickam 2008, ACM TOMS 35(3)) for `ctypes`, and the
library behind the module `cvxopt.cholmod`, if they are those that it has.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_double, c_int, c_size_t, c_void_p
from typing import Any

import numpy as np

from .available import has_module, require
from .matrices import address_of

NATURAL, GIVEN, AMD = 0, 1, 2  # orderings
LOWER, UPPER = -1, 1
_REAL, _COMPLEX = 1, 2
ROOM = 1 << 14  # bytes for `cholmod_common`, which is longer than what is named of it here


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Method(ctypes.Structure):
    _fields_ = [
        *_fields(c_double, "lnz fl prune_dense prune_dense2 nd_oksep"),
        ("other_1", c_double * 4),
        ("nd_small", c_size_t),
        ("other_2", c_size_t * 4),
        *_fields(c_int, "aggressive order_for_lu nd_compress nd_camd nd_components ordering"),
        ("other_3", c_size_t * 4),
    ]


class Common(ctypes.Structure):
    """The beginning of `cholmod_common`: settings, work space, and how the last call went."""

    _fields_ = [
        *_fields(c_double, "dbound grow0 grow1"),
        *_fields(c_size_t, "grow2 maxrank"),
        ("supernodal_switch", c_double),
        *_fields(c_int, "supernodal final_asis final_super final_ll final_pack final_monotonic"),
        ("final_resymbol", c_int),
        ("zrelax", c_double * 3),
        ("nrelax", c_size_t * 3),
        *_fields(c_int, "prefer_zomplex prefer_upper quick_return_if_not_posdef prefer_binary"),
        *_fields(c_int, "print precise try_catch"),
        ("error_handler", c_void_p),
        *_fields(c_int, "nmethods current selected"),
        ("method", _Method * 10),
        *_fields(c_int, "postorder default_nesdis"),
        *_fields(c_double, "metis_memory metis_dswitch"),
        *_fields(c_size_t, "metis_nswitch nrow"),
        ("mark", ctypes.c_ssize_t),
        *_fields(c_size_t, "iworksize xworksize"),
        *_fields(c_void_p, "Flag Head Xwork Iwork"),
        *_fields(c_int, "itype dtype no_workspace_reallocate status"),
        *_fields(c_double, "fl lnz"),
    ]


class Sparse(ctypes.Structure):
    _fields_ = [
        *_fields(c_size_t, "nrow ncol nzmax"),
        *_fields(c_void_p, "p i nz x z"),
        *_fields(c_int, "stype itype xtype dtype sorted packed"),
    ]


class Dense(ctypes.Structure):
    _fields_ = [
        *_fields(c_size_t, "nrow ncol nzmax d"),
        *_fields(c_void_p, "x z"),
        *_fields(c_int, "xtype dtype"),
    ]


class Factor(ctypes.Structure):
    _fields_ = [
        *_fields(c_size_t, "n minor"),
        *_fields(c_void_p, "Perm ColCount IPerm"),
        ("nzmax", c_size_t),
        *_fields(c_void_p, "p i x z nz next prev"),
        *_fields(c_size_t, "nsuper ssize xsize maxcsize maxesize"),
        *_fields(c_void_p, "super pi px s"),
        *_fields(c_int, "ordering is_ll is_super is_monotonic itype xtype dtype"),
    ]


DenseHandle = POINTER(Dense)
FactorHandle = POINTER(Factor)


@functools.cache
def library() -> Any:
    """The library, or None where there is none whose structures are those above."""
    if not has_module("cvxopt"):
        return None
    try:
        found = ctypes.CDLL(require("CHOLMOD", "cvxopt.cholmod").__file__)
        version = (c_int * 3)()
        found.cholmod_version(version)
        if tuple(version)[:2] != (3, 0):
            return None
        for name in ("analyze_p", "copy_factor"):
            getattr(found, f"cholmod_{name}").restype = FactorHandle
        found.cholmod_rcond.restype = c_double
        return found if _fits(found) else None
    except (AttributeError, ImportError, OSError):  # linked in another way, or not at all
        return None


def _fits(found: Any) -> bool:
    """Whether the documented defaults are found where they should be."""
    memory = ctypes.create_string_buffer(ROOM)
    found.cholmod_start(memory)
    common = Common.from_buffer(memory)
    got = (
        common.maxrank,
        common.supernodal_switch,
        list(common.zrelax),
        list(common.nrelax),
        common.print,
        common.nmethods,
        common.postorder,
        common.itype + common.dtype + common.status,
    )
    found.cholmod_finish(memory)
    return got == (8, 40.0, [0.8, 0.1, 0.05], [4, 16, 48], 3, 0, 1, 0)


def xtype_of(dtype: np.dtype[Any]) -> int:
    return _COMPLEX if dtype.kind == "c" else _REAL


def sparse(indptr: np.ndarray, indices: np.ndarray, side: int, xtype: int = 0) -> Sparse:
    """One triangle of a symmetric matrix, by columns, without its values."""
    n, count = len(indptr) - 1, len(indices)
    pointers = address_of(indptr), address_of(indices)
    return Sparse(n, n, count, *pointers, None, None, None, side, 0, xtype, 0, 1, 1)


def view(address: int, count: int, dtype: Any) -> np.ndarray:
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)
