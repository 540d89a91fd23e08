"""What the Krylov solvers share: states, options, how they print."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..._types import (
    Options,
    inexact_asarray,
    structure_equal,
    structure_str,
)
from ...errors import StructureError
from ...operators import AbstractLinearOperator, conj, linearise
from ..base import AbstractLinearSolver
from ..structures import require_square

#: The operator, and the preconditioner that is the solver's field (if any).
KrylovState: TypeAlias = tuple[AbstractLinearOperator, AbstractLinearOperator | None]

# `check_preconditioner_field` says more than a run-time type checker would.
if TYPE_CHECKING:
    Preconditioner = AbstractLinearOperator | None
else:
    Preconditioner = Any

_GUESSES = ("y0", "x0")
_WRAP = (
    "Wrap a matrix as `MatrixLinearOperator(matrix)` and a function as "
    "`FunctionLinearOperator(fn, structure)`."
)


class AbstractKrylovSolver(AbstractLinearSolver[KrylovState]):
    """A method that needs nothing of A but products, and judges by ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).

    All of them take these options:

    - `"preconditioner"`: an operator that approximates A⁻¹. It goes before the solver's own
      `preconditioner`, and is transposed and conjugated together with A.
    - `"y0"` (or `"x0"`): where to start. An initial guess within the tolerance takes no step.
    """

    def transpose(self, state: KrylovState, options: Options) -> tuple[KrylovState, Options]:
        return _turn(lambda operator: operator.transpose(), state, options)

    def conj(self, state: KrylovState, options: Options) -> tuple[KrylovState, Options]:
        return _turn(conj, state, options)

    def checks_residual(self) -> bool:
        return True

    def __repr__(self) -> str:
        """As one would write it. Functions and operators are shown only if they were given."""
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            quiet = callable(field.default) or field.name == "preconditioner"
            if not (quiet and value is field.default):
                shown.append(f"{field.name}={_show(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _show(value: Any) -> str:
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        concrete = not isinstance(value, jax.core.Tracer) and np.ndim(value) == 0
        return repr(value.item()) if concrete else eqx.tree_pformat(value)
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return repr(value)


def _turn(
    turn: Callable[[AbstractLinearOperator], AbstractLinearOperator],
    state: KrylovState,
    options: Options,
) -> tuple[KrylovState, Options]:
    operator, preconditioner = state
    options = {key: value for key, value in options.items() if key not in _GUESSES}
    if options.get("preconditioner") is not None:
        options["preconditioner"] = turn(options["preconditioner"])
    return (turn(operator), None if preconditioner is None else turn(preconditioner)), options


def check_preconditioner_field(preconditioner: Any) -> None:
    """Refuse, when a solver is made, what is no operator."""
    if preconditioner is not None and not isinstance(preconditioner, AbstractLinearOperator):
        raise ValueError(
            "preconditioner: must be an AbstractLinearOperator that approximates A⁻¹, or None; got "
            f"{type(preconditioner).__name__}. {_WRAP}"
        )


def square_state(
    operator: AbstractLinearOperator, preconditioner: AbstractLinearOperator | None, solver: str
) -> KrylovState:
    """The state of a method for square systems."""
    require_square(operator, solver)
    in_structure, out_structure = operator.in_structure(), operator.out_structure()
    if not structure_equal(in_structure, out_structure):
        raise StructureError(
            f"operator: `{solver}` needs one structure for input and output; got input "
            f"{structure_str(in_structure)} and output {structure_str(out_structure)}. Ravel "
            "both into vectors, or use a direct solver such as `LU()`."
        )
    return linearise(operator), None if preconditioner is None else linearise(preconditioner)


def inexact_vector(vector: PyTree[Any]) -> PyTree[Array]:
    """A right-hand side with its integers promoted to the default float."""
    return jax.tree.map(inexact_asarray, vector)


def read_guess(operator: AbstractLinearOperator, options: Options) -> PyTree[Array] | None:
    """The option `y0` (or `x0`), checked."""
    given = [key for key in _GUESSES if options.get(key) is not None]
    if not given:
        return None
    if len(given) == 2:
        raise ValueError("options: 'y0' and 'x0' mean the same; got both. Pass one of them.")
    structure = operator.in_structure()
    guess = jax.tree.map(inexact_asarray, options[given[0]])
    if not structure_equal(guess, structure):
        raise StructureError(
            f"options[{given[0]!r}]: must have the structure of the solution, "
            f"{structure_str(structure)}; got {structure_str(guess)}. Reshape or cast it."
        )
    return guess


def read_preconditioner(state: KrylovState, options: Options) -> AbstractLinearOperator | None:
    """The option `preconditioner`, else the solver's own, checked against the operator."""
    operator, preconditioner = state
    if options.get("preconditioner") is not None:
        preconditioner = options["preconditioner"]
        if not isinstance(preconditioner, AbstractLinearOperator):
            raise ValueError(
                "options['preconditioner']: must be an AbstractLinearOperator that approximates "
                f"A⁻¹; got {type(preconditioner).__name__}. {_WRAP}"
            )
        preconditioner = linearise(preconditioner)
    if preconditioner is None:
        return None
    wanted = operator.out_structure(), operator.in_structure()
    got = preconditioner.in_structure(), preconditioner.out_structure()
    if not structure_equal(wanted, got):
        raise StructureError(
            f"preconditioner: approximates A⁻¹, so it must map {structure_str(wanted[0])} to "
            f"{structure_str(wanted[1])}; got one that maps {structure_str(got[0])} to "
            f"{structure_str(got[1])}. Build it for this operator (not for its transpose)."
        )
    return preconditioner
