"""Newton's method: exact or inexact, with line search, and with factors that are used again."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import Skeleton, split
from .._tree import tree_all_finite, tree_axpy, tree_neg, tree_real_dtype, tree_where
from ..api import linear_solve
from ..auto import AutoLinearSolver
from ..errors import WrongTypeError
from ..operators import AbstractLinearOperator
from ..results import REASONS, RESULTS
from ..solvers import GMRES
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.base import AbstractKrylovSolver
from ..solvers.krylov.stopping import check_count, check_tolerance, default_rtol
from ..solvers.krylov.vectors import mesh_axes, safe_norm, tree_zeros_like, while_loop
from .equation import Equation
from .line_search import backtrack

# Eisenstat and Walker (1996), choice 2: γ, α, and the largest forcing term.
_GAMMA, _ALPHA, _LARGEST = 0.9, 2.0, 0.9
_INEXACT = 0.5  # what a solve for the step may leave of F, if its size shall tell of the error
_SLOW = 0.5  # a step with old factors that leaves more of ‖F‖ than this asks for new ones


class Newton(eqx.Module):
    """Newton's method, x ← x − t·J(x)⁻¹F(x).

    Ends when the step is small, ‖J⁻¹F‖ ≤ rtol·‖x‖ (the larger of the last two x; the step is still
    taken, which squares that error), or when ‖F(x)‖ ≤ atol.

    - `linear_solver`: any; default `AutoLinearSolver()` (`LU` up to 4096 unknowns, then `GMRES`).
    - `rtol`, `atol`: `rtol=None` stands for 1e-5 in float32 and 1e-10 in float64.
    - `max_steps`: Newton steps.
    - `forcing`: how exactly a Krylov method solves for the step, ‖F − Jd‖ ≤ η·‖F‖. "auto": from
      0.5, as ‖F‖ falls (Eisenstat and Walker, 1996, doi:10.1137/0917003, choice 2); a number: that η
      always; `None`: the solver's own tolerance. Direct solvers ignore it.
    - `line_search`: halve t (by the parabola through what is known) until ‖F‖ falls (Armijo's rule;
      Kelley, 1995, doi:10.1137/1.9781611970944, chapter 8). Without it every step is taken whole.
    - `refresh`: factorize in every `refresh`-th step only. Factors are made anew sooner when a step
      leaves more than half of ‖F‖. 1 is Newton's method.

    **Raises** `TypeError` for a `linear_solver` that is none, `ValueError` for settings out of range.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> solution = lp.root_solve(lambda x: x**2 - 2, jnp.ones(1), lp.nonlinear.Newton(refresh=3))
        >>> print(solution.value.round(3), solution.stats["factorizations"] < solution.stats["num_steps"])
        [1.414] True
    """

    linear_solver: AbstractLinearSolver[Any] = AutoLinearSolver(well_posed=True)
    rtol: float | Array | None = None
    atol: float | Array = 0.0
    max_steps: int = dataclasses.field(default=50, kw_only=True)
    forcing: float | Literal["auto"] | None = dataclasses.field(default="auto", kw_only=True)
    line_search: bool = dataclasses.field(default=True, kw_only=True)
    refresh: int = dataclasses.field(default=1, kw_only=True)

    def __check_init__(self) -> None:
        if not isinstance(self.linear_solver, AbstractLinearSolver):
            raise TypeError(
                "linear_solver: must be an AbstractLinearSolver, such as `lp.LU()`; got "
                f"{self.linear_solver!r}."
            )
        check_tolerance("rtol", self.rtol, optional=True)
        check_tolerance("atol", self.atol)
        check_count("max_steps", self.max_steps, "50")
        check_count("refresh", self.refresh, "1")
        number = isinstance(self.forcing, float) and 0 < self.forcing < 1
        if not (self.forcing in ("auto", None) or number):
            raise ValueError(
                f"forcing: must be 'auto', None or a number between 0 and 1; got {self.forcing!r}."
            )

    def find(
        self, equation: Equation, x0: PyTree[Array]
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """A root of the equation, from x0. (Called by `root_solve`, under `jax.jit`.)"""
        return _Iteration(self, equation, x0).run()

    def derivative_solver(self) -> AbstractLinearSolver[Any]:
        """What solves with the Jacobian at the root, for derivatives."""
        return self.linear_solver

    def __repr__(self) -> str:
        return _show(self)


def newton_krylov(linear_solver: AbstractLinearSolver[Any] = GMRES(), **settings: Any) -> Newton:  # noqa: B008
    """`Newton` by a Krylov method, whose steps are as exact as is worth while: no matrix is formed.

    - `linear_solver`: a Krylov method; `settings`: further ones of `Newton`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> solver = lp.nonlinear.newton_krylov()
        >>> print(lp.root_solve(lambda x: x**3 - 8, jnp.ones(3), solver).value.round(3))
        [2. 2. 2.]
    """
    return Newton(linear_solver, **settings)


def _show(method: Any) -> str:
    """A method as one would write it, with the settings that differ from their defaults."""
    shown = []
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if isinstance(value, jax.Array):
            shown.append(f"{field.name}=<array>")
        elif value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(method).__name__}({', '.join(shown)})"


class _Loop(NamedTuple):
    x: PyTree[Array]
    f: PyTree[Array]
    norm: Array  # ‖F(x)‖
    size: Array  # ‖x‖ one step before
    eta: Array  # forcing term
    steps: Array
    evaluations: Array  # of F
    linear_steps: Array  # of all linear solves
    factorizations: Array
    age: Array  # steps since the factors were made
    held: list[Array]  # operator and factors, where they are used again
    done: Array
    result: RESULTS
    reason: REASONS


class _Iteration:
    """One run. Everything here is traced."""

    def __init__(self, method: Newton, equation: Equation, x0: PyTree[Array]):
        self.method, self.equation, self.x0 = method, equation, x0
        self.dtype = tree_real_dtype(x0)
        rtol = default_rtol(self.dtype) if method.rtol is None else method.rtol
        self.rtol = jnp.asarray(rtol, self.dtype)
        self.atol = jnp.asarray(method.atol, self.dtype)
        self.held: Skeleton | None = None

    def run(self) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        first = self.first()
        axes = mesh_axes(self.equation, self.x0)
        c = while_loop(lambda c: ~c.done, self.step, first, axes)
        scale = jnp.where(first.norm > 0, first.norm, 1)
        stats = {
            "num_steps": c.steps,
            "max_steps": jnp.asarray(self.method.max_steps, jnp.int32),
            "residual_norm": c.norm,
            "relative_residual": c.norm / scale,
            "reason": REASONS.where(c.result == RESULTS.successful, c.reason, REASONS.failed),
            "evaluations": c.evaluations,
            "linear_steps": c.linear_steps,
            "factorizations": c.factorizations,
        }
        return c.x, c.result, stats

    def first(self) -> _Loop:
        f = self.equation.residual(self.x0)
        norm = self.norm(f)
        finite = jnp.isfinite(norm)
        zero, one = jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32)
        solved = norm <= self.atol
        held: list[Array] = []
        if self.method.refresh > 1:  # their values are not used: the first step makes new ones
            held, self.held = split(self.factors(self.x0))
        return _Loop(
            x=self.x0,
            f=f,
            norm=norm,
            size=jnp.zeros((), self.dtype),
            eta=jnp.asarray(0.5, self.dtype),
            steps=zero,
            evaluations=one,
            linear_steps=zero,
            factorizations=zero,
            age=jnp.asarray(self.method.refresh, jnp.int32),
            held=held,
            done=solved | ~finite,
            result=RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite_input),
            reason=REASONS.atol,
        )

    def norm(self, x: PyTree[Array]) -> Array:
        return safe_norm(x).astype(self.dtype)

    # ---- the linear system ----

    def factors(self, x: PyTree[Array]) -> tuple[AbstractLinearOperator, Any, Any]:
        """The Jacobian at x, the solver that takes it, and that one's state."""
        operator = self.equation.operator(x)
        solver, state = self.method.linear_solver.start(operator, {})
        return operator, solver, state

    def current_factors(self, c: _Loop) -> tuple[tuple[Any, Any, Any], list[Array], Array]:
        if self.held is None:
            return self.factors(c.x), [], jnp.array(True)
        new = c.age >= self.method.refresh
        make = lambda: split(self.factors(c.x))[0]
        held = jax.lax.cond(new, make, lambda: c.held)
        return self.held.fill(held), held, new

    def direction(self, factors: tuple[Any, Any, Any], c: _Loop) -> Any:
        operator, solver, state = factors
        if self.method.forcing is not None and isinstance(solver, AbstractKrylovSolver):
            fixed = self.method.forcing
            eta = c.eta if fixed == "auto" else jnp.asarray(fixed, self.dtype)
            solver = dataclasses.replace(solver, rtol=eta)
        return linear_solve(
            operator, tree_neg(c.f), solver, state=state, throw=False, name="step of Newton"
        )

    # ---- one step ----

    def step(self, c: _Loop) -> _Loop:
        factors, held, new = self.current_factors(c)
        solution = self.direction(factors, c)
        d = solution.value
        # what a linear solver calls a failure may still be an inexact step, as close to the root
        solved = solution.stats["relative_residual"] <= _INEXACT
        usable = tree_all_finite(d) & (solution.result != RESULTS.singular)
        d = tree_where(usable, d, tree_zeros_like(d))
        x_size, d_size = self.norm(c.x), self.norm(d)
        small = usable & solved & (d_size <= self.rtol * jnp.maximum(x_size, c.size))
        search = backtrack(
            lambda t: self.moved(c.x, t, d), c.norm, small | ~usable, self.method.line_search
        )
        # a step that is small may only round: it is taken if it does not hurt
        take = usable & jnp.where(small, search.norm <= c.norm, search.accepted)
        stale = ~new & ~small & (~take | (search.norm > _SLOW * c.norm))
        x, f = tree_where(take, (search.x, search.f), (c.x, c.f))
        norm = jnp.where(take, search.norm, c.norm)
        steps = c.steps + 1
        success = small | (norm <= self.atol)
        result = self.verdict(success, usable, take | stale, steps, norm, solution.result)
        age = jnp.where(stale, self.method.refresh, jnp.where(new, 1, c.age + 1))
        return _Loop(
            x=x,
            f=f,
            norm=norm,
            size=x_size,
            eta=self.next_forcing(c, norm),
            steps=steps,
            evaluations=c.evaluations + search.evaluations,
            linear_steps=c.linear_steps + solution.stats["num_steps"],
            factorizations=c.factorizations + new.astype(jnp.int32),
            age=age.astype(jnp.int32),
            held=held,
            done=success | (result != RESULTS.successful),
            result=result,
            reason=REASONS.where(norm <= self.atol, REASONS.atol, REASONS.step),
        )

    def moved(
        self, x: PyTree[Array], t: Array, d: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array], Array]:
        x = tree_axpy(t, d, x)
        f = self.equation.residual(x)
        return x, f, self.norm(f)

    def verdict(
        self,
        success: Array,
        usable: Array,
        moved: Array,
        steps: Array,
        norm: Array,
        linear: RESULTS,
    ) -> RESULTS:
        result = RESULTS.where(
            steps >= self.method.max_steps, RESULTS.max_steps_reached, RESULTS.successful
        )
        result = RESULTS.where(moved, result, RESULTS.stagnation)
        failed = RESULTS.where(linear == RESULTS.successful, RESULTS.singular, linear)
        result = RESULTS.where(usable, result, failed)
        result = RESULTS.where(jnp.isfinite(norm), result, RESULTS.diverged)
        return RESULTS.where(success, RESULTS.successful, result)

    def next_forcing(self, c: _Loop, norm: Array) -> Array:
        """η = γ(‖F‖/‖F₋‖)², but not much less than γη₋² as long as that is large (1996, p. 19)."""
        ratio = norm / jnp.where(c.norm > 0, c.norm, 1)
        eta = _GAMMA * ratio**_ALPHA
        floor = _GAMMA * c.eta**_ALPHA
        eta = jnp.where(floor > 0.1, jnp.maximum(eta, floor), eta)
        return jnp.clip(eta, default_rtol(self.dtype), _LARGEST).astype(self.dtype)


def check_finder(finder: Any, default: Any) -> Any:
    """The `solver=` of a nonlinear solve: a method, or a linear solver for Newton's."""
    if finder is None:
        return default
    if isinstance(finder, AbstractLinearSolver):
        return Newton(finder)
    if not (hasattr(finder, "find") and hasattr(finder, "derivative_solver")):
        raise WrongTypeError(
            "solver: must be `lp.nonlinear.Newton(...)`, `lp.nonlinear.Anderson(...)` or a linear "
            f"solver for Newton's method; got {finder!r}."
        )
    return finder
