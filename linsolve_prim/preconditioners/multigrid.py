"""Multigrid cycles on the device: what algebraic and geometric hierarchies share."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import Structure
from ..operators import (
    AbstractLinearOperator,
    conj,
    is_symmetric,
    symmetric_tag,
)
from .parts import is_complex, symmetry_of
from .smoothers import Smoother


class Level(eqx.Module):
    """A level but the coarsest: the operator A, how it is smoothed, and how it meets the next level.

    - `operator`: A, for arrays of any one shape.
    - `scale`: an array that broadcasts against the unknowns: the smoother's diagonal.
    - `prolongation`, `restriction`: P from the next level's unknowns, and R to them.
    """

    operator: AbstractLinearOperator
    scale: Array
    prolongation: AbstractLinearOperator
    restriction: AbstractLinearOperator

    def turned(self) -> Level:
        """The level of Aᵀ, on which P and R change places."""
        p, r = self.prolongation.transpose(), self.restriction.transpose()
        return Level(self.operator.transpose(), self.scale, r, p)


class MultigridOperator(AbstractLinearOperator):
    """r ↦ what one cycle from zero makes of Ax = r: an approximation of A⁻¹.

    - `levels`: from the finest.
    - `coarsest`: the (pseudo-)inverse of the coarsest operator, a dense matrix.
    - `smoother`: the same polynomial before and after, so that the cycle is symmetric if A is.
    - `cycle`: "V"; "W", which visits each coarser level twice; "F", a W whose second visit is a V.
    - `shape`: of the arrays that it maps.
    - `hermitian`: whether M = Mᴴ, because A is, and the cycle is no F.
    """

    levels: tuple[Level, ...]
    coarsest: Array
    smoother: Smoother
    cycle: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    hermitian: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def mv(self, vector: Array) -> Array:
        return self._cycle(0, vector, jnp.array(self.cycle != "V"))

    def _cycle(self, depth: int, r: Array, again: Array) -> Array:
        """One cycle from zero; `again` says whether it visits coarser levels twice."""
        if depth == len(self.levels):
            return (self.coarsest @ r.ravel()).reshape(r.shape)
        level = self.levels[depth]
        correct = lambda r: self._correction(depth, r, again)
        return self.smoother.cycle(level.operator.mv, level.scale, r, correct)

    def _correction(self, depth: int, r: Array, again: Array) -> Array:
        level = self.levels[depth]
        visited = self._visited(depth + 1, level.restriction.mv(r), again)
        return level.prolongation.mv(visited)

    def _visited(self, depth: int, r: Array, again: Array) -> Array:
        """What visits of a level make of its residual.

        Both are one loop, so that each level is in the program once, and not 2^depth times.
        """
        if self.cycle == "V" or depth == len(self.levels):  # which is solved at once
            return self._cycle(depth, r, again)

        def visit(k: Array, x: Array) -> Array:
            first = k == 0
            product = self.levels[depth].operator.mv
            left = jax.lax.cond(first, lambda x: r, lambda x: r - product(x), x)
            # the second visit of an F cycle is a V
            return x + self._cycle(depth, left, again & (first | (self.cycle == "W")))

        def visit_if(k: Array, x: Array) -> Array:
            return jax.lax.cond((k == 0) | again, visit, lambda k, x: x, k, x)

        return jax.lax.fori_loop(0, 2, visit if self.cycle == "W" else visit_if, 0 * r)

    def transpose(self) -> MultigridOperator:
        if is_symmetric(self):
            return self
        if self.hermitian:  # and complex
            return conj(self)
        if self.cycle == "F":
            raise NotImplementedError(
                "cycle: an F cycle of an unsymmetric operator has no transpose here, which adjoint "
                "solves need. Use cycle='V' or 'W'."
            )
        levels = tuple(level.turned() for level in self.levels)
        cycle = self.smoother, self.cycle, self.shape
        return MultigridOperator(levels, self.coarsest.T, *cycle, False, frozenset())

    def in_structure(self) -> Structure:
        return jax.ShapeDtypeStruct(self.shape, self.coarsest.dtype)

    def out_structure(self) -> Structure:
        return self.in_structure()


@conj.register(MultigridOperator)
def _conj(operator: MultigridOperator) -> MultigridOperator:
    def flip(x: Any) -> Any:
        if isinstance(x, AbstractLinearOperator):
            return conj(x)
        return x.conj() if jnp.iscomplexobj(x) else x

    inner = lambda x: isinstance(x, AbstractLinearOperator) and x is not operator
    return jax.tree.map(flip, operator, is_leaf=inner)


def multigrid(
    levels: Any,
    coarsest: Array,
    smoother: Smoother,
    cycle: str,
    operator: AbstractLinearOperator,
    hermitian: bool,
    shape: tuple[int, ...],
) -> MultigridOperator:
    """The cycle for A, on arrays of a shape, with what is true of it."""
    own = hermitian and cycle != "F"
    tags: frozenset[object] = frozenset()
    if own:
        tags = symmetry_of(operator) | (set() if is_complex(operator) else {symmetric_tag})
    return MultigridOperator(tuple(levels), coarsest, smoother, cycle, shape, own, tags)
