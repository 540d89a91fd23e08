"""Which perturbations of a matrix keep the promise that it is symmetric, or Hermitian."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_conj, tree_real_dtype, tree_sub
from .._types import structure_of
from ..api import linear_solve
from ..operators import (
    AbstractLinearOperator,
    FunctionLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
    is_symmetric,
)
from ..solvers import LSMR

_Arrays = list[Array]


class Admissible:
    """The orthogonal projection on the directions in which an operator stays what it is promised to be.

    A method for symmetric matrices has no say on what it would do to others: its derivatives mean
    something along the null space of S = (dA − dAᵀ) only, in which dA is the derivative of the matrix
    by the arrays that it is made of. So P = I − S⁺S, by `LSMR`: of dense matrices that is the symmetric
    part, of sparse ones that on a symmetric pattern, and of functions whatever it is.

    - `operator_of`: from a list of arrays to the operator.
    - `arrays`: where the derivative is taken.
    """

    def __init__(self, operator_of: Callable[[_Arrays], AbstractLinearOperator], arrays: _Arrays):
        operator = operator_of(arrays)
        hermitian = is_positive_semidefinite(operator) or is_negative_semidefinite(operator)
        turn = (lambda m: m.conj().T) if hermitian else (lambda m: m.T)
        self.free = not (hermitian or is_symmetric(operator))
        self.arrays = arrays

        def skew(arrays: _Arrays) -> Array:
            matrix = operator_of(arrays).as_matrix()
            return matrix - turn(matrix)

        def project(direction: _Arrays) -> _Arrays:
            _, along = jax.linearize(skew, arrays)
            of_parts = lambda parts: _parts(along(self._joined(parts)))
            parts = _parts(direction)
            S = FunctionLinearOperator(of_parts, structure_of(parts))
            tight = LSMR(rtol=10 * float(jnp.finfo(tree_real_dtype(parts)).eps))
            moved = linear_solve(S, S.mv(parts), tight, throw=False).value
            return self._joined(tree_sub(parts, moved))

        self._project = jax.jit(project)

    def direction(self, direction: _Arrays) -> _Arrays:
        """P applied to a direction: arrays like those of the operator."""
        return direction if self.free else self._project(direction)

    def gradient(self, gradient: _Arrays) -> _Arrays:
        """P applied to a gradient as JAX has it, which for complex arrays is the conjugate of one."""
        return tree_conj(self.direction(tree_conj(gradient)))

    def _joined(self, parts: list[_Arrays]) -> _Arrays:
        """The inverse of `_parts`."""
        real, imaginary = parts
        rest = iter(imaginary)
        join = lambda a, re: jax.lax.complex(re, next(rest)) if jnp.iscomplexobj(a) else re
        return [join(a, re) for a, re in zip(self.arrays, real)]


def _parts(arrays: PyTree[Array]) -> list[_Arrays]:
    """Real and imaginary parts: taking the conjugate is linear in these, and not in a complex number."""
    leaves = jax.tree.leaves(arrays)
    return [[a.real for a in leaves], [a.imag for a in leaves if jnp.iscomplexobj(a)]]
