"""`FieldSplit`: two fields, with a Schur complement between them, for saddle points."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._static import FrozenArray, stop_gradient
from ..errors import StructureError
from ..operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    MatrixLinearOperator,
    TaggedLinearOperator,
    conj,
    diagonal,
    is_symmetric,
    positive_semidefinite_tag,
)
from ..sparse.operator import sparse_of
from .base import AbstractPreconditioner
from .jacobi import Jacobi
from .local import as_labels, parts_by_label
from .parts import as_inverse_of, dense_form, nonzero, require_square

Kind = Literal["diagonal", "lower", "upper", "full"]
_TURNED: dict[Kind, Kind] = {
    "diagonal": "diagonal",
    "lower": "upper",
    "upper": "lower",
    "full": "full",
}


class FieldSplit(AbstractPreconditioner):
    """Block preconditioners of [[A, B], [C, D]] with the Schur complement S = D − CA⁻¹B.

    S is approximated by D − C·diag(A)⁻¹·B, or given. With exact A⁻¹ and S⁻¹, Krylov methods need 2
    steps for "lower" and "upper", 3 for "diagonal" (Murphy, Golub, Wathen 2000,
    doi:10.1137/S1064827599355153), and 1 for "full". (Benzi, Golub, Liesen 2005,
    doi:10.1017/S0962492904000212, section 10.)

    - `fields`: the number of unknowns of the first field, which come first; or labels, one for each
      unknown, of which there are two. None: the first leaf of a pytree, and the rest.
    - `first`, `second`: preconditioners of A and of S (default `Jacobi`); `second` may be an operator
      that approximates S⁻¹ (a scaled pressure mass matrix's inverse, for Stokes).
    - `kind`: "lower", "upper", "full", or "diagonal", with |S|, which is symmetric definite.
    - `definite`: promises that A is positive definite, and −S too: then `first` and `second` may be such
      as need that, and "diagonal" serves `MINRES`.

    **Raises** `ValueError` for another `kind`, `TypeError` for parts that are no preconditioners,
    `StructureError` for labels that do not fit.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 0.0, 1.0], [0.0, 4.0, 1.0], [1.0, 1.0, 0.0]]))
        >>> M = lp.preconditioners.FieldSplit(2, kind="full").init(A)  # exact here: A's first block is diagonal
        >>> print((M @ A).as_matrix().round(3) + 0.0)
        [[1. 0. 0.]
         [0. 1. 0.]
         [0. 0. 1.]]
    """

    fields: Any = eqx.field(default=None, static=True, converter=lambda x: as_labels(x, "fields"))
    first: Any = eqx.field(default_factory=Jacobi)
    second: Any = eqx.field(default_factory=Jacobi)
    kind: Kind = eqx.field(default="lower", static=True)
    definite: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        if self.kind not in _TURNED:
            raise ValueError(f"kind: must be one of {', '.join(_TURNED)}; got {self.kind!r}.")
        if not isinstance(self.first, AbstractPreconditioner):
            raise TypeError(
                f"first: must be a preconditioner, as `ILU()`; got {type(self.first).__name__}."
            )
        if not isinstance(self.second, (AbstractPreconditioner, AbstractLinearOperator)):
            raise TypeError(
                "second: must be a preconditioner, or an operator that approximates S⁻¹; got "
                f"{type(self.second).__name__}."
            )

    @property
    def needs_values(self) -> bool:
        parts = (self.first, self.second)
        return any(isinstance(m, AbstractPreconditioner) and m.needs_values for m in parts)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "FieldSplit")
        operator = stop_gradient(operator)
        ones, others = self._indices(operator)
        a, b, c, d = _blocks(operator, ones, others)
        if self.definite:
            a = TaggedLinearOperator(a, positive_semidefinite_tag)
        inverse = self.first.init(a)
        schur = self._schur(a, b, c, d, is_symmetric(operator))
        made = SplitInverse(inverse, schur, b, c, jnp.asarray(ones), jnp.asarray(others), self.kind)
        if self.kind != "diagonal" or not self.keeps_definite(operator):
            return as_inverse_of(made, operator)
        return as_inverse_of(TaggedLinearOperator(made, positive_semidefinite_tag), operator)

    def _indices(self, operator: AbstractLinearOperator) -> tuple[np.ndarray, np.ndarray]:
        n = operator.in_size()
        if isinstance(self.fields, FrozenArray):
            parts = parts_by_label(self.fields, n, "fields")
            if len(parts) != 2:
                raise StructureError(f"fields: must hold two labels; got {len(parts)}.")
            return parts[0], parts[1]
        size = self.fields
        if size is None:
            leaves = jax.tree.leaves(operator.in_structure())
            if len(leaves) < 2:
                raise StructureError(
                    "fields: must be given for operators on one array: the number of unknowns of the "
                    "first field, or labels."
                )
            size = int(np.prod(leaves[0].shape))
        if not (isinstance(size, int) and 0 < size < n):
            raise StructureError(f"fields: must be between 0 and {n}, the unknowns; got {size!r}.")
        return np.arange(size), np.arange(size, n)

    def _schur(self, a: Any, b: Any, c: Any, d: Any, symmetric: bool) -> AbstractLinearOperator:
        """M of S; of |S| = −S for "diagonal"."""
        sign = -1 if self.kind == "diagonal" else 1
        if isinstance(self.second, AbstractLinearOperator):
            return -self.second if sign < 0 else self.second
        scale = DiagonalLinearOperator(1 / nonzero(diagonal(a)))
        s = d - (c @ scale @ b if sparse_of(c) is not None else _dense_product(c, scale, b))
        if not (self.definite and symmetric):
            return self.second.init(-s if sign < 0 else s)
        made = self.second.init(TaggedLinearOperator(-s, positive_semidefinite_tag))
        return made if sign < 0 else -made

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        if not (self.kind == "diagonal" and self.definite and is_symmetric(operator)):
            return False
        like = TaggedLinearOperator(operator, positive_semidefinite_tag)  # of blocks of its kind
        parts = (self.first, self.second)
        made = [m for m in parts if isinstance(m, AbstractPreconditioner)]
        return all(m.keeps_definite(like) for m in made)


class SplitInverse(AbstractLinearOperator):
    """M on vectors: `inverse` of A and `schur` of S, with B and C between them."""

    inverse: AbstractLinearOperator
    schur: AbstractLinearOperator
    b: AbstractLinearOperator
    c: AbstractLinearOperator
    ones: Array
    others: Array
    kind: Kind = eqx.field(static=True)

    def mv(self, vector: Array) -> Array:
        r, s = vector[self.ones], vector[self.others]
        if self.kind == "upper":
            y = self.schur.mv(s)
            x = self.inverse.mv(r - self.b.mv(y))
        else:
            x = self.inverse.mv(r)
            y = self.schur.mv(s if self.kind == "diagonal" else s - self.c.mv(x))
            if self.kind == "full":
                x = x - self.inverse.mv(self.b.mv(y))
        out = jnp.zeros_like(vector).at[self.ones].set(x, unique_indices=True)
        return out.at[self.others].set(y, unique_indices=True)

    def transpose(self) -> SplitInverse:
        inverse, schur = self.inverse.transpose(), self.schur.transpose()
        b, c = self.c.transpose(), self.b.transpose()
        return SplitInverse(inverse, schur, b, c, self.ones, self.others, _TURNED[self.kind])

    def in_structure(self) -> jax.ShapeDtypeStruct:
        size = self.ones.shape[0] + self.others.shape[0]
        return jax.ShapeDtypeStruct((size,), self.b.out_structure().dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@conj.register(SplitInverse)
def _conj(m: SplitInverse) -> SplitInverse:
    parts = [conj(part) for part in (m.inverse, m.schur, m.b, m.c)]
    return SplitInverse(*parts, m.ones, m.others, m.kind)


def _blocks(operator: AbstractLinearOperator, ones: np.ndarray, others: np.ndarray) -> Any:
    """A, B, C and D, sparse if the operator is."""
    sparse = sparse_of(operator)
    pairs = [(rows, columns) for rows in (ones, others) for columns in (ones, others)]
    if sparse is not None:
        return [sparse[rows, columns] for rows, columns in pairs]
    matrix = dense_form(operator, "FieldSplit")
    return [MatrixLinearOperator(matrix[np.ix_(*pair)]) for pair in pairs]


def _dense_product(c: Any, scale: Any, b: Any) -> MatrixLinearOperator:
    return MatrixLinearOperator((c @ scale @ b).as_matrix())
