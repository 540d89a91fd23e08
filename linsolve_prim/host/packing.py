"""Values and run-time indices in one array, so that the callbacks need no other operands.

Where indices are traced, the operands of the host primitives are not values `(nnz,)` but values and
indices, the latter's bits written as numbers of the values' dtype. The host takes them apart again,
and keeps the patterns that it meets by the content of their indices.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..sparse.pattern import SparsityPattern
from .registry import registry


@dataclasses.dataclass(frozen=True)
class RunTimePattern:
    """Stands for a pattern while a program is traced: the shape, and the number of triplets."""

    shape: tuple[int, int]
    count: int


def pack(values: Any, rows: Any, cols: Any) -> Any:
    """One array of the values' dtype: values, then the bits of `rows` and `cols` (int32)."""
    bits = jnp.concatenate([rows, cols])
    real = jnp.finfo(values.dtype).dtype
    if real == jnp.float64:
        written = jax.lax.bitcast_convert_type(bits.reshape(2, -1).T, jnp.float64)
    else:
        written = jax.lax.bitcast_convert_type(bits, jnp.float32)
    if jnp.iscomplexobj(values):
        written = jax.lax.complex(written, jnp.zeros_like(written))
    return jnp.concatenate([values, written])


def unpack(packed: np.ndarray, pattern: RunTimePattern) -> tuple[np.ndarray, SparsityPattern]:
    """Values on a pattern: triplets at one position summed, those past the end left out."""
    count = pattern.count
    values, written = packed[:count], packed[count:]
    written = np.ascontiguousarray(written.real if np.iscomplexobj(written) else written)
    bits = written.view(np.int32)
    rows, cols = bits.reshape(-1, 2).T if written.dtype == np.float64 else bits.reshape(2, -1)
    key = ("pattern", pattern, hashlib.sha1(bits.tobytes(), usedforsecurity=False).digest())
    found, slots, kept = registry.get(
        key, lambda: _pattern(rows, cols, pattern.shape), lambda x: 48 * count, "patterns"
    )
    out = np.zeros(found.nnz, values.dtype)
    np.add.at(out, slots, values if kept is None else values[kept])
    return out, found


def _pattern(
    rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]
) -> tuple[SparsityPattern, np.ndarray, np.ndarray | None]:
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    kept = None if inside.all() else np.flatnonzero(inside)
    if kept is not None:
        rows, cols = rows[kept], cols[kept]
    found, slots = SparsityPattern.from_coo(rows, cols, shape)
    return found, slots, kept
