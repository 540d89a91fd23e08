"""PARDISO's own function, from the Math Kernel Library inside of the module `pymklpardiso`, by `ctypes`.

So called it solves with A and with Aᵀ from one factor, and keeps many factors of one analysis, neither of which
that module allows. Arguments and settings are those that Intel documents for `pardiso_64` and its `iparm`.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import threading
from ctypes import byref, c_int64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from .available import has_module, require
from .matrices import address_of
from .registry import registry

_ANALYZE, _FACTORIZE, _BOTH, _SOLVE, _RELEASE_ONE, _RELEASE = 11, 22, 12, 33, 0, -1

# Places in `iparm`, and what stands there
_GIVEN, _ORDERING, _WHOSE_ORDER, _REFINEMENTS, _PERTURBATION, _SCALING = 0, 1, 4, 7, 9, 10
_WHICH, _MATCHING, _PERTURBED, _KEPT, _ENTRIES = 11, 12, 13, 15, 17
_PIVOTS_OF_TWO, _TWO_LEVELS, _SINGLE, _FROM_ZERO = 20, 23, 27, 34
_DISSECTION, _TRANSPOSED, _REPORT = 2, 2, -1
_MINE, _YOURS = 1, 2

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
    handle = Handle(function, entries, "general", np.dtype(float), matched=False)
    place, b, got = handle.take(), np.array([[4.0, 8.0]]), np.zeros((2, 1, 2))
    try:
        handle.fill(place, np.array([2.0, 1.0, 4.0]))
        for x, transpose in zip(got, (False, True)):
            handle.solve(place, b, x, transpose)
    except (ArithmeticError, MemoryError, RuntimeError):
        return False
    return np.allclose(got[:, 0], [[1.0, 2.0], [2.0, 1.5]], rtol=1e-12)


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


class Handle:
    """A handle of PARDISO: one analysis, and places for factors of matrices with its pattern.

    Calls take turns: PARDISO gives wrong results if two threads use a handle at once, whatever they do
    with it [measured, MKL in py-mkl-pardiso 0.0.6: up to half of 600 solves].
    """

    def __init__(self, function: Any, entries: Entries, structure: str, dtype: Any, matched: bool):
        self._function, self._entries, self._structure = function, entries, structure
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
            iparm[_TWO_LEVELS], iparm[_WHOSE_ORDER] = 1, _YOURS
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
        # What those who hand handles out note of it: a thread is about to factorize, a factor (or the analysis)
        # counts its bytes, how often it was looked at and not used.
        self.is_filled_now, self.is_counted, self.times_idle = False, False, 0
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
    def has_room(self) -> bool:
        return bool(self._warm or self._free or self._ended)

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

    def copy(self) -> Handle:
        """Another one for the same pattern, with this one's ordering, which is what an analysis spends its
        time on [measured: 50² 2 ms instead of 38, 20³ 40 instead of 127, CPU]."""
        out = Handle(self._function, self._entries, self._structure, self.dtype, self.matched)
        out._order[:], out._iparm[_WHOSE_ORDER] = self._order, _MINE
        out.analyse()
        return out

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


def _error(status: int, phase: int) -> Exception:
    if status in (-4, -7):
        return NotFactorizableError("a pivot is zero, or not positive: the matrix is singular")
    if status in (-2, -9):
        return MemoryError("PARDISO has not enough memory")
    return RuntimeError(f"PARDISO ended phase {phase} with status {status}")
