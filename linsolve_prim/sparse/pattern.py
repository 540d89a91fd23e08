"""`SparsityPattern`: where a sparse matrix has entries, and everything that follows from that."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse as sp

from ..errors import StructureError, WrongTypeError
from .indices import (
    Canonical,
    canonical_coo,
    canonical_csr,
    check_tolerance,
    concrete,
    index_dtype,
)
from .picture import picture

_T = TypeVar("_T")


class SparsityPattern:
    """The positions of the entries of a sparse matrix: immutable, and compared by content.

    It is in canonical CSR: entry number k (its *slot*) lies in column `indices[k]` of row `rows[k]`;
    rows go from top to bottom, columns increase within a row, and no position occurs twice.

    A pattern is not a pytree. It is hashable, so it can be a static field or a static argument:
    programs are compiled for a pattern, with the values as their input. Whatever depends on the
    pattern alone is computed once and kept with it (`cached`).

    | | |
    |---|---|
    | `shape` | `(m, n)` |
    | `nnz` | number of entries |
    | `indptr` | `(m + 1,)`, where each row begins; read-only, int32 (int64 if sizes ask for it) |
    | `indices` | `(nnz,)`, the column of each entry |
    | `rows` | `(nnz,)`, the row of each entry |
    | `digest` | 16 bytes, equal for equal patterns (BLAKE2b, RFC 7693) |

    **Raises** `StructureError` for indices that are traced, out of range, unsorted or repeated (`from_coo`
    sorts and joins them), `WrongTypeError` for such as are no integers.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> pattern, slots = lp.SparsityPattern.from_coo([1, 0, 1], [1, 0, 1], (2, 2))
        >>> pattern.nnz, pattern.indptr.tolist(), pattern.indices.tolist(), slots.tolist()
        (2, [0, 1, 2], [0, 1], [1, 0, 1])
        >>> pattern == lp.SparsityPattern.from_dense(jnp.eye(2))
        True
    """

    __slots__ = ("__weakref__", "_cache", "_locks", "indices", "indptr", "shape")

    shape: tuple[int, int]
    indptr: np.ndarray
    indices: np.ndarray
    _cache: dict[Hashable, Any]
    _locks: dict[Hashable, threading.RLock]

    def __init__(self, indptr: Any, indices: Any, shape: tuple[int, int]):
        """**Arguments** are as for `from_csr`, but must be in canonical order already.

        **Raises** `StructureError` if they are not.
        """
        found = canonical_csr(indptr, indices, shape)
        if found.slots is not None:
            raise StructureError(
                "indices: must increase within each row; got some that are unsorted or repeated. "
                "Use `SparsityPattern.from_csr`, which sorts and merges them."
            )
        self._fill(found, shape)

    def _fill(self, found: Canonical, shape: tuple[int, int]) -> None:
        m, n = (int(size) for size in shape)
        dtype = index_dtype(m, n, len(found.indices))
        for name, array in (("indptr", found.indptr), ("indices", found.indices)):
            array = np.array(array, dtype)  # a copy: nobody else may write to it
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "shape", (m, n))
        object.__setattr__(self, "_cache", {})
        object.__setattr__(self, "_locks", {})

    @classmethod
    def _of(cls, found: Canonical, shape: Any) -> SparsityPattern:
        out: SparsityPattern = object.__new__(cls)
        out._fill(found, shape)
        return out

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"SparsityPattern is immutable; cannot set {name!r}.")

    # ---- Making one ------------------------------------------------------------------------------

    @classmethod
    def from_coo(cls, rows: Any, cols: Any, shape: Any) -> tuple[SparsityPattern, np.ndarray]:
        """`(pattern, slots)` of triplets in any order: triplet k lands in slot `slots[k]`.

        Triplets at the same position share a slot. `rows` and `cols` are integers of shape `(k,)`.

        **Raises** `StructureError` for indices that are out of range, traced or of unequal length;
        `WrongTypeError` for such as are not integers. (So do the other constructors.)
        """
        found = canonical_coo(rows, cols, shape)
        return cls._of(found, shape), _explicit(found)

    @classmethod
    def from_csr(cls, indptr: Any, indices: Any, shape: Any) -> SparsityPattern:
        """From compressed rows: `indptr (m + 1,)`, `indices (k,)`; unsorted and repeated ones too."""
        return cls._from_csr(indptr, indices, shape)[0]

    @classmethod
    def _from_csr(
        cls, indptr: Any, indices: Any, shape: Any
    ) -> tuple[SparsityPattern, np.ndarray | None]:
        """Also the slots of the given entries; None if they keep their order."""
        found = canonical_csr(indptr, indices, shape)
        return cls._of(found, shape), found.slots

    @classmethod
    def from_csc(cls, indptr: Any, indices: Any, shape: Any) -> SparsityPattern:
        """From compressed columns: `indptr (n + 1,)`, `indices (k,)`; unsorted and repeated too."""
        return cls._from_csc(indptr, indices, shape)[0]

    @classmethod
    def _from_csc(cls, indptr: Any, indices: Any, shape: Any) -> tuple[SparsityPattern, np.ndarray]:
        found = canonical_csr(indptr, indices, tuple(shape)[::-1])
        out = cls._of(found, tuple(shape)[::-1]).T
        return out, out.transpose_order[_explicit(found)]

    @classmethod
    def from_dense(cls, matrix: Any, tol: float = 0.0) -> SparsityPattern:
        """The entries of a matrix (or of a Boolean mask) that are larger than `tol` in magnitude.

        **Raises** `StructureError` if `matrix` is traced or does not have two axes.
        """
        _refuse_tracer("matrix", matrix)
        matrix = np.asarray(matrix)
        if matrix.ndim != 2:
            raise StructureError(f"matrix: must have two axes; got shape {matrix.shape}.")
        # ~(≤) and not >: NaN is an entry
        mask = matrix if matrix.dtype == bool else ~(np.abs(matrix) <= check_tolerance(tol))
        rows, columns = np.nonzero(mask)
        return cls.from_coo(rows, columns, matrix.shape)[0]

    @classmethod
    def from_scipy(cls, matrix: Any) -> SparsityPattern:
        """The stored entries (explicit zeros among them) of a `scipy.sparse` matrix or array."""
        check_scipy(matrix)
        csr = matrix.tocsr()
        return cls.from_csr(csr.indptr, csr.indices, csr.shape)

    # ---- What it is ------------------------------------------------------------------------------

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @property
    def digest(self) -> bytes:
        def make() -> bytes:
            state = hashlib.blake2b(repr(self.shape).encode(), digest_size=16)
            state.update(self.indptr.data)
            state.update(self.indices.data)
            return state.digest()

        return self.cached("digest", make)

    def __hash__(self) -> int:
        return int.from_bytes(self.digest[:7], "little")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, SparsityPattern):
            return NotImplemented
        same_size = self.shape == other.shape and self.nnz == other.nnz
        return same_size and self.digest == other.digest

    def __reduce__(self) -> Any:
        return SparsityPattern, (self.indptr, self.indices, self.shape)

    def __copy__(self) -> SparsityPattern:
        return self

    def __deepcopy__(self, memo: Any) -> SparsityPattern:
        return self

    def __repr__(self) -> str:
        return (
            f"SparsityPattern(shape={self.shape}, nnz={self.nnz}, digest={self.digest.hex()[:8]})"
        )

    def __str__(self) -> str:
        return f"{self!r}\n{picture(self.rows, self.indices, self.shape)}"

    def cached(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """`make()`, called once in the life of this pattern; any `key` that is not taken will do.

        Safe with threads: those who ask for the same thing wait for the first. `make` may ask for
        other things of this or of other patterns.
        """
        try:
            return cast(_T, self._cache[key])
        except KeyError:
            pass
        # A lock for each key: what is made from what has no cycles, hence nothing deadlocks.
        with self._locks.setdefault(key, threading.RLock()):
            if key not in self._cache:
                self._cache[key] = make()
            return cast(_T, self._cache[key])

    def _cached_array(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        def frozen() -> np.ndarray:
            array = make()
            array.flags.writeable = False
            return array

        return self.cached(key, frozen)

    @property
    def rows(self) -> np.ndarray:
        """The row of each entry, `(nnz,)`."""
        make = lambda: np.repeat(
            np.arange(self.shape[0], dtype=self.indices.dtype), self.row_lengths
        )
        return self._cached_array("rows", make)

    @property
    def row_lengths(self) -> np.ndarray:
        """The number of entries in each row, `(m,)`."""
        return self._cached_array("row_lengths", lambda: np.diff(self.indptr))

    # ---- Transposition ---------------------------------------------------------------------------

    @property
    def T(self) -> SparsityPattern:
        """The pattern of the transposed matrix; `pattern.T.T is pattern`."""
        return self._transposition()[0]

    def transpose(self) -> SparsityPattern:
        """The same as `T`."""
        return self.T

    @property
    def transpose_order(self) -> np.ndarray:
        """`(nnz,)`, so that `values[pattern.transpose_order]` are the values on `pattern.T`."""
        return self._transposition()[1]

    def _transposition(self) -> tuple[SparsityPattern, np.ndarray]:
        def make() -> tuple[SparsityPattern, np.ndarray]:
            m, n = self.shape
            slots = np.arange(self.nnz, dtype=self.indices.dtype)
            csc = sp.csr_matrix((slots, self.indices, self.indptr), shape=(m, n)).tocsc()
            transposed = self._of(Canonical(csc.indptr, csc.indices, None), (n, m))
            order = csc.data.astype(self.indices.dtype, copy=False)
            inverse = np.empty_like(order)
            inverse[order] = slots
            for array in (order, inverse):
                array.flags.writeable = False
            transposed._cache["transpose"] = (self, inverse)
            return transposed, order

        return self.cached("transpose", make)

    # ---- Structure -------------------------------------------------------------------------------

    def is_symmetric(self) -> bool:
        """Whether there is an entry at (j, i) for each at (i, j)."""
        return self.shape[0] == self.shape[1] and self == self.T

    def diagonal_slots(self, offset: int = 0) -> np.ndarray:
        """The slots of the entries (i, i + offset); `nnz` stands where there is none.

        Its length is that of the diagonal: `min(m, n)` for `offset = 0`, in general the number of i
        with both i in 0 … m − 1 and i + offset in 0 … n − 1.
        """

        def make() -> np.ndarray:
            m, n = self.shape
            length = max(0, min(m + min(offset, 0), n - max(offset, 0)))
            found = np.flatnonzero(self._offsets() == offset)
            slots = np.full(length, self.nnz, self.indices.dtype)
            slots[self.rows[found] + min(offset, 0)] = found
            return slots

        return self._cached_array(f"diagonal {offset}", make)

    def has_full_diagonal(self) -> bool:
        """Whether there is an entry at each (i, i)."""
        return bool(np.all(self.diagonal_slots() < self.nnz))

    def _offsets(self) -> np.ndarray:
        return self.indices.astype(np.int64) - self.rows

    def diagonals(self) -> tuple[int, ...]:
        """The offsets j − i of all diagonals with entries, from the lowest to the highest."""

        def make() -> tuple[int, ...]:
            m, n = self.shape
            present = np.zeros(m + n, bool)
            present[self._offsets() + m] = True
            return tuple(int(k) - m for k in np.flatnonzero(present))

        return self.cached("diagonals", make)

    def bandwidth(self) -> tuple[int, int]:
        """`(below, above)`: how far entries lie from the main diagonal, at most. (0, 0) if empty."""
        offsets = self.diagonals()
        return (max(0, -offsets[0]), max(0, offsets[-1])) if offsets else (0, 0)


def _explicit(found: Canonical) -> np.ndarray:
    if found.slots is None:
        return np.arange(len(found.indices), dtype=found.indices.dtype)
    return found.slots


def _refuse_tracer(name: str, array: Any) -> None:
    import jax

    if isinstance(array, jax.core.Tracer):
        concrete(name, array)


def check_scipy(matrix: Any) -> None:
    """Refuse what is not a `scipy.sparse` matrix with two axes."""
    if not sp.issparse(matrix):
        raise WrongTypeError(
            f"matrix: must be a `scipy.sparse` matrix or array; got {type(matrix).__name__}. For a "
            "dense matrix there is `from_dense`."
        )
    if len(matrix.shape) != 2:
        raise StructureError(f"matrix: must have two axes; got shape {matrix.shape}. Reshape it.")
