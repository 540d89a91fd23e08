"""Preconditioners in a lower precision than the system that they are for."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._norms import max_norm, power_of_two
from .._static import stop_gradient
from .._tree import tree_real_dtype, tree_scale
from .._types import Structure
from ..errors import WrongTypeError
from ..operators import (
    AbstractLinearOperator,
    MatrixLinearOperator,
    TaggedLinearOperator,
    conj,
    is_symmetric,
)
from ..operators.cast import cast, cast_structure, cast_tree
from ..sparse.operator import SparseLinearOperator
from .base import AbstractPreconditioner
from .parts import symmetry_of, tagged

PRECISIONS = ("float32", "bfloat16", "float16")


class LowPrecision(AbstractPreconditioner):
    """Another preconditioner, made and applied in single precision.

    What limits the speed of a large one is how much memory it reads: half, in single precision. A
    Krylov method in double precision takes as many steps as ever, since M need only approximate A⁻¹.
    (Higham and Mary, "Mixed precision algorithms in numerical linear algebra", 2022,
    doi:10.1017/S0962492922000022.)

    - `preconditioner`: one that takes operators of that precision.
    - `precision`: "float32"; "bfloat16" and "float16" for those that need no factorization.

    Entries of A, and vectors, are in units of the largest of them, so that it does not matter how
    large they are; those smaller by more than the range of the precision become zero.

    **Raises** `WrongTypeError` for what is no preconditioner, `ValueError` for another precision; and
    what the other one raises.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([8.0, 1.0, 2.0])), lp.positive_semidefinite_tag)
        >>> single = lp.preconditioners.LowPrecision(lp.preconditioners.Jacobi())
        >>> print(single.init(A).mv(jnp.ones(3)).round(4))
        [0.125 1.    0.5  ]
    """

    preconditioner: AbstractPreconditioner
    precision: str = eqx.field(static=True, default="float32")

    def __check_init__(self) -> None:
        if not isinstance(self.preconditioner, AbstractPreconditioner):
            raise WrongTypeError(
                "preconditioner: must be one of `preconditioners`, which makes an operator from A; got "
                f"{type(self.preconditioner).__name__}."
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: must be one of {', '.join(PRECISIONS)}; got {self.precision!r}."
            )

    @property
    def needs_values(self) -> bool:
        return self.preconditioner.needs_values

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.preconditioner.keeps_definite(operator)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        small, unit = self._reduced(operator)
        made = self.preconditioner.init(small)
        own = jnp.dtype(tree_real_dtype(operator.in_structure())).name
        return tagged(LowPrecisionOperator(made, unit, own), symmetry_of(made))

    def prepare(self, operator: AbstractLinearOperator) -> LowPrecision:
        prepared = self.preconditioner.prepare(self._reduced(operator)[0])
        return dataclasses.replace(self, preconditioner=prepared)

    def _reduced(self, operator: AbstractLinearOperator) -> tuple[AbstractLinearOperator, Array]:
        """A/unit in the lower precision; the unit is that of its largest entry, if it holds entries."""
        operator = stop_gradient(operator)
        inner = operator
        while isinstance(inner, TaggedLinearOperator):
            inner = inner.operator
        unit = jnp.ones((), tree_real_dtype(operator.in_structure()))
        if isinstance(inner, (SparseLinearOperator, MatrixLinearOperator)):
            entries = jax.tree.leaves(inner)
            unit = power_of_two(max_norm(entries))
            scaled = tree_scale(1 / unit, entries)
            inner = jax.tree.unflatten(jax.tree.structure(inner), scaled)
        tags = symmetry_of(operator)
        return tagged(cast(inner, self.precision), tags), unit


class LowPrecisionOperator(AbstractLinearOperator):
    """r ↦ Mr of an M in a lower precision, for vectors of the own precision.

    - `operator`: M of A/unit.
    - `own`: the precision of the vectors.
    """

    operator: AbstractLinearOperator
    unit: Array
    own: str = eqx.field(static=True)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        size = jax.lax.stop_gradient(power_of_two(max_norm(vector)))
        small = cast_tree(tree_scale(1 / size, vector), self.operator.in_structure())
        product = cast_tree(self.operator.mv(small), self.out_structure())
        return tree_scale(size, tree_scale(1 / self.unit, product))

    def transpose(self) -> AbstractLinearOperator:
        return LowPrecisionOperator(self.operator.transpose(), self.unit, self.own)

    def in_structure(self) -> Structure:
        return cast_structure(self.operator.in_structure(), self.own)

    def out_structure(self) -> Structure:
        return cast_structure(self.operator.out_structure(), self.own)


@is_symmetric.register(LowPrecisionOperator)
def _is_symmetric(operator: LowPrecisionOperator) -> bool:
    return is_symmetric(operator.operator)


@conj.register(LowPrecisionOperator)
def _conj(operator: LowPrecisionOperator) -> Any:
    return LowPrecisionOperator(conj(operator.operator), operator.unit, operator.own)
