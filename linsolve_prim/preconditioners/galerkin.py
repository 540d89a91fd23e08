"""Multigrid hierarchies whose coarse operators follow the values of A, on the device.

Interpolation P and restriction R stay, so that the values of RAP are a linear function of those of A.
As RA(P·) they come from two products with sparse matrices that are written once: from A to AP, and
from AP to RAP. No symbolic work is left, and nothing depends on values, so this stands in `jit`,
`scan` and `vmap`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array

from ..errors import StructureError, WrongTypeError
from ..operators import AbstractLinearOperator
from ..operators.functions import promises_hermitian
from ..sparse import plans
from ..sparse.layouts import is_dia
from ..sparse.once import once
from ..sparse.operator import SparseLinearOperator
from ..sparse.packed_operator import PackedOperator
from ..sparse.padded import PaddedOperator, Slots, pick_slots, slots_of
from ..sparse.pattern import SparsityPattern
from . import amg_setup as setup
from .base import AbstractPreconditioner
from .multigrid import Level, MultigridOperator, multigrid
from .parts import is_definite, require_sparse
from .smoothers import Smoother, diagonal_of_smoother, pseudo_inverse


class Galerkin(eqx.Module):
    """One level: what is needed to make it, and the values of the next, from its values.

    - `slots`, `turned`: how A, and Aᵀ if it differs, stand for products. (None for the finest, if its
      product goes by diagonals.)
    - `diagonal`: where the diagonal is among the values; `size` where it is not.
    - `to_product`, `to_coarse`: from the values of A to those of AP, and from these to those of RAP.
    """

    slots: Slots | None
    turned: Slots | None
    diagonal: Array
    prolongation: PaddedOperator
    restriction: PaddedOperator
    to_product: PaddedOperator
    to_coarse: PaddedOperator

    def level(self, values: Array, own: SparseLinearOperator | None, smoother: Smoother) -> Level:
        operator: AbstractLinearOperator
        if self.slots is None:
            assert own is not None
            operator = PackedOperator.of(own)
            absolute = SparseLinearOperator(jnp.abs(own.values), own.pattern)
            norms = absolute.mv(jnp.ones(own.in_size(), absolute.values.dtype))
        else:
            n = len(self.diagonal)
            other = None if self.turned is None else PaddedOperator.make(self.turned, values, n)
            operator = PaddedOperator.make(self.slots, values, n, other)
            norms = operator.row_norms()
        diagonal = pick_slots(values, self.diagonal)
        scale = diagonal_of_smoother(operator.mv, diagonal, norms, smoother.name)
        return Level(operator, scale, self.prolongation, self.restriction)

    def coarse_values(self, values: Array) -> Array:
        """The values of RAP. (What is gathered is in memory: else it is computed for each use of it.)"""
        return once(self.to_coarse.mv(once(self.to_product.mv(values))))


class AMGHierarchy(AbstractPreconditioner):
    """What `AMG().prepare(A)` returns: interpolation that is kept, for operators of A's pattern.

    `init(B)` computes the coarse operators of B on the device; it can stand in `jit`, in a time loop,
    and under `vmap` over coefficients. The further B is from A, the more iterations a solve takes; what
    it converges to is the same.

    A hierarchy that was prepared with a real matrix takes complex values too, and is Hermitian for
    those that are tagged to be so.

    **Raises** `StructureError` for an operator of another pattern, `WrongTypeError` for a real one if
    the hierarchy is complex.

        >>> import scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(500, 500)).tocsr()
        >>> A = lp.SparseLinearOperator.from_scipy(S, lp.positive_semidefinite_tag)
        >>> hierarchy = lp.preconditioners.AMG().prepare(A)
        >>> len(hierarchy.levels), hierarchy.init(2.0 * A).in_size()
        (1, 500)
    """

    levels: tuple[Galerkin, ...]
    smoother: Smoother
    pattern: SparsityPattern = eqx.field(static=True)
    coarsest: SparsityPattern = eqx.field(static=True)
    cycle: str = eqx.field(static=True)
    hermitian: bool = eqx.field(static=True)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.cycle != "F" and is_definite(operator)

    def init(self, operator: AbstractLinearOperator) -> MultigridOperator:
        found = self._checked(operator)
        own = self._in_dtype_of(found, promises_hermitian(operator))
        levels, inverse = _refreshed(own, found)
        shape = self.pattern.shape[:1]
        return multigrid(levels, inverse, self.smoother, self.cycle, operator, own.hermitian, shape)

    def _checked(self, operator: AbstractLinearOperator) -> SparseLinearOperator:
        found = require_sparse(operator, "AMGHierarchy")
        if found.pattern != self.pattern:
            raise StructureError(
                f"operator: must have the pattern for which the hierarchy was prepared, "
                f"{self.pattern!r}; got {found.pattern!r}. Prepare another one."
            )
        return found

    def _in_dtype_of(self, found: SparseLinearOperator, hermitian: bool) -> AMGHierarchy:
        """Real interpolation serves complex matrices too; what they are Hermitian by, they promise."""
        dtype = found.values.dtype
        weights = [level.prolongation.values.dtype for level in self.levels]
        if all(weight == dtype for weight in weights):
            return self
        turns_complex = jnp.iscomplexobj(found.values) and not jnp.issubdtype(
            weights[0], jnp.complexfloating
        )
        if jnp.issubdtype(weights[0], jnp.complexfloating) and not jnp.iscomplexobj(found.values):
            raise WrongTypeError(
                "operator: must be complex, as the matrix was for which the hierarchy was prepared; "
                f"got {dtype}. Prepare another one, with a real matrix."
            )
        inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
        cast = lambda x: x.astype(dtype) if inexact(x) else x
        levels = jax.tree.map(cast, self.levels)
        hermitian = self.hermitian and (hermitian or not turns_complex)
        return dataclasses.replace(self, levels=levels, hermitian=hermitian)

    def __repr__(self) -> str:
        sizes = [self.pattern.shape[0], *(level.prolongation.size for level in self.levels)]
        return f"AMGHierarchy({' → '.join(map(str, sizes))}, cycle={self.cycle!r})"


@jax.jit  # else each operation of eager code is compiled alone
def _refreshed(own: AMGHierarchy, fine: SparseLinearOperator) -> tuple[tuple[Level, ...], Array]:
    """The levels, and the inverse of the coarsest operator."""
    values, levels = once(fine.values), []
    fine = SparseLinearOperator(values, fine.pattern, fine.tags)
    for depth, level in enumerate(own.levels):
        levels.append(level.level(values, fine if depth == 0 else None, own.smoother))
        values = level.coarse_values(values)
    matrix = SparseLinearOperator(values, own.coarsest).as_matrix()
    return tuple(levels), pseudo_inverse(matrix, own.hermitian)


# ---- Once, on the host ---------------------------------------------------------------------------


def refreshable(
    levels: Sequence[setup.HostLevel],
    pattern: SparsityPattern,
    hermitian: bool,
    smoother: Smoother,
    cycle: str,
) -> AMGHierarchy:
    """The hierarchy for all matrices of a pattern, with the interpolation of one of them."""
    made, fine = [], pattern
    for depth, level in enumerate(levels[:-1]):
        by_diagonals = depth == 0 and is_dia(fine)
        one, fine = _galerkin(level, fine, hermitian, by_diagonals)
        made.append(one)
    return AMGHierarchy(tuple(made), smoother, pattern, fine, cycle, hermitian)


def _galerkin(
    level: setup.HostLevel, fine: SparsityPattern, hermitian: bool, by_diagonals: bool
) -> tuple[Galerkin, SparsityPattern]:
    """A level, and the pattern of the next."""
    assert level.prolongation is not None
    assert level.restriction is not None
    p, r = setup.canonical(level.prolongation), setup.canonical(level.restriction)
    first = plans.product(fine, SparsityPattern.from_scipy(p))
    second = plans.product(SparsityPattern.from_scipy(r), first.pattern)
    slots = None if by_diagonals else _on_device(slots_of(fine.indptr, fine.indices))
    turned = None
    if not (hermitian or by_diagonals):
        own = slots_of(fine.T.indptr, fine.T.indices)
        turned = _on_device(_reordered(own, fine.transpose_order))
    made = Galerkin(
        slots,
        turned,
        jnp.asarray(fine.diagonal_slots()),
        jax.device_put(held(p, not hermitian)),
        jax.device_put(held(r, not hermitian)),
        _map(first.slots, first.first, p.data[first.second], first.pattern.nnz, fine.nnz),
        _map(
            second.slots,
            second.second,
            r.data[second.first],
            second.pattern.nnz,
            first.pattern.nnz,
        ),
    )
    return made, second.pattern


def _map(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, m: int, n: int
) -> PaddedOperator:
    """The matrix `(m, n)` of entries whose rows are sorted."""
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m))])
    return PaddedOperator.make(slots_of(indptr, columns), weights, n)


def _reordered(slots: Slots, order: np.ndarray) -> Slots:
    """Slots of Aᵀ among the values of A."""
    order = np.append(order, len(order)).astype(slots.slots.dtype)
    tail = None if slots.tail_slots is None else order[slots.tail_slots]
    return slots._replace(slots=order[slots.slots], tail_slots=tail)


def _on_device(slots: Slots) -> Slots:
    return Slots(*(None if part is None else jnp.asarray(part) for part in slots))


def held(matrix: sp.csr_matrix, both: bool) -> PaddedOperator:
    """A matrix for products on the device, with its transpose where that will be needed.

    Of NumPy arrays, which are still to be put there.
    """
    other = PaddedOperator.on_host(setup.canonical(matrix.T)) if both else None
    return PaddedOperator.on_host(matrix, other)
