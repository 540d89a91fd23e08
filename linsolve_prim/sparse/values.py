"""Values moved by static maps: into the slots of a pattern, and out of them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import inexact_asarray
from ..errors import StructureError
from .pattern import SparsityPattern


def place(values: Any, slots: np.ndarray | None, pattern: SparsityPattern, name: str) -> Array:
    """Given values, `(k,)`, into slots of a pattern, `(k,)`: sums where several share one."""
    values = inexact_asarray(values)
    count = pattern.nnz if slots is None else len(slots)
    if values.shape != (count,):
        raise StructureError(
            f"{name}: must have shape {(count,)}, one for each index; got {values.shape}. Give as "
            "many values as indices; use `jax.vmap` for a batch."
        )
    if slots is None or np.array_equal(slots, np.arange(pattern.nnz)):
        return values
    sums = jnp.zeros(pattern.nnz, values.dtype)
    return sums.at[slots].add(values, unique_indices=count == pattern.nnz)


def pick(values: Array, slots: np.ndarray) -> Array:
    """`values[slots]`, with zero for the slot `nnz`, which stands for "no entry"."""
    if values.shape[0] == 0:
        return jnp.zeros(slots.shape, values.dtype)
    if slots.size == 0 or slots.max() < values.shape[0]:
        return values[slots]
    return values.at[slots].get(mode="fill", fill_value=0)
