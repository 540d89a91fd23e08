"""Banded matrices, by the LAPACK that comes with SciPy."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from ...host import lapack
from ...host.registry import registry
from ...host.tasks import Refused
from ...operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ...sparse.band import Band, given_band, narrow_band
from ...sparse.pattern import SparsityPattern
from ..determinant import of_diagonal_on_host
from .base import AbstractSymbolicSolver
from .parts import lower_columns
from .spare import Lent, Spare
from .superlu import GENERAL, SuperLU


class Banded(AbstractSymbolicSolver):
    """Cholesky or LU with partial pivoting within a band, by LAPACK (`pbtrf`, `gbtrf`).

    The band of a mesh is as wide as the mesh is across, so that a strip, a chain, or a 2-D grid of
    up to about 100 × 100 unknowns is solved faster here than by any solver that looks for fill. In
    three dimensions bands are wide: take `RSLab` or `SuperLU`.

    - `reorder`: bring the entries close to the diagonal by the reverse Cuthill-McKee ordering, made
      once for a pattern, where that makes the band narrower.
    - `cholesky`: half the memory and less than half the work, for real symmetric or Hermitian
      definite operators, of which it reads the lower triangle. By default for those that are tagged so.

    `n·(below + above + 1)` entries are kept, and for LU `n·below` more, computed in the matrix's own
    dtype: all four. A band that the registry's budget does not hold, and a matrix that is tagged
    definite and is not, go to `SuperLU`. An exactly zero pivot gives `RESULTS.singular`.

    `(n, n)`. **Raises** `StructureError` for an operator that is not square, `ValueError` for
    `cholesky=True` with an operator that is not tagged positive or negative definite.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.diags_array([1.0, -3.0, 1.0, 0.5], offsets=[-1, 0, 1, 2], shape=(4, 4))
        >>> x = lp.solve(A, A @ jnp.arange(4.0), lp.Banded())
        >>> bool(jnp.allclose(x, jnp.arange(4.0), atol=1e-5))
        True
    """

    reorder: bool = True
    cholesky: bool | None = None
    negative: bool = False
    releases_gil: ClassVar[bool] = True
    keeps_values: ClassVar[bool] = False
    stable: ClassVar[bool] = True

    def specialize(self, operator: AbstractLinearOperator) -> Banded:
        negative = is_negative_semidefinite(operator)
        definite = negative or is_positive_semidefinite(operator)
        if self.cholesky and not definite:
            raise ValueError(
                "operator: `Banded(cholesky=True)` needs a positive or negative definite operator, "
                f"and this {type(operator).__name__} does not promise that. Tag it with "
                "`positive_semidefinite_tag` if it is, or leave `cholesky` out."
            )
        cholesky = definite if self.cholesky is None else self.cholesky
        return Banded(self.reorder, cholesky, cholesky and negative)

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> _Layout:
        band = narrow_band(pattern) if self.reorder else given_band(pattern)
        layout = _lower_layout(pattern, band) if self.cholesky else _full_layout(pattern, band)
        layout.nbytes = layout.height * len(layout) * values.itemsize
        if layout.nbytes > registry.budget:
            raise Refused(
                "host_failure",
                f"a band of {layout.height} diagonals takes {layout.nbytes:.1e} bytes, more than the budget of "
                f"the registry, {registry.budget:.1e}",
            )
        return layout

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        layout = analysis
        entries = values[layout.slots]
        if layout.turned is not None and np.iscomplexobj(entries):
            np.conjugate(entries, out=entries, where=layout.turned)
        storage = layout.spare.take()
        if storage is None:
            storage = np.zeros((len(layout), layout.height), values.dtype)
        else:
            storage.fill(0)
        lent = layout.spare.lend(storage)
        storage.reshape(-1)[layout.places] = -entries if self.negative else entries
        if self.cholesky:
            pivots, info = None, lapack.pbtrf(storage)
        else:
            pivots = np.empty(len(layout), np.int32)
            info = lapack.gbtrf(storage, layout.below, layout.above, pivots)
        if info:
            what = "is not positive" if self.cholesky else "is zero"
            raise Refused("singular", f"pivot {info} of the band {what}")
        return _Factor(layout, lent, pivots)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        layout, lent, pivots = factor
        flip = self.cholesky and transpose and np.iscomplexobj(b)  # Aᵀ = conj(A)
        b = b.conj() if flip else b
        x = b.copy() if layout.order is None else b.take(layout.order, axis=1)
        if self.cholesky:
            lapack.pbtrs(lent.item, x)
        else:
            lapack.gbtrs(lent.item, layout.below, layout.above, pivots, x, transpose)
        if layout.order is not None:
            ordered, x = x, np.empty_like(x)
            x[:, layout.order] = ordered
        x = x.conj() if flip else x
        return -x if self.negative else x

    def logdet(self, factor: Any) -> tuple[Any, float]:
        layout, lent, pivots = factor
        if self.cholesky:
            odd = self.negative and len(layout) % 2
            return -1 if odd else 1, 2 * float(np.sum(np.log(lent.item[:, 0].real)))
        sign, log = of_diagonal_on_host(lent.item[:, layout.below + layout.above])
        swaps = np.count_nonzero(pivots != np.arange(1, len(pivots) + 1))
        return -sign if swaps % 2 else sign, log

    def nbytes(self, factor: Any) -> int:
        return int(factor.lent.item.nbytes)

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        return super().analysis_nbytes(pattern, analysis) + int(analysis.nbytes)

    def fallback(self) -> SuperLU:
        return GENERAL


class _Layout:
    """Where the entries of a pattern stand in LAPACK's storage of a band, column after column.

    - `slots`: those that are stored; `places`: where, in the raveled `(n, height)`.
    - `turned`: which of them came from the other triangle, and are conjugated; or None.
    - `nbytes`: of such a storage in the dtype that it is for.
    """

    nbytes: int

    def __init__(
        self,
        band: Band,
        height: int,
        slots: np.ndarray,
        places: np.ndarray,
        size: int,
        turned: np.ndarray | None = None,
    ):
        self.order, self.below, self.above = band.order, band.below, band.above
        self.height, self.slots, self.places = height, slots, places
        self.turned, self._size = turned, size
        self.spare = Spare()  # memory that was used before has no page faults

    def __len__(self) -> int:
        return self._size


def _full_layout(pattern: SparsityPattern, band: Band) -> _Layout:
    """For `gbtrf`, which wants `below` rows on top for the fill of its row exchanges."""
    height = 2 * band.below + band.above + 1
    columns = band.columns.astype(np.int64)
    places = columns * height + (band.below + band.above + band.rows - columns)
    return _Layout(band, height, np.arange(pattern.nnz), places, pattern.shape[0])


def _lower_layout(pattern: SparsityPattern, band: Band) -> _Layout:
    """For `pbtrf`: the lower triangle of A, which need not be lower in the new order."""
    slots = lower_columns(pattern).slots
    rows, columns = band.rows[slots].astype(np.int64), band.columns[slots].astype(np.int64)
    height = int(np.abs(rows - columns).max(initial=0)) + 1
    places = np.minimum(rows, columns) * height + np.abs(rows - columns)
    turned = rows < columns
    return _Layout(band, height, slots, places, pattern.shape[0], turned if turned.any() else None)


class _Factor(NamedTuple):
    layout: _Layout
    lent: Lent  # the band
    pivots: np.ndarray | None
