"""PARDISO's own function, from the Math Kernel Library inside of the module `pymklpardiso`, by `ctypes`.

So called it solves with A and with Aᵀ from one factor, and keeps many factors of one analysis, neither of which
that module allows. Arguments and settings are those that Intel documents for `pardiso_64` and its `iparm`.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import threading
from collections.abc import Callable
from ctypes import byref, c_int64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from .available import has_module, require
from .matrices import address_of
from .registry import registry

_ANALYZE, _FACTORIZE, _BOTH, _SOLVE, _RELEASE_ONE, _RELEASE = 11, 22, 12, 33, 0, -1

# Places in `iparm`, and what stands there
_GIVEN, _ORDERING, _REFINEMENTS, _PERTURBATION, _SCALING = 0, 1, 7, 9, 10
_WHICH, _MATCHING, _PERTURBED, _KEPT, _ENTRIES = 11, 12, 13, 15, 17
_PIVOTS_OF_TWO, _TWO_LEVELS, _SINGLE, _FROM_ZERO = 20, 23, 27, 34
_DISSECTION, _TRANSPOSED, _REPORT = 2, 2, -1

#: Kinds of matrices, real and complex.
_TYPES = {"definite": (2, 4), "hermitian": (-2, -4), "symmetric": (-2, 6), "general": (11, 13)}
STRUCTURES = tuple(_TYPES)

#: Factors that one analysis has places for. A place that was never used costs nothing. [measured: 40 000
#: unknowns, resident memory after the analysis for 1, 64 and 1024 places]
_PLACES = 256

#: Pivots below this power of ten, relative to ‖A‖, are replaced: Intel's defaults (of LU, of LDLᵀ) in double
#: precision, and as far above the rounding in single.
_SMALL = {("d", False): 13, ("d", True): 8, ("f", False): 5, ("f", True): 4}


@functools.cache
def library() -> Any:
    """The function, or None where the module does not show it, or where it counts in another way."""
    if not has_module("pymklpardiso"):
        return None
    try:
        module = require("PARDISO", "pymklpardiso._mkl_pardiso")
        function = ctypes.CDLL(module.__file__).pardiso_64
    except (AttributeError, ImportError, OSError):  # linked in another way, or not at all
        return None
    function.restype = None
    return function if _fits(function) else None


def _fits(function: Any) -> bool:
    """Whether it solves as documented."""
    entries = Entries.of(np.array([0, 2, 3]), np.array([0, 1, 1]), upper=False)
    handle = _Handle(function, entries, "general", np.dtype(float), matched=False)
    numeric, b = Numeric(handle, handle.take()), np.array([[4.0, 8.0]])
    try:
        numeric.fill(np.array([2.0, 1.0, 4.0]))
        got = np.array([numeric.solve(b, transpose=flag)[0] for flag in (False, True)])
    except (ArithmeticError, MemoryError, RuntimeError):
        return False
    return np.allclose(got, [[1.0, 2.0], [2.0, 1.5]], rtol=1e-12)


class NotFactorizableError(ArithmeticError):
    """A pivot is zero, or not positive where it should be."""


class Entries(NamedTuple):
    """What PARDISO is told of a pattern: all rows, or their upper triangles, with all of the diagonal.

    Entry k of these is value `slots[k]` of the pattern, or zero if `slots[k]` is -1.
    """

    indptr: np.ndarray
    indices: np.ndarray
    slots: np.ndarray | None  # None: as they are

    @classmethod
    def of(cls, indptr: np.ndarray, indices: np.ndarray, upper: bool) -> Entries:
        """**Raises** `ValueError` if that is no pattern of a square matrix by sorted rows: PARDISO would
        read and write anywhere."""
        n = len(indptr) - 1
        indptr, indices = np.asarray(indptr, np.int64), np.asarray(indices, np.int64)
        counts = np.diff(indptr)
        if indptr[0] != 0 or indptr[-1] != len(indices) or np.any(counts < 0):
            raise ValueError("indptr: must rise from 0 to the number of entries.")
        rows = np.repeat(np.arange(n), counts)
        if len(indices) and (indices.min() < 0 or indices.max() >= n):
            raise ValueError(f"indices: must lie in 0, …, {n - 1}.")
        keys = rows * n + indices
        if np.any(np.diff(keys) <= 0):
            raise ValueError("indices: must rise in each row.")
        keep = np.flatnonzero(indices >= rows) if upper else np.arange(len(indices))
        diagonal = np.arange(n) * (n + 1)
        missing = np.setdiff1d(diagonal, keys[keep], assume_unique=True)
        if not len(missing) and len(keep) == len(indices):
            return cls(indptr, indices, None)
        keys = np.concatenate([keys[keep], missing])
        slots = np.concatenate([keep, np.full(len(missing), -1)])
        order = np.argsort(keys, kind="stable")
        rows, indices = np.divmod(keys[order], n)
        return cls(np.searchsorted(rows, np.arange(n + 1)), indices, slots[order])


class _Handle:
    """A handle of PARDISO: one analysis, and places for factors of matrices with its pattern.

    Calls take turns: PARDISO gives wrong results if two threads use a handle at once, whatever they do
    with it [measured, MKL in py-mkl-pardiso 0.0.6: up to half of 600 solves].
    """

    def __init__(self, function: Any, entries: Entries, structure: str, dtype: Any, matched: bool):
        self._function, self._entries = function, entries
        self.dtype, self.matched = np.dtype(dtype), matched
        self.size = n = len(entries.indptr) - 1
        is_complex = self.dtype.kind == "c"
        mtype = _TYPES[structure][is_complex]
        self.transposes_by_conjugation = mtype in (4, -4)
        self.is_symmetric = structure != "general"
        iparm = self._iparm = np.zeros(64, np.int64)
        single = self.dtype.char in "fF"
        iparm[_GIVEN], iparm[_ORDERING], iparm[_FROM_ZERO] = 1, _DISSECTION, 1
        iparm[_SINGLE], iparm[_ENTRIES], iparm[_PIVOTS_OF_TWO] = single, _REPORT, 1
        iparm[_PERTURBATION] = _SMALL["f" if single else "d", self.is_symmetric]
        if matched:
            iparm[_SCALING], iparm[_MATCHING], iparm[_REFINEMENTS] = 1, 1, 2
        else:
            iparm[_TWO_LEVELS] = 1
        # In two levels PARDISO reads the values where they lay when it analysed, whatever it is given
        # later: so they always lie here.
        self._values = np.zeros(max(1, len(entries.indices)), self.dtype)
        self._internal, self._order = np.zeros(64, np.int64), np.zeros(max(1, n), np.int64)
        places = 1 if matched else _PLACES
        self._phase, self._place, self._columns = c_int64(), c_int64(1), c_int64(1)
        self._error, self._b, self._x = c_int64(), c_void_p(), c_void_p()
        self._arguments = (
            c_void_p(address_of(self._internal)),
            byref(c_int64(places)),
            byref(self._place),
            byref(c_int64(mtype)),
            byref(self._phase),
            byref(c_int64(n)),
            *(c_void_p(address_of(x)) for x in (self._values, entries.indptr, entries.indices)),
            c_void_p(address_of(self._order)),
            byref(self._columns),
            c_void_p(address_of(iparm)),
            byref(c_int64(0)),  # no messages
            self._b,
            self._x,
            byref(self._error),
        )
        self._lock = threading.Lock()
        self._analysed, self._is_open = False, True
        self._free, self._ended = list(range(places, 0, -1)), collections.deque[int]()
        self._warm: list[int] = []  # places that hold memory of a factor that ended
        self.entries_of_factor = 0

    def _call(self, phase: int, place: int = 1, columns: int = 1) -> None:
        self._phase.value, self._place.value, self._columns.value = phase, place, columns
        self._function(*self._arguments)
        if self._error.value:
            raise _error(self._error.value, phase)

    def take(self) -> Any:
        """A place for a factor, or None if there is none left."""
        if self._lock.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                self._lock.release()
        for places in (self._warm, self._free):
            try:
                return places.pop()
            except IndexError:
                continue
        return None

    @property
    def is_idle(self) -> bool:
        places = 1 if self.matched else _PLACES
        return len(self._warm) + len(self._free) + len(self._ended) == places

    def end(self, place: int) -> None:
        """Give a place back. Python may call this at any moment, also while this thread holds the lock."""
        self._ended.append(place)
        if self._lock.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                self._lock.release()

    def _tidy(self) -> None:
        while self._ended and self._is_open:
            place = self._ended.popleft()
            if self._warm and not self.matched:
                self._call(_RELEASE_ONE, place)
                self._free.append(place)
            else:
                self._warm.append(place)

    def analyse(self) -> None:
        with self._lock:
            self._call(_ANALYZE)
            self._analysed = True
            self.entries_of_factor = int(self._iparm[_ENTRIES])

    def fill(self, place: int, values: np.ndarray) -> int:
        """Factorize; the number of pivots that were replaced."""
        with self._lock:
            self._load(values)
            if self._analysed:
                self._call(_FACTORIZE, place)
                # its matching, which is a part of the analysis, was that of other values
                again = self.matched and self._iparm[_PERTURBED] > 0
                if not again:
                    return int(self._iparm[_PERTURBED])
                self._call(_RELEASE)
                self._analysed = False
            if self.matched:
                registry.count("analyses")
            self._call(_BOTH, place)
            self._analysed = True
            self.entries_of_factor = int(self._iparm[_ENTRIES])
            return int(self._iparm[_PERTURBED])

    def _load(self, values: np.ndarray) -> None:
        slots = self._entries.slots
        if slots is None:
            self._values[: len(values)] = values
            return
        known = slots >= 0
        self._values[: len(slots)][known] = values[slots[known]]

    def solve(self, place: int, b: np.ndarray, x: np.ndarray, transpose: bool) -> None:
        with self._lock:
            self._b.value, self._x.value = address_of(b), address_of(x)
            self._iparm[_WHICH] = _TRANSPOSED if transpose else 0
            self._call(_SOLVE, place, len(b))

    @property
    def factor_nbytes(self) -> int:
        return self.entries_of_factor * self.dtype.itemsize + 16 * self.size

    @property
    def nbytes(self) -> int:
        """Of the analysis, and of one factor that is kept."""
        own = self._values.nbytes + self._order.nbytes
        return 1024 * int(self._iparm[_KEPT]) + own + self.factor_nbytes

    def __del__(self) -> None:  # in a cycle of garbage perhaps before that of its factors
        self._is_open = False
        self._phase.value = _RELEASE
        self._function(*self._arguments)


class _Handles:
    """As many handles of one kind as the factors that are alive need."""

    def __init__(self, make: Callable[[], _Handle], *first: _Handle):
        self._make, self._lock = make, threading.Lock()
        self._all = list(first)

    def take(self) -> Numeric:
        with self._lock:
            idle = [handle for handle in self._all if handle.is_idle]
            for surplus in idle[1:]:
                self._all.remove(surplus)
            for handle in self._all:
                place = handle.take()
                if place is not None:
                    return Numeric(handle, place)
            handle = self._make()
            self._all.append(handle)
            return Numeric(handle, handle.take(), is_first=True)


class Symbolic:
    """The analysis of a pattern: its ordering by nested dissection, and where its factors have entries.

    - `indptr`, `indices`: `(n + 1,)` and `(nnz,)`, of A by rows, sorted and without duplicates.
    - `structure`: "definite" (Hermitian and positive; LLᴴ), "hermitian" (LDLᴴ), "symmetric" (A = Aᵀ; LDLᵀ) or
      "general" (LU). Of the first three the upper triangle is read.
    - `dtype`: of the values and of right-hand sides, any of the four.

    A pivot is looked for within a supernode only. Where one is replaced, that matrix and those after it get
    an LU factorization with a maximum weight matching, scaling and refinement (Schenk & Gärtner 2006, ETNA 23),
    which has an analysis of its own, of the values too.

    **Raises** `ValueError` for what is no pattern. Threads may share it, and take turns.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, structure: str, dtype: Any):
        found = library()
        entries = Entries.of(indptr, indices, upper=structure != "general")
        self.dtype, self._count = np.dtype(dtype), len(indices)

        def plain() -> _Handle:
            handle = _Handle(found, entries, structure, dtype, matched=False)
            handle.analyse()
            return handle

        def another() -> _Handle:
            registry.count("analyses")
            return plain()

        def matched() -> _Handle:
            whole = Entries.of(indptr, indices, upper=False)
            return _Handle(found, whole, "general", dtype, matched=True)

        first = plain()
        self.nbytes = first.nbytes + sum(x.nbytes for x in entries if x is not None)
        self._plain, self._matched = _Handles(another, first), _Handles(matched)
        self._may_match = structure != "definite"
        self._matches = False

    def factorize(self, values: np.ndarray) -> Numeric:
        """Of the matrix with these values, `(nnz,)` in this dtype.

        **Raises** `NotFactorizableError`, `MemoryError`, `RuntimeError`.
        """
        if values.shape != (self._count,) or values.dtype != self.dtype:
            raise ValueError(
                f"values: must be {self._count} of {self.dtype}; got {values.shape}, {values.dtype}."
            )
        if self._matches:
            return self.match(values)
        numeric = self._plain.take()
        if numeric.fill(values) and self._may_match:
            self._matches = True
            return self.match(values)
        return numeric

    def match(self, values: np.ndarray) -> Numeric:
        """As `factorize`, with matching, scaling and refinement."""
        numeric = self._matched.take()
        numeric.fill(values)
        return numeric


class Numeric:
    """A factor of A."""

    def __init__(self, handle: _Handle, place: int, is_first: bool = False):
        self._handle, self._place = handle, place
        self._counts_analysis = is_first or handle.matched
        self.is_matched = handle.matched

    def fill(self, values: np.ndarray) -> int:
        return self._handle.fill(self._place, values)

    def solve(self, b: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        """x `(k, n)` with Ax = b, or Aᵀx = b, for right-hand sides `(k, n)`, in the factor's dtype."""
        handle = self._handle
        if np.iscomplexobj(b) and handle.dtype.kind != "c":
            raise TypeError(f"a real factor does not take a right-hand side of {b.dtype}")
        if b.ndim != 2 or b.shape[1] != handle.size:
            raise ValueError(f"b: must have shape (k, {handle.size}); got {b.shape}.")
        conjugate = transpose and handle.transposes_by_conjugation
        b = np.ascontiguousarray(b.conj() if conjugate else b, handle.dtype)
        x = np.empty_like(b)
        if len(b):
            handle.solve(self._place, b, x, transpose and not handle.is_symmetric)
        return x.conj() if conjugate else x

    @property
    def nbytes(self) -> int:
        """With those of an analysis that was made for it."""
        return self._handle.nbytes if self._counts_analysis else self._handle.factor_nbytes

    def __del__(self) -> None:
        self._handle.end(self._place)


def _error(status: int, phase: int) -> Exception:
    if status in (-4, -7):
        return NotFactorizableError("a pivot is zero, or not positive: the matrix is singular")
    if status in (-2, -9):
        return MemoryError("PARDISO has not enough memory")
    return RuntimeError(f"PARDISO ended phase {phase} with status {status}")
