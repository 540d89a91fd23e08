"""Factorizations by PARDISO: the analysis of a pattern, factors of its matrices, and who uses which handle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .pardiso_handle import (
    STRUCTURES as STRUCTURES,
    Entries,
    Handle,
    NotFactorizableError as NotFactorizableError,
    library,
)
from .threads import cores

#: A handle that nobody uses is given back when it was looked at so often without having been needed.
_PATIENCE = 64


class _Handles:
    """Handles of one kind: as many as the factors that are alive need, and as threads factorize at once, up to
    the number of cores."""

    def __init__(self, make: Callable[[], Handle], *first: Handle):
        self._make, self._lock = make, threading.Lock()
        self._all = list(first)

    def factorize(self, values: np.ndarray) -> tuple[Numeric, int]:
        """A factor, and how many pivots were replaced."""
        numeric = self._take()
        handle = numeric.handle
        try:
            return numeric, handle.fill(numeric.place, values)
        finally:
            handle.is_filled_now = False

    def _take(self) -> Numeric:
        with self._lock:
            self._drop_one()
            numeric = self._find()
        if numeric is None:
            handle = self._make()
            with self._lock:
                self._all.insert(0, handle)
                numeric = Numeric(handle, handle.take())
        return numeric

    def _find(self) -> Numeric | None:
        may_grow = len(self._all) < cores()
        for i, handle in enumerate(self._all):
            if not (handle.is_filled_now and may_grow):
                place = handle.take()
                if place is not None:
                    if i:  # look there first the next time
                        self._all.insert(0, self._all.pop(i))
                    return Numeric(handle, place)
        return None

    def _drop_one(self) -> None:
        """Forget a handle that nobody uses if another is ready. One is looked at each time, the last.

        The first of all is kept, since others are copies of it, and used before them.
        """
        if len(self._all) < 2:
            return
        last = self._all.pop()
        last.times_idle = last.times_idle + 1 if last.is_idle else 0
        patience = _PATIENCE if len(self._all) < cores() else 0  # threads may want it again
        if last.is_idle and last.is_counted:
            self._all.insert(0, last)
        elif last.times_idle <= patience or not self._all[0].has_room:
            self._all.insert(1, last)


class Symbolic:
    """The analysis of a pattern: its ordering by nested dissection, and where its factors have entries.

    - `indptr`, `indices`: `(n + 1,)` and `(nnz,)`, of A by rows, sorted and without duplicates.
    - `structure`: "definite" (Hermitian and positive; LLᴴ), "hermitian" (LDLᴴ), "symmetric" (A = Aᵀ; LDLᵀ) or
      "general" (LU). Of the first three the upper triangle is read.
    - `dtype`: of the values and of right-hand sides, any of the four.

    A pivot is looked for within a supernode only. Where one is replaced, that matrix and those after it get
    an LU factorization with a maximum weight matching, scaling and refinement (Schenk & Gärtner 2006, ETNA 23),
    which has an analysis of its own, of the values too.

    Threads may share it. Those that factorize at once get copies of the analysis, with its ordering.

    **Raises** `ValueError` for what is no pattern.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, structure: str, dtype: Any):
        found = library()
        entries = Entries.of(indptr, indices, upper=structure != "general")
        self.dtype, self._count = np.dtype(dtype), len(indices)

        first = Handle(found, entries, structure, dtype, matched=False)
        first.analyse()
        first.is_counted = True

        def matched() -> Handle:
            whole = Entries.of(indptr, indices, upper=False)
            return Handle(found, whole, "general", dtype, matched=True)

        self.nbytes = first.nbytes + sum(x.nbytes for x in entries if x is not None)
        self._plain, self._matched = _Handles(first.copy, first), _Handles(matched)
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
        numeric, replaced = self._plain.factorize(values)
        if replaced and self._may_match:
            self._matches = True
            return self.match(values)
        return numeric

    def match(self, values: np.ndarray) -> Numeric:
        """As `factorize`, with matching, scaling and refinement."""
        return self._matched.factorize(values)[0]


class Numeric:
    """A factor of A."""

    def __init__(self, handle: Handle, place: int):
        self.handle, self.place, self.is_matched = handle, place, handle.matched
        handle.is_filled_now, handle.times_idle = True, 0
        self._counts_handle = not handle.is_counted
        handle.is_counted = True

    def solve(self, b: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        """x `(k, n)` with Ax = b, or Aᵀx = b, for right-hand sides `(k, n)`, in the factor's dtype."""
        handle = self.handle
        if np.iscomplexobj(b) and handle.dtype.kind != "c":
            raise TypeError(f"a real factor does not take a right-hand side of {b.dtype}")
        if b.ndim != 2 or b.shape[1] != handle.size:
            raise ValueError(f"b: must have shape (k, {handle.size}); got {b.shape}.")
        conjugate = transpose and handle.transposes_by_conjugation
        b = np.ascontiguousarray(b.conj() if conjugate else b, handle.dtype)
        x = np.empty_like(b)
        if len(b):
            handle.solve(self.place, b, x, transpose and not handle.is_symmetric)
        return x.conj() if conjugate else x

    @property
    def nbytes(self) -> int:
        """With those of its handle, if no other factor counts them."""
        return self.handle.nbytes if self._counts_handle else self.handle.factor_nbytes

    def __del__(self) -> None:
        if self._counts_handle:
            self.handle.is_counted = False
        self.handle.end(self.place)
