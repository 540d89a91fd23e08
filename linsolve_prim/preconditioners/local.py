"""Small dense systems on parts of the unknowns, all solved at once: what `BlockJacobi` and `Schwarz` do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._static import FrozenArray
from .._tree import HIGHEST
from ..errors import StructureError
from ..operators import (
    AbstractLinearOperator,
    conj,
)
from ..operators.structures import check_vector
from ..sparse.pattern import SparsityPattern


class LocalInverses(AbstractLinearOperator):
    """r ↦ Σ Rᵢᵀ Wᵢ Bᵢ Vᵢ Rᵢ r, with Rᵢ the restriction to part i of the unknowns.

    - `blocks`: B, `(parts, s, s)`.
    - `members`: `(parts, s)`, the unknowns of each part; n where a part is smaller. None if part i is
      unknowns i·s … (i + 1)·s − 1.
    - `after`, `before`: W and V, `(parts, s)`, or None for ones.
    """

    blocks: Array
    members: Array | None
    after: Array | None
    before: Array | None
    size: int = eqx.field(static=True)

    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.in_structure())
        local = self._gather(vector)
        if self.before is not None:
            local = self.before.astype(local.dtype) * local
        local = jnp.einsum("kij,kj->ki", self.blocks, local, precision=HIGHEST)
        if self.after is not None:
            local = self.after.astype(local.dtype) * local
        return self._scatter(local)

    def _gather(self, vector: Array) -> Array:
        parts, s, _ = self.blocks.shape
        if self.members is None:
            return jnp.pad(vector, (0, parts * s - self.size)).reshape(parts, s)
        return vector.at[self.members].get(mode="fill", fill_value=0)

    def _scatter(self, local: Array) -> Array:
        if self.members is None:
            return local.reshape(-1)[: self.size]
        return jnp.zeros(self.size, local.dtype).at[self.members].add(local, mode="drop")

    def transpose(self) -> LocalInverses:
        blocks = jnp.swapaxes(self.blocks, 1, 2)
        return LocalInverses(blocks, self.members, self.before, self.after, self.size)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.size,), self.blocks.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@conj.register(LocalInverses)
def _conj(operator: LocalInverses) -> LocalInverses:
    return eqx.tree_at(lambda op: op.blocks, operator, operator.blocks.conj())


# ---- Parts of the unknowns -----------------------------------------------------------------------


def table_of(parts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Index lists as one array `(parts, s)`, filled up with `size`."""
    longest = max((len(part) for part in parts), default=0)
    table = np.full((len(parts), longest), size, np.int32)
    for row, part in zip(table, parts):
        row[: len(part)] = part
    return table


def as_labels(given: Any, name: str) -> Any:
    """An array of labels as a static value; anything else as it is.

    **Raises** `StructureError` for traced ones, and for such as have more than one axis.
    """
    if isinstance(given, jax.core.Tracer):
        raise StructureError(
            f"{name}: must be known when tracing; got traced labels. Pass them as a NumPy array."
        )
    if isinstance(given, FrozenArray) or np.ndim(given) == 0:
        return given
    if np.ndim(given) != 1:
        raise StructureError(
            f"{name}: labels must have one axis, one for each unknown (ravel them); got shape "
            f"{np.shape(given)}."
        )
    return FrozenArray(given)


def parts_by_label(labels: FrozenArray, size: int, name: str) -> list[np.ndarray]:
    """The unknowns of each label, from the lowest label on.

    **Raises** `StructureError` if there is not one label for each unknown.
    """
    array = labels.array
    if array.shape != (size,):
        raise StructureError(
            f"{name}: must hold one label for each of the {size} unknowns; got shape {array.shape}."
        )
    order = np.argsort(array, kind="stable")
    starts = np.flatnonzero(np.diff(array[order])) + 1
    return np.split(order, starts)


def contiguous(size: int, width: int) -> np.ndarray:
    """Parts of `width` neighbours, as a table."""
    count = -(-size // width)
    return np.minimum(np.arange(count * width), size).reshape(count, width).astype(np.int32)


# ---- Their matrices ------------------------------------------------------------------------------


def local_slots(pattern: SparsityPattern, table: np.ndarray) -> np.ndarray:
    """`(parts, s, s)`: the slot of the entry between two members of a part; nnz where there is none."""
    key = ("local", FrozenArray(table))
    return pattern.cached(key, lambda: _find(pattern, table))


def _find(pattern: SparsityPattern, table: np.ndarray) -> np.ndarray:
    """By a search among all positions."""
    n = pattern.shape[1]
    keys = pattern.rows.astype(np.int64) * n + pattern.indices
    rows, columns = table[:, :, None].astype(np.int64), table[:, None, :]
    wanted = rows * n + columns
    at = np.minimum(np.searchsorted(keys, wanted.reshape(-1)), max(pattern.nnz - 1, 0))
    found = (keys[at] == wanted.reshape(-1)) if pattern.nnz else np.zeros(wanted.size, bool)
    found &= np.broadcast_to((rows < n) & (columns < n), wanted.shape).reshape(-1)
    return np.where(found, at, pattern.nnz).reshape(wanted.shape).astype(pattern.indices.dtype)


def with_ones(blocks: Array, table: np.ndarray, size: int) -> Array:
    """Blocks with the identity where a part has fewer members."""
    absent = jnp.asarray(table >= size)
    eye = jnp.eye(blocks.shape[1], dtype=blocks.dtype)
    return jnp.where(absent[:, :, None] | absent[:, None, :], eye, blocks)


def inverses(blocks: Array, hermitian: bool) -> Array:
    """The inverse of each block; of a singular one, that of its diagonal.

    Those of Hermitian blocks are made exactly Hermitian.
    """
    out = jnp.linalg.inv(blocks)
    d = jnp.diagonal(blocks, axis1=1, axis2=2)
    d = 1 / jnp.where(d == 0, 1, d)
    instead = d[:, :, None] * jnp.eye(blocks.shape[1], dtype=blocks.dtype)
    good = jnp.all(jnp.isfinite(out), axis=(1, 2), keepdims=True)
    out = jnp.where(good, out, instead)
    return (out + jnp.swapaxes(out, 1, 2).conj()) / 2 if hermitian else out
