"""Closure conversion: a Python function as a pytree of the arrays it captures, and a program.

A Python function hides the arrays that it closes over: they cannot be operands of a primitive nor
be differentiated there, and each new `lambda` is a new function to `jax.jit`. `close` traces the
function once. What it captured (outer tracers too) becomes the leaves of a `ClosedFunction`; the
rest is its jaxpr, which compares by content (see `program.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import hashable, unhashable
from .._types import Structure, is_array, structure_str
from .._varying import vary_together
from ..errors import StructureError
from .program import Program, called_jaxpr, evaluate_inlined
from .structures import PackedStructure, pack, unpack


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a function was traced for: its arguments, less the values of their arrays."""

    treedef: Any
    leaves: tuple[Any, ...]  # a `jax.ShapeDtypeStruct` for an array, else the value

    @staticmethod
    def of(args: tuple[Any, ...]) -> tuple[Signature, list[Any]]:
        """The signature of some arguments, and their arrays (or structures of arrays)."""
        leaves, treedef = jax.tree.flatten(args)
        arrays = [leaf for leaf in leaves if _is_dynamic(leaf)]
        kinds = [
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if _is_dynamic(leaf) else hashable(leaf)
            for leaf in leaves
        ]
        return Signature(treedef, tuple(kinds)), arrays

    @property
    def structures(self) -> list[jax.ShapeDtypeStruct]:
        return [leaf for leaf in self.leaves if isinstance(leaf, jax.ShapeDtypeStruct)]

    def fill(self, arrays: Any) -> tuple[Any, ...]:
        """The arguments, with arrays in their places."""
        it = iter(arrays)
        leaves = [
            next(it) if isinstance(leaf, jax.ShapeDtypeStruct) else unhashable(leaf)
            for leaf in self.leaves
        ]
        return jax.tree.unflatten(self.treedef, leaves)

    def __str__(self) -> str:
        args = jax.tree.unflatten(self.treedef, [_describe(leaf) for leaf in self.leaves])
        return repr(args[0] if len(args) == 1 else args)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ClosedFunction:
    """A traced function: call it with arguments of the structure that it was traced for.

    `consts` are the arrays that the function captured; they are its pytree leaves, so that it can
    be differentiated, batched and passed through `jax.jit` in all of them. All else is static, and
    equal for equal code: passing 1000 equal lambdas to a jitted function compiles it once.

    **Raises** `StructureError` for arguments of another structure.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> scale = jnp.array(3.0)
        >>> f = lp.operators.close(lambda x: scale * x, jnp.zeros(2))
        >>> f(jnp.ones(2)).tolist(), [x.tolist() for x in jax.tree.leaves(f)]
        ([3.0, 3.0], [3.0])
    """

    consts: list[Any]  # arrays, or what a transformation of the pytree puts in their place
    program: Program = dataclasses.field(metadata={"static": True})
    signature: Signature = dataclasses.field(metadata={"static": True})
    output_structure: PackedStructure = dataclasses.field(metadata={"static": True})

    def __call__(self, *args: PyTree) -> PyTree[Array]:
        """**Raises** `StructureError` if `args` differ from what the function was traced for."""
        signature, arrays = Signature.of(args)
        if signature != self.signature:
            raise StructureError(
                f"A function that was traced for arguments of structure {self.signature} was "
                f"called with {signature}. Cast or reshape the arguments, or trace it for these."
            )
        out = self.program(*vary_together(*self.consts, *arrays))
        _, treedef = self.output_structure
        out = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in out]  # literals
        return jax.tree.unflatten(treedef, out)

    def out_structure(self) -> Structure:
        """Shapes and dtypes of the result."""
        return unpack(self.output_structure)


def close(fn: Callable[..., PyTree], *args: PyTree) -> ClosedFunction:
    """Trace `fn` for arguments like `args` (arrays or their structures, and static values).

    For example:

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> f = lp.operators.close(lambda x, n: x * n, jnp.zeros(2), jnp.array(2.0))
        >>> print(jax.jit(lambda f, x: f(x, jnp.array(4.0)))(f, jnp.ones(2)))
        [4. 4.]
    """
    signature, _ = Signature.of(args)
    if isinstance(fn, ClosedFunction) and fn.signature == signature:
        return fn
    out_structure: Any = None

    def flat(*arrays: Array) -> list[Array]:
        nonlocal out_structure
        out = jax.tree.map(_strongly_typed, fn(*signature.fill(arrays)))
        out_structure = pack(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), out))
        return jax.tree.leaves(out)

    closed = _hoist_inner_consts(jax.make_jaxpr(flat)(*signature.structures))
    consts = [known_as_it_is(const) for const in closed.consts]
    return ClosedFunction(consts, Program(closed), signature, out_structure)


def _is_dynamic(x: Any) -> bool:
    return is_array(x) or isinstance(x, jax.ShapeDtypeStruct)


def known_as_it_is(const: Any, dtype: Any = None) -> Any:
    """NumPy's arrays become JAX's, and not tracers, whatever is being traced."""
    if isinstance(const, jax.Array):
        return const
    with jax.ensure_compile_time_eval():
        return jnp.asarray(const, dtype)


def _strongly_typed(x: Any) -> Array:
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)  # drops a weak type


class _Text:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _describe(leaf: Any) -> _Text:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return _Text(structure_str(leaf))
    return _Text(repr(unhashable(leaf)))


# A function under `jax.jit` that captured concrete arrays keeps them inside its own jaxpr, where
# they are neither leaves nor comparable. Inlining the call brings them to the outermost jaxpr.


def _has_inner_consts(jaxpr: Any) -> bool:
    inner = filter(None, map(called_jaxpr, jaxpr.eqns))
    return any(j.consts or _has_inner_consts(j) for j in inner)


def _hoist_inner_consts(closed: Any) -> Any:
    if not _has_inner_consts(closed):
        return closed
    structures = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *args: evaluate_inlined(closed.jaxpr, [*closed.consts, *args]))(
        *structures
    )
