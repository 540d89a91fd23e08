"""What preconditioners share: how they read an operator, and how what they make meets its structures."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._tree import ravel, tree_dtype, unravel
from .._types import Structure, structure_equal, structure_str
from ..errors import StructureError, WrongTypeError
from ..operators import (
    AbstractLinearOperator,
    NegLinearOperator,
    TaggedLinearOperator,
    conj,
    is_negative_semidefinite,
    is_positive_semidefinite,
    is_symmetric,
    materialise,
    negative_semidefinite_tag,
    positive_semidefinite_tag,
    symmetric_tag,
)
from ..operators.structures import PackedStructure, is_vector, pack, unpack
from ..sparse.algebra import as_sparse as as_sparse_or_none
from ..sparse.full import full_pattern
from ..sparse.held import is_matrix_free
from ..sparse.operator import SparseLinearOperator, sparse_of
from ..sparse.pattern import SparsityPattern
from ..sparse.triplets import TripletLinearOperator

#: Up to this size an operator that is known by its products only is made dense: n products, 128 MiB.
PRODUCTS_SIZE = 4096


def require_square(operator: AbstractLinearOperator, name: str) -> None:
    """Refuse an operator that does not map a space to itself."""
    if not structure_equal(operator.in_structure(), operator.out_structure()):
        raise ValueError(
            f"operator: `{name}` needs one structure for input and output; got one that maps "
            f"{structure_str(operator.in_structure())} to {structure_str(operator.out_structure())}. "
            "For least squares precondition the normal equations: `Normal(CG(preconditioner=...))`."
        )


def require_sparse(operator: AbstractLinearOperator, name: str) -> SparseLinearOperator:
    """The square sparse matrix that an operator is, perhaps behind more tags."""
    found = sparse_of(operator)
    if found is None:
        raise WrongTypeError(
            f"operator: `{name}` needs a sparse matrix; got {type(operator).__name__}. Make one by "
            "`SparseLinearOperator.from_dense` or `materialise_sparse`, or use "
            "`preconditioners.GeometricMultigrid` for a stencil on a grid."
        )
    if found.pattern.shape[0] != found.pattern.shape[1]:
        raise StructureError(
            f"operator: `{name}` needs a square matrix; got shape {found.pattern.shape}."
        )
    return found


def is_definite(operator: AbstractLinearOperator) -> bool:
    """Whether an operator is promised to be positive or negative (semi)definite."""
    return is_positive_semidefinite(operator) or is_negative_semidefinite(operator)


def is_complex(operator: AbstractLinearOperator) -> bool:
    return bool(jnp.issubdtype(tree_dtype(operator.in_structure()), jnp.complexfloating))


def symmetry_of(operator: AbstractLinearOperator) -> frozenset[object]:
    """The tags of A that a preconditioner which treats rows and columns alike has too."""
    having = {
        symmetric_tag: is_symmetric,
        positive_semidefinite_tag: is_positive_semidefinite,
        negative_semidefinite_tag: is_negative_semidefinite,
    }
    return frozenset(tag for tag, has in having.items() if has(operator))


def tagged(made: AbstractLinearOperator, tags: frozenset[object]) -> AbstractLinearOperator:
    return TaggedLinearOperator(made, tags) if tags else made


# ---- Reading an operator -------------------------------------------------------------------------


def refuse_products(operator: AbstractLinearOperator, name: str, remedy: str) -> None:
    """Refuse a large operator of which entries are asked, and that has none."""
    size = operator.in_size()
    if is_matrix_free(operator) and size > PRODUCTS_SIZE:
        raise ValueError(
            f"operator: `{name}` reads entries, and this {type(operator).__name__} is known by its "
            f"products only: {size} of them would be needed, more than {PRODUCTS_SIZE}. {remedy}"
        )


def sparse_form(operator: AbstractLinearOperator, name: str, limit: int) -> SparseLinearOperator:
    """A square operator as a sparse one, on raveled vectors; others up to `limit` with all entries.

    **Raises** `ValueError` for larger ones, and where the pattern is not known when tracing.
    """
    require_square(operator, name)
    found = sparse_of(operator) or as_sparse_or_none(operator)
    if found is not None:
        return found
    size = operator.in_size()
    if isinstance(_untagged(operator), TripletLinearOperator):
        raise ValueError(
            f"operator: `{name}` needs to know where the entries are when it is traced, and the indices "
            "of this one are traced. Pass them as constants (`SparseLinearOperator.from_coo`), or use "
            "`Jacobi()`."
        )
    if size > limit:
        raise ValueError(
            f"operator: `{name}` is made for sparse operators; got a {type(operator).__name__} with "
            f"{size} unknowns, more than the {limit} up to which all entries are taken. Make it sparse "
            "(`SparseLinearOperator.from_dense`, `materialise_sparse`), or use a preconditioner that "
            "needs no pattern: `Jacobi`, `Chebyshev`, `Nystrom`, `CoarseGrid`."
        )
    matrix = dense_form(operator, name)
    return SparseLinearOperator(matrix.reshape(-1), full_pattern(size, size), symmetry_of(operator))


def dense_form(operator: AbstractLinearOperator, name: str) -> Array:
    """The matrix of an operator, unless it is large and known by its products only."""
    refuse_products(operator, name, "Build a smaller one, or `Chebyshev`, which only multiplies.")
    return materialise(operator).as_matrix()


def _untagged(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    while isinstance(operator, TaggedLinearOperator):
        operator = operator.operator
    return operator


def nonzero(d: Array, instead: Any = 1) -> Array:
    """A diagonal with its zeros replaced, so that it can be divided by."""
    return jnp.where(d == 0, jnp.asarray(instead, d.dtype), d)


# ---- Structures ----------------------------------------------------------------------------------


class RaveledOperator(AbstractLinearOperator):
    """An operator on vectors `(n,)` as one between pytrees, which are raveled leaf after leaf."""

    operator: AbstractLinearOperator
    input_structure: PackedStructure = eqx.field(static=True)
    output_structure: PackedStructure = eqx.field(static=True)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        x = ravel(vector, unpack(self.input_structure))
        return unravel(self.operator.mv(x), unpack(self.output_structure))

    def transpose(self) -> RaveledOperator:
        return RaveledOperator(
            self.operator.transpose(), self.output_structure, self.input_structure
        )

    def in_structure(self) -> Structure:
        return unpack(self.input_structure)

    def out_structure(self) -> Structure:
        return unpack(self.output_structure)


@conj.register(RaveledOperator)
def _conj(operator: RaveledOperator) -> RaveledOperator:
    return RaveledOperator(
        conj(operator.operator), operator.input_structure, operator.output_structure
    )


for _predicate in (is_symmetric, is_positive_semidefinite, is_negative_semidefinite):
    _predicate.register(RaveledOperator, lambda op, _has=_predicate: _has(op.operator))


def as_inverse_of(
    made: AbstractLinearOperator, operator: AbstractLinearOperator
) -> AbstractLinearOperator:
    """What was made on raveled vectors, from the output structure of an operator to its input's."""
    given, wanted = operator.out_structure(), operator.in_structure()
    if is_vector(given) and is_vector(wanted):
        return made
    return RaveledOperator(made, pack(given), pack(wanted))


def full_diagonal(a: SparseLinearOperator) -> SparseLinearOperator:
    """The same matrix with its whole diagonal stored."""
    pattern = a.pattern
    if pattern.has_full_diagonal():
        return a

    def make() -> tuple[SparsityPattern, np.ndarray]:
        missing = np.flatnonzero(pattern.diagonal_slots() == pattern.nnz)
        rows = np.concatenate([pattern.rows, missing])
        columns = np.concatenate([pattern.indices, missing])
        return SparsityPattern.from_coo(rows, columns, pattern.shape)

    more, slots = pattern.cached("with its diagonal", make)
    values = jnp.zeros(more.nnz, a.values.dtype).at[slots[: pattern.nnz]].set(a.values)
    return SparseLinearOperator(values, more, a.tags)


# ---- Symmetry ------------------------------------------------------------------------------------


@functools.singledispatch
def is_nonsymmetric(operator: AbstractLinearOperator) -> bool:
    """Whether an operator is known not to be Hermitian, by how it was made. Most are not known so."""
    return False


@is_nonsymmetric.register(TaggedLinearOperator)
def _tagged(operator: TaggedLinearOperator) -> bool:
    return not symmetry_of(operator) and is_nonsymmetric(operator.operator)


@is_nonsymmetric.register(RaveledOperator)
def _raveled(operator: RaveledOperator) -> bool:
    return is_nonsymmetric(operator.operator)


@is_nonsymmetric.register(NegLinearOperator)
def _negative(operator: NegLinearOperator) -> bool:
    return is_nonsymmetric(operator.operator)
