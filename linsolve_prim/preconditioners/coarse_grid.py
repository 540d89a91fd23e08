"""`CoarseGrid`: a dense inverse on averages over clusters, and the diagonal for the rest."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._static import FrozenArray, stop_gradient
from .._tree import HIGHEST, ravel, unravel
from ..operators import AbstractLinearOperator, conj, diagonal, linearise, materialise
from ..operators.structures import is_vector
from ..sparse.held import is_matrix_free
from ..sparse.operator import sparse_of
from .base import AbstractPreconditioner
from .clusters import clusters_of
from .local import as_labels, parts_by_label
from .parts import as_inverse_of, is_definite, nonzero, require_square, symmetry_of, tagged

#: The inverse of more clusters is no longer cheap: 128 MiB in float64.
MOST_CLUSTERS = 4096


class CoarseGrid(AbstractPreconditioner):
    """Two levels: sums over clusters of unknowns, a dense inverse for those, and D⁻¹ for what they miss.

    With P the piecewise constant vectors of the clusters, Q = P(PᵀAP)⁻¹Pᵀ and S = D⁻¹,

        M = Q + (I − QA) S (I − AQ),

    the balancing form of two levels (Mandel 1993, doi:10.1002/cnm.1640090307), which is symmetric
    definite if A is, at the price of two products with A. It removes what makes unpreconditioned
    iterations grow with the grid: errors that are smooth over many unknowns.

    - `clusters`: their number (the graph of A is then cut into so many compact parts; of operators
      that have no pattern, neighbours in the order of unknowns), or an array of labels, one for each
      unknown (ravelled). The work for c clusters is c³ once and c² for each application.
    - `additive`: M = Q + S, one product with A less for each half; weaker.

    **Raises** `ValueError` for another number of clusters than can be.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.TridiagonalLinearOperator(2 * jnp.ones(8), -jnp.ones(7), -jnp.ones(7))
        >>> M = lp.preconditioners.CoarseGrid(4).init(A)
        >>> bool(jnp.linalg.cond(M.as_matrix() @ A.as_matrix()) < jnp.linalg.cond(A.as_matrix()))
        True
    """

    clusters: Any = eqx.field(
        default=729, static=True, converter=lambda x: as_labels(x, "clusters")
    )
    additive: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        known = isinstance(self.clusters, FrozenArray)
        if not (known or (isinstance(self.clusters, int) and self.clusters >= 1)):
            raise ValueError(
                f"clusters: must be a number, an int ≥ 1, or labels; got {self.clusters!r}."
            )

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "CoarseGrid")
        operator = stop_gradient(operator)
        labels, count = self._labels(operator)
        if count > MOST_CLUSTERS:
            raise ValueError(
                f"clusters: must be at most {MOST_CLUSTERS}, whose matrix is dense; got {count}. Take "
                "fewer, or `AMG`, which has more levels."
            )
        vectors = _OnVectors.of(operator)
        d = 1 / nonzero(_diagonal(operator))
        coarse = _regular_inverse(_coarse(operator, vectors, labels, count))
        at = jnp.asarray(labels)
        made: AbstractLinearOperator = TwoLevel(vectors, coarse, d, at, self.additive)
        return as_inverse_of(tagged(made, symmetry_of(operator)), operator)

    def _labels(self, operator: AbstractLinearOperator) -> tuple[np.ndarray, int]:
        n = operator.in_size()
        if isinstance(self.clusters, FrozenArray):
            parts = parts_by_label(self.clusters, n, "clusters")
            labels = np.empty(n, np.int32)
            for label, part in enumerate(parts):
                labels[part] = label
            return labels, len(parts)
        count, sparse = min(self.clusters, max(n, 1)), sparse_of(operator)
        if sparse is not None:
            return clusters_of(sparse.pattern, count), count
        return (np.arange(n) * count // max(n, 1)).astype(np.int32), count

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


class _OnVectors(eqx.Module):
    """An operator's product on raveled vectors."""

    operator: AbstractLinearOperator

    @classmethod
    def of(cls, operator: AbstractLinearOperator) -> _OnVectors:
        return cls(linearise(operator))

    def __call__(self, x: Array) -> Array:
        structure = self.operator.in_structure()
        if is_vector(structure):
            return self.operator.mv(x)
        return ravel(self.operator.mv(unravel(x, structure)))


class TwoLevel(AbstractLinearOperator):
    """M on vectors. `coarse`: (PᵀAP)⁻¹ `(c, c)`; `scale`: D⁻¹ `(n,)`; `labels`: `(n,)`."""

    apply: _OnVectors
    coarse: Array
    scale: Array
    labels: Array
    additive: bool = eqx.field(static=True)

    def mv(self, vector: Array) -> Array:
        smooth = self._correct(vector)
        if self.additive:
            return smooth + self.scale * vector
        fine = self.scale * (vector - self.apply(smooth))
        return smooth + fine - self._correct(self.apply(fine))

    def _correct(self, r: Array) -> Array:
        """PA⁻¹Pᵀr of the coarse A."""
        sums = jax.ops.segment_sum(r, self.labels, self.coarse.shape[0])
        return jnp.matmul(self.coarse, sums, precision=HIGHEST)[self.labels]

    def transpose(self) -> TwoLevel:
        apply = _OnVectors.of(self.apply.operator.transpose())
        return TwoLevel(apply, self.coarse.T, self.scale, self.labels, self.additive)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.scale.shape, self.scale.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@conj.register(TwoLevel)
def _conj(m: TwoLevel) -> TwoLevel:
    apply = _OnVectors.of(conj(m.apply.operator))
    return TwoLevel(apply, m.coarse.conj(), m.scale.conj(), m.labels, m.additive)


def _diagonal(operator: AbstractLinearOperator) -> Array:
    """That of A; ones where it would take n products."""
    if is_matrix_free(operator):
        structure = operator.in_structure()
        return ravel(jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), structure))
    return diagonal(operator)


def _coarse(
    operator: AbstractLinearOperator, apply: _OnVectors, labels: np.ndarray, count: int
) -> Array:
    """PᵀAP, by summing entries, or by `count` products."""
    sparse = sparse_of(operator)
    if sparse is not None:
        at = labels[sparse.pattern.rows].astype(np.int64) * count + labels[sparse.pattern.indices]
        small = at.astype(np.int32) if count**2 < 2**31 else at
        return jax.ops.segment_sum(sparse.values, small, count**2).reshape(count, count)
    sums = lambda x: jax.ops.segment_sum(x, labels, count)
    if not is_matrix_free(operator):
        return sums(sums(materialise(operator).as_matrix()).T).T
    like = operator.in_structure()
    dtype = ravel(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)).dtype
    column = lambda c: sums(apply((jnp.asarray(labels) == c).astype(dtype)))
    return jax.lax.map(column, jnp.arange(count, dtype=labels.dtype)).T


def _regular_inverse(coarse: Array) -> Array:
    """The inverse, also of a matrix that is singular as A is (constants in a periodic problem).

    √ε of its size on the diagonal moves what is regular by that, and makes what is singular large: a
    direction that consistent right-hand sides do not have.
    """
    d = jnp.diagonal(coarse)
    size = jnp.mean(jnp.abs(d)) * jnp.sign(jnp.sum(d).real)
    shift = jnp.finfo(d.dtype).eps ** 0.5 * jnp.where(size == 0, 1, size)
    eye = jnp.eye(coarse.shape[0], dtype=coarse.dtype)
    inverse = jnp.linalg.inv(coarse + shift.astype(coarse.dtype) * eye)
    return jnp.where(jnp.all(jnp.isfinite(inverse)), inverse, eye / shift.astype(coarse.dtype))
