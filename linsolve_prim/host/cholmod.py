"""CHOLMOD's own functions, from the library behind the module `cvxopt.cholmod`, by `ctypes`.

So called they do not hold Python's lock, read the arrays of a pattern where they lie, and copy a symbolic
factor instead of making it again, none of which `cvxopt` itself allows. The structures below are those of
CHOLMOD 3.0 (Chen, Davis, Hager & Rajamanickam 2008, ACM TOMS 35(3)); `library` looks whether they fit.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_double, c_int, c_size_t, c_void_p
from typing import Any

import numpy as np

from .available import has_module, require
from .matrices import address_of

_GIVEN, _AMD = 1, 2  # orderings
_NOT_DEFINITE = 1  # a status; failures are negative
_TOO_LARGE = -3
_REAL, _COMPLEX = 1, 2
_UPPER = 1
_ROOM = 1 << 14  # bytes for `cholmod_common`, which is longer than what is named of it here


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


class _Common(ctypes.Structure):
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


class _Sparse(ctypes.Structure):
    _fields_ = [
        *_fields(c_size_t, "nrow ncol nzmax"),
        *_fields(c_void_p, "p i nz x z"),
        *_fields(c_int, "stype itype xtype dtype sorted packed"),
    ]


class _Dense(ctypes.Structure):
    _fields_ = [
        *_fields(c_size_t, "nrow ncol nzmax d"),
        *_fields(c_void_p, "x z"),
        *_fields(c_int, "xtype dtype"),
    ]


class _Factor(ctypes.Structure):
    _fields_ = [
        *_fields(c_size_t, "n minor"),
        *_fields(c_void_p, "Perm ColCount IPerm"),
        ("nzmax", c_size_t),
        *_fields(c_void_p, "p i x z nz next prev"),
        *_fields(c_size_t, "nsuper ssize xsize maxcsize maxesize"),
        *_fields(c_void_p, "super pi px s"),
        *_fields(c_int, "ordering is_ll is_super is_monotonic itype xtype dtype"),
    ]


_DenseHandle = POINTER(_Dense)
_FactorHandle = POINTER(_Factor)


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
            getattr(found, f"cholmod_{name}").restype = _FactorHandle
        found.cholmod_rcond.restype = c_double
        return found if _fits(found) else None
    except (AttributeError, ImportError, OSError):  # linked in another way, or not at all
        return None


def _fits(found: Any) -> bool:
    """Whether the documented defaults are found where they should be."""
    memory = ctypes.create_string_buffer(_ROOM)
    found.cholmod_start(memory)
    common = _Common.from_buffer(memory)
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


class _Work:
    """Settings and work space for one call at a time."""

    def __init__(self) -> None:
        self._library = library()
        self.memory = ctypes.create_string_buffer(_ROOM)
        self._library.cholmod_start(self.memory)
        self.common = common = _Common.from_buffer(self.memory)
        common.print, common.try_catch = 0, 1  # it says nothing, and the status tells
        common.final_ll = 1  # LLᵀ, which refuses what is not definite; LDLᵀ does not
        self.columns, self.rows = _DenseHandle(), _DenseHandle()
        self.by_columns, self.by_rows = byref(self.columns), byref(self.rows)

    def forget_columns(self) -> None:
        for handle in (self.by_columns, self.by_rows):
            self._library.cholmod_free_dense(handle, self.memory)

    def __del__(self) -> None:
        self.forget_columns()
        self._library.cholmod_finish(self.memory)


class NotDefiniteError(ArithmeticError):
    """A pivot is not positive."""


class TooLargeError(OverflowError):
    """Sizes do not fit 32 bits."""


class Symbolic:
    """The symbolic Cholesky factorization of a pattern: its ordering, and where its factors have entries.

    - `indptr`, `indices`: of A by rows, that is of Aᵀ by columns, int32, and kept. Of each row, what lies on
      the diagonal and to the left is read.
    - `order`: the unknown that comes at each place, or None for approximate minimum degree.
    - `flops`, `nnz`: what one factorization takes, and entries of the factor (without those that
      supernodes add).

    **Raises** `TooLargeError`. Threads may share it.
    """

    def __init__(
        self, indptr: np.ndarray, indices: np.ndarray, is_complex: bool, order: Any = None
    ):
        self._library, self._works = library(), [_Work()]
        self._spare: list[Any] = []  # the memory of a factor that ended
        self._indptr, self._indices = indptr, indices
        self._pointers = address_of(indptr), address_of(indices)
        self._sizes = len(indptr) - 1, len(indptr) - 1, len(indices)
        self.size, self.dtype = len(indptr) - 1, np.dtype(complex if is_complex else float)
        work = self._works[0]
        work.common.nmethods = 1
        work.common.method[0].ordering = _AMD if order is None else _GIVEN
        given = None if order is None else np.ascontiguousarray(order, np.int32)
        self._handle = self._library.cholmod_analyze_p(
            byref(self._matrix(None)),
            None if given is None else c_void_p(address_of(given)),
            None,
            c_size_t(0),
            work.memory,
        )
        if not self._handle:
            raise _error(work.common.status)
        self.flops, self.nnz = float(work.common.fl), float(work.common.lnz)
        factor = self._handle[0]
        entries = int(self.nnz) * (self.dtype.itemsize + 4)
        self.factor_nbytes = int(factor.xsize) * self.dtype.itemsize if factor.is_super else entries
        #: With one factor that is kept, and with work space.
        self.nbytes = self.factor_nbytes + 4 * int(factor.ssize) + 100 * self.size

    def _matrix(self, values: np.ndarray | None) -> _Sparse:
        xtype = 0 if values is None else _xtype(self.dtype)
        x = None if values is None else address_of(values)
        return _Sparse(*self._sizes, *self._pointers, None, x, None, _UPPER, 0, xtype, 0, 1, 1)

    def factorize(self, values: np.ndarray) -> Numeric:
        """Of the matrix with these values, `(nnz,)` in float64 or complex128.

        **Raises** `NotDefiniteError`, `TooLargeError`, `MemoryError`.
        """
        work = self.borrow()
        try:
            handle = self._spare.pop()
        except IndexError:
            handle = self._library.cholmod_copy_factor(self._handle, work.memory)
        status = work.common.status
        if handle:
            values = np.ascontiguousarray(values)
            self._library.cholmod_factorize(byref(self._matrix(values)), handle, work.memory)
            status = work.common.status
            if status == 0:
                self.give_back(work)
                return Numeric(self, handle)
            self._library.cholmod_free_factor(byref(handle), work.memory)
        self.give_back(work)
        raise _error(status)

    def borrow(self) -> _Work:
        try:
            return self._works.pop()
        except IndexError:
            return _Work()

    def give_back(self, work: _Work) -> None:
        self._works.append(work)

    def retire(self, handle: Any) -> None:
        """Take back the memory of a factor."""
        if not self._spare:
            self._spare.append(handle)
        else:
            self._free(handle)

    def _free(self, handle: Any) -> None:
        work = self.borrow()
        self._library.cholmod_free_factor(byref(handle), work.memory)
        self.give_back(work)

    def __del__(self) -> None:
        for handle in [*getattr(self, "_spare", ()), getattr(self, "_handle", None)]:
            if handle:
                self._free(handle)


class Numeric:
    """A Cholesky factor of Aᵀ, which is A if that is real."""

    def __init__(self, symbolic: Symbolic, handle: Any):
        self._symbolic, self._handle = symbolic, handle
        self._library = library()

    def solve(self, b: np.ndarray) -> np.ndarray:
        """x `(k, n)` with Aᵀx = b for right-hand sides `(k, n)`, in the factor's dtype."""
        symbolic = self._symbolic
        if np.iscomplexobj(b) and symbolic.dtype.kind != "c":
            raise TypeError(f"a real factor does not take a right-hand side of {b.dtype}")
        b = np.ascontiguousarray(b, symbolic.dtype)
        x = np.empty_like(b)
        out = ctypes.pointer(_dense(x))
        work = symbolic.borrow()
        done = self._library.cholmod_solve2(
            0,
            self._handle,
            byref(_dense(b)),
            None,
            byref(out),
            None,
            work.by_columns,
            work.by_rows,
            work.memory,
        )
        status = work.common.status
        if len(b) > 1:
            work.forget_columns()
        symbolic.give_back(work)
        if not done:
            raise _error(status)
        return x

    def least_pivot(self) -> float:
        """The least pivot, over the largest."""
        work = self._symbolic.borrow()
        found = self._library.cholmod_rcond(self._handle, work.memory)
        self._symbolic.give_back(work)
        return float(found)

    def diagonal(self) -> np.ndarray:
        """The diagonal of L, `(n,)`, real."""
        factor, dtype = self._handle[0], self._symbolic.dtype
        if not factor.is_super:
            starts = _view(factor.p, factor.n, np.int32)
            return _view(factor.x, factor.nzmax, dtype)[starts].real
        first = _view(factor.super, factor.nsuper + 1, np.int32)
        rows = np.diff(_view(factor.pi, factor.nsuper + 1, np.int32))
        begins = _view(factor.px, factor.nsuper + 1, np.int32)[:-1]
        widths = np.diff(first)
        inside = np.arange(factor.n) - np.repeat(first[:-1], widths)
        places = np.repeat(begins, widths) + inside * (np.repeat(rows, widths).astype(np.int64) + 1)
        return _view(factor.x, factor.xsize, dtype)[places].real

    @property
    def nbytes(self) -> int:
        return self._symbolic.factor_nbytes

    def __del__(self) -> None:
        self._symbolic.retire(self._handle)


def _xtype(dtype: np.dtype[Any]) -> int:
    return _COMPLEX if dtype.kind == "c" else _REAL


def _dense(x: np.ndarray) -> _Dense:
    """Rows of an array as the columns of a matrix."""
    k, n = x.shape
    return _Dense(n, k, n * k, n, address_of(x), None, _xtype(x.dtype), 0)


def _view(address: int, count: int, dtype: Any) -> np.ndarray:
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)


def _error(status: int) -> Exception:
    if status == _NOT_DEFINITE:
        return NotDefiniteError("a pivot is not positive: the matrix is not definite")
    if status == _TOO_LARGE:
        return TooLargeError("CHOLMOD counts with 32 bits here, and the factor is larger")
    return MemoryError(f"CHOLMOD ended with status {status}")
