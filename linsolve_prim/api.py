"""`linear_solve`, the full interface, and `invert`. (`solve`, the simple one: `simple.py`.)"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._recording import recording
from ._static import is_concrete
from ._tree import tree_dtype
from ._types import (
    Options,
    inexact_asarray,
    is_array,
    sentinel,
    structure_equal,
    structure_of,
    structure_str,
)
from .adjoint import UnrolledAdjoint, as_adjoint, solve_unrolled
from .auto import AutoLinearSolver
from .eager import EagerSolves, Problem as Call, Settings, quick_settings, settings_of, solution_of
from .errors import StructureError, WrongTypeError
from .operators import (
    AbstractLinearOperator,
    FunctionLinearOperator,
    diagonal_tag,
    has_unit_diagonal,
    is_diagonal,
    is_lower_triangular,
    is_negative_semidefinite,
    is_positive_semidefinite,
    is_symmetric,
    is_upper_triangular,
    lower_triangular_tag,
    negative_semidefinite_tag,
    positive_semidefinite_tag,
    symmetric_tag,
    unit_diagonal_tag,
    upper_triangular_tag,
)
from .preconditioners.base import AbstractPreconditioner
from .preconditioners.names import by_name
from .primitive import (
    FORWARD,
    Failure,
    SolveCall,
    bind,
    failures,
    raise_if_failed,
)
from .primitive.call import Problem
from .primitive.states import stop_gradient
from .results import RESULTS, Solution
from .solvers.base import AbstractLinearSolver

_log = logging.getLogger("linsolve_prim")
_DEFAULT_SOLVER = AutoLinearSolver(well_posed=True)


def linear_solve(
    operator: AbstractLinearOperator,
    vector: PyTree[Any],
    solver: AbstractLinearSolver[Any] = _DEFAULT_SOLVER,
    *,
    options: Options | None = None,
    state: PyTree[Any] = sentinel,
    throw: bool = True,
    suppress: Any = (),
    adjoint: Any = None,
    name: str | None = None,
) -> Solution:
    """Solve the linear system Ax = b.

    Where A is rectangular or rank deficient, and the solver can handle that, x = A†b: the
    least-squares solution, and among several that of minimum norm.

    **Arguments**

    - `operator`: A, an `AbstractLinearOperator`. (For a bare matrix or function: `solve`.)
    - `vector`: b, a pytree of arrays of `operator.out_structure()`. Integers are promoted.
    - `solver`: any `AbstractLinearSolver`. The default demands a square, well-posed operator.
    - `options`: what the solver takes at run time, such as `"preconditioner"` and `"y0"` (an initial
      guess). No derivative flows into them.
    - `state`: what `solver.init(operator, options)` returned (or `factorize(operator, solver).state`),
      to save doing it again.
    - `throw`: whether a failure raises. If `False`, look at `solution.result`; then the compiled
      program holds no host callback. It governs the tangent and cotangent solves as well.
    - `suppress`: exceptions of ours that are not to be raised, as `(lp.NotConverged,)`.
    - `adjoint`: how derivatives are found: a solver for them, `ImplicitAdjoint`, `UnrolledAdjoint`,
      `OneStepAdjoint` or `StochasticAdjoint`. By default they inherit the solver and its
      factorization.
    - `name`: how messages call this solve.

    **Returns** a `Solution(value, result, stats, state)`; `value` has `operator.in_structure()`.

    **Raises** `ValueError` or `TypeError` at trace time for input that does not fit; if `throw`,
    `SingularMatrixError`, `NotConverged`, `Diverged` or `NonFiniteInputError` (all
    `LinearSolveError`s with a `.solution`) for numerical failure. From inside `jax.jit`, JAX delivers
    those as `jax.errors.JaxRuntimeError` or `ValueError` with our class and message as text;
    `with lp.original_errors():` around the call gives the class and the solution back.

    Differentiation is by the implicit function theorem, forward and reverse, to any order:
    x′ = A⁻¹(b′ − A′x) (for the pseudo-inverse's terms see `primitive/rules_jvp.py`). The solver's
    `compute` is traced once for a solve and its tangents, and once more for its transpose.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.CG())
        >>> print(solution.value.round(3), solution.stats["num_steps"])
        [1. 2.] 2
        >>> bool(solution.result == lp.RESULTS.successful)
        True
    """
    problem: Call
    if suppress != ():  # refuse what cannot be suppressed, also where nothing will fail
        failures(throw, suppress)
    if state is sentinel and options is None and adjoint is None and not recording().on:
        quick = quick_settings(operator, vector, solver, name)
        if quick is not None:
            problem = (operator, vector, solver, {}, sentinel, None)
            return _solve_eagerly(problem, *quick, throw, suppress)
    options = {} if options is None else options
    if state is sentinel:
        solver, options = _prepared(operator, solver, options)
    if not isinstance(vector, (jax.Array, np.ndarray)):
        vector = jax.tree.map(_as_leaf, vector)
    problem = (operator, vector, solver, options, state, adjoint)
    settings, arrays = settings_of(problem, name)
    traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    if traced or recording().on:  # a tape is told by the primitive, which a compiled call could not
        return _solve(*problem, throw=failures(throw, suppress), name=name)
    return _solve_eagerly(problem, settings, arrays, throw, suppress)


def _as_leaf(x: Any) -> Any:
    return x if is_array(x) else jnp.asarray(x)


def _solve_eagerly(
    problem: Call, settings: Settings, arrays: Sequence[Array], throw: bool, suppress: Any
) -> Solution:
    solver, state = problem[2], problem[4]
    if not throw:
        return solution_of(_programs.plain(settings, *arrays), state)
    ok, out = _programs.checked(settings, *arrays)
    if isinstance(ok, jax.core.Tracer):  # constants inside somebody's jit: raise from there
        return _solve(*problem, throw=failures(True, suppress), name=settings.name)
    if not np.asarray(ok):
        solution = solution_of(_programs.plain(settings, *arrays), state)
        what = lambda: Failure(repr(solver), FORWARD, settings.name)
        raise_if_failed(solution, failures(True, suppress), what)
        return solution
    return solution_of(out, state)


def _solve(
    operator: AbstractLinearOperator,
    vector: PyTree[Any],
    solver: AbstractLinearSolver[Any],
    options: Options,
    state: PyTree[Any],
    adjoint: Any,
    *,
    throw: frozenset[int],
    name: str | None,
) -> Solution:
    """Check the input, make the state, bind the primitive. Runs once for each trace."""
    _check(operator, solver, options)
    vector = jax.tree.map(inexact_asarray, vector)
    if not structure_equal(vector, operator.out_structure()):
        raise StructureError(
            f"vector: its structure must be the operator's output structure "
            f"{structure_str(operator.out_structure())}; got {structure_str(structure_of(vector))}. "
            + _remedy(vector, operator)
        )
    itself = adjoint is None and solver.differentiates_itself()
    unrolled = itself or isinstance(adjoint, UnrolledAdjoint)
    fixed = operator if unrolled else stop_gradient(operator)
    options = solver.made_options(fixed, options)
    operator, vector, solver = solver.regularise(operator, vector, options)
    if unrolled:
        return solve_unrolled(operator, vector, solver, options, adjoint, throw=throw, name=name)
    adjoint = _adjoint(adjoint, solver, options, fixed)
    if state is sentinel:
        chosen, inner = _started(solver, stop_gradient(operator), options)
        state = inner if chosen is solver else (chosen, inner)
    elif isinstance(solver, AutoLinearSolver):
        chosen, inner = state
    else:
        chosen, inner = solver, state
    if _log.isEnabledFor(logging.DEBUG):
        size = f"{operator.out_size()}×{operator.in_size()}"
        what = f"{type(operator).__name__} {size}, {tree_dtype(vector)}"
        _log.debug("solve %s: %s by %r; adjoint %r", name or "", what, chosen, adjoint)
    problem = Problem(operator, stop_gradient(inner), options, chosen, adjoint, vector)
    call, operands = SolveCall.make(problem, throw=throw, kind=FORWARD, name=name)
    value, result, stats = bind(call, operands)
    return Solution(value, result, stats, state)


_programs = EagerSolves(_solve)


def _prepared(operator: Any, solver: Any, options: Any) -> tuple[Any, Any]:
    """Solver and options with those preconditioners made that must be made from numbers.

    What is chosen by the operator is chosen here.
    """

    def made(m: Any) -> Any:
        if isinstance(m, AbstractPreconditioner):
            m = solver.suited(m, operator)
        if isinstance(m, AbstractPreconditioner) and m.needs_values and is_concrete(operator):
            return solver.make_preconditioner(m, operator)
        return m

    own = getattr(solver, "preconditioner", None)
    if own is None and not options:
        return solver, options
    if not (
        isinstance(operator, AbstractLinearOperator) and isinstance(solver, AbstractLinearSolver)
    ):
        return solver, options  # refused later
    if isinstance(own, AbstractPreconditioner) and (m := made(own)) is not own:
        solver = dataclasses.replace(solver, preconditioner=m)
    given = options.get("preconditioner") if isinstance(options, dict) else None
    if given is not None and (m := made(by_name(given))) is not given:
        options = {**options, "preconditioner": m}
    return solver, options


def _adjoint(
    adjoint: Any, solver: AbstractLinearSolver[Any], options: Options, operator: Any
) -> Any:
    adjoint = as_adjoint(adjoint, options)
    own = None if adjoint is None else adjoint.options
    if own is None:
        return adjoint
    solver = solver if adjoint.solver is None else adjoint.solver
    return dataclasses.replace(adjoint, options=solver.made_options(operator, own))


def _started(
    solver: AbstractLinearSolver[Any], operator: AbstractLinearOperator, options: Options
) -> tuple[AbstractLinearSolver[Any], Any]:
    """The solver with its state; made now, and not by the compiled program, if A is known now."""
    if is_concrete((operator, options, solver)):
        with jax.ensure_compile_time_eval():
            return solver.start(operator, options)
    return solver.start(operator, options)


def _check(operator: Any, solver: Any, options: Any) -> None:
    if not isinstance(operator, AbstractLinearOperator):
        # (arrays are tracers here, which nobody passed)
        got = (
            f"an array {structure_str(operator)}" if is_array(operator) else type(operator).__name__
        )
        raise WrongTypeError(
            f"operator: must be an AbstractLinearOperator; got {got}. Wrap a matrix as "
            "`MatrixLinearOperator(matrix)` and a function as `FunctionLinearOperator(fn, structure)`, "
            "or call `solve(A, b)`, which takes them as they are."
        )
    if not isinstance(solver, AbstractLinearSolver):
        hint = f" Did you mean `{solver.__name__}()`?" if isinstance(solver, type) else ""
        raise WrongTypeError(f"solver: must be an AbstractLinearSolver; got {solver!r}.{hint}")
    if not isinstance(options, dict):
        raise WrongTypeError(
            f"options: must be a dictionary or None; got {type(options).__name__}."
        )


def _remedy(vector: PyTree[Any], operator: AbstractLinearOperator) -> str:
    leaves, expected = jax.tree.leaves(vector), jax.tree.leaves(operator.out_structure())
    if [jnp.shape(x) for x in leaves] == [x.shape for x in expected]:
        return "Only dtypes differ: cast one of the two (`solve` promotes both)."
    if len(leaves) == 1 and jnp.ndim(leaves[0]) == 2:
        return (
            "For several right-hand sides use `jax.vmap`, or `solve(A, b)` with b of shape (n, k)."
        )
    return "Reshape it, or check the operator's structures."


def invert(
    operator: AbstractLinearOperator,
    solver: AbstractLinearSolver[Any] = _DEFAULT_SOLVER,
    *,
    options: Options | None = None,
    throw: bool = True,
) -> FunctionLinearOperator:
    """The operator A⁻¹ (or A†): `invert(A).mv(b)` is `linear_solve(A, b, solver).value`.

    The factorization is made here, once. The inverse can be differentiated, batched, transposed and
    combined with other operators.

    - `operator`: A of any shape; `solver`, `options`, `throw`: as for `linear_solve`.

    **Raises** as `linear_solve` does: here for an operator that `solver` does not take, and at each
    product for a solve that fails.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 0.0], [1.0, 4.0]]))
        >>> inverse = lp.invert(A, lp.LU())
        >>> print(inverse.mv(jnp.array([2.0, 5.0])), inverse.T.mv(jnp.array([2.0, 4.0])))
        [1. 1.] [0.5 1. ]
        >>> print((inverse @ A).as_matrix().round(3))
        [[1. 0.]
         [0. 1.]]
    """
    options = {} if options is None else options
    _check(operator, solver, options)
    state = stop_gradient(solver.init(stop_gradient(operator), options))

    def solve_with_state(vector: PyTree[Array]) -> PyTree[Array]:
        return linear_solve(
            operator, vector, solver, options=options, state=state, throw=throw
        ).value

    kept = [
        (is_symmetric, symmetric_tag),
        (is_diagonal, diagonal_tag),
        (is_lower_triangular, lower_triangular_tag),
        (is_upper_triangular, upper_triangular_tag),
        (is_positive_semidefinite, positive_semidefinite_tag),
        (is_negative_semidefinite, negative_semidefinite_tag),
    ]
    tags = {tag for has, tag in kept if has(operator)}
    triangular = tags & {diagonal_tag, lower_triangular_tag, upper_triangular_tag}
    if has_unit_diagonal(operator) and triangular:
        tags.add(unit_diagonal_tag)
    return FunctionLinearOperator(solve_with_state, operator.out_structure(), frozenset(tags))


__all__ = ["RESULTS", "Solution", "invert", "linear_solve"]
