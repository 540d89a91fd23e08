"""`Rows`: which unknowns each element of an array depends on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.sparse as sp

#: A product of patterns may form this many times the entries that its result may have.
_WORK = 32


def numbers_of(shape: Any, first: int = 0) -> np.ndarray:
    """The elements of an array of this shape, counted by rows from `first`."""
    return np.arange(first, first + math.prod(shape), dtype=np.int32).reshape(shape)


class GaveUp(Exception):
    """Detection went beyond its limits. `primitive` is the one at which it did."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason
        self.primitive: str | None = None

    def __str__(self) -> str:
        return f"at the primitive `{self.primitive}`, {self.reason}"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What detection may cost.

    - `entries`: how many entries the pattern of any intermediate array may have;
    - `elements`: how many elements an intermediate array may have;
    - `steps`: how many equations are interpreted, those in loops counted each time;
    - `work`: how many entries and elements are handled in all of them together.
    """

    entries: int
    elements: int
    steps: int
    work: int


class Meter:
    """Counts what one detection costs, and ends it by `GaveUp` at the limits."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.steps = 0
        self.work = 0

    def check(self, entries: int, elements: int = 0) -> None:
        """Before an array with so many elements and entries is made."""
        if entries > self.limits.entries:
            raise GaveUp(f"a pattern has more than {self.limits.entries} entries")
        if elements > self.limits.elements:
            raise GaveUp(f"an array has more than {self.limits.elements} elements")

    def spend(self, work: int) -> None:
        self.work += work
        if self.work > self.limits.work:
            raise GaveUp(f"more than {self.limits.work} entries had to be handled")

    def step(self) -> None:
        self.steps += 1
        if self.steps > self.limits.steps:
            raise GaveUp(f"more than {self.limits.steps} operations had to be followed")

    def can_take(self, steps: int) -> bool:
        return self.steps + steps <= self.limits.steps


class Rows:
    """For each element of an array (in C order) a row: the unknowns that it depends on.

    `matrix` is a Boolean CSR matrix of shape `(size, unknowns)` with sorted indices; immutable, and
    shared by arrays of the same dependence. It may hold more than is true, never less.
    """

    __slots__ = ("matrix", "meter")

    def __init__(self, matrix: sp.csr_array, meter: Meter):
        meter.check(matrix.nnz, matrix.shape[0])
        meter.spend(matrix.nnz + matrix.shape[0])
        if not matrix.has_sorted_indices:
            matrix.sort_indices()
        self.matrix = matrix
        self.meter = meter

    @classmethod
    def unknowns(cls, first: int, size: int, total: int, meter: Meter) -> Rows:
        """Of `size` unknowns, from number `first` on, each on itself alone."""
        meter.check(size, size)
        indices = np.arange(first, first + size, dtype=np.int32)
        return cls(_csr(indices, np.arange(size + 1, dtype=np.int32), total), meter)

    @classmethod
    def nothing(cls, size: int, total: int, meter: Meter) -> Rows:
        """Of what may vary by its type, but does not."""
        meter.check(0, size)
        return cls(_csr(np.zeros(0, np.int32), np.zeros(size + 1, np.int32), total), meter)

    @property
    def size(self) -> int:
        return self.matrix.shape[0]

    @property
    def nnz(self) -> int:
        return self.matrix.nnz

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.matrix.indptr)

    def take(self, index: np.ndarray) -> Rows:
        """Element k of the result is element `index[k]` of this; -1 depends on nothing."""
        index = index.ravel()
        if len(index) == self.size and np.array_equal(index, np.arange(self.size)):
            return self
        matrix, lengths = self.matrix, self.lengths
        if len(index) and index.min() < 0:
            index = np.where(index < 0, self.size, index)
            indptr = np.append(matrix.indptr, matrix.indptr[-1:])
            matrix, lengths = _csr(matrix.indices, indptr, matrix.shape[1]), np.append(lengths, 0)
        self.meter.check(int(lengths[index].sum(dtype=np.int64)), len(index))
        return Rows(matrix[index], self.meter)

    def union(self, other: Rows) -> Rows:
        """Of a sum, element by element."""
        a, b = self.matrix, other.matrix
        if a is b or b.nnz == 0:
            return self
        self.meter.spend(a.nnz)
        if a.nnz == 0:
            return other
        same = a.nnz == b.nnz and np.array_equal(a.indptr, b.indptr)
        if same and np.array_equal(a.indices, b.indices):
            return self
        self.meter.check(max(a.nnz, b.nnz))
        return Rows(a + b, self.meter)

    def keep(self, mask: np.ndarray) -> Rows:
        """Elements where the mask is false depend on nothing."""
        mask = mask.ravel()
        if mask.all():
            return self
        matrix, lengths = self.matrix, self.lengths
        indptr = np.zeros_like(matrix.indptr)
        np.cumsum(np.where(mask, lengths, 0), out=indptr[1:])
        indices = matrix.indices[np.repeat(mask, lengths)]
        return Rows(_csr(indices, indptr, matrix.shape[1]), self.meter)

    def sums(self, which: sp.csr_array) -> Rows:
        """Element k of the result is a sum of the elements in row k of `which`."""
        work = int(self.lengths[which.indices].sum(dtype=np.int64))
        if work > _WORK * self.meter.limits.entries:
            self.meter.check(work)
        self.meter.spend(work)
        return Rows(sp.csr_array(which @ self.matrix), self.meter)

    def blocks(self, groups: np.ndarray, out_groups: np.ndarray) -> Rows:
        """Elements of a group depend on whatever the given elements of the same group do.

        `groups` numbers the groups of this array's elements, `out_groups` those of the result's.
        """
        groups, out_groups = groups.ravel(), out_groups.ravel()
        count = int(max(groups.max(initial=-1), out_groups.max(initial=-1))) + 1
        members = pairs(groups, np.arange(self.size), (count, self.size))
        return self.sums(members).take(out_groups)


def stack(parts: list[Rows]) -> Rows:
    """The elements of several arrays, one after the other."""
    if len(parts) == 1:
        return parts[0]
    meter = parts[0].meter
    meter.check(sum(part.nnz for part in parts), sum(part.size for part in parts))
    return Rows(sp.csr_array(sp.vstack([part.matrix for part in parts], format="csr")), meter)


def pairs(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    """The Boolean matrix with entries at `(rows[k], columns[k])`, repeated ones once."""
    rows, columns = rows.ravel(), columns.ravel()
    entries = np.ones(len(rows), bool)
    return sp.csr_array(sp.coo_array((entries, (rows, columns)), shape=shape).tocsr())


def _csr(indices: np.ndarray, indptr: np.ndarray, columns: int) -> sp.csr_array:
    data = np.ones(len(indices), bool)
    out = sp.csr_array((data, indices, indptr), shape=(len(indptr) - 1, columns))
    return out
