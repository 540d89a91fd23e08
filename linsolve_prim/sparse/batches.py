"""Many sparse matrices at once: products with dense ones, stacks, and blocks of a diagonal.

A batch of matrices of one pattern is a `SparseLinearOperator` whose values have leading dimensions, as
`jax.vmap` makes and takes it: `jax.vmap(lambda A, b: lp.solve(A, b))(stack([A, B]), b)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types import default_floating_dtype, inexact_asarray
from ..errors import StructureError
from . import plans
from .algebra import as_operators, block_diag
from .operator import SparseLinearOperator
from .pattern import SparsityPattern
from .triplets import from_any, is_sparse
from .values import pick


def spmm(A: Any, B: Any) -> Any:
    """The product AX of sparse and dense matrices, one or many.

    - `A`: a `SparseLinearOperator` `(m, n)` (or a SciPy matrix, `BCOO`, `BCSR`); a batch of them of one
      pattern, with values `(..., nnz)`; or a sequence of matrices with patterns and shapes of their own.
    - `B`: `(..., n, k)`, whose leading dimensions are those of A's values (or A has none, and is shared
      by all of B); for a sequence one B for each, as a sequence or stacked.

    **Returns** `(..., m, k)`; for a sequence of A a list, or an array if B is one and all shapes are the
    same. A sequence is multiplied at once, as a block-diagonal matrix. Gradients by A live on its
    pattern, to any order.

    **Raises** `StructureError` if shapes do not fit.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.spmm(A, jnp.ones((2, 3))))
        [[3. 3. 3.]
         [3. 3. 3.]]
        >>> print(lp.spmm(lp.stack([A, 2.0 * A]), jnp.ones((2, 2, 1))).ravel())  # a batch of one pattern
        [3. 3. 6. 6.]
    """
    if isinstance(A, list | tuple):
        return _each(as_operators(A), B)
    operator = from_any(A) if is_sparse(A) else A
    (operator,) = as_operators([operator], name="A")
    B = inexact_asarray(B)
    batch = operator.values.shape[:-1]
    if B.ndim < 2 or B.shape[-2] != operator.in_size() or (batch and B.shape[:-2] != batch):
        raise StructureError(
            f"B: must have shape {(*batch, operator.in_size())} with one more dimension, k, for A of "
            f"shape {(*batch, *operator.pattern.shape)}; got {B.shape}."
        )
    one = lambda A, B: A.mm(B)
    for _ in batch:
        one = jax.vmap(one)
    for _ in B.shape[len(batch) : -2]:
        one = jax.vmap(one, in_axes=(None, 0))
    return one(operator, B)


def _each(operators: list[SparseLinearOperator], B: Any) -> Any:
    if len(B) != len(operators):
        raise StructureError(f"B: must be one for each A, {len(operators)}; got {len(B)}.")
    parts = [inexact_asarray(b) for b in B]
    for i, (a, b) in enumerate(zip(operators, parts)):
        if b.ndim != 2 or b.shape[0] != a.in_size() or b.shape[1] != parts[0].shape[1]:
            raise StructureError(
                f"B[{i}]: must have shape ({a.in_size()}, k) for A[{i}] of shape {a.pattern.shape}, "
                f"with the same k = {parts[0].shape[-1]} for all; got {b.shape}."
            )
    out = block_diag(*operators).mm(jnp.concatenate(parts))
    rows = [a.out_size() for a in operators]
    found = jnp.split(out, np.cumsum(rows)[:-1].tolist())
    return jnp.stack(found) if hasattr(B, "ndim") and len(set(rows)) == 1 else found


def stack(operators: Sequence[Any]) -> SparseLinearOperator:
    """A batch of matrices of one shape, on the union of their patterns: values `(b, nnz)`.

    It is for `jax.vmap`, and for `spmm`. Tags that all have are kept.

    **Raises** `StructureError` if there are none, or if shapes or dtypes differ.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> lp.stack([A, A.T]).values.shape
        (2, 4)
    """
    given = _alike(operators)
    pattern = given[0].pattern
    for other in given[1:]:
        pattern = (
            pattern if other.pattern == pattern else plans.union(pattern, other.pattern).pattern
        )
    values = [
        pick(a.values, slots_in(a.pattern, pattern)) if a.pattern != pattern else a.values
        for a in given
    ]
    tags = frozenset.intersection(*[a.tags for a in given])
    one = lambda values: SparseLinearOperator(values, pattern, tags)
    return jax.vmap(one)(jnp.stack(values))


def _alike(operators: Sequence[Any]) -> list[SparseLinearOperator]:
    given = as_operators(operators)
    kinds = {(a.pattern.shape, str(a.values.dtype)) for a in given}
    if len(kinds) != 1:
        raise StructureError(
            f"operators: must be at least one, and have one shape and dtype; got {sorted(kinds)}."
        )
    return given


def slots_in(pattern: SparsityPattern, larger: SparsityPattern) -> np.ndarray:
    """For each entry of `larger` its slot in `pattern`, or `pattern.nnz` where there is none."""
    return plans.union(larger, pattern).second


def vstack(operators: Sequence[Any]) -> SparseLinearOperator:
    """Matrices with the same number of columns, one below the other.

    **Raises** `StructureError` if there are none, or if columns or dtypes differ.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0]]))
        >>> print(lp.vstack([A, 2.0 * A]).as_matrix())
        [[2. 1.]
         [4. 2.]]
    """
    given = as_operators(operators)
    kinds = {(a.pattern.shape[1], str(a.values.dtype)) for a in given}
    if len(kinds) != 1:
        raise StructureError(
            "operators: must be at least one, and have one number of columns and one dtype; got "
            f"{sorted(kinds)}."
        )
    patterns = [a.pattern for a in given]
    starts = np.cumsum([0] + [p.nnz for p in patterns])
    indptr = np.concatenate([[0], *[p.indptr[1:] + s for p, s in zip(patterns, starts)]])
    shape = sum(p.shape[0] for p in patterns), patterns[0].shape[1]
    pattern = SparsityPattern(indptr, np.concatenate([p.indices for p in patterns]), shape)
    return SparseLinearOperator(jnp.concatenate([a.values for a in given]), pattern)


def hstack(operators: Sequence[Any]) -> SparseLinearOperator:
    """Matrices with the same number of rows, side by side. See `vstack`.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0], [1.0]]))
        >>> print(lp.hstack([A, 2.0 * A]).as_matrix())
        [[2. 4.]
         [1. 2.]]
    """
    return vstack([SparseLinearOperator(a.values, a.pattern).T for a in as_operators(operators)]).T


def block_diag_split(operator: Any, *shapes: tuple[int, int]) -> list[SparseLinearOperator]:
    """The blocks along the diagonal, of the given shapes: the inverse of `block_diag`.

    **Raises** `StructureError` if the shapes do not add up to that of the operator, or if it has entries
    outside of the blocks.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0]]))
        >>> first, second = lp.block_diag_split(lp.block_diag(A, A.T), (1, 2), (2, 1))
        >>> print(first.as_matrix(), second.as_matrix().ravel())
        [[2. 1.]] [2. 1.]
    """
    (given,) = as_operators([operator], name="operator")
    rows, columns = (np.cumsum([0, *[s[i] for s in shapes]]) for i in (0, 1))
    if (rows[-1], columns[-1]) != given.pattern.shape:
        raise StructureError(
            f"shapes: must add up to that of the operator, {given.pattern.shape}; got "
            f"{(int(rows[-1]), int(columns[-1]))}."
        )
    blocks = [
        given[r0:r1, c0:c1]
        for r0, r1, c0, c1 in zip(rows[:-1], rows[1:], columns[:-1], columns[1:])
    ]
    outside = given.pattern.nnz - sum(block.pattern.nnz for block in blocks)
    if outside:
        raise StructureError(
            f"operator: has {outside} entries outside of the blocks, which would be lost. Take parts "
            "of it as `operator[rows, columns]`."
        )
    return blocks


def sparse_eye(size: int, dtype: Any = None) -> SparseLinearOperator:
    """The identity `(size, size)` as a sparse matrix, in the default float dtype if none is given.

    For example:

        >>> import linsolve_prim as lp
        >>> print(lp.sparse_eye(2).as_matrix())
        [[1. 0.]
         [0. 1.]]
    """
    dtype = default_floating_dtype() if dtype is None else dtype
    return SparseLinearOperator(jnp.ones(size, dtype), plans.diagonal(size))
