"""`FunctionLinearOperator`: a linear Python function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._tree import tree_zeros
from .._types import Structure, inexact_asarray, is_array
from .._varying import vary_like, varying_axes
from . import functions as fns
from .base import AbstractLinearOperator
from .closure import ClosedFunction, close
from .program import primitive_names
from .structures import PackedStructure, check_vector, inexact_structure, pack, unpack
from .tags import as_tags, transpose_tags


class FunctionLinearOperator(AbstractLinearOperator):
    """The operator x ↦ fn(x) of a *linear* function of pytrees. (It is believed to be linear:
    `linsolve_prim.operators.check_linear` says whether it is.)

    Its transpose is found by `jax.linear_transpose`. It is differentiable in every array that `fn`
    captures.

    - `fn`: a function of a pytree like `input_structure` that returns a pytree of arrays.
    - `input_structure`: arrays, or `jax.ShapeDtypeStruct`s, with the shapes and dtypes of x.
    - `tags`: what is promised about it, as `lp.positive_semidefinite_tag`.

    **Raises** `StructureError` for a vector of another structure, and if `tags` ask for equal structures.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 3 * x - jnp.roll(x, 1), jnp.zeros(4))
        >>> print(A.mv(jnp.arange(4.0)), A.T.mv(jnp.arange(4.0)))
        [-3.  3.  5.  7.] [-1.  1.  3.  9.]
    """

    fn: Callable[[PyTree[Array]], PyTree[Array]]
    input_structure: PackedStructure = eqx.field(static=True)
    output_structure: PackedStructure = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[[PyTree[Array]], PyTree[Array]],
        input_structure: PyTree,
        tags: object | Iterable[object] = (),
        closure_convert: bool = True,
    ):
        """**Arguments**

        - `fn`: a linear function from one pytree of arrays to another.
        - `input_structure`: a pytree of `jax.ShapeDtypeStruct` (or of arrays, for their shapes and
          dtypes). Integers stand for the default float dtype.
        - `tags`: what is promised about the operator.
        - `closure_convert`: trace `fn` now, once. If `False`, `fn` is called for each product and
          must be a pytree itself, if it captures arrays that are traced or differentiated.
        """
        structure = inexact_structure(input_structure)
        if closure_convert:
            fn = close(_inexact(fn), structure)
            self.output_structure = fn.output_structure
        else:
            self.output_structure = pack(inexact_structure(jax.eval_shape(fn, structure)))
        self.fn = fn
        self.input_structure = pack(structure)
        self.tags = as_tags(tags)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        check_vector(vector, self.in_structure())
        return self.fn(vector)

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        axes = varying_axes([leaf for leaf in jax.tree.leaves(self.fn) if is_array(leaf)])
        like = vary_like(tree_zeros(self.in_structure()), axes) if axes else self.in_structure()
        transposed = jax.linear_transpose(self.fn, like)
        return _transpose(self, lambda vector: transposed(vary_like(vector, axes))[0])

    def in_structure(self) -> Structure:
        return unpack(self.input_structure)

    def out_structure(self) -> Structure:
        return unpack(self.output_structure)


def _transpose(operator: FunctionLinearOperator, transposed: Callable) -> AbstractLinearOperator:
    structure, tags = operator.out_structure(), transpose_tags(operator.tags)
    try:
        return FunctionLinearOperator(transposed, structure, tags)
    except NotImplementedError:
        # JAX does not transpose through a `custom_vjp` (though it differentiates through it) ...
        primitives = primitive_names(close(operator.fn, operator.in_structure()).program.jaxpr)
        if "custom_vjp_call" in primitives and "stop_gradient" not in primitives:
            zeros = tree_zeros(operator.in_structure())
            _, vjp = jax.vjp(operator.fn, zeros)
            return FunctionLinearOperator(lambda vector: vjp(vector)[0], structure, tags)
        # ... nor through a `stop_gradient` of the unknown, which has products only.
        return fns.materialise(operator).transpose()


def _inexact(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` with integer results promoted to the default float dtype."""
    if isinstance(fn, ClosedFunction):
        return fn
    return lambda *args: jax.tree.map(inexact_asarray, fn(*args))
