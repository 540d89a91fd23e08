"""Fixed points by Anderson's acceleration."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import HIGHEST, ravel, tree_dtype, tree_real_dtype, tree_sub, unravel
from .._types import structure_of
from ..auto import AutoLinearSolver
from ..results import REASONS, RESULTS
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.stopping import check_count, check_tolerance, default_rtol
from ..solvers.krylov.vectors import mesh_axes, safe_norm, while_loop
from .equation import Equation
from .newton import _show

_RESTART = 2.0  # a residual that grows by more than this forgets the history


class Anderson(eqx.Module):
    """Anderson's acceleration (1965, doi:10.1145/321296.321305) of x ← g(x).

    Of the last `memory` steps it takes the combination with the smallest residual g(x) − x (type II;
    Walker and Ni, 2011, doi:10.1137/10078356X). `memory=0` is the plain iteration. Ends when
    ‖g(x) − x‖ ≤ max(rtol·‖x‖, atol). One evaluation of g for each step, 2·memory vectors.

    - `rtol`, `atol`: `rtol=None` stands for 1e-5 in float32 and 1e-10 in float64.
    - `memory`: how many differences are combined.
    - `damping`: β in x ← x̄ + β(ḡ − x̄); below 1 for functions g that are no contraction.
    - `max_steps`: evaluations of g.
    - `linear_solver`: what solves with I − ∂g/∂x for derivatives.

    **Raises** `ValueError` or `TypeError` for settings out of range.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> solution = lp.fixed_point(jnp.cos, jnp.ones(1), lp.nonlinear.Anderson(rtol=1e-5, memory=2))
        >>> print(solution.value.round(3), solution.stats["num_steps"] < 10)
        [0.739] True
    """

    rtol: float | Array | None = None
    atol: float | Array = 0.0
    memory: int = dataclasses.field(default=5, kw_only=True)
    damping: float | Array = dataclasses.field(default=1.0, kw_only=True)
    max_steps: int = dataclasses.field(default=1000, kw_only=True)
    linear_solver: AbstractLinearSolver[Any] = dataclasses.field(
        default=AutoLinearSolver(well_posed=True), kw_only=True
    )

    def __check_init__(self) -> None:
        check_tolerance("rtol", self.rtol, optional=True)
        check_tolerance("atol", self.atol)
        check_count("max_steps", self.max_steps, "1000")
        if not (isinstance(self.memory, int) and 0 <= self.memory <= 100):
            raise ValueError(f"memory: must be an integer from 0 to 100; got {self.memory!r}.")
        if not isinstance(self.linear_solver, AbstractLinearSolver):
            raise TypeError(
                "linear_solver: must be an AbstractLinearSolver, such as `lp.GMRES()`; got "
                f"{self.linear_solver!r}."
            )

    def find(
        self, equation: Equation, x0: PyTree[Array]
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """A root of x − g(x), from x0. (Called by `fixed_point`, under `jax.jit`.)"""
        return _Iteration(self, equation, x0).run()

    def derivative_solver(self) -> AbstractLinearSolver[Any]:
        """What solves with I − ∂g/∂x at the fixed point, for derivatives."""
        return self.linear_solver

    def __repr__(self) -> str:
        return _show(self)


class _Loop(NamedTuple):
    x: Array  # all of these are vectors
    r: Array  # g(x) − x
    norm: Array
    dx: Array  # (memory, n): differences of x, and
    dr: Array  # of r; rows of zeros are not filled
    filled: Array  # how many steps the history has seen
    steps: Array
    done: Array
    result: RESULTS


class _Iteration:
    """One run. Everything here is traced."""

    def __init__(self, method: Anderson, equation: Equation, x0: PyTree[Array]):
        self.method, self.equation, self.x0 = method, equation, x0
        self.structure, dtype = structure_of(x0), tree_real_dtype(x0)
        rtol = default_rtol(dtype) if method.rtol is None else method.rtol
        self.rtol, self.atol = jnp.asarray(rtol, dtype), jnp.asarray(method.atol, dtype)
        self.real_dtype, self.dtype = dtype, tree_dtype(x0)

    def residual(self, x: Array) -> tuple[Array, Array]:
        """g(x) − x and its norm."""
        r = -ravel(self.equation.residual(unravel(x, self.structure)))
        return r, safe_norm(r).astype(self.real_dtype)

    def small(self, x: Array, norm: Array) -> Array:
        return norm <= jnp.maximum(self.rtol * safe_norm(x), self.atol)

    def run(self) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        x = ravel(self.x0)
        r, norm = self.residual(x)
        finite, zero = jnp.isfinite(norm), jnp.zeros((), jnp.int32)
        empty = jnp.zeros((self.method.memory, x.size), self.dtype)
        result = RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite_input)
        done = ~finite | self.small(x, norm)
        first = _Loop(x, r, norm, empty, empty, zero, zero, done, result)
        axes = mesh_axes(self.equation, self.x0)
        c = while_loop(lambda c: ~c.done, self.step, first, axes)
        by_rtol = c.norm <= self.rtol * safe_norm(c.x)
        reason = REASONS.where(by_rtol, REASONS.step, REASONS.atol)
        size = safe_norm(c.x)
        stats = {
            "num_steps": c.steps,
            "max_steps": jnp.asarray(self.method.max_steps, jnp.int32),
            "residual_norm": c.norm,
            "relative_residual": c.norm / jnp.where(size > 0, size, 1),
            "reason": REASONS.where(c.result == RESULTS.successful, reason, REASONS.failed),
            "evaluations": c.steps + 1,
        }
        return unravel(c.x, self.structure), c.result, stats

    def step(self, c: _Loop) -> _Loop:
        beta = jnp.asarray(self.method.damping, self.dtype)
        x = c.x + beta * c.r
        if self.method.memory:
            gamma = _combination(c.dr, c.r)
            dot = lambda rows: jnp.dot(gamma, rows, precision=HIGHEST)
            x = x - dot(c.dx) - beta * dot(c.dr)
        r, norm = self.residual(x)
        steps, finite = c.steps + 1, jnp.isfinite(norm)
        dx, dr, filled = c.dx, c.dr, c.filled
        if self.method.memory:
            forget = norm > _RESTART * c.norm
            row = filled % self.method.memory
            keep = lambda old, new: jnp.where(forget, 0, old.at[row].set(new))
            dx, dr = keep(dx, x - c.x), keep(dr, r - c.r)
            filled = jnp.where(forget, 0, filled + 1)
        spent = RESULTS.where(
            steps >= self.method.max_steps, RESULTS.max_steps_reached, RESULTS.successful
        )
        solved = self.small(x, norm)
        result = RESULTS.where(finite, spent, RESULTS.diverged)
        result = RESULTS.where(solved, RESULTS.successful, result)
        done = solved | (result != RESULTS.successful)
        x, r = jnp.where(finite, x, c.x), jnp.where(finite, r, c.r)
        norm = jnp.where(finite, norm, c.norm)
        return _Loop(x, r, norm, dx, dr, filled, steps, done, result)


def _combination(rows: Array, r: Array) -> Array:
    """γ with the smallest ‖r − γᵀR‖, by the normal equations of rows of unit length.

    Directions in which those are nearly dependent (relative to √ε, which is what the normal
    equations can tell) are left out.
    """
    sizes = jnp.sqrt(jnp.sum(jnp.abs(rows) ** 2, axis=1))
    safe = jnp.where(sizes > 0, sizes, 1)
    unit = rows / safe[:, None].astype(rows.dtype)
    gram = jnp.dot(unit.conj(), unit.T, precision=HIGHEST)
    values, vectors = jnp.linalg.eigh(gram)
    cut = rows.shape[0] * float(jnp.finfo(values.dtype).eps) * jnp.max(jnp.abs(values)) * 10
    inverse = jnp.where(values > cut, 1 / jnp.where(values > cut, values, 1), 0)
    right = jnp.dot(unit.conj(), r, precision=HIGHEST)
    solved = vectors @ (inverse.astype(rows.dtype) * (vectors.conj().T @ right))
    return solved / safe.astype(rows.dtype)


def minus(g: Any) -> Any:
    """x ↦ x − g(x)."""
    return lambda x: tree_sub(x, g(x))
