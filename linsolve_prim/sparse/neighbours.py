"""`PairwiseEncoder`: values for the neighbours of grid points as a sparse matrix."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np

from .._types import inexact_asarray
from ..errors import StructureError
from .operator import SparseLinearOperator
from .pattern import SparsityPattern
from .values import pick

Relation = Literal["indep", "intra", "inter"]


class PairwiseEncoder:
    """Makes a sparse matrix of values that every point of a grid has for its neighbours.

    The grid has channels and any number of axes, `volume_shape = (C, *axes)`; points are numbered in C
    order. An offset o = (c, s₁, …) couples point p with p − o: the matrix has `values[k][p]` at
    (p, p − offsets[k]), wherever both lie in the grid.

    - `radius`: all spatial offsets with ‖s‖₂ ≤ radius (at least 1) are there.
    - `diag`: whether a point is its own neighbour, as the first offset.
    - `upper`: True for entries above the diagonal only, False for those below, None for both.
    - `channel_voxel_relation`: "indep" (offsets within a channel), "intra" (also to other channels of the
      same point) or "inter" (to other channels of all neighbours). Without `upper`, channel offsets
      are the positive ones.

    `offsets` is the list of offsets, nearest first; `pattern` the `SparsityPattern`.

    ```python
    encoder = lp.PairwiseEncoder(1.5, (1, 8, 8, 8), diag=True)
    A = encoder(values)  # values: (len(encoder.offsets), 1, 8, 8, 8)
    batch = jax.vmap(encoder)(many_values)
    ```

    The order of offsets is that of torchsparsegradutils' encoder of that name.

    **Raises** `ValueError` for settings that do not fit.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> encoder = lp.PairwiseEncoder(1.0, (1, 3), diag=True)
        >>> encoder.offsets, encoder(jnp.ones((len(encoder.offsets), 1, 3))).as_matrix().tolist()
        ([(0, 0), (0, -1), (0, 1)], [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    """

    def __init__(
        self,
        radius: float,
        volume_shape: tuple[int, ...],
        diag: bool = False,
        upper: bool | None = None,
        channel_voxel_relation: Relation = "indep",
    ):
        _check(radius, volume_shape, channel_voxel_relation)
        self.radius, self.volume_shape = radius, tuple(volume_shape)
        self.diag, self.upper = diag, upper
        self.channel_voxel_relation = channel_voxel_relation
        self.offsets = _offsets(radius, self.volume_shape, upper, channel_voxel_relation)
        if diag:
            self.offsets.insert(0, (0,) * len(volume_shape))
        points = np.arange(math.prod(volume_shape)).reshape(volume_shape)
        none = [np.zeros(0, int)]
        rows = [points[_inside(o)].ravel() for o in self.offsets]
        columns = [points[_inside(tuple(-k for k in o))].ravel() for o in self.offsets]
        self.pattern, slots = SparsityPattern.from_coo(
            np.concatenate(rows or none), np.concatenate(columns or none), (points.size,) * 2
        )
        # offsets differ, and so do their entries: each has one number among the values
        self._source = np.empty(self.pattern.nnz, self.pattern.indices.dtype)
        self._source[slots] = np.concatenate(
            [row + k * points.size for k, row in enumerate(rows)] or none
        )

    @property
    def volume_numel(self) -> int:
        """The number of points, and so of rows and columns."""
        return self.pattern.shape[0]

    def __call__(self, values: Any, tags: Any = ()) -> SparseLinearOperator:
        """The matrix of `values`, `(len(offsets), C, *axes)`; those that would leave the grid are unused.

        **Raises** `StructureError` for another shape. (Batches are made by `jax.vmap`.)
        """
        values = inexact_asarray(values)
        want = (len(self.offsets), *self.volume_shape)
        if values.shape != want:
            raise StructureError(
                f"values: must have shape {want}, one volume for each offset; got {values.shape}. Use "
                "`jax.vmap` for a batch."
            )
        return SparseLinearOperator(pick(values.reshape(-1), self._source), self.pattern, tags)


def _check(radius: float, shape: Any, relation: str) -> None:
    if radius < 1:
        raise ValueError(f"radius: must be at least 1, or there are no neighbours; got {radius}.")
    if len(shape) < 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f"volume_shape: must be (C, *axes), two or more positive integers; got {shape}."
        )
    if relation not in ("indep", "intra", "inter"):
        raise ValueError(
            f"channel_voxel_relation: must be 'indep', 'intra' or 'inter'; got {relation!r}."
        )
    if shape[0] == 1 and relation != "indep":
        raise ValueError(
            f"channel_voxel_relation: must be 'indep' where there is one channel; got {relation!r}."
        )


def _inside(offset: tuple[int, ...]) -> tuple[slice, ...]:
    """The points p with p − offset in the grid."""
    return tuple(slice(k, None) if k >= 0 else slice(None, k) for k in offset)


def _offsets(
    radius: float, shape: tuple[int, ...], upper: bool | None, relation: Relation
) -> list[tuple[int, ...]]:
    """All offsets but zero: by distance (a channel counts as ten), then by size, negative ones first."""
    reach = range(-math.floor(radius), math.floor(radius) + 1)
    near = [s for s in itertools.product(reach, repeat=len(shape) - 1) if _square(s) <= radius**2]
    zero = (0,) * (len(shape) - 1)
    near.remove(zero)
    found = [(0, *s) for s in near]
    if relation != "indep":
        found += [(c, *zero) for c in range(1, shape[0])]
    if relation == "inter":
        found += [(c, *s) for c in range(1, shape[0]) for s in near]
    if upper is not None:
        positive = lambda o: next(k for k in o if k) > 0
        found = [o for o in found if positive(o) != upper]
    key = lambda o: (_square((10 * o[0], *o[1:])), [abs(k) for k in o], [k >= 0 for k in o])
    return sorted(found, key=key)


def _square(offset: tuple[int, ...]) -> int:
    return sum(k * k for k in offset)
