"""`TripletLinearOperator`: a sparse matrix whose indices are known at run time only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import inexact_asarray
from ..errors import StructureError, WrongTypeError
from ..operators import AbstractLinearOperator, functions as fns
from ..operators.structures import check_vector
from ..operators.tags import as_tags, transpose_tags


class TripletLinearOperator(AbstractLinearOperator):
    """The operator of a matrix given by triplets `(rows[k], cols[k], values[k])`, all of them arrays.

    For indices that are traced, as those of a `BCOO` that is an argument of a jitted function. Where
    they are known beforehand, `SparseLinearOperator` is faster: it can choose its layout.
    Triplets at the same position add up; those with an index past the end are left out.

    - `values`: `(k,)`; `rows`, `cols`: `(k,)` integers, traced or not; `shape`: `(m, n)`.

    **Raises** `StructureError` for lengths that differ, `WrongTypeError` for indices that are no integers.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> build = lambda rows, cols, values: lp.TripletLinearOperator(values, rows, cols, (2, 2))
        >>> total = jax.jit(lambda *triplets: build(*triplets).mv(jnp.ones(2)))
        >>> print(total(jnp.array([0, 1, 1]), jnp.array([0, 0, 0]), jnp.array([1.0, 2.0, 3.0])))
        [1. 5.]
    """

    values: Array
    rows: Array
    cols: Array
    shape: tuple[int, int] = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        values: Any,
        rows: Any,
        cols: Any,
        shape: tuple[int, int],
        tags: object | Iterable[object] = (),
    ):
        """**Arguments**: `values`, `rows`, `cols` of shape `(k,)`; `shape` is `(m, n)`.

        **Raises** `StructureError` if their lengths differ, `WrongTypeError` if `rows` or `cols` are
        not integers.
        """
        values, rows, cols = inexact_asarray(values), jnp.asarray(rows), jnp.asarray(cols)
        for name, index in (("rows", rows), ("cols", cols)):
            if not jnp.issubdtype(index.dtype, jnp.integer):
                raise WrongTypeError(f"{name}: must be integers; got {index.dtype}.")
            if index.shape != values.shape or values.ndim != 1:
                raise StructureError(
                    f"{name}: must have one entry for each value, shape (k,); got {index.shape} for "
                    f"values of shape {values.shape}."
                )
        self.values = values
        self.rows = rows.astype(jnp.int32)
        self.cols = cols.astype(jnp.int32)
        self.shape = (int(shape[0]), int(shape[1]))
        self.tags = as_tags(tags) if tags else frozenset()

    def mv(self, vector: PyTree[Array]) -> Array:
        check_vector(vector, self.in_structure())
        products = self.values * vector.at[self.cols].get(mode="fill", fill_value=0)
        return jnp.zeros(self.shape[0], products.dtype).at[self.rows].add(products, mode="drop")

    def as_matrix(self) -> Array:
        zeros = jnp.zeros(self.shape, self.values.dtype)
        return zeros.at[self.rows, self.cols].add(self.values, mode="drop")

    def transpose(self) -> TripletLinearOperator:
        if fns.is_symmetric(self):
            return self
        shape = self.shape[::-1]
        return TripletLinearOperator(
            self.values, self.cols, self.rows, shape, transpose_tags(self.tags)
        )

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape[1:], self.values.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape[:1], self.values.dtype)


@fns.conj.register(TripletLinearOperator)
def _conj(operator: TripletLinearOperator) -> TripletLinearOperator:
    if not jnp.iscomplexobj(operator.values):
        return operator
    own = (operator.rows, operator.cols, operator.shape, operator.tags)
    return TripletLinearOperator(operator.values.conj(), *own)


def from_any(matrix: Any) -> AbstractLinearOperator:
    """The operator of a `scipy.sparse` matrix, a BCOO or a BCSR, with traced indices or concrete."""
    from jax.experimental.sparse import BCOO, BCSR

    from .conversions import check_jax_sparse
    from .operator import SparseLinearOperator

    if isinstance(matrix, BCOO):
        if not isinstance(matrix.indices, jax.core.Tracer):
            return SparseLinearOperator.from_bcoo(matrix)
        check_jax_sparse(matrix, BCOO)
        return TripletLinearOperator(
            matrix.data, matrix.indices[:, 0], matrix.indices[:, 1], matrix.shape
        )
    if isinstance(matrix, BCSR):
        traced = [isinstance(x, jax.core.Tracer) for x in (matrix.indices, matrix.indptr)]
        if not any(traced):
            return SparseLinearOperator.from_bcsr(matrix)
        check_jax_sparse(matrix, BCSR)
        # entry k lies in the row whose beginning is the last at or before k; padding after the last row
        places = jnp.arange(matrix.data.shape[0], dtype=matrix.indptr.dtype)
        rows = jnp.searchsorted(matrix.indptr, places, side="right") - 1
        return TripletLinearOperator(matrix.data, rows, matrix.indices, matrix.shape)
    return SparseLinearOperator.from_scipy(matrix)


def is_sparse(matrix: Any) -> bool:
    """Whether `matrix` is of `scipy.sparse`, a BCOO or a BCSR."""
    import scipy.sparse as sp
    from jax.experimental.sparse import BCOO, BCSR

    return sp.issparse(matrix) or isinstance(matrix, (BCOO, BCSR))
