"""Index arrays from users: checked, sorted, merged. Host NumPy only.

Whatever comes in leaves as canonical CSR: rows from top to bottom, columns increasing within a row,
no entry twice. Along with it go *slots*: where in the canonical order each given entry landed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse as sp

from ..errors import StructureError, WrongTypeError


class Canonical(NamedTuple):
    """`indptr (m+1,)`, `indices (nnz,)`, and `slots` of the given entries, None for 0, 1, 2, …."""

    indptr: np.ndarray
    indices: np.ndarray
    slots: np.ndarray | None


def check_shape(shape: Any) -> tuple[int, int]:
    """The shape as two integers."""
    try:
        m, n = (int(size.__index__()) for size in shape)
    except (TypeError, ValueError, AttributeError):
        raise WrongTypeError(
            f"shape: must be two integers, (rows, columns); got {shape!r}."
        ) from None
    if m < 0 or n < 0:
        raise StructureError(f"shape: must not be negative; got {(m, n)}.")
    return m, n


def index_dtype(*sizes: int) -> Any:
    """int32, or int64 if one of the sizes does not fit."""
    return np.int32 if max(sizes, default=0) < 2**31 else np.int64


def concrete(name: str, array: Any, axes: int = 1) -> np.ndarray:
    """An index array as a NumPy array with one axis (or `axes`) and an integer dtype."""
    if isinstance(array, jax.core.Tracer):
        raise StructureError(
            f"{name}: must be known when tracing, as a sparsity pattern is compiled in; got a "
            f"traced array, {array.aval.str_short()}. Build the `SparsityPattern` outside of "
            "`jax.jit` (and of other transformations), and pass only the values in: "
            "`SparseLinearOperator(values, pattern)`."
        )
    array = np.asarray(array)
    if array.size == 0 and array.dtype == np.float64:  # what an empty list becomes
        array = array.astype(np.int32)
    if array.ndim != axes:
        wanted = "one axis" if axes == 1 else f"{axes} axes"
        raise StructureError(f"{name}: must have {wanted}; got shape {array.shape}. Reshape it.")
    if array.dtype.kind not in "iu":
        raise WrongTypeError(
            f"{name}: must hold integers; got {array.dtype}. Cast it to `numpy.int32`."
        )
    return array


def _check_range(name: str, array: np.ndarray, size: int) -> None:
    if array.size == 0:
        return
    low, high = int(array.min()), int(array.max())
    if low < 0:
        at = int(np.argmin(array))
        raise StructureError(
            f"{name}: must not be negative; got {low} at position {at}. Indices count from 0."
        )
    if high >= size:
        at = int(np.argmax(array))
        raise StructureError(
            f"{name}: must be less than {size}, the size of that axis; got {high} at position "
            f"{at}. Indices count from 0."
        )


def stable_order(keys: np.ndarray, size: int) -> np.ndarray:
    """The stable order that sorts `keys` (in 0 … size − 1), in time O(len(keys) + size).

    It is the counting sort that SciPy does when it turns columns into rows.
    """
    count = len(keys)
    dtype = index_dtype(size, count)
    each_a_column = np.arange(count + 1, dtype=dtype)
    data = np.zeros(count, np.int8)
    columns = sp.csc_matrix(
        (data, keys.astype(dtype, copy=False), each_a_column), shape=(size, count)
    )
    return columns.tocsr().indices


def _pointers(rows: np.ndarray, m: int, dtype: Any) -> np.ndarray:
    indptr = np.zeros(m + 1, dtype)
    np.cumsum(np.bincount(rows, minlength=m), out=indptr[1:])
    return indptr


def _increases(rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether entries are in canonical order, and none is there twice."""
    down = rows[1:] > rows[:-1]
    right = (rows[1:] == rows[:-1]) & (columns[1:] > columns[:-1])
    return bool(np.all(down | right))


def _sort(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Canonical:
    m, n = shape
    dtype = index_dtype(m, n, len(rows))
    rows, columns = rows.astype(dtype, copy=False), columns.astype(dtype, copy=False)
    if _increases(rows, columns):
        return Canonical(_pointers(rows, m, dtype), columns, None)
    order = stable_order(columns, n)
    order = order[stable_order(rows[order], m)]
    rows, columns = rows[order], columns[order]
    new = np.ones(len(rows), bool)
    new[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    slots = np.empty(len(rows), dtype)
    slots[order] = np.cumsum(new) - 1
    return Canonical(_pointers(rows[new], m, dtype), columns[new], slots)


def canonical_coo(rows: Any, columns: Any, shape: Any) -> Canonical:
    """Canonical CSR of triplets at `(rows[k], columns[k])`, in any order and with repetitions."""
    m, n = check_shape(shape)
    rows, columns = concrete("rows", rows), concrete("cols", columns)
    if len(rows) != len(columns):
        raise StructureError(
            f"rows, cols: must have one length; got {len(rows)} and {len(columns)}. Give each "
            "entry a row and a column."
        )
    _check_range("rows", rows, m)
    _check_range("cols", columns, n)
    return _sort(rows, columns, (m, n))


def canonical_csr(indptr: Any, indices: Any, shape: Any) -> Canonical:
    """Canonical CSR of compressed rows whose columns may be unsorted or repeated."""
    m, n = check_shape(shape)
    indptr, indices = concrete("indptr", indptr), concrete("indices", indices)
    if len(indptr) != m + 1:
        raise StructureError(
            f"indptr: must have {m + 1} entries, one more than there are rows (or columns, if they "
            f"are what is compressed); got {len(indptr)}. Check `shape`, which is {(m, n)}."
        )
    if indptr[0] != 0 or indptr[-1] != len(indices):
        raise StructureError(
            f"indptr: must begin with 0 and end with the number of indices, {len(indices)}; got "
            f"{indptr[0]} and {indptr[-1]}. Cut `indices`, or mend `indptr`."
        )
    signed = indptr.astype(np.int64, copy=False)
    falls = np.flatnonzero(signed[1:] < signed[:-1])
    if len(falls):
        k = int(falls[0])
        raise StructureError(
            f"indptr: must not decrease; got {signed[k]} and then {signed[k + 1]} at position {k}. "
            "It holds where each row begins."
        )
    _check_range("indices", indices, n)
    dtype = index_dtype(m, n, len(indices))
    rows = np.repeat(np.arange(m, dtype=dtype), np.diff(signed))
    return _sort(rows, indices, (m, n))


def check_tolerance(tol: Any) -> float:
    """A threshold for entries: finite and not negative."""
    tol = float(tol)
    if not (0 <= tol < math.inf):
        raise StructureError(f"tol: must be finite and not negative; got {tol}.")
    return tol
