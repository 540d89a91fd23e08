"""Operators on grids that reach the neighbours of a point, found by a few products with any operator.

A stencil is an array `(offsets, *grid)`: entry s of point i is what A multiplies the value at i + s by.
Offsets go from −1 to 1 in each direction, and wrap around: where nothing is coupled across the border,
entries are zero there, so that all boundary conditions are of one form.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..operators import AbstractLinearOperator, conj

Shape = tuple[int, ...]
#: Stencils of more points are products in a loop: in three dimensions compiling would take longer.
_WRITTEN_OUT = 9
Offset = tuple[int, ...]


def offsets_of(grid: Shape) -> list[Offset]:
    """The neighbours of a point, itself among them; each once, though a short grid wraps around."""
    steps = {1: (0,), 2: (0, 1)}
    return list(itertools.product(*(steps.get(n, (-1, 0, 1)) for n in grid)))


def _colours(n: int) -> np.ndarray:
    """Of each point of a line: points of one colour are three apart, also around the border."""
    if n < 6:
        return np.arange(n)
    colours = np.arange(n) % 3
    colours[n - n % 3 :] = 3 + np.arange(n % 3)
    return colours


def find_stencil(apply: Callable[[Array], Array], grid: Shape, dtype: jnp.dtype) -> Array:
    """The stencil of a linear map of arrays of shape `grid`, by 3ᵈ products (up to 5ᵈ).

    What reaches further than a neighbour is added to entries where it does not belong.
    """
    colours = [_colours(n) for n in grid]
    counts = [int(c.max()) + 1 for c in colours]

    def probe(which: Array) -> Array:
        v = jnp.ones((), bool)
        for d, own in enumerate(colours):
            v = v & (jnp.asarray(own.astype(np.int32)) == which[d]).reshape(_along(d, grid))
        return apply(jnp.broadcast_to(v, grid).astype(dtype))

    def entry(s: Array) -> Array:
        """At each point, what was seen there of the colour of its neighbour."""
        index = jnp.zeros((), jnp.int32)
        for d, own in enumerate(colours):
            at = jnp.asarray(np.stack([np.roll(own, 1), own, np.roll(own, -1)]).astype(np.int32))
            index = index * counts[d] + at[s[d] + 1].reshape(_along(d, grid))
        return jnp.take_along_axis(seen, jnp.broadcast_to(index, grid)[None], axis=0)[0]

    # One after the other, in loops: each is compiled once.
    seen = jax.lax.map(probe, jnp.asarray(list(np.ndindex(*counts)), jnp.int32))
    return jax.lax.map(entry, jnp.asarray(offsets_of(grid), jnp.int32))


def _along(d: int, grid: Shape) -> Shape:
    return tuple(n if i == d else 1 for i, n in enumerate(grid))


def shifted(x: Array, s: Offset) -> Array:
    """y with y[i] = x[i + s], around the border."""
    for axis, step in enumerate(s):
        if step:
            x = jnp.roll(x, -step, axis)
    return x


class StencilOperator(AbstractLinearOperator):
    """y[i] = Σₛ a[s, i] x[i + s] on a grid; x and y have its shape."""

    stencil: Array

    @property
    def grid(self) -> Shape:
        return self.stencil.shape[1:]

    def mv(self, vector: Array) -> Array:
        around = jnp.pad(vector, 1, mode="wrap")
        offsets = offsets_of(self.grid)
        if len(offsets) <= _WRITTEN_OUT:
            last = [tuple(1 + step + n for step, n in zip(s, self.grid)) for s in offsets]
            parts = [
                a * jax.lax.slice(around, [1 + step for step in s], end)
                for a, s, end in zip(self.stencil, offsets, last)
            ]
            return sum(parts[1:], parts[0])

        def add(total: Array, term: tuple[Array, Array]) -> tuple[Array, None]:
            a, start = term
            return total + a * jax.lax.dynamic_slice(around, start, self.grid), None

        starts = 1 + jnp.asarray(offsets, jnp.int32)
        return jax.lax.scan(add, jnp.zeros_like(vector), (self.stencil, starts))[0]

    def transpose(self) -> StencilOperator:
        offsets = offsets_of(self.grid)
        place = {s: k for k, s in enumerate(offsets)}
        turned = []
        for s in offsets:  # the entry (i, i + s) of Aᵀ is that of A at (i + s, i)
            back = tuple((-step) % 2 if n == 2 else -step for step, n in zip(s, self.grid))
            turned.append(shifted(self.stencil[place[back]], s))
        return StencilOperator(jnp.stack(turned))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.grid, self.stencil.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@conj.register(StencilOperator)
def _conj(operator: StencilOperator) -> StencilOperator:
    return StencilOperator(operator.stencil.conj())


# ---- Interpolation -------------------------------------------------------------------------------

Parity = tuple[int, ...]


def coarse_shape(grid: Shape) -> Shape:
    """Every second point in each direction that has more than three, from the first."""
    return tuple((n + 1) // 2 if n > 3 else n for n in grid)


def _parities(grid: Shape) -> list[Parity]:
    """The classes of points between coarse ones, those with fewer odd indices first."""
    kinds = itertools.product(*((0, 1) if n > 3 else (0,) for n in grid))
    return sorted((e for e in kinds if any(e)), key=sum)


def _class_shape(grid: Shape, parity: Parity) -> Shape:
    return tuple(n if n <= 3 else (n // 2 if odd else (n + 1) // 2) for n, odd in zip(grid, parity))


def _steps(parity: Parity) -> list[Offset]:
    """From a point of this class to the points that it is interpolated from."""
    kinds = itertools.product(*((-1, 0, 1) if odd else (0,) for odd in parity))
    return [s for s in kinds if any(s)]


def interpolation_weights(stencil: Array) -> dict[str, Array]:
    """Of each class of points, how much each of their neighbours counts: `(steps, *class)`.

    Such that A x = 0 holds at the point if x is constant along the directions in which it stands on
    a coarse line. So jumps of coefficients and all boundary conditions are respected. (Alcouffe,
    Brandt, Dendy, Painter, 1981, doi:10.1137/0902035; Dendy, "Black box multigrid", 1982,
    doi:10.1016/0021-9991(82)90057-2.)
    """
    grid = stencil.shape[1:]
    offsets = offsets_of(grid)
    weights = {}
    for parity in _parities(grid):
        odd = [bool(e) for e in parity]
        cut = tuple(slice(e, None, 2) if n > 3 else slice(None) for e, n in zip(parity, grid))
        sums: dict[Offset, Array] = {}
        for a, s in zip(stencil, offsets):
            key = tuple(step if o else 0 for step, o in zip(s, odd))
            sums[key] = sums[key] + a[cut] if key in sums else a[cut]
        centre = sums[(0,) * len(grid)]
        safe = jnp.where(centre == 0, 1, centre)
        own = [jnp.where(centre == 0, 0, -sums[s] / safe) for s in _steps(parity)]
        weights[_name(parity)] = jnp.stack(own)
    return weights


def _name(parity: Parity) -> str:
    return "".join(map(str, parity))


class Interpolation(AbstractLinearOperator):
    """From a coarse grid to the grid, by `interpolation_weights`; or, transposed, back."""

    weights: dict[str, Array]
    grid: Shape = eqx.field(static=True)
    transposed: bool = eqx.field(static=True, default=False)

    def mv(self, vector: Array) -> Array:
        if not self.transposed:
            return self._interpolated(vector)
        like = jax.ShapeDtypeStruct(coarse_shape(self.grid), vector.dtype)
        return jax.linear_transpose(self._interpolated, like)(vector)[0]

    def _interpolated(self, coarse: Array) -> Array:
        known: dict[Parity, Array] = {(0,) * len(self.grid): coarse}
        for parity in _parities(self.grid):
            shape = _class_shape(self.grid, parity)
            total = jnp.zeros(shape, coarse.dtype)
            for w, s in zip(self.weights[_name(parity)], _steps(parity)):
                # i = 2k + 1 has the neighbours 2k and 2(k + 1)
                source = known[tuple(e - abs(step) for e, step in zip(parity, s))]
                source = shifted(source, tuple(max(step, 0) for step in s))
                total = total + w * source[tuple(slice(0, n) for n in shape)]
            known[parity] = total
        parts = [self._spread(parity, values) for parity, values in known.items()]
        return sum(parts[1:], parts[0])

    def _spread(self, parity: Parity, values: Array) -> Array:
        """The values at their places on the grid, zeros elsewhere."""
        zero = jnp.zeros((), values.dtype)
        padding = [
            (0, 0, 0) if n <= 3 else (e, n - e - (2 * size - 1), 1)
            for n, e, size in zip(self.grid, parity, values.shape)
        ]
        return jax.lax.pad(values, zero, padding)

    def transpose(self) -> Interpolation:
        return Interpolation(self.weights, self.grid, not self.transposed)

    def _dtype(self) -> jnp.dtype:
        return next(iter(self.weights.values())).dtype

    def in_structure(self) -> jax.ShapeDtypeStruct:
        grid = self.grid if self.transposed else coarse_shape(self.grid)
        return jax.ShapeDtypeStruct(grid, self._dtype())

    def out_structure(self) -> jax.ShapeDtypeStruct:
        grid = coarse_shape(self.grid) if self.transposed else self.grid
        return jax.ShapeDtypeStruct(grid, self._dtype())


@conj.register(Interpolation)
def _conj_interpolation(operator: Interpolation) -> Interpolation:
    weights = {name: w.conj() for name, w in operator.weights.items()}
    return Interpolation(weights, operator.grid, operator.transposed)
