"""`Compose`: several preconditioners as one; and `Custom`: what a user's function makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._static import stop_gradient
from .._tree import tree_add, tree_sub
from .._types import Structure, structure_equal, structure_str
from ..errors import WrongTypeError
from ..operators import (
    AbstractLinearOperator,
    FunctionLinearOperator,
    conj,
    linearise,
)
from .base import AbstractPreconditioner
from .parts import is_definite, require_square, symmetry_of, tagged

How = Literal["multiplicative", "additive"]


class Sequence(AbstractLinearOperator):
    """x from zero by x ← x + Mᵢ(b − Ax) for each i in turn: I − MA = (I − MₖA) … (I − M₁A)."""

    operator: AbstractLinearOperator
    parts: tuple[AbstractLinearOperator, ...]

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        first, *rest = self.parts
        x = d = first.mv(vector)
        r = vector
        for m in rest:
            r = tree_sub(r, self.operator.mv(d))
            d = m.mv(r)
            x = tree_add(x, d)
        return x

    def transpose(self) -> Sequence:
        turned = tuple(m.transpose() for m in reversed(self.parts))
        return Sequence(self.operator.transpose(), turned)

    def in_structure(self) -> Structure:
        return self.operator.out_structure()

    def out_structure(self) -> Structure:
        return self.operator.in_structure()


@conj.register(Sequence)
def _conj(m: Sequence) -> Sequence:
    return Sequence(conj(m.operator), tuple(conj(part) for part in m.parts))


class Compose(AbstractPreconditioner):
    """Several preconditioners of the same operator, one after the other or side by side.

    - `parts`: preconditioners, or operators that approximate A⁻¹.
    - `how`: "multiplicative", where each corrects what the ones before it left, at a product with A
      each; or "additive", M = ΣMᵢ.
    - `symmetric`: multiplicative ones there and back again (M₁, …, Mₖ, …, M₁), which is symmetric
      if they are. None: for operators tagged definite. M is definite then too if all but Mₖ contract,
      λ(MᵢA) < 2, as those that are made from definite operators here do, but for `Jacobi` on strongly
      coupled ones and `Schwarz` with large overlaps: `CG` tells if it is not.

    **Raises** `ValueError` if there are no parts, or for another `how`; `WrongTypeError` for parts of
    other types.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[4.0, 1.0], [0.0, 2.0]]))
        >>> jacobi = lp.preconditioners.Jacobi()
        >>> both = lp.preconditioners.Compose(jacobi, jacobi, how="additive")
        >>> print(both.init(A).mv(jnp.ones(2)))
        [0.5 1. ]
    """

    parts: tuple[Any, ...]
    how: How = eqx.field(static=True)
    symmetric: bool | None = eqx.field(static=True)

    def __init__(
        self, *parts: Any, how: How = "multiplicative", symmetric: bool | None = None
    ) -> None:
        if not parts:
            raise ValueError("parts: must be at least one preconditioner; got none.")
        for part in parts:
            if not isinstance(part, (AbstractPreconditioner, AbstractLinearOperator)):
                raise WrongTypeError(
                    "parts: must be preconditioners, or operators that approximate A⁻¹; got "
                    f"{type(part).__name__}. Wrap a function as `Custom(function)`."
                )
        if how not in ("multiplicative", "additive"):
            raise ValueError(f"how: must be 'multiplicative' or 'additive'; got {how!r}.")
        self.parts, self.how, self.symmetric = parts, how, symmetric

    @property
    def needs_values(self) -> bool:
        return any(_is_made(m) and m.needs_values for m in self.parts)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "Compose")
        operator = stop_gradient(operator)
        made = tuple(m.init(operator) if _is_made(m) else m for m in self.parts)
        tags = symmetry_of(operator) if self._is_symmetric(operator, made) else frozenset()
        if self.how == "additive":
            total = made[0]
            for m in made[1:]:
                total = total + m
            return tagged(total, tags)
        if self._returns(operator):
            made = made + made[-2::-1]
        return tagged(Sequence(linearise(operator), made), tags)

    def _returns(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator) if self.symmetric is None else self.symmetric

    def _is_symmetric(self, operator: AbstractLinearOperator, made: Any) -> bool:
        both_ways = self.how == "additive" or self._returns(operator)
        return both_ways and all(symmetry_of(m) >= symmetry_of(operator) for m in made)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        both_ways = self.how == "additive" or self._returns(operator)
        keeps = lambda m: m.keeps_definite(operator) if _is_made(m) else is_definite(m)
        return both_ways and all(map(keeps, self.parts))


def _is_made(part: Any) -> bool:
    return isinstance(part, AbstractPreconditioner)


class Custom(AbstractPreconditioner):
    """What a function makes: of the operator A, an operator or a linear function that approximates A⁻¹.

    - `function`: `A -> M`, or M itself, a linear function of a vector. Which of the two it is, is
      found out by passing it a vector (abstractly); only if that fails is it called with A.

    `CG` and `MINRES` believe that what it makes is symmetric definite.

    **Raises** `WrongTypeError` if `function` is none, or returns something else.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[4.0, 1.0], [0.0, 2.0]]))
        >>> half = lp.preconditioners.Custom(lambda A: lp.DiagonalLinearOperator(1 / lp.diagonal(A)))
        >>> print(half.init(A).mv(jnp.ones(2)))
        [0.25 0.5 ]
    """

    function: Callable[[Any], Any] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not callable(self.function):
            raise WrongTypeError(
                f"function: must be a function of the operator, or of a vector; got "
                f"{type(self.function).__name__}."
            )

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        operator = stop_gradient(operator)
        found = function_of_vectors(self.function, *_structures(operator))
        return self._called(operator) if found is None else found

    def _called(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        made = self.function(operator)
        if isinstance(made, AbstractPreconditioner):
            return made.init(operator)
        if isinstance(made, AbstractLinearOperator):
            return made
        found = function_of_vectors(made, *_structures(operator)) if callable(made) else None
        if found is None:
            raise WrongTypeError(
                "preconditioner: a function must map vectors of structure "
                f"{structure_str(operator.out_structure())} to "
                f"{structure_str(operator.in_structure())}, or an operator to such a function or an "
                f"operator; this one returns {type(made).__name__} for the operator. Return what "
                "approximates A⁻¹."
            )
        return found

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return True


def _structures(operator: AbstractLinearOperator) -> tuple[Structure, Structure]:
    return operator.out_structure(), operator.in_structure()


def function_of_vectors(
    function: Callable[[Any], Any], takes: Structure, gives: Structure
) -> FunctionLinearOperator | None:
    """A function as an operator between two structures; None if it does not map one to the other."""
    try:
        out = jax.eval_shape(function, takes)
    except Exception:  # whatever a function of operators does with a vector
        return None
    return FunctionLinearOperator(function, takes) if structure_equal(out, gives) else None
