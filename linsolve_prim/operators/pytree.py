"""`PyTreeLinearOperator`: a matrix of blocks between pytrees."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import HIGHEST, tree_conj, tree_dtype, unravel
from .._types import Structure, common_dtype, inexact_asarray, structure_equal, structure_str
from ..errors import StructureError
from . import functions as fns
from .base import AbstractLinearOperator
from .dense import bands_of, materialise_by_products
from .diagonal import DiagonalLinearOperator
from .structures import PackedStructure, check_vector, inexact_structure, is_vector, pack, unpack
from .tags import as_tags, transpose_tags
from .tridiagonal import tridiagonal_product


class PyTreeLinearOperator(AbstractLinearOperator):
    """A linear map between pytrees, held as one array for each pair of an output and an input leaf.

    The tree of arrays is the output's tree with an input's tree at each of its leaves; the array
    for the output leaf of shape `s` and the input leaf of shape `r` has shape `(*s, *r)`. That is
    what `jax.jacfwd` returns. For the output `{"p": float32[2]}` and the input
    `(float32[4,5], float32[3])` it is `{"p": (float32[2,4,5], float32[2,3])}`.

    **Raises** `StructureError` for trees or shapes that do not fit.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> f = lambda x: {"sum": x[0] + x[1].sum(), "scaled": 2 * x[1]}
        >>> x = (jnp.array(1.0), jnp.array([2.0, 3.0]))
        >>> A = lp.PyTreeLinearOperator(jax.jacfwd(f)(x), jax.eval_shape(f, x))
        >>> jax.tree.map(lambda y: y.tolist(), A.mv(x)), A.out_size(), A.in_size()
        ({'scaled': [4.0, 6.0], 'sum': 6.0}, 3, 3)
    """

    pytree: PyTree[Array]
    output_structure: PackedStructure = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)
    input_structure: PackedStructure = eqx.field(static=True)

    def __init__(
        self,
        pytree: PyTree,
        output_structure: PyTree,
        tags: object | Iterable[object] = (),
        *,
        input_structure: PyTree = None,
    ):
        """**Arguments**

        - `pytree`: the blocks; integers are promoted to the default float dtype.
        - `output_structure`: a pytree of `jax.ShapeDtypeStruct`.
        - `tags`: what is promised about the operator.
        - `input_structure`: by default read from the blocks. Pass it if the input's dtypes are not
          those of the blocks.

        **Raises** `StructureError` if blocks and structures do not fit together.
        """
        self.pytree = jax.tree.map(inexact_asarray, pytree)
        output_structure = inexact_structure(output_structure)
        self.output_structure = pack(output_structure)
        self.tags = as_tags(tags)
        rows, strips = _strips(self.pytree, output_structure)
        found = [
            jax.tree.map(functools.partial(_column_structure, row=row), strip)
            for row, strip in zip(rows, strips)
        ]
        wanted = found[0] if input_structure is None else inexact_structure(input_structure)
        for structure in found:
            fits = structure_equal if input_structure is None else _same_shapes
            if not fits(structure, wanted):
                raise StructureError(
                    "pytree: all its rows must have one input structure; got "
                    f"{structure_str(structure)} where {structure_str(wanted)} was expected. Mend "
                    "the blocks; if only their dtypes differ, pass `input_structure`."
                )
        self.input_structure = pack(wanted)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        check_vector(vector, self.in_structure())
        if fns.is_diagonal(self) and _keeps_structure(self):
            entries = unravel(fns.diagonal(self), self.in_structure())
            return DiagonalLinearOperator(entries).mv(vector)
        if fns.is_tridiagonal(self) and _keeps_structure(self) and is_vector(self.in_structure()):
            return tridiagonal_product(*fns.tridiagonal(self), vector)
        rows, strips = _strips(self.pytree, self.out_structure())
        columns = jax.tree.leaves(vector)
        products = [
            _block_row(row, jax.tree.leaves(strip), columns) for row, strip in zip(rows, strips)
        ]
        return jax.tree.unflatten(jax.tree.structure(self.out_structure()), products)

    def as_matrix(self) -> Array:
        dtype = tree_dtype((self.pytree, self.in_structure(), self.out_structure()))
        rows, strips = _strips(self.pytree, self.out_structure())
        widths = [math.prod(column.shape) for column in jax.tree.leaves(self.in_structure())]
        flat = [
            [b.reshape(row.size, n).astype(dtype) for b, n in zip(jax.tree.leaves(strip), widths)]
            for row, strip in zip(rows, strips)
        ]
        return jnp.concatenate([jnp.concatenate(row, axis=1) for row in flat], axis=0)

    def transpose(self) -> PyTreeLinearOperator:
        if fns.is_symmetric(self):
            return self
        rows, strips = _strips(self.pytree, self.out_structure())
        moved = [
            jax.tree.leaves(jax.tree.map(functools.partial(_move_axes, axes=len(row.shape)), strip))
            for row, strip in zip(rows, strips)
        ]
        row_treedef = jax.tree.structure(self.out_structure())
        strips = [jax.tree.unflatten(row_treedef, strip) for strip in zip(*moved)]
        blocks = jax.tree.unflatten(jax.tree.structure(self.in_structure()), strips)
        return PyTreeLinearOperator(
            blocks,
            self.in_structure(),
            transpose_tags(self.tags),
            input_structure=self.out_structure(),
        )

    def in_structure(self) -> Structure:
        return unpack(self.input_structure)

    def out_structure(self) -> Structure:
        return unpack(self.output_structure)


def _strips(pytree: PyTree[Array], out_structure: Structure) -> tuple[list[Any], list[Any]]:
    """The leaves of the output structure, and for each of them its row of blocks."""
    rows, treedef = jax.tree.flatten(out_structure)
    if not rows:
        raise StructureError(
            f"output_structure: must have at least one leaf; got {out_structure}. Leave an "
            "operator without output out of the system."
        )
    try:
        return rows, treedef.flatten_up_to(pytree)
    except (ValueError, TypeError) as error:
        raise StructureError(
            "pytree: must begin with the tree of `output_structure`, "
            f"{structure_str(out_structure)}; got {structure_str(pytree)}. Nest the blocks as "
            "output tree first, input tree inside."
        ) from error


def _column_structure(block: Array, row: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    axes = len(row.shape)
    if block.shape[:axes] != row.shape:
        raise StructureError(
            f"pytree: the first axes of each block must be the shape of its output leaf, "
            f"{row.shape}; got a block of shape {block.shape}. Mend the block or "
            "`output_structure`."
        )
    return jax.ShapeDtypeStruct(block.shape[axes:], block.dtype)


def _same_shapes(x: Structure, y: Structure) -> bool:
    shapes = lambda structure: [leaf.shape for leaf in jax.tree.leaves(structure)]
    return jax.tree.structure(x) == jax.tree.structure(y) and shapes(x) == shapes(y)


def _block_row(row: jax.ShapeDtypeStruct, blocks: list[Array], columns: list[Array]) -> Array:
    """Σⱼ Bⱼ xⱼ, in the output leaf's dtype."""
    total = jnp.zeros(row.shape, row.dtype)
    for block, column in zip(blocks, columns):
        column = jnp.asarray(column)
        dtype = common_dtype(block.dtype, column.dtype)
        product = jnp.tensordot(
            block.astype(dtype), column.astype(dtype), axes=column.ndim, precision=HIGHEST
        )
        if not jnp.issubdtype(row.dtype, jnp.complexfloating):
            product = product.real
        total = total + product.astype(row.dtype)
    return total


def _move_axes(block: Array, axes: int) -> Array:
    """A block's output axes (the first ones) moved behind its input axes."""
    return jnp.transpose(block, (*range(axes, block.ndim), *range(axes)))


def _keeps_structure(operator: PyTreeLinearOperator) -> bool:
    return operator.input_structure == operator.output_structure


@fns.conj.register(PyTreeLinearOperator)
def _conj(operator: PyTreeLinearOperator) -> PyTreeLinearOperator:
    return PyTreeLinearOperator(
        tree_conj(operator.pytree),
        operator.out_structure(),
        operator.tags,
        input_structure=operator.in_structure(),
    )


@fns.materialise.register(PyTreeLinearOperator)
def _materialise(operator: PyTreeLinearOperator) -> AbstractLinearOperator:
    structure = operator.in_structure()
    sparse = fns.is_diagonal(operator) or (fns.is_tridiagonal(operator) and is_vector(structure))
    if sparse and _keeps_structure(operator):
        return materialise_by_products(operator)
    return operator


@fns.diagonal.register(PyTreeLinearOperator)
def _diagonal(operator: PyTreeLinearOperator) -> Array:
    if not (fns.is_diagonal(operator) and _keeps_structure(operator)):
        return jnp.diagonal(operator.as_matrix())
    rows, strips = _strips(operator.pytree, operator.out_structure())
    dtype = tree_dtype(operator.out_structure())
    blocks = [jax.tree.leaves(strip)[i] for i, strip in enumerate(strips)]
    return jnp.concatenate(
        [jnp.diagonal(b.reshape(r.size, r.size)).astype(dtype) for b, r in zip(blocks, rows)]
    )


@fns.tridiagonal.register(PyTreeLinearOperator)
def _tridiagonal(operator: PyTreeLinearOperator) -> tuple[Array, Array, Array]:
    return bands_of(operator.as_matrix())
