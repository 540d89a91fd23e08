"""Multigrid for stencils on grids, which need no matrix."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._static import Skeleton, is_concrete, split
from .._types import structure_str
from ..errors import StructureError
from ..operators import AbstractLinearOperator
from ..operators.functions import promises_hermitian
from .base import AbstractPreconditioner
from .multigrid import Level, MultigridOperator, multigrid
from .parts import is_definite
from .smoothers import Smoother, diagonal_of_smoother, pseudo_inverse
from .stencil import (
    Interpolation,
    Shape,
    StencilOperator,
    coarse_shape,
    find_stencil,
    interpolation_weights,
    offsets_of,
)

CYCLES = ("V", "W")


class GeometricMultigrid(AbstractPreconditioner):
    """One multigrid cycle for an operator on a grid that couples a point with its neighbours.

    The operator may be a function: its stencil is found by 3ᵈ products (up to 5ᵈ, where 3 does not
    divide the grid), coarse stencils are Galerkin products that are found in the same way, and
    interpolation follows the coefficients ("black box" multigrid, see `stencil.py`). So variable and
    jumping coefficients, obstacles, and Dirichlet, Neumann and periodic borders need no settings. All
    of it is computed on the device, in `jit` and `vmap` too; it follows the values that are met.

    - `grid`: the shape of the grid, if the operator's vectors are raveled; in any number of dimensions.
    - `smoother`, `degree`: "chebyshev" or "l1_jacobi", and products per smoothing: see `Smoother`.
    - `cycle`: "V" or "W".
    - `max_coarse`: down to that many points, whose inverse is held as a matrix.

    **Raises** `StructureError` for operators that are not on one grid, and, where values are not traced,
    `ValueError` for such as reach further than the neighbours.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> laplace = lambda u: 2 * u - jnp.pad(u, 1)[2:] - jnp.pad(u, 1)[:-2]
        >>> A = lp.FunctionLinearOperator(laplace, jnp.zeros(31), lp.positive_semidefinite_tag)
        >>> M = lp.preconditioners.GeometricMultigrid(max_coarse=20).init(A)
        >>> bool(abs(M.mv(A.mv(jnp.ones(31))) - 1).max() < 0.2)  # of one cycle
        True
    """

    grid: Shape | None = dataclasses.field(default=None, kw_only=True)
    smoother: str = dataclasses.field(default="chebyshev", kw_only=True)
    degree: int = dataclasses.field(default=2, kw_only=True)
    cycle: str = dataclasses.field(default="V", kw_only=True)
    max_coarse: int = dataclasses.field(default=300, kw_only=True)

    def __check_init__(self) -> None:
        Smoother(self.smoother, self.degree)
        if self.cycle not in CYCLES:
            raise ValueError(f"cycle: must be one of {', '.join(CYCLES)}; got {self.cycle!r}.")

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        flat, grid = self._checked(operator)
        arrays, skeleton = split(operator)
        found, excess = _jitted(dataclasses.replace(self, grid=grid), skeleton, *arrays)
        if is_concrete(excess) and excess > 1e-6:
            raise ValueError(
                "operator: must couple a point with its neighbours only; got one that reaches further, "
                f"or wraps around a raveled grid otherwise than {grid}. Use `preconditioners.AMG`."
            )
        return self._cycle(operator, flat, grid, found)

    def _checked(self, operator: AbstractLinearOperator) -> tuple[bool, Shape]:
        """Whether its vectors are raveled, and the grid."""
        structure = operator.in_structure()
        if not isinstance(structure, jax.ShapeDtypeStruct) or structure != operator.out_structure():
            raise StructureError(
                "operator: must map arrays on a grid to such; got input structure "
                f"{structure_str(structure)}. Use `preconditioners.AMG` for systems of equations."
            )
        grid = structure.shape if self.grid is None else tuple(self.grid)
        if math.prod(grid) != math.prod(structure.shape):
            raise StructureError(
                f"grid: must have as many points as the operator has unknowns, "
                f"{math.prod(structure.shape)}; got {grid}."
            )
        return grid != structure.shape, grid

    def _cycle(
        self, operator: AbstractLinearOperator, flat: bool, grid: Shape, found: Any
    ) -> AbstractLinearOperator:
        stencils, weights, scales, coarsest = found
        hermitian = promises_hermitian(operator)
        levels = []
        for depth, (w, scale) in enumerate(zip(weights, scales)):
            p = Interpolation(w, scale.shape)
            fine = StencilOperator(stencils[depth]) if flat or depth else operator
            levels.append(Level(fine, scale, p, p.transpose()))
        smoother = Smoother(self.smoother, self.degree)
        made = multigrid(levels, coarsest, smoother, self.cycle, operator, hermitian, grid)
        return Raveled(made, grid) if flat else made


class Raveled(AbstractLinearOperator):
    """An operator on a grid, for vectors."""

    operator: MultigridOperator
    grid: Shape = eqx.field(static=True)

    @property
    def tags(self) -> frozenset[object]:
        return self.operator.tags

    def mv(self, vector: Array) -> Array:
        return self.operator.mv(vector.reshape(self.grid)).ravel()

    def transpose(self) -> Raveled:
        return Raveled(self.operator.transpose(), self.grid)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((math.prod(self.grid),), self.operator.coarsest.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


def _hierarchy(own: GeometricMultigrid, skeleton: Skeleton, *arrays: Array) -> tuple[Any, Array]:
    """Stencils, interpolation weights, the smoother's diagonals, the coarsest inverse; and by how much
    the stencil is not the operator, relative to it."""
    operator = skeleton.fill(arrays)
    grid = own.grid
    assert grid is not None
    shape, dtype = operator.in_structure().shape, operator.in_structure().dtype
    apply = lambda x: operator.mv(x.reshape(shape)).reshape(grid)
    stencils, weights, scales = [find_stencil(apply, grid, dtype)], [], []
    excess = _excess(apply, StencilOperator(stencils[0]))
    while math.prod(grid) > own.max_coarse and coarse_shape(grid) != grid:
        fine = StencilOperator(stencils[-1])
        weights.append(interpolation_weights(fine.stencil))
        d = fine.stencil[offsets_of(grid).index((0,) * len(grid))]
        norms = jnp.abs(fine.stencil).sum(axis=0)
        scales.append(diagonal_of_smoother(fine.mv, d, norms, own.smoother))
        p = Interpolation(weights[-1], grid)
        galerkin = functools.partial(_galerkin, fine, p, p.transpose())
        grid = coarse_shape(grid)
        stencils.append(find_stencil(galerkin, grid, dtype))
    last = StencilOperator(stencils[-1])
    coarsest = pseudo_inverse(last.as_matrix(), promises_hermitian(operator))
    return (stencils, weights, scales, coarsest), excess


_jitted = jax.jit(_hierarchy, static_argnums=(0, 1))


def _galerkin(fine: Any, p: Interpolation, r: Interpolation, x: Array) -> Array:
    return r.mv(fine.mv(p.mv(x)))


def _excess(apply: Any, found: StencilOperator) -> Array:
    """How far a product with the stencil is from one with the operator."""
    x = np.cos(0.7 * np.arange(math.prod(found.grid), dtype=float) ** 2).reshape(found.grid)
    x = jnp.asarray(x, found.stencil.dtype)
    want = apply(x)
    top = jnp.max(jnp.abs(want))
    return jnp.max(jnp.abs(found.mv(x) - want)) / jnp.where(top > 0, top, 1)
