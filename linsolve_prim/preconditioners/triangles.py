"""`TriangularInverse`: what ILU, IC and Gauss–Seidel apply, on the device."""

from __future__ import annotations

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..operators import (
    AbstractLinearOperator,
    ComposedLinearOperator,
    conj,
    is_lower_triangular,
    is_upper_triangular,
)
from ..operators.structures import check_vector
from ..sparse.operator import SparseLinearOperator
from ..sparse.substitution import Prepared, Triangle, prepare, substitute
from .parts import is_nonsymmetric

Solves = Literal["exact"] | int


def check_solves(solves: Solves, name: str) -> None:
    """Refuse, when a preconditioner is made, what is no way to solve with triangles."""
    if solves == "exact" or (
        isinstance(solves, int) and not isinstance(solves, bool) and solves >= 1
    ):
        return
    raise ValueError(
        f"solves: must be 'exact' or a number of Jacobi sweeps, an int ≥ 1; got {solves!r}. "
        f"`{name}(solves=3)` needs no levels, which suits accelerators."
    )


class TriangularInverse(AbstractLinearOperator):
    """T⁻¹ for a sparse triangular T, or (T + I)⁻¹ where the diagonal is not stored.

    With `levels`, the values in the order of a substitution that finds all unknowns of a level at
    once, it is exact (`sparse/substitution.py`). Without, it is `sweeps` steps of Jacobi's method from
    zero, Σₖ (−D⁻¹R)ᵏD⁻¹ with R = T − D, which are products: no level waits for another. (Anzt, Chow,
    Dongarra, "Iterative sparse triangular solves for preconditioning", 2015,
    doi:10.1007/978-3-662-48096-0_50.) Both are linear, triangular, and have transposes.
    """

    values: Array
    levels: Prepared | None
    triangle: Triangle = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    sweeps: int = eqx.field(static=True)

    @classmethod
    def make(
        cls, values: Array, triangle: Triangle, solves: Solves, transposed: bool = False
    ) -> TriangularInverse:
        """`values` `(nnz,)` on the pattern of `triangle`, of which the diagonal must not be zero."""
        levels = _in_order(triangle, transposed, values) if solves == "exact" else None
        return cls(values, levels, triangle, transposed, 0 if solves == "exact" else int(solves))

    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.in_structure())
        if self.levels is not None:
            return _substituted(self.triangle, self.transposed, self.levels, vector)
        return _swept(self.triangle, self.transposed, self.sweeps, self.values, vector)

    def transpose(self) -> TriangularInverse:
        solves: Solves = "exact" if self.levels is not None else self.sweeps
        return TriangularInverse.make(self.values, self.triangle, solves, not self.transposed)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.triangle.pattern.shape[:1], self.values.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


# Compiled apart, so that calls one by one, as a user may make them, do not compile again and again.
_in_order = functools.partial(jax.jit, static_argnums=(0, 1))(prepare)
_substituted = functools.partial(jax.jit, static_argnums=(0, 1))(substitute)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _swept(triangle: Triangle, transposed: bool, sweeps: int, values: Array, b: Array) -> Array:
    d, rest = _split(triangle, values)
    product = (rest.transpose() if transposed else rest).mv
    return jax.lax.fori_loop(0, sweeps, lambda _, x: (b - product(x)) / d, b / d)


def _split(triangle: Triangle, values: Array) -> tuple[Array, SparseLinearOperator]:
    """D and R. The diagonal stays in the pattern of R, as zeros."""
    pattern = triangle.pattern
    if triangle.unit:
        return jnp.ones((), values.dtype), SparseLinearOperator(values, pattern)
    on = pattern.rows == pattern.indices
    rest = SparseLinearOperator(jnp.where(on, 0, values), pattern)
    return values[pattern.diagonal_slots()], rest


@conj.register(TriangularInverse)
def _conj(operator: TriangularInverse) -> TriangularInverse:
    return jax.tree.map(jnp.conj, operator)


is_lower_triangular.register(TriangularInverse, lambda op: op.triangle.lower != op.transposed)
is_upper_triangular.register(TriangularInverse, lambda op: op.triangle.lower == op.transposed)


@is_nonsymmetric.register(TriangularInverse)
def _is_nonsymmetric(operator: TriangularInverse) -> bool:
    return operator.triangle.pattern.nnz > operator.triangle.pattern.shape[0]


@is_nonsymmetric.register(ComposedLinearOperator)
def _two_triangles(operator: ComposedLinearOperator) -> bool:
    """U⁻¹L⁻¹ of an LU factorization (that of a symmetric one has a diagonal in between)."""
    return all(isinstance(x, TriangularInverse) for x in (operator.operator1, operator.operator2))
