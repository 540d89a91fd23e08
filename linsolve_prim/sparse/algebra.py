"""Sums, products and parts of sparse operators, which are sparse again.

All patterns are found when tracing (`plans.py`); what runs are gathers and sums of values, which JAX
differentiates. Tags are those that the lazy operators of `operators/algebra.py` would have.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types import structure_equal
from ..errors import StructureError, WrongTypeError
from ..operators import (
    AbstractLinearOperator,
    AddLinearOperator,
    ComposedLinearOperator,
    DiagonalLinearOperator,
    DivLinearOperator,
    IdentityLinearOperator,
    MulLinearOperator,
    NegLinearOperator,
    TaggedLinearOperator,
    conj,
    functions as fns,
    negative_semidefinite_tag,
    positive_semidefinite_tag,
    symmetric_tag,
    tridiagonal_tag,
    unit_diagonal_tag,
)
from ..operators.dense import tags_of
from ..operators.structures import is_vector
from . import plans
from .operator import SparseLinearOperator
from .values import pick

_OF_ONE = NegLinearOperator | MulLinearOperator | DivLinearOperator | TaggedLinearOperator
#: What a principal part keeps, whichever rows and columns it has.
_OF_PRINCIPAL_PARTS = {symmetric_tag, positive_semidefinite_tag, negative_semidefinite_tag}


def _holds_a_diagonal(operator: Any) -> bool:
    """A diagonal operator or an identity, or what is made of such by tags, `+`, `@`, `-`, `*`, `/`."""
    if isinstance(operator, AddLinearOperator | ComposedLinearOperator):
        return _holds_a_diagonal(operator.operator1) and _holds_a_diagonal(operator.operator2)
    if isinstance(operator, _OF_ONE):
        return _holds_a_diagonal(operator.operator)
    return isinstance(operator, DiagonalLinearOperator | IdentityLinearOperator)


def as_sparse(operator: Any) -> SparseLinearOperator | None:
    """A sparse operator as it is; a diagonal one or a multiple of the identity as one; or None."""
    if isinstance(operator, SparseLinearOperator):
        return operator
    if not _holds_a_diagonal(operator):
        return None
    structure = operator.in_structure()
    if not is_vector(structure) or not structure_equal(structure, operator.out_structure()):
        return None
    values = fns.diagonal(operator)
    return SparseLinearOperator(values, plans.diagonal(len(values)), tags_of(operator))


def add(
    one: SparseLinearOperator, two: SparseLinearOperator, lazy: AbstractLinearOperator
) -> SparseLinearOperator:
    """A + B, whose entries are the union of theirs."""
    a, b = one.values, two.values
    if one.pattern == two.pattern:
        return SparseLinearOperator(a + b, one.pattern, tags_of(lazy))
    plan = plans.union(one.pattern, two.pattern)
    values = pick(a, plan.first) + pick(b, plan.second)
    return SparseLinearOperator(values, plan.pattern, tags_of(lazy))


def compose(
    one: SparseLinearOperator, two: SparseLinearOperator, lazy: AbstractLinearOperator
) -> SparseLinearOperator:
    """AB. Entries that cancel stay, as zeros; a diagonal factor scales rows or columns."""
    a, b = one.values, two.values
    if _is_full_diagonal(one):
        return SparseLinearOperator(pick(a, two.pattern.rows) * b, two.pattern, tags_of(lazy))
    if _is_full_diagonal(two):
        return SparseLinearOperator(a * pick(b, one.pattern.indices), one.pattern, tags_of(lazy))
    plan = plans.product(one.pattern, two.pattern)
    zeros = jnp.zeros(plan.pattern.nnz, a.dtype)
    terms = pick(a, plan.first) * pick(b, plan.second)
    values = zeros.at[plan.slots].add(terms, indices_are_sorted=True)
    return SparseLinearOperator(values, plan.pattern, tags_of(lazy))


def _is_full_diagonal(operator: SparseLinearOperator) -> bool:
    pattern = operator.pattern
    m, n = pattern.shape
    return m == n == pattern.nnz and pattern.bandwidth() == (0, 0)


def _sparse(operator: Any, name: str) -> SparseLinearOperator:
    found = as_sparse(operator)
    if found is None:
        raise WrongTypeError(
            f"{name}: must be a SparseLinearOperator (or a diagonal operator on vectors); got "
            f"{type(operator).__name__}. Make one by `SparseLinearOperator.from_dense` or `from_coo`."
        )
    return found


def as_operators(operators: Any, name: str = "") -> list[SparseLinearOperator]:
    """Each as a sparse operator. **Raises** `WrongTypeError` if one is not."""
    return [_sparse(a, name or f"operators[{i}]") for i, a in enumerate(operators)]


def _triangle(operator: Any, k: int, lower: bool) -> SparseLinearOperator:
    operator = _sparse(operator, "operator")
    plan = plans.triangle(operator.pattern, int(k), lower)
    kept = {tridiagonal_tag} | ({unit_diagonal_tag} if (k >= 0 if lower else k <= 0) else set())
    return SparseLinearOperator(
        pick(operator.values, plan.slots), plan.pattern, operator.tags & kept
    )


def tril(operator: Any, k: int = 0) -> SparseLinearOperator:
    """The entries on and below diagonal k, as an operator of the same shape.

    **Raises** `WrongTypeError` if `operator` is not sparse.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [4.0, 3.0]]))
        >>> print(lp.tril(A, -1).as_matrix())
        [[0. 0.]
         [4. 0.]]
    """
    return _triangle(operator, k, lower=True)


def triu(operator: Any, k: int = 0) -> SparseLinearOperator:
    """The entries on and above diagonal k, as an operator of the same shape.

    **Raises** `WrongTypeError` if `operator` is not sparse.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [4.0, 3.0]]))
        >>> print(lp.triu(A).as_matrix())
        [[2. 1.]
         [0. 3.]]
    """
    return _triangle(operator, k, lower=False)


def block_diag(*operators: Any) -> SparseLinearOperator:
    """The operators along the diagonal, from the upper left; zeros elsewhere.

    **Raises** `StructureError` if there are none, or if their dtypes differ; `WrongTypeError` if
    one is not sparse.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.block_diag(A, A.T).as_matrix())
        [[2. 1. 0. 0.]
         [0. 3. 0. 0.]
         [0. 0. 2. 0.]
         [0. 0. 1. 3.]]
    """
    if not operators:
        raise StructureError("operators: must be at least one; got none.")
    blocks = [_sparse(operator, f"operators[{i}]") for i, operator in enumerate(operators)]
    dtypes = [str(block.values.dtype) for block in blocks]
    if len(set(dtypes)) > 1:
        raise StructureError(
            f"operators: must have one dtype; got {', '.join(dtypes)}. Cast their values."
        )
    tags: frozenset[object] = frozenset()
    if all(m == n for m, n in (block.pattern.shape for block in blocks)):
        tags = frozenset.intersection(*[tags_of(block) for block in blocks])
    values = jnp.concatenate([block.values for block in blocks])
    pattern = plans.block_diagonal([block.pattern for block in blocks])
    return SparseLinearOperator(values, pattern, tags)


def part(operator: SparseLinearOperator, key: Any) -> SparseLinearOperator:
    """`operator[rows, columns]`, of slices, indices or masks; `operator[rows]` has all columns."""
    rows, columns = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
    m, n = operator.pattern.shape
    rows, columns = plans.positions(rows, m, "rows"), plans.positions(columns, n, "columns")
    plan = plans.take(operator.pattern, rows, columns)
    tags: frozenset[object] = frozenset()
    if m == n and np.array_equal(rows, columns):
        tags = tags_of(operator) & _OF_PRINCIPAL_PARTS
    return SparseLinearOperator(pick(operator.values, plan.slots), plan.pattern, tags)


def symmetrize(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """½(A + Aᴴ), the Hermitian part of A: sparse if A is; tagged symmetric if A is real.

    **Raises** `StructureError` if A does not map a space to itself.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [0.0, 3.0]]))
        >>> print(lp.symmetrize(A).as_matrix(), lp.is_symmetric(lp.symmetrize(A)))
        [[2.  0.5]
         [0.5 3. ]] True
    """
    if not structure_equal(operator.in_structure(), operator.out_structure()):
        raise StructureError(
            "operator: must be square, with one structure for input and output, to be symmetrized; "
            f"got {operator.out_size()} rows and {operator.in_size()} columns."
        )
    both = (operator + conj(operator).T) / 2
    if not fns.is_real(operator) or fns.is_symmetric(both):
        return both
    if isinstance(both, SparseLinearOperator):
        return SparseLinearOperator(both.values, both.pattern, both.tags | {symmetric_tag})
    return TaggedLinearOperator(both, symmetric_tag)
