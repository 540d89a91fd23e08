"""`SparseLinearOperator`: a sparse matrix whose pattern is static and whose values are dynamic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import common_dtype, inexact_asarray
from ..errors import StructureError, WrongTypeError
from ..operators import AbstractLinearOperator, TaggedLinearOperator, functions as fns
from ..operators.dense import tags_of
from ..operators.structures import check_vector
from ..operators.tags import as_tags, transpose_tags
from . import conversions as cv
from .packed import is_known, sparse_known_mv
from .pattern import SparsityPattern
from .products import sparse_mv
from .values import pick, place


class SparseLinearOperator(AbstractLinearOperator):
    """The operator x ↦ Ax of a sparse matrix A of shape `(m, n)`.

    `values`, of shape `(nnz,)`, are its only leaf: they are differentiated, batched and sharded.
    The pattern is part of the type, so to say: a program is compiled for it. Entry number k has the
    value `values[k]`, and lies at `(pattern.rows[k], pattern.indices[k])`.

    Derivatives are by the values alone: they live on the pattern, and never become dense. Sums,
    products, transposes and blocks of sparse operators are sparse again (see `sparse/algebra.py`).

    What the pattern of a square matrix proves (that it is diagonal, tridiagonal or triangular) needs
    no tag.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_coo([0, 1, 1], [0, 0, 1], jnp.array([2.0, 1.0, 4.0]), (2, 2))
        >>> print(A.mv(jnp.ones(2)), lp.solve(A, jnp.array([2.0, 5.0])), lp.is_lower_triangular(A))
        [2. 5.] [1. 1.] True
        >>> loss = lambda values: lp.solve(lp.SparseLinearOperator(values, A.pattern), jnp.ones(2)).sum()
        >>> print(jax.grad(loss)(A.values).round(4))  # one number for each entry
        [-0.1875 -0.125  -0.0312]
    """

    values: Array
    pattern: SparsityPattern = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, values: Any, pattern: SparsityPattern, tags: object | Iterable[object] = ()):
        """**Arguments**

        - `values`: shape `(pattern.nnz,)`, in the order of the pattern; integers are promoted to
          the default float dtype.
        - `pattern`: a `SparsityPattern`.
        - `tags`: what is promised about the matrix, e.g. `symmetric_tag` or several tags.

        **Raises** `StructureError` if there are not as many values as entries, or if a tag asks for
        a square matrix and it is not; `WrongTypeError` if `pattern` is of another type.
        """
        if not isinstance(pattern, SparsityPattern):
            raise WrongTypeError(
                f"pattern: must be a `SparsityPattern`; got {type(pattern).__name__}. Make one by "
                "`SparsityPattern.from_coo`, or the operator by `SparseLinearOperator.from_coo`."
            )
        values = inexact_asarray(values)
        if values.shape != (pattern.nnz,):
            raise StructureError(
                f"values: must have shape {(pattern.nnz,)}, one for each entry of the pattern; got "
                f"{values.shape}. Use `jax.vmap` for a batch, and "
                "`SparseLinearOperator.from_coo` for entries with repetitions."
            )
        self.values = values
        self.pattern = pattern
        self.tags = as_tags(tags) if tags else frozenset()

    # ---- From and to other forms; derived in `conversions.py` -------------------------------------

    @classmethod
    def from_coo(
        cls, rows: Any, cols: Any, values: Any, shape: Any, tags: object | Iterable[object] = ()
    ) -> SparseLinearOperator:
        """From triplets in any order; those at the same position are summed.

        **Arguments**: `rows`, `cols` of shape `(k,)`, concrete integers; `values` of shape `(k,)`,
        which may be traced, and each of which gets its own gradient.

        **Raises** `StructureError` for indices that are out of range or traced, and for lengths
        that differ. (So do the other constructors.)
        """
        pattern, slots = SparsityPattern.from_coo(rows, cols, shape)
        return cls(place(values, slots, pattern, "values"), pattern, tags)

    @classmethod
    def from_csr(
        cls, indptr: Any, indices: Any, data: Any, shape: Any, tags: object | Iterable[object] = ()
    ) -> SparseLinearOperator:
        """From compressed rows, whose columns may be unsorted or repeated. `data` may be traced."""
        pattern, slots = SparsityPattern._from_csr(indptr, indices, shape)
        return cls(place(data, slots, pattern, "data"), pattern, tags)

    @classmethod
    def from_csc(
        cls, indptr: Any, indices: Any, data: Any, shape: Any, tags: object | Iterable[object] = ()
    ) -> SparseLinearOperator:
        """From compressed columns, whose rows may be unsorted or repeated. `data` may be traced."""
        pattern, slots = SparsityPattern._from_csc(indptr, indices, shape)
        return cls(place(data, slots, pattern, "data"), pattern, tags)

    @classmethod
    def from_scipy(cls, matrix: Any, tags: object | Iterable[object] = ()) -> SparseLinearOperator:
        """From a `scipy.sparse` matrix or array in any format; explicit zeros stay."""
        return cls(*cv.read_scipy(matrix), tags)

    @classmethod
    def from_bcoo(cls, matrix: Any, tags: object | Iterable[object] = ()) -> SparseLinearOperator:
        """From a `jax.experimental.sparse.BCOO` with two sparse axes.

        Its data may be traced, its indices not. Entries that pad it (their index is past the end)
        are dropped, repeated ones summed. The gradient by a BCOO has its indices.
        """
        return cls(*cv.read_bcoo(matrix), tags)

    @classmethod
    def from_bcsr(cls, matrix: Any, tags: object | Iterable[object] = ()) -> SparseLinearOperator:
        """From a `jax.experimental.sparse.BCSR` with two sparse axes. See `from_bcoo`."""
        return cls(*cv.read_bcsr(matrix), tags)

    @classmethod
    def from_dense(
        cls, matrix: Any, tol: float = 0.0, tags: object | Iterable[object] = ()
    ) -> SparseLinearOperator:
        """The entries of a concrete matrix that are larger than `tol` in magnitude."""
        pattern = SparsityPattern.from_dense(matrix, tol)
        return cls(inexact_asarray(matrix)[pattern.rows, pattern.indices], pattern, tags)

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array`. **Raises** `StructureError` if the values are traced."""
        return cv.to_scipy(self.values, self.pattern)

    def to_bcoo(self) -> Any:
        """A `jax.experimental.sparse.BCOO` with the entries in the order of the pattern."""
        return cv.to_bcoo(self.values, self.pattern)

    def to_bcsr(self) -> Any:
        """A `jax.experimental.sparse.BCSR` with the entries in the order of the pattern."""
        return cv.to_bcsr(self.values, self.pattern)

    # ---- The operator ----------------------------------------------------------------------------

    def mv(self, vector: PyTree[Array]) -> Array:
        check_vector(vector, self.in_structure())
        return self._product(vector)

    def _product(self, rows: Any) -> Array:
        """`(n,)` to `(m,)`, or `(k, n)` to `(k, m)`: A times each row."""
        values, pattern, x = self.values, self.pattern, jnp.asarray(rows)
        dtype = common_dtype(values.dtype, x.dtype)
        x = x if x.dtype == dtype else x.astype(dtype)
        if values.dtype == dtype and is_known(values):
            return sparse_known_mv(values, x, pattern=pattern)
        y = sparse_mv(
            values.astype(dtype)[None],
            x.reshape(1, x.shape[0] if x.ndim == 2 else 1, x.shape[-1]),
            pattern=pattern,
        )
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def mm(self, matrix: Any) -> Array:
        """The product AX with a dense matrix, `(n, k)` to `(m, k)`: k vectors at once.

        **Raises** `StructureError` if `matrix` does not have the shape `(n, k)`.
        """
        matrix = inexact_asarray(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != self.in_size():
            raise StructureError(
                f"matrix: must have shape ({self.in_size()}, k) to be multiplied by an operator of "
                f"shape {self.pattern.shape}; got {matrix.shape}. For one vector there is `mv`."
            )
        return self._product(matrix.T).T

    def as_matrix(self) -> Array:
        """The dense matrix, `(m, n)`."""
        zeros = jnp.zeros(self.pattern.shape, self.values.dtype)
        return zeros.at[self.pattern.rows, self.pattern.indices].set(
            self.values, indices_are_sorted=True, unique_indices=True
        )

    def transpose(self) -> SparseLinearOperator:
        if fns.is_symmetric(self):
            return self
        values = pick(self.values, self.pattern.transpose_order)
        return SparseLinearOperator(values, self.pattern.T, transpose_tags(self.tags))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.pattern.shape[1:], self.values.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.pattern.shape[:1], self.values.dtype)

    def in_size(self) -> int:
        return self.pattern.shape[1]

    def out_size(self) -> int:
        return self.pattern.shape[0]

    # ---- Algebra: sparse where both sides are, or one is and the other is diagonal -----------------

    def __add__(self, other: Any) -> AbstractLinearOperator:
        return super().__add__(_sparse_or_as_it_is(other))

    def __sub__(self, other: Any) -> AbstractLinearOperator:
        return super().__sub__(_sparse_or_as_it_is(other))

    def __matmul__(self, other: Any) -> Any:
        return super().__matmul__(_sparse_or_as_it_is(other))

    def _added_to(self, left: AbstractLinearOperator) -> AbstractLinearOperator:
        from . import algebra  # builds on this class, here and below

        lazy, first = super()._added_to(left), algebra.as_sparse(left)
        return lazy if first is None else algebra.add(first, self, lazy)

    def _composed_after(self, left: AbstractLinearOperator) -> AbstractLinearOperator:
        from . import algebra

        lazy, first = super()._composed_after(left), algebra.as_sparse(left)
        return lazy if first is None else algebra.compose(first, self, lazy)

    def __neg__(self) -> SparseLinearOperator:
        return SparseLinearOperator(-self.values, self.pattern, tags_of(super().__neg__()))

    def __mul__(self, other: Any) -> SparseLinearOperator:
        lazy: Any = super().__mul__(other)  # checks the scalar, and knows its sign
        values = lazy.scalar.astype(self.values.dtype) * self.values
        return SparseLinearOperator(values, self.pattern, tags_of(lazy))

    def __truediv__(self, other: Any) -> SparseLinearOperator:
        lazy: Any = super().__truediv__(other)
        values = self.values / lazy.scalar.astype(self.values.dtype)
        return SparseLinearOperator(values, self.pattern, tags_of(lazy))

    def __getitem__(self, key: Any) -> SparseLinearOperator:
        """`A[i0:i1, j0:j1]`, by slices, index arrays or masks, which are concrete. Sparse again.

        **Raises** `StructureError` for indices that are out of range, traced or not of one axis.
        """
        from . import algebra

        return algebra.part(self, key)


def _sparse_or_as_it_is(operand: Any) -> Any:
    from . import algebra

    found = algebra.as_sparse(operand)
    return operand if found is None else found


def sparse_of(operator: AbstractLinearOperator) -> SparseLinearOperator | None:
    """The sparse operator that this is, perhaps behind more tags; or None."""
    if isinstance(operator, TaggedLinearOperator):
        return sparse_of(operator.operator)
    return operator if isinstance(operator, SparseLinearOperator) else None


# ---- What the pattern proves ---------------------------------------------------------------------


def _register(predicate: Any, proves: Any) -> None:
    """Tags promise, as for every operator; and the pattern of a square matrix proves."""
    promised = predicate.dispatch(object)

    def holds(operator: SparseLinearOperator) -> bool:
        m, n = operator.pattern.shape
        return promised(operator) or (m == n and proves(*operator.pattern.bandwidth()))

    predicate.register(SparseLinearOperator, holds)


_register(fns.is_symmetric, lambda below, above: below == above == 0)
_register(fns.is_diagonal, lambda below, above: below == above == 0)
_register(fns.is_tridiagonal, lambda below, above: below <= 1 and above <= 1)
_register(fns.is_lower_triangular, lambda below, above: above == 0)
_register(fns.is_upper_triangular, lambda below, above: below == 0)


# ---- Entries -------------------------------------------------------------------------------------


@fns.materialise.register(SparseLinearOperator)
def _materialise(operator: SparseLinearOperator) -> SparseLinearOperator:
    return operator


@fns.conj.register(SparseLinearOperator)
def _conj(operator: SparseLinearOperator) -> SparseLinearOperator:
    if not jnp.iscomplexobj(operator.values):
        return operator
    return SparseLinearOperator(operator.values.conj(), operator.pattern, operator.tags)


def _entries(operator: SparseLinearOperator, offset: int, length: int) -> Array:
    """A diagonal of A, with zeros where it has no entries."""
    return pick(operator.values, operator.pattern.diagonal_slots(offset)[: max(length, 0)])


@fns.diagonal.register(SparseLinearOperator)
def _diagonal(operator: SparseLinearOperator) -> Array:
    return _entries(operator, 0, min(operator.pattern.shape))


@fns.tridiagonal.register(SparseLinearOperator)
def _tridiagonal(operator: SparseLinearOperator) -> tuple[Array, Array, Array]:
    size = min(operator.pattern.shape)  # of the leading square part
    bands = [_entries(operator, k, size - abs(k)) for k in (0, -1, 1)]
    return bands[0], bands[1], bands[2]
