"""Splitting pytrees into what is traced and what is compiled in."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._types import is_array


class _Identity:
    """An unhashable object as a dictionary key: equal to itself only, kept alive by its key."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value


def hashable(x: Any) -> Any:
    """`x` itself where it can be hashed, else a key that compares by identity."""
    try:
        hash(x)
    except TypeError:
        return _Identity(x)
    return x


def unhashable(x: Any) -> Any:
    """The inverse of `hashable`."""
    return x.value if type(x) is _Identity else x


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Static:
    """A pytree without leaves: its value is part of the tree's structure, so that it is compiled in.

    Solver states carry their flags ("transposed", the structures) this way.
    """

    value: Any = dataclasses.field(metadata={"static": True})


class _Hole:
    """Stands in the list of static leaves where an array was."""

    def __repr__(self) -> str:
        return "*"


HOLE = _Hole()


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A pytree without its arrays: hashable, so that it can be a static argument or a parameter."""

    treedef: Any
    leaves: tuple[Any, ...]

    def fill(self, arrays: list[Any] | tuple[Any, ...]) -> PyTree:
        """Put arrays back into the holes."""
        it = iter(arrays)
        leaves = [next(it) if leaf is HOLE else unhashable(leaf) for leaf in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)

    @property
    def num_arrays(self) -> int:
        return sum(leaf is HOLE for leaf in self.leaves)


def split(tree: PyTree) -> tuple[list[Any], Skeleton]:
    """Separate the arrays of a pytree from everything else (`Skeleton.fill` is the inverse)."""
    arrays, treedef, rest = take_apart(tree)
    return arrays, Skeleton(treedef, rest)


def take_apart(tree: PyTree) -> tuple[list[Any], Any, tuple[Any, ...]]:
    """What `split` returns, with the fields of the skeleton in the place of it."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = []
    rest = []
    for leaf in leaves:
        if is_array(leaf):
            arrays.append(leaf)
            rest.append(HOLE)
        else:
            rest.append(hashable(leaf))
    return arrays, treedef, tuple(rest)


def is_concrete(tree: PyTree) -> bool:
    """Whether no array of a pytree is traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def stop_gradient(tree: PyTree) -> PyTree:
    """The same pytree with its arrays shut off from differentiation.

    Those that are not traced stay as they are: what is made of them can be made while tracing.
    """
    arrays, skeleton = split(tree)
    traced = lambda x: isinstance(x, jax.core.Tracer)
    # what `jax.grad` was given a Python number for would come back as one, which has no `conj`
    held = lambda x: jnp.asarray(jax.lax.stop_gradient(x))
    return skeleton.fill([held(x) if traced(x) else x for x in arrays])


class FrozenArray:
    """A NumPy array that is compiled in: read-only, hashed and compared by content."""

    __slots__ = ("array", "digest")

    array: np.ndarray
    digest: bytes

    def __init__(self, array: Any):
        array = np.array(array)
        array.flags.writeable = False
        kind = f"{array.shape} {array.dtype.str}".encode()
        state = hashlib.blake2b(kind, digest_size=16)
        state.update(np.ascontiguousarray(array).data)
        self.array, self.digest = array, state.digest()

    def __hash__(self) -> int:
        return int.from_bytes(self.digest[:7], "little")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenArray) and self.digest == other.digest

    def __repr__(self) -> str:
        return f"array of {self.array.size}"
