"""Normal equations: any definite solver for operators of any shape."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._norms import two_norm
from .._static import Static
from .._tree import (
    tree_add,
    tree_all_finite,
    tree_real_dtype,
    tree_size,
    tree_sub,
    tree_where,
    tree_zeros,
)
from .._types import Options
from ..operators import (
    AbstractLinearOperator,
    TaggedLinearOperator,
    conj,
    linearise,
    materialise,
    positive_semidefinite_tag,
)
from ..results import REASONS, RESULTS
from .base import AbstractLinearSolver
from .cholesky import Cholesky
from .krylov import CG
from .krylov.base import inexact_vector, read_guess
from .krylov.stopping import default_rtol, step_limit
from .krylov.vectors import mesh_axes, safe_norm, tree_zeros_like, while_loop

# `Normal` checks it, with a message that says more than a run-time type checker's.
if TYPE_CHECKING:
    InnerSolver = AbstractLinearSolver[Any]
else:
    InnerSolver = Any

#: The inner state, A, and whether the equations are AᴴAx = Aᴴb (else AAᴴy = b, x = Aᴴy).
_NormalState: TypeAlias = tuple[Any, AbstractLinearOperator, Static]

#: Each pass asks for what is missing and a factor 4, so that few are needed, or none helps.
_MAX_PASSES = 10


class Normal(AbstractLinearSolver[_NormalState]):
    """The normal equations: AᴴAx = Aᴴb if A is tall or square, AAᴴy = b with x = Aᴴy if it is wide.

    This squares the condition number. Good inner solvers are `Cholesky` (A of full rank) and `CG`.
    An inner solver that can solve singular consistent systems makes this one take operators of any
    rank.

    Options: a `"preconditioner"` M approximates A⁻¹ (or A†); the inner solver gets MMᴴ, or MᴴM
    for wide A. `"y0"` is an initial guess for x. (A preconditioner that is a field of the inner
    solver is for the normal equations, and taken as it is.)

    If the inner solver judges residuals, this one judges those of Ax = b:

    - wide A: they are the same;
    - square A, if the inner solver assumes full rank: ‖b − Ax‖ ≤ max(rtol·‖b‖, atol) with the inner
      solver's tolerances, for which the inner solver may be called again on the remaining residual;
    - else a solution of the normal equations to the inner tolerance, ‖Aᴴ(b − Ax)‖ ≤ max(rtol·‖Aᴴb‖,
      atol), is one (`stats["reason"]` is `least_squares` if it is not even one of Ax = b);
    - without any tolerance (rtol = atol = 0) what is asked for is `max_steps` steps of the inner solver.

    **Raises** `ValueError` if `inner_solver` is not for definite systems.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]))
        >>> b = jnp.array([1.0, 3.0, 5.0])
        >>> print(lp.linear_solve(A, b, lp.Normal(lp.Cholesky())).value.round(3))
        [1. 2.]
    """

    inner_solver: InnerSolver

    def __check_init__(self) -> None:
        if not isinstance(self.inner_solver, AbstractLinearSolver):
            raise ValueError(
                "inner_solver: must be a solver for definite systems; got "
                f"{self.inner_solver!r}. Pass for example `CG()` or `Cholesky()`."
            )

    def init(self, operator: AbstractLinearOperator, options: Options) -> _NormalState:
        tall = operator.out_size() >= operator.in_size()
        direct = isinstance(self.inner_solver, Cholesky)
        operator = materialise(operator) if direct else linearise(operator)
        adjoint = conj(operator).transpose()
        product = adjoint @ operator if tall else operator @ adjoint
        normal = TaggedLinearOperator(product, positive_semidefinite_tag)
        inner_state = self.inner_solver.init(normal, _inner_options(options, tall))
        return inner_state, operator, Static(tall)

    def compute(
        self, state: _NormalState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        inner_state, operator, tall = state
        vector = inexact_vector(vector)
        adjoint = conj(operator).transpose()
        inner_options = _inner_options(options, tall.value)
        inner = lambda solver, v, options: solver.compute(inner_state, v, options)
        if not tall.value:
            y, result, stats = inner(self.inner_solver, vector, inner_options)
            return adjoint.mv(y), result, stats
        if not self.inner_solver.checks_residual():
            return inner(self.inner_solver, adjoint.mv(vector), inner_options)
        if _is_consistent(operator, self.inner_solver):
            inner_options.pop("y0", None)
            solve = lambda solver, r: inner(solver, adjoint.mv(r), inner_options)
            x0 = read_guess(operator, options)
            return _repeat(solve, self.inner_solver, operator, vector, x0, mesh_axes(state, vector))
        x, result, stats = inner(self.inner_solver, adjoint.mv(vector), inner_options)
        return x, result, stats | _true_stats(self.inner_solver, operator, vector, x, result)

    def transpose(self, state: _NormalState, options: Options) -> tuple[_NormalState, Options]:
        # Both forms are the conjugates of each other's transposes: Aᵀ(Aᵀ)ᴴ = conj(AᴴA).
        inner_state, operator, tall = state
        turned = _turn_options(options, lambda m: m.transpose())
        inner_state, _ = self.inner_solver.conj(inner_state, _inner_options(options, tall.value))
        return (inner_state, operator.transpose(), Static(not tall.value)), turned

    def conj(self, state: _NormalState, options: Options) -> tuple[_NormalState, Options]:
        inner_state, operator, tall = state
        turned = _turn_options(options, conj)
        inner_state, _ = self.inner_solver.conj(inner_state, _inner_options(options, tall.value))
        return (inner_state, conj(operator), tall), turned

    def assume_full_rank(self) -> bool:
        return self.inner_solver.assume_full_rank()

    def checks_residual(self) -> bool:
        return self.inner_solver.checks_residual()


def NormalCG(*args: Any, **kwargs: Any) -> Normal:
    """`Normal(CG(*args, **kwargs))`, as Lineax once called it.

    It warns with a `DeprecationWarning`: write `Normal(CG(...))`.

        >>> import linsolve_prim as lp
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", DeprecationWarning)
        ...     solver = lp.NormalCG(rtol=1e-3)
        >>> type(solver).__name__
        'Normal'
    """
    warnings.warn(
        "`NormalCG(...)` is deprecated; write `Normal(CG(...))`.", DeprecationWarning, stacklevel=2
    )
    return Normal(CG(*args, **kwargs))


# ---- options -------------------------------------------------------------------------------------


def _turn_options(options: Options, turn: Any) -> Options:
    options = {key: value for key, value in options.items() if key not in ("y0", "x0")}
    if options.get("preconditioner") is not None:
        options["preconditioner"] = turn(options["preconditioner"])
    return options


def _inner_options(options: Options, tall: bool) -> Options:
    """The options for the normal equations."""
    inner = {key: value for key, value in options.items() if key not in ("y0", "x0")}
    m = options.get("preconditioner")
    guess = options.get("y0", options.get("x0"))
    if m is not None:
        m = linearise(m)
        mh = conj(m).transpose()
        inner["preconditioner"] = TaggedLinearOperator(
            m @ mh if tall else mh @ m, positive_semidefinite_tag
        )
        if guess is not None and not tall:
            inner["y0"] = mh.mv(guess)  # y = A⁻ᴴx
    if guess is not None and tall:
        inner["y0"] = guess
    return inner


# ---- the verdict on Ax = b -----------------------------------------------------------------------


def _is_consistent(operator: AbstractLinearOperator, inner_solver: Any) -> bool:
    square = operator.out_size() == operator.in_size()
    return square and inner_solver.assume_full_rank() and hasattr(inner_solver, "rtol")


def _goal(solver: Any, vector: PyTree[Array]) -> tuple[Array, Array]:
    """`rtol·‖b‖` and `atol`, by the settings of an inner solver (which may have none)."""
    dtype = tree_real_dtype(vector)
    rtol = getattr(solver, "rtol", None)
    rtol = jnp.asarray(default_rtol(dtype) if rtol is None else rtol, dtype)
    atol = jnp.asarray(getattr(solver, "atol", 0.0), dtype)
    return rtol * _norm_of(solver)(vector), atol


def _untold(by_rtol: Array, by_atol: Array) -> Array:
    """Whether there is no tolerance, so that what is asked for is a number of steps."""
    return (by_rtol == 0) & (by_atol == 0)


def _norm_of(solver: Any) -> Any:
    """The inner solver's norm; the Euclidean one without overflow and underflow."""
    norm = getattr(solver, "norm", two_norm)
    return safe_norm if norm is two_norm else norm


def _true_stats(
    solver: Any,
    operator: AbstractLinearOperator,
    vector: PyTree[Array],
    x: PyTree[Array],
    result: RESULTS,
) -> dict[str, Any]:
    """The statistics of Ax = b for a solution that is successful if `result` says so."""
    residual = tree_sub(vector, operator.mv(x))
    r_norm, b_norm = safe_norm(residual), safe_norm(vector)
    by_rtol, by_atol = _goal(solver, vector)
    judged = _norm_of(solver)(residual)
    reason = REASONS.where(_untold(by_rtol, by_atol), REASONS.steps, REASONS.least_squares)
    reason = REASONS.where(judged <= by_atol, REASONS.atol, reason)
    reason = REASONS.where(judged <= by_rtol, REASONS.rtol, reason)
    reason = REASONS.where(b_norm == 0, REASONS.zero_rhs, reason)
    return {
        "residual_norm": r_norm,
        "relative_residual": jnp.where(b_norm == 0, 0, r_norm / jnp.where(b_norm == 0, 1, b_norm)),
        "reason": REASONS.where(result == RESULTS.successful, reason, REASONS.failed),
    }


class _Pass(NamedTuple):
    x: PyTree[Array]
    residual: PyTree[Array]
    norm: Array
    steps: Array
    passes: Array
    share: Array  # by how much the next pass shall reduce Aᴴr
    fruitless: Array
    done: Array
    result: RESULTS


def _repeat(
    solve: Any,
    solver: Any,
    operator: AbstractLinearOperator,
    vector: PyTree[Array],
    x0: PyTree[Array] | None,
    axes: frozenset,
) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
    """Solve the normal equations, and those of the remaining residual, until ‖b − Ax‖ is small."""
    norm = _norm_of(solver)
    by_rtol, by_atol = _goal(solver, vector)
    goal = jnp.maximum(by_rtol, by_atol)
    is_zero = safe_norm(vector) == 0
    untold = _untold(by_rtol, by_atol) & ~is_zero
    x0 = tree_zeros(operator.in_structure()) if x0 is None else x0
    x0 = tree_where(is_zero, tree_zeros_like(x0), x0)
    residual = tree_sub(vector, operator.mv(x0))
    rtol = default_rtol(goal.dtype) if solver.rtol is None else solver.rtol

    eps = float(jnp.finfo(goal.dtype).eps)

    def body(c: _Pass) -> _Pass:
        inner = dataclasses.replace(solver, rtol=c.share, atol=0.0)
        step, result, stats = solve(inner, c.residual)
        x = tree_add(c.x, step)
        residual = tree_sub(vector, operator.mv(x))
        r_norm = norm(residual)
        keep = tree_all_finite(x) & ((r_norm < c.norm) | untold)
        x, residual = tree_where(keep, (x, residual), (c.x, c.residual))
        failed = result != RESULTS.successful
        solved = keep & ((r_norm <= goal) | (untold & ~failed))
        # What it was given is Aᴴr, which can overflow where A and r are finite.
        overflow = (result == RESULTS.nonfinite_input) & jnp.isfinite(r_norm)
        result = RESULTS.where(overflow, RESULTS.diverged, result)
        fruitless = jnp.where(r_norm <= 0.9 * c.norm, 0, c.fruitless + 1)
        stuck = (fruitless >= 3) | (c.passes + 1 >= _MAX_PASSES)
        # Aᴴr says less about r the larger the condition number is: ask for more if it fell short.
        wanted = 0.25 * goal / r_norm
        wanted = jnp.where(r_norm <= 0.5 * c.norm, wanted, 0.1 * jnp.minimum(wanted, c.share))
        # Where Aᴴr is small and r is not, A is singular, or nearly so.
        failure = RESULTS.where(failed, result, RESULTS.singular)
        return _Pass(
            x=x,
            residual=residual,
            norm=jnp.where(keep, r_norm, c.norm),
            steps=c.steps + stats["num_steps"],
            passes=c.passes + 1,
            share=jnp.clip(wanted, 10 * eps, 0.25),
            fruitless=fruitless,
            done=solved | failed | stuck,
            result=RESULTS.where(solved, RESULTS.successful, failure),
        )

    zero = jnp.zeros((), jnp.int32)
    r_norm = norm(residual)
    finite = jnp.isfinite(r_norm) & tree_all_finite((vector, x0))
    start = _Pass(
        x=tree_where(finite, x0, tree_zeros_like(x0)),
        residual=residual,
        norm=r_norm,
        steps=zero,
        passes=zero,
        share=jnp.asarray(rtol, goal.dtype),
        fruitless=zero,
        done=(r_norm <= goal) | ~finite,
        result=RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite_input),
    )
    c = while_loop(lambda c: ~c.done, body, start, axes)
    max_steps = step_limit(getattr(solver, "max_steps", None), tree_size(vector))
    stats = {"num_steps": c.steps, "num_passes": c.passes, "max_steps": max_steps}
    return c.x, c.result, stats | _true_stats(solver, operator, vector, c.x, c.result)
