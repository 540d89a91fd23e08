"""The exceptions and warnings of the package.

Bad input is a `ValueError` or `TypeError` at trace time. A solve that fails numerically raises a
`LinearSolveError` (if `throw=True`), whose `solution` holds the last estimate and its statistics.
"""

from __future__ import annotations

import collections
from typing import Any

import equinox as eqx


class StructureError(ValueError):
    """Shapes, dtypes or pytree structures that do not fit together.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> try:
        ...     lp.solve(jnp.eye(2), jnp.ones(3))
        ... except lp.StructureError as error:
        ...     print(str(error).split(";")[0])
        b: must have shape (..., N) with N = 2, the number of rows of A (2, 2)
    """


class WrongTypeError(TypeError, ValueError):
    """An argument of a type that is not taken. (A `ValueError` too, as some callers expect.)"""


class NonlinearFunctionError(ValueError):
    """A function that was given as a linear operator is not linear (nor affine) in its argument.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> try:
        ...     lp.solve(lambda x: x**2, jnp.ones(2))
        ... except lp.NonlinearFunctionError as error:
        ...     print("linear or affine" in str(error))
        True
    """


class PrecisionWarning(UserWarning):
    """The operator and the right-hand side have different precisions, and one was promoted.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> import warnings
        >>> A, b = jnp.eye(2, dtype=jnp.float16), jnp.ones(2, dtype=jnp.float32)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     x = lp.solve(A, b)
        >>> caught[0].category is lp.PrecisionWarning, x.dtype.name
        (True, 'float32')
    """


class LinearSolveError(eqx.EquinoxRuntimeError):
    """A linear solve failed. `solution` is the `Solution` with the last estimate, where known.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> try:
        ...     lp.solve(jnp.ones((2, 2)), jnp.array([1.0, 0.0]))
        ... except lp.LinearSolveError as error:
        ...     print(type(error).__name__, error.solution.result == lp.RESULTS.singular)
        SingularMatrixError True
    """

    solution: Any

    def __init__(self, message: str, solution: Any = None):
        super().__init__(message)
        self.solution = solution


class ConvergenceError(LinearSolveError):
    """An iterative method did not reach its tolerance.

    Its classes are `NotConverged` and `Diverged`.

        >>> import linsolve_prim as lp
        >>> issubclass(lp.NotConverged, lp.ConvergenceError), issubclass(lp.Diverged, lp.ConvergenceError)
        (True, True)
    """


class NotConverged(ConvergenceError):
    """The iteration ended above its tolerance: too few steps, stagnation, or an untrue success.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.arange(1.0, 9.0)), lp.positive_semidefinite_tag)
        >>> try:
        ...     lp.linear_solve(A, jnp.ones(8), lp.CG(max_steps=2))
        ... except lp.NotConverged as error:
        ...     print(error.solution.stats["num_steps"])
        2
    """


class Diverged(ConvergenceError):
    """The iteration broke down or overflowed.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.DiagonalLinearOperator(jnp.array([1.0, 9.0]))
        >>> try:
        ...     lp.linear_solve(A, jnp.ones(2), lp.Richardson(omega=1.0, max_steps=10_000))
        ... except lp.Diverged as error:
        ...     print(error.solution.result == lp.RESULTS.diverged)
        True
    """


class SingularMatrixError(LinearSolveError):
    """The operator is singular to working precision, or contradicts its tags.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> try:
        ...     lp.solve(jnp.zeros((2, 2)), jnp.ones(2))
        ... except lp.SingularMatrixError as error:
        ...     print(error.solution.result == lp.RESULTS.singular)
        True
    """


class IncompatibleRHS(SingularMatrixError):
    """The right-hand side is not in the range of a singular operator whose null space was given.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), lp.positive_semidefinite_tag)
        >>> try:
        ...     lp.linear_solve(A, jnp.array([1.0, 0.0]), lp.CG(nullspace="constant"))
        ... except lp.IncompatibleRHS as error:
        ...     print(error.solution.value.round(3))  # solves for (1/2, −1/2)
        [ 0.25 -0.25]
    """


class NonFiniteInputError(LinearSolveError):
    """The operator or the right-hand side holds NaN or infinity.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> try:
        ...     lp.solve(jnp.eye(2), jnp.array([1.0, jnp.nan]))
        ... except lp.NonFiniteInputError as error:
        ...     print(error.solution.result == lp.RESULTS.nonfinite_input)
        True
    """


class HostLibraryError(LinearSolveError):
    """A host library raised an exception, or returned what is no solution.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> broken = lp.HostSolver(factorize=lambda A: None, solve=lambda factor, b, transpose: b[:1])
        >>> try:
        ...     lp.solve(jnp.eye(2), jnp.ones(2), broken)
        ... except lp.HostLibraryError as error:
        ...     print(error.solution.result == lp.RESULTS.host_failure)
        True
    """


#: The last failures of compiled programs, which JAX delivers as text; see `original_errors`.
_raised: collections.deque[LinearSolveError] = collections.deque(maxlen=16)


def remember(error: LinearSolveError) -> None:
    """Keep an exception that a compiled program is about to raise."""
    _raised.append(error)


def remembered(error: BaseException) -> LinearSolveError | None:
    """The exception of ours that another one is the text of."""
    text = str(error)
    return next((own for own in reversed(_raised) if str(own) in text), None)
