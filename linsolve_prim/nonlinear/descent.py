"""Projected gradient descent with spectral steps: the minimiser that needs nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._norms import max_norm
from .._tree import tree_axpy, tree_dot, tree_real_dtype, tree_sub, tree_where
from ..results import REASONS, RESULTS
from ..solvers.krylov.stopping import check_count, check_tolerance
from ..solvers.krylov.vectors import mesh_axes, while_loop
from .newton import _show
from .stationary import Stationary
from .verdict import default_atol, no_longer_falls

_ARMIJO, _MOST = 1e-4, 40


class GradientDescent(eqx.Module):
    """x ← P(x − t∇f), where t comes from the last two gradients (Barzilai and Borwein, 1988,
    doi:10.1093/imanum/8.1.141) and is halved until f falls (Armijo's rule). P projects on the bounds.

    Ends when max |x − P(x − ∇f)| ≤ max(rtol·(the first one), atol).

    - `rtol`, `atol`: `atol=None` stands for 1e-3 in float32 and 1e-5 in float64.
    - `max_steps`: default 10 000.

    **Raises** `ValueError` for settings out of range.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> f = lambda x: (x[0] - 1) ** 2 + 10 * (x[1] - 2) ** 2
        >>> print(lp.minimize(f, jnp.zeros(2), lp.nonlinear.GradientDescent()).value.round(2))
        [1. 2.]
    """

    rtol: float | Array = 0.0
    atol: float | Array | None = None
    max_steps: int = dataclasses.field(default=10_000, kw_only=True)

    def __check_init__(self) -> None:
        check_tolerance("rtol", self.rtol)
        check_tolerance("atol", self.atol, optional=True)
        check_count("max_steps", self.max_steps, "10 000")

    def find(
        self, problem: Stationary, x0: PyTree[Array]
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """A minimiser, from x0. (Called by `minimize`, under `jax.jit`.)"""
        return _descend(self, problem, x0)

    def __repr__(self) -> str:
        return _show(self)


class _Loop(NamedTuple):
    x: PyTree[Array]
    loss: Array
    gradient: PyTree[Array]
    size: Array  # max |F|
    t: Array
    steps: Array
    evaluations: Array
    done: Array
    result: RESULTS
    reason: REASONS


def _descend(
    method: GradientDescent, problem: Stationary, x0: PyTree[Array]
) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
    value_and_grad = jax.value_and_grad(problem.loss)
    x0 = problem.project(x0)
    dtype = tree_real_dtype(x0)
    loss, gradient = value_and_grad(x0)
    first_size = problem.measure(x0, gradient).astype(dtype)
    atol = default_atol(dtype) if method.atol is None else method.atol
    goal = jnp.maximum(jnp.asarray(method.rtol, dtype) * first_size, jnp.asarray(atol, dtype))
    steepest = max_norm(gradient).astype(dtype)
    finite = jnp.isfinite(loss) & jnp.isfinite(steepest)
    zero = jnp.zeros((), jnp.int32)

    def search(c: _Loop) -> tuple[PyTree[Array], Array, Array, Array]:
        """The first t that is short enough, halving."""

        def trial(t: Array) -> tuple[PyTree[Array], Array, Array]:
            x = problem.project(tree_axpy(-t, c.gradient, c.x))
            loss = problem.loss(x)
            slope = tree_dot(c.gradient, tree_sub(x, c.x)).real
            return x, loss, loss <= c.loss + _ARMIJO * slope.astype(loss.dtype)

        def body(s: Any) -> Any:
            t = s[0] / 2
            return (t, *trial(t), s[4] + 1)

        start = (c.t, *trial(c.t), zero + 1)
        going = lambda s: ~s[3] & (s[4] < _MOST)
        _, x, loss, falls, count = while_loop(going, body, start, mesh_axes(start))
        return x, loss, falls, count

    def step(c: _Loop) -> _Loop:
        x, new_loss, falls, count = search(c)
        x = tree_where(falls, x, c.x)
        new_loss = jnp.where(falls, new_loss, c.loss)
        gradient = problem.gradient(x)
        moved, change = tree_sub(x, c.x), tree_sub(gradient, c.gradient)
        curvature = tree_dot(moved, change).real.astype(dtype)
        length = tree_dot(moved, moved).real.astype(dtype)
        t = jnp.where(curvature > 0, length / jnp.where(curvature > 0, curvature, 1), 2 * c.t)
        size = problem.measure(x, gradient).astype(dtype)
        steps, small = c.steps + 1, size <= goal
        level = ~falls & no_longer_falls(problem, x, c.loss, c.gradient)
        result = RESULTS.where(
            steps >= method.max_steps, RESULTS.max_steps_reached, RESULTS.successful
        )
        result = RESULTS.where(falls, result, RESULTS.stagnation)
        result = RESULTS.where(jnp.isfinite(size), result, RESULTS.diverged)
        result = RESULTS.where(small | level, RESULTS.successful, result)
        done = small | level | (result != RESULTS.successful)
        reason = REASONS.where(small, REASONS.gradient, REASONS.rounding)
        evaluations = c.evaluations + count
        return _Loop(x, new_loss, gradient, size, t, steps, evaluations, done, result, reason)

    first = _Loop(
        x=x0,
        loss=loss,
        gradient=gradient,
        size=first_size,
        t=(1 / jnp.where(steepest > 0, steepest, 1)).astype(dtype),
        steps=zero,
        evaluations=zero + 1,
        done=~finite | (first_size <= goal),
        result=RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite_input),
        reason=REASONS.gradient,
    )
    c = while_loop(lambda c: ~c.done, step, first, mesh_axes(problem, x0))
    stats = {
        "num_steps": c.steps,
        "max_steps": jnp.asarray(method.max_steps, jnp.int32),
        "loss": c.loss,
        "gradient_norm": c.size,
        "reason": REASONS.where(c.result == RESULTS.successful, c.reason, REASONS.failed),
        "evaluations": c.evaluations,
    }
    return c.x, c.result, stats
