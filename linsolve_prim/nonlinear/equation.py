"""What a nonlinear problem is to its solver and to its derivative: F(x) = 0, with F's Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._types import inexact_asarray, structure_of, structure_size, structure_str
from ..errors import StructureError, WrongTypeError
from ..operators import AbstractLinearOperator, JacobianLinearOperator
from ..operators.closure import close
from ..operators.tags import as_tags


class Equation(eqx.Module):
    """F(x) = 0. Its leaves are what F and its Jacobian capture, so that they can be differentiated.

    - `residual`: F, from the structure of x to one of the same size.
    - `jacobian`: the user's x ↦ ∂F/∂x as an operator, or `None` for a `JacobianLinearOperator`.
    - `tags`: what is promised about the Jacobian.
    """

    residual: Callable[[PyTree[Array]], PyTree[Array]]
    jacobian: Callable[[PyTree[Array]], AbstractLinearOperator] | None
    tags: frozenset[object] = eqx.field(static=True)

    def operator(self, x: PyTree[Array]) -> AbstractLinearOperator:
        """∂F/∂x at x."""
        if self.jacobian is not None:
            return self.jacobian(x)
        residual = self.residual
        return JacobianLinearOperator(lambda x, _: residual(x), x, tags=self.tags)


def make_equation(
    f: Callable[..., Any],
    x0: PyTree[Array],
    jacobian: Callable[..., Any] | None = None,
    tags: object | Iterable[object] = (),
) -> Equation:
    """F and its Jacobian, traced once for x like `x0`.

    **Raises** `WrongTypeError` if `jacobian` is no function, or returns no operator; `StructureError`
    if F(x) is not of the size of x.
    """
    structure = structure_of(x0)
    residual = close(lambda x: jax.tree.map(inexact_asarray, f(x)), structure)
    out = residual.out_structure()
    if structure_size(out) != structure_size(structure):
        raise StructureError(
            f"f: must return as many numbers as x has, {structure_size(structure)} in "
            f"{structure_str(structure)}; got {structure_str(out)}. For more equations than unknowns "
            "minimise ‖f(x)‖² by `minimize`."
        )
    return Equation(residual, _closed_jacobian(jacobian, structure, out), as_tags(tags))


def _closed_jacobian(jacobian: Any, structure: Any, out: Any) -> Any:
    if jacobian is None:
        return None
    if not callable(jacobian):
        raise WrongTypeError(
            "jacobian: must be a function from x to an AbstractLinearOperator, or None; got "
            f"{type(jacobian).__name__}."
        )

    def checked(x: PyTree[Array]) -> AbstractLinearOperator:
        operator = jacobian(x)
        if not isinstance(operator, AbstractLinearOperator):
            raise WrongTypeError(
                "jacobian: must return an AbstractLinearOperator, such as "
                f"`MatrixLinearOperator(matrix)`; got {type(operator).__name__}."
            )
        return operator

    closed = close(checked, structure)
    operator = jax.eval_shape(lambda x: closed(x), structure)
    sizes = operator.out_size(), operator.in_size()
    if sizes != (structure_size(out), structure_size(structure)):
        raise StructureError(
            f"jacobian: must map {structure_str(structure)} to {structure_str(out)}; got an operator "
            f"with {sizes[0]} rows and {sizes[1]} columns."
        )
    return closed


def check_function(f: Any, argument: str) -> None:
    """Refuse what cannot be called."""
    if not callable(f):
        raise WrongTypeError(f"{argument}: must be a function of x; got {type(f).__name__}.")


def as_unknown(x0: PyTree[Any], argument: str = "x0") -> PyTree[Array]:
    """A first guess as a pytree of inexact arrays that no derivative flows into."""
    x0 = jax.tree.map(inexact_asarray, x0)
    if not jax.tree.leaves(x0):
        raise StructureError(f"{argument}: must hold at least one array; got {x0!r}.")
    return jax.tree.map(jax.lax.stop_gradient, x0)


__all__ = ["Equation", "as_unknown", "check_function", "make_equation"]
