"""When a Krylov method stops, and what it reports: settings, tolerances, statistics.

The rule is SciPy's, on the true residual: ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two, two_norm
from ..._tree import (
    tree_all_finite,
    tree_real_dtype,
    tree_scale,
    tree_sub,
    tree_where,
    tree_zeros,
)
from ..._types import Norm, complex_to_real_dtype, is_array
from ...operators import AbstractLinearOperator
from ...results import REASONS, RESULTS
from .history import statistics
from .nullspace import Projector
from .vectors import tree_divide, tree_zeros_like

# Settings are checked by `check_settings`, whose messages say more than a run-time type checker's.
if TYPE_CHECKING:
    Tolerance = float | Array | None
    Steps = int | None
    NormLike = Norm
else:
    Tolerance = Steps = NormLike = Any

_INT32_MAX = 2**31 - 1
_INSIDE = math.sqrt(0.75)  # the share of a tolerance for what is left of b in the range of A; half
_OUTSIDE = 0.5  # of it is for what is not in that range
_DEFAULT_RTOL = {"float16": 1e-2, "bfloat16": 1e-2, "float32": 1e-5, "float64": 1e-10}


def default_rtol(dtype: Any) -> float:
    """The relative tolerance that `rtol=None` stands for, by the dtype of the right-hand side.

    1e-2 in float16 and bfloat16, 1e-5 in float32 and complex64, 1e-10 in float64 and complex128:
    about two thirds of the digits; the last third is room for the condition number.
    """
    return _DEFAULT_RTOL[jnp.dtype(complex_to_real_dtype(dtype)).name]


def step_limit(max_steps: int | None, size: int) -> int:
    """`max_steps`, by default ten per unknown."""
    return min(10 * max(size, 1), _INT32_MAX) if max_steps is None else int(max_steps)


# ---- settings ------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    real = isinstance(value, (int, float, np.floating, np.integer))
    return real and not isinstance(value, bool)


def _is_zero(value: Any) -> bool:
    return _is_number(value) and value == 0


def check_tolerance(name: str, value: Any, optional: bool = False) -> None:
    """Refuse everything but real scalars from 0 up. (The sign of an array is not looked at.)"""
    if (value is None and optional) or (_is_number(value) and value >= 0):
        return
    real = is_array(value) and jnp.issubdtype(value.dtype, jnp.floating)
    if real and jnp.ndim(value) == 0 and not _is_number(value):
        return
    none = " or None" if optional else ""
    raise ValueError(
        f"{name}: must be a non-negative real number, a real scalar array{none}; got {value!r}. "
        f"Pass for example `{name}=1e-6`."
    )


def check_count(name: str, value: Any, default: str | None = None, optional: bool = False) -> None:
    """Refuse everything but integers from 1 up. Without a `default` it cannot be left out."""
    if value is None and optional:
        return
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 1 <= value <= _INT32_MAX:
        none = " or None" if optional else ""
        remedy = "" if default is None else f" Leave it out for {default}."
        raise ValueError(
            f"{name}: must be an integer from 1 to 2³¹ − 1{none}; got {value!r}.{remedy}"
        )


def check_settings(rtol: Any, atol: Any, norm: Any, max_steps: Any) -> None:
    """Refuse, when a solver is made, settings that cannot be meant."""
    check_tolerance("rtol", rtol, optional=True)
    check_tolerance("atol", atol)
    if not callable(norm):
        raise ValueError(
            f"norm: must be a function from a pytree to a scalar; got {norm!r}. Leave it out for "
            "the Euclidean norm."
        )
    check_count("max_steps", max_steps, "ten times the number of unknowns", optional=True)
    if _is_zero(rtol) and _is_zero(atol) and max_steps is None:
        raise ValueError(
            "rtol, atol, max_steps: must not be 0, 0 and None, which leaves an iteration without "
            "an end. Pass a positive tolerance, or `max_steps`."
        )


# ---- the problem ---------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A system in units in which its first residual is of order one: x = unit·x′, b = unit·b′.

    `unit` is a power of two, so that the change rounds nothing, and squares do not vanish for
    residuals like 1e-30 in float32. All fields but `unit` and `rtol` are in these units.
    """

    vector: PyTree[Array]
    x: PyTree[Array]
    image: PyTree[Array]  # Ax
    residual: PyTree[Array]
    norm: Array  # of the residual, as the user measures it
    rtol_goal: Array
    atol_goal: Array
    goal: Array  # the larger of the two
    vector_norm: Array  # Euclidean
    rtol: Array
    unit: Array
    is_zero: Array
    is_bad: Array
    matvecs: int  # that posing it took
    outside: Array | None  # the norm of the part of b out of A's range, where that is an error


def pose(
    operator: AbstractLinearOperator,
    vector: PyTree[Array],
    x0: PyTree[Array] | None,
    rtol: Any,
    atol: Any,
    norm: Norm,
    projector: Projector | None = None,
) -> Problem:
    """The first residual and the tolerances, by one product if there is a first guess, else none.

    Where b is zero, or where it, the guess or its residual is not finite, x starts from zero with a
    zero residual, so that no iteration follows.
    """
    dtype = tree_real_dtype(vector)
    rtol = jnp.asarray(default_rtol(dtype) if rtol is None else rtol, dtype)
    zero = tree_zeros(operator.in_structure())
    if x0 is None and projector is None:
        return _pose_from_zero(vector, zero, rtol, atol, norm)
    x = zero if x0 is None else x0
    b_size, given = max_norm(vector), vector
    if projector is not None:
        vector, x = projector.of_residual(vector), projector.of_solution(x)
    image = tree_zeros_like(vector) if x0 is None else operator.mv(x)
    residual = vector if x0 is None else tree_sub(vector, image)
    r_size = max_norm(residual)
    is_zero = b_size == 0
    finite = jnp.isfinite(b_size) & jnp.isfinite(r_size) & jnp.isfinite(max_norm(x))
    is_bad = ~finite & ~is_zero
    nothing_to_do = is_zero | is_bad
    b_unit = power_of_two(b_size)
    unit = jnp.where(nothing_to_do, b_unit, power_of_two(jnp.maximum(b_size, r_size)))
    residual = _in_units(unit, nothing_to_do, residual)
    b_scaled = tree_divide(vector, b_unit)
    in_norm = lambda tree: jnp.asarray(norm(tree), dtype) * (b_unit / unit)
    rtol_goal = rtol * in_norm(b_scaled)
    atol_goal = jnp.asarray(atol, dtype) / unit
    outside, b_given = None, b_scaled
    if projector is not None:
        b_given = tree_divide(given, b_unit)
        if projector.strict:
            # ‖b − Ax‖² is the sum of what is left in the range and what is outside of it.
            rtol_goal, atol_goal = _INSIDE * rtol * in_norm(b_given), _INSIDE * atol_goal
            outside = in_norm(tree_sub(b_given, b_scaled))
        else:  # nothing of b may be left but rounding errors
            rtol_goal = jnp.maximum(rtol_goal, 10 * jnp.finfo(dtype).eps * in_norm(b_given))
    return Problem(
        vector=tree_divide(vector, unit),
        x=_in_units(unit, nothing_to_do, x),
        image=_in_units(unit, nothing_to_do, image),
        residual=residual,
        norm=jnp.asarray(norm(residual), dtype),
        rtol_goal=rtol_goal,
        atol_goal=atol_goal,
        goal=jnp.where(nothing_to_do, 0, jnp.maximum(rtol_goal, atol_goal)),
        vector_norm=two_norm(b_given) * (b_unit / unit),
        rtol=rtol,
        unit=unit,
        is_zero=is_zero,
        is_bad=is_bad,
        matvecs=int(x0 is not None),
        outside=outside,
    )


def _pose_from_zero(
    vector: PyTree[Array], x: PyTree[Array], rtol: Array, atol: Any, norm: Norm
) -> Problem:
    """`pose` without a first guess: b is the residual, so that little has to be computed (and
    compiled: a kernel for each number takes most of the compilation of a Krylov solve)."""
    size = max_norm(vector)
    is_zero = size == 0
    is_bad = ~jnp.isfinite(size)
    unit = power_of_two(size)
    residual = _in_units(unit, is_zero | is_bad, vector)
    r_norm = jnp.asarray(norm(residual), rtol.dtype)
    rtol_goal = rtol * r_norm
    atol_goal = jnp.asarray(atol, rtol.dtype) / unit
    b_norm = r_norm if norm is two_norm else two_norm(residual)
    return Problem(
        vector=residual,
        x=x,
        image=tree_zeros_like(vector),
        residual=residual,
        norm=r_norm,
        rtol_goal=rtol_goal,
        atol_goal=atol_goal,
        goal=rtol_goal if _is_zero(atol) else jnp.maximum(rtol_goal, atol_goal),
        vector_norm=jnp.where(is_bad, size, b_norm),
        rtol=rtol,
        unit=unit,
        is_zero=is_zero,
        is_bad=is_bad,
        matvecs=0,
        outside=None,
    )


def _in_units(unit: Array, nothing_to_do: Array, x: PyTree[Array]) -> PyTree[Array]:
    return tree_where(nothing_to_do, tree_zeros_like(x), tree_divide(x, unit))


# ---- the verdict ---------------------------------------------------------------------------------


class Ending(NamedTuple):
    """What an iteration leaves behind, in the problem's units. `residual` is b − Ax, recomputed."""

    x: PyTree[Array]
    residual: PyTree[Array]
    norm: Array
    result: RESULTS
    num_steps: Array
    least_squares: Array  # whether the normal equations were what was solved
    matvecs: Array  # products with A, and
    rmatvecs: Array  # with Aᴴ
    trail: Any  # the history, if one was kept


def report(
    problem: Problem, ending: Ending, max_steps: int, norm: Norm
) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
    """The solution in the user's units, the result, and the statistics that all methods share."""
    sizes = jax.tree.map(max_norm, ending.x)
    fits = tree_all_finite(tree_scale(problem.unit, sizes))  # it may overflow in the user's units
    result = RESULTS.where(fits, ending.result, RESULTS.diverged)
    fits &= jnp.isfinite(ending.norm)
    x = tree_scale(problem.unit, ending.x)
    x = tree_where(fits, x, tree_zeros_like(x))
    # Without any tolerance (rtol = atol = 0) what is asked for is a number of steps.
    untold = (problem.rtol_goal == 0) & (problem.atol_goal == 0) & ~problem.is_zero
    ran = (result == RESULTS.max_steps_reached) | (result == RESULTS.stagnation)
    result = RESULTS.where(untold & ran, RESULTS.successful, result)
    r_norm = ending.norm if norm is two_norm else two_norm(ending.residual)
    if problem.outside is not None:
        r_norm = jnp.hypot(r_norm, problem.outside)
        inside = problem.outside * _INSIDE <= _OUTSIDE * problem.goal
        outside = ~(inside | problem.is_zero | problem.is_bad)
        result = RESULTS.where(outside, RESULTS.incompatible, result)
    success = result == RESULTS.successful
    r_norm = jnp.where(fits & ~problem.is_bad, r_norm, problem.vector_norm)
    b_norm = problem.vector_norm
    relative = jnp.where(problem.is_zero, 0, r_norm / jnp.where(problem.is_zero, 1, b_norm))
    reason = REASONS.where(ending.norm <= problem.rtol_goal, REASONS.rtol, REASONS.atol)
    reason = REASONS.where(ending.least_squares, REASONS.least_squares, reason)
    reason = REASONS.where(untold & ran, REASONS.steps, reason)
    reason = REASONS.where(problem.is_zero, REASONS.zero_rhs, reason)
    stats = {
        "num_steps": ending.num_steps,
        "max_steps": max_steps,
        "residual_norm": r_norm * problem.unit,
        "relative_residual": relative,
        "reason": REASONS.where(success, reason, REASONS.failed),
        "matvecs": ending.matvecs + problem.matvecs,
        "rmatvecs": ending.rmatvecs,
    }
    if ending.trail is not None:
        stats |= statistics(ending.trail, ending.num_steps, problem.unit)
    return x, result, stats
