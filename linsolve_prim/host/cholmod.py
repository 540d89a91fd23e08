"""CHOLMOD's own functions, from the library behind the module `cvxopt.cholmod`, by `ctypes`.

So called they do not hold Python's lock, and copy a symbolic factor instead of making it again, none of which
`cvxopt` itself allows. Addresses and structures are made once where they can be: of a system of ten unknowns
they would take longer than CHOLMOD does.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_size_t, c_void_p, pointer
from typing import Any, NamedTuple

import numpy as np

from .cholmod_structures import (
    AMD,
    GIVEN,
    LOWER,
    NATURAL,
    ROOM,
    UPPER,
    Common,
    Dense,
    DenseHandle,
    library,
    sparse,
    view,
    xtype_of,
)
from .matrices import address_of

_NOT_DEFINITE = 1  # a status; failures are negative
_TOO_LARGE = -3


class _Work:
    """Settings, work space and arguments for one call at a time."""

    def __init__(self, entries: _Entries | None, size: int, dtype: np.dtype[Any]):
        self._library = library()
        self.memory = ctypes.create_string_buffer(ROOM)
        self._library.cholmod_start(self.memory)
        self.common = common = Common.from_buffer(self.memory)
        common.print, common.try_catch = 0, 1  # it says nothing, and the status tells
        common.final_ll = 1  # LLᵀ, which refuses what is not definite; LDLᵀ does not
        xtype = xtype_of(dtype)
        self._b, self._x = (Dense(size, 1, size, size, 0, None, xtype, 0) for _ in range(2))
        self._columns, self._rows, self._out = DenseHandle(), DenseHandle(), pointer(self._x)
        self._dense = byref(self._b), byref(self._out), byref(self._columns), byref(self._rows)
        if entries is not None:
            self.take(entries, dtype)

    def take(self, entries: _Entries, dtype: np.dtype[Any]) -> None:
        """Make room for a matrix with these entries."""
        self.entries, self._values = entries, np.empty(len(entries.slots), dtype)
        self._matrix = sparse(entries.indptr, entries.indices, entries.side, xtype_of(dtype))
        self._matrix.x = address_of(self._values)
        self._by_matrix = byref(self._matrix)

    def factorize(self, values: np.ndarray, handle: Any) -> None:
        self.entries.ordered(values, self._values)
        factor = handle[0]
        factor.ordering, own = NATURAL, factor.ordering  # of these entries, and of right-hand sides
        self._library.cholmod_factorize(self._by_matrix, handle, self.memory)
        factor.ordering = own

    def solve(self, handle: Any, b: np.ndarray, x: np.ndarray) -> bool:
        """Rows of these arrays `(k, n)` are the columns of matrices."""
        for dense, array in ((self._b, b), (self._x, x)):
            dense.ncol, dense.nzmax, dense.x = len(b), b.size, address_of(array)
        by_b, by_out, *spaces = self._dense
        found = self._library.cholmod_solve2(
            0, handle, by_b, None, by_out, None, *spaces, self.memory
        )
        if len(b) > 1:
            self._forget_columns()
        return bool(found)

    def _forget_columns(self) -> None:
        for handle in self._dense[2:]:
            self._library.cholmod_free_dense(handle, self.memory)

    def __del__(self) -> None:
        self._forget_columns()
        self._library.cholmod_finish(self.memory)


class NotDefiniteError(ArithmeticError):
    """A pivot is not positive."""


class TooLargeError(OverflowError):
    """Sizes do not fit 32 bits."""


class _Entries(NamedTuple):
    """The triangle of PAᵀPᵀ that a factorization reads, by columns: CHOLMOD would transpose twice to make it
    [measured, 50²: a tenth of the factorization; 200²: a twentieth]."""

    indptr: np.ndarray
    indices: np.ndarray
    side: int
    slots: np.ndarray  # of the values of A by rows
    mirrored: np.ndarray | None  # which are conjugated; None: nothing is complex

    @classmethod
    def of(
        cls,
        indptr: np.ndarray,
        indices: np.ndarray,
        order: np.ndarray,
        lower: bool,
        is_complex: bool,
    ) -> _Entries:
        n = len(indptr) - 1
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        columns = np.repeat(np.arange(n), np.diff(indptr))  # of Aᵀ
        slots = np.flatnonzero(indices <= columns)
        i, j = place[indices[slots]], place[columns[slots]]
        inside, outside = (np.maximum, np.minimum) if lower else (np.minimum, np.maximum)
        keys = outside(i, j) * n + inside(i, j)
        by_columns = np.argsort(keys, kind="stable")
        columns, rows = np.divmod(keys[by_columns], n)
        starts = np.searchsorted(columns, np.arange(n + 1)).astype(np.int32)
        mirrored = ((i < j) if lower else (i > j))[by_columns] if is_complex else None
        side = LOWER if lower else UPPER
        return cls(starts, rows.astype(np.int32), side, slots[by_columns], mirrored)

    def ordered(self, values: np.ndarray, out: np.ndarray) -> None:
        np.take(values, self.slots, out=out, mode="clip")  # else `out` is copied in between
        if self.mirrored is not None:
            np.conj(out, out=out, where=self.mirrored)


class Symbolic:
    """The symbolic Cholesky factorization of a pattern: its ordering, and where its factors have entries.

    - `indptr`, `indices`: of A by rows, that is of Aᵀ by columns, int32. Of each row, what lies on the
      diagonal and to the left is read.
    - `order`: the unknown that comes at each place, or None for approximate minimum degree.
    - `flops`, `nnz`: what one factorization takes, and entries of the factor (without those that
      supernodes add).

    **Raises** `TooLargeError`. Threads may share it.
    """

    def __init__(
        self, indptr: np.ndarray, indices: np.ndarray, is_complex: bool, order: Any = None
    ):
        self._library = library()
        self._spare: list[Any] = []  # the memory of a factor that ended
        self.size, self.dtype = len(indptr) - 1, np.dtype(complex if is_complex else float)
        work = _Work(None, self.size, self.dtype)
        self._works = [work]
        work.common.nmethods = 1
        work.common.method[0].ordering = AMD if order is None else GIVEN
        given = None if order is None else np.ascontiguousarray(order, np.int32)
        self._handle = self._library.cholmod_analyze_p(
            byref(sparse(indptr, indices, UPPER)),
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
        place = view(factor.Perm, self.size, np.int32)
        self._entries = _Entries.of(indptr, indices, place, bool(factor.is_super), is_complex)
        work.take(self._entries, self.dtype)
        own = len(self._entries.slots) * (12 + self.dtype.itemsize)
        #: With one factor that is kept, and with work space.
        self.nbytes = own + self.factor_nbytes + 4 * int(factor.ssize) + 100 * self.size

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
            work.factorize(values, handle)
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
            return _Work(self._entries, self.size, self.dtype)

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
        work = symbolic.borrow()
        done, status = work.solve(self._handle, b, x), work.common.status
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
            starts = view(factor.p, factor.n, np.int32)
            return view(factor.x, factor.nzmax, dtype)[starts].real
        first = view(factor.super, factor.nsuper + 1, np.int32)
        rows = np.diff(view(factor.pi, factor.nsuper + 1, np.int32))
        begins = view(factor.px, factor.nsuper + 1, np.int32)[:-1]
        widths = np.diff(first)
        inside = np.arange(factor.n) - np.repeat(first[:-1], widths)
        places = np.repeat(begins, widths) + inside * (np.repeat(rows, widths).astype(np.int64) + 1)
        return view(factor.x, factor.xsize, dtype)[places].real

    @property
    def nbytes(self) -> int:
        return self._symbolic.factor_nbytes

    def __del__(self) -> None:
        self._symbolic.retire(self._handle)


def _error(status: int) -> Exception:
    if status == _NOT_DEFINITE:
        return NotDefiniteError("a pivot is not positive: the matrix is not definite")
    if status == _TOO_LARGE:
        return TooLargeError("CHOLMOD counts with 32 bits here, and the factor is larger")
    return MemoryError(f"CHOLMOD ended with status {status}")
