"""The exceptions and warnings of the package.

Bad input is a `ValueError` or `TypeError` at trace time. A solve that fails numerically raises a
`LinearSolveError` (if `throw=True`), whose `solution` holds the last estimate and its statistics.
"""

from __future__ import annotations

import collections
from typing import Any

import equinox as eqx


class StructureError(ValueError):
    """Shapes, dtypes or pytree structures that do not fit together."""


class WrongTypeError(TypeError, ValueError):
    """An argument of a type that is not taken. (A `ValueError` too, as some callers expect.)"""


class NonlinearFunctionError(ValueError):
    """A function that was given as a linear operator is not linear (nor affine) in its argument."""


class PrecisionWarning(UserWarning):
    """The operator and the right-hand side have different precisions, and one was promoted."""


class LinearSolveError(eqx.EquinoxRuntimeError):
    """A linear solve failed. `solution` is the `Solution` with the last estimate, where known."""

    solution: Any

    def __init__(self, message: str, solution: Any = None):
        super().__init__(message)
        self.solution = solution


class ConvergenceError(LinearSolveError):
    """An iterative method did not reach its tolerance."""


class NotConverged(ConvergenceError):
    """The iteration ended above its tolerance: too few steps, stagnation, or an untrue success."""


class Diverged(ConvergenceError):
    """The iteration broke down or overflowed."""


class SingularMatrixError(LinearSolveError):
    """The operator is singular to working precision, or contradicts its tags."""


class IncompatibleRHS(SingularMatrixError):
    """The right-hand side is not in the range of a singular operator whose null space was given."""


class NonFiniteInputError(LinearSolveError):
    """The operator or the right-hand side holds NaN or infinity."""


class HostLibraryError(LinearSolveError):
    """A host library raised an exception, or returned what is no solution."""


#: The last failures of compiled programs, which JAX delivers as text; see `original_errors`.
_raised: collections.deque[LinearSolveError] = collections.deque(maxlen=16)


def remember(error: LinearSolveError) -> None:
    """Keep an exception that a compiled program is about to raise."""
    _raised.append(error)


def remembered(error: BaseException) -> LinearSolveError | None:
    """The exception of ours that another one is the text of."""
    text = str(error)
    return next((own for own in reversed(_raised) if str(own) in text), None)
