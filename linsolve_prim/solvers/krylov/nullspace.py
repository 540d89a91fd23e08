"""Null spaces that the user knows: they are projected out of right-hand side and solution."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._tree import HIGHEST, ravel, tree_dtype, tree_size, tree_sub, unravel
from ..._types import Structure, common_dtype, inexact_asarray, structure_str
from ...errors import StructureError
from ...operators import AbstractLinearOperator
from .vectors import safe_norm

_REMEDY = (
    'Pass "constant", "auto", a vector of that structure, several of them stacked along a new first '
    "axis, or `NullSpace(right, left)` for an operator that is not symmetric."
)


class NullSpace(eqx.Module):
    """The null spaces of A and of Aᴴ, for `CG(nullspace=NullSpace(right, left))` and the like.

    - `right`: vectors that span {x: Ax = 0}: "constant" (all entries alike), a pytree of the
      structure of x, or the same with one more axis in front for several vectors. They need not be
      orthogonal, nor independent.
    - `left`: the same for {y: Aᴴy = 0}; `None` if it is the same space, as for Hermitian operators.

    **Raises** `StructureError` for vectors that do not fit the operator, `ValueError` for another name.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), lp.positive_semidefinite_tag)
        >>> solver = lp.CG(nullspace=lp.NullSpace(jnp.ones(2)))
        >>> print(lp.linear_solve(A, jnp.array([2.0, -2.0]), solver).value.round(3))  # of mean zero
        [ 1. -1.]
    """

    right: Any
    left: Any = None


class Projector(eqx.Module):
    """The projections that go with a `NullSpace`, for one operator; a part of the solver's state.

    `strict` says whether a right-hand side outside of the range of A is an error. It is in a forward
    solve; derivatives are those of x = A†b, which projects.
    """

    right: Array  # (k, n): orthonormal rows, or zeros
    left: Array
    strict: bool = eqx.field(static=True, default=True)

    def of_solution(self, x: PyTree[Array]) -> PyTree[Array]:
        """The part of x that is orthogonal to the null space of A."""
        return _without(self.right, x)

    def of_residual(self, b: PyTree[Array]) -> PyTree[Array]:
        """The part of b in the range of A."""
        return _without(self.left, b)

    def transpose(self) -> Projector:
        return Projector(self.left.conj(), self.right.conj(), self.strict)

    def conj(self) -> Projector:
        return Projector(self.right.conj(), self.left.conj(), self.strict)

    def lenient(self) -> Projector:
        return Projector(self.right, self.left, False)


def _without(basis: Array, x: PyTree[Array]) -> PyTree[Array]:
    flat = ravel(x)
    dtype = common_dtype(basis.dtype, flat.dtype)
    basis, flat = basis.astype(dtype), flat.astype(dtype)
    weights = jnp.matmul(basis.conj(), flat, precision=HIGHEST)
    flat = flat - jnp.matmul(weights, basis, precision=HIGHEST)
    structure = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    return unravel(flat, structure)


def check_nullspace(nullspace: Any) -> None:
    """Refuse, when a solver is made, what can be no null space."""
    if isinstance(nullspace, str) and nullspace not in ("constant", "auto"):
        raise ValueError(f"nullspace: {nullspace!r} is not known. {_REMEDY}")


def projector(nullspace: Any, operator: AbstractLinearOperator) -> Projector | None:
    """The projections for an operator; `None` for `None`."""
    if nullspace is None:
        return None
    if isinstance(nullspace, NullSpace):
        right = _basis(nullspace.right, operator.in_structure())
        if nullspace.left is None:
            return Projector(right, right)
        return Projector(right, _basis(nullspace.left, operator.out_structure()))
    if isinstance(nullspace, str) and nullspace == "auto":
        basis = _basis("constant", operator.in_structure())
        basis = jnp.where(_is_null(operator, basis), basis, 0)
    else:
        basis = _basis(nullspace, operator.in_structure())
    return Projector(basis, basis)


def _basis(vectors: Any, structure: Structure) -> Array:
    """Orthonormal rows (k, n) that span the given vectors; zero rows for dependent ones."""
    size, dtype = tree_size(structure), tree_dtype(structure)
    if isinstance(vectors, str):
        return jnp.full((1, size), size**-0.5, dtype)
    shapes = [leaf.shape for leaf in jax.tree.leaves(structure)]
    given = [jnp.shape(leaf) for leaf in jax.tree.leaves(vectors)]
    if given == shapes:
        vectors = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], vectors)
    elif len(given) != len(shapes) or [shape[1:] for shape in given] != shapes:
        raise StructureError(
            f"nullspace: vectors must have the structure {structure_str(structure)}; got shapes "
            f"{given}. {_REMEDY}"
        )
    vectors = jax.tree.map(inexact_asarray, vectors)
    rows = jax.vmap(ravel)(vectors).astype(common_dtype(dtype, tree_dtype(vectors)))
    _, sizes, basis = jnp.linalg.svd(rows, full_matrices=False)
    eps = float(jnp.finfo(sizes.dtype).eps)
    return jnp.where((sizes > max(rows.shape) * eps * sizes[0])[:, None], basis, 0)


def _is_null(operator: AbstractLinearOperator, basis: Array) -> Array:
    """Whether A maps the one vector of a basis to rounding errors, against what it does to others."""
    structure = operator.in_structure()
    signs = jnp.where(jnp.arange(basis.shape[1]) % 2 == 0, 1, -1).astype(basis.dtype)
    product = safe_norm(operator.mv(unravel(basis[0], structure)))
    other = safe_norm(operator.mv(unravel(basis[0] * signs, structure)))
    return product <= 10 * basis.shape[1] ** 0.5 * float(jnp.finfo(product.dtype).eps) * other


def orthogonal_part(projector: Projector, b: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
    """`(Pb, b − Pb)`: what the range of A can reach of b, and what it cannot."""
    inside = projector.of_residual(b)
    return inside, tree_sub(b, inside)
