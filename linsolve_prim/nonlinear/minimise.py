"""`minimize`: SciPy's minimisers, Optimistix's and one of our own, with implicit derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._types import check_args, is_array
from .._varying import varying_axes
from ..auto import AutoLinearSolver
from ..errors import WrongTypeError
from ..primitive import FORWARD, Failure, failures
from ..primitive.outcome import deliver
from ..results import Solution
from ..solvers.krylov.stopping import check_count, check_tolerance
from .descent import GradientDescent
from .equation import as_unknown, check_function
from .implicit import solve_implicitly
from .optimistix_methods import OptimistixMethod, as_optimistix
from .scipy_methods import ScipyMethod, by_differences, scipy_name, scipy_names
from .stationary import as_bounds, make_stationary


def minimize(
    f: Callable[..., Any],
    x0: PyTree[Any],
    method: Any = "L-BFGS-B",
    *,
    args: tuple[Any, ...] = (),
    bounds: Any = None,
    rtol: float = 0.0,
    atol: float | None = None,
    max_steps: int | None = None,
    options: dict[str, Any] | None = None,
    autodiff: bool = True,
    adjoint: Any = None,
    throw: bool = True,
    suppress: Any = (),
    name: str | None = None,
) -> Solution:
    """A local minimiser of f(x, *args); of f(*x, *args) if `x0` is a tuple.

    **Arguments**

    - `f`: a function that returns one real number.
    - `x0`: where to start: a pytree of real arrays or numbers. (No derivative flows into it.)
    - `method`: any of `scipy.optimize.minimize` ("L-BFGS-B", "BFGS", "CG", "Newton-CG", "TNC",
      "SLSQP", "trust-ncg", "Nelder-Mead", …, "L-BFGS" for "L-BFGS-B"), which loops on the host and
      asks for compiled values, gradients and Hessian products, so that it is itself no part of a
      compiled program; or one that is: "GD" (projected gradients with spectral steps),
      `lp.nonlinear.GradientDescent(...)`, a minimiser of Optimistix, "optimistix.BFGS" and the like.
    - `bounds`: `(lower, upper)`, each a number, `None` or a pytree like x0. For "GD", "L-BFGS-B",
      "TNC", "SLSQP", "trust-constr", "Nelder-Mead", "Powell", "COBYLA", "COBYQA". Derivatives flow
      into them.
    - `rtol`, `atol`: success is max |∂f/∂xᵢ| ≤ max(rtol·(that at x0), atol); by default 1e-5
      (float32: 1e-3). (With bounds: of x − P(x − ∇f).) Where f no longer falls along −∇f, up to
      rounding, that is success as well. Methods without gradients take it as their own tolerance.
    - `max_steps`, `options`: SciPy's `maxiter`, and its further options.
    - `autodiff`: if `False`, f is called with NumPy arrays, and SciPy takes finite differences; then
      there are no derivatives of the minimiser.
    - `adjoint`: what solves with the Hessian for derivatives: a linear solver or `ImplicitAdjoint`.
    - `throw`, `suppress`, `name`: as for `linear_solve`.

    **Returns** a `Solution`; its `stats` have `"loss"`, `"gradient_norm"`, `"num_steps"`,
    `"evaluations"` (of f, where they are counted) and `"reason"`.

    **Raises** `NotConverged`, `Diverged`, `NonFiniteInputError`; `WrongTypeError` for a SciPy method
    inside of `jax.jit` or `jax.vmap`, and for bounds that a method cannot take; `NotImplementedError`
    for values that vary over the devices of `jax.shard_map`.

    Derivatives by all that `f` captures, by `args` and `bounds`, are those of ∇f(x) = 0 (with active
    bounds held), forward and reverse, to any order.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> distance = lambda x, c: jnp.sum((x - c) ** 2)
        >>> nearest = lambda c: lp.minimize(distance, jnp.zeros(2), "GD", args=(c,), bounds=(0, 1)).value
        >>> print(nearest(jnp.array([0.5, 2.0])).round(3))
        [0.5 1. ]
        >>> print(jax.jacobian(nearest)(jnp.array([0.5, 2.0])).round(3) + 0.0)  # zero where a bound holds
        [[1. 0.]
         [0. 0.]]
    """
    check_function(f, "f")
    check_args(args)
    check_tolerance("rtol", rtol)
    check_tolerance("atol", atol, optional=True)
    check_count("max_steps", max_steps, "the method's own limit", optional=True)
    of_x = (lambda x: f(*x, *args)) if isinstance(x0, tuple) else (lambda x: f(x, *args))
    chosen = _chosen(method, rtol, atol, max_steps, options)
    _check_bounds(chosen, bounds)
    throwing = failures(throw, suppress)
    x0 = as_unknown(x0)
    if not autodiff:
        return _without_autodiff(chosen, of_x, x0, bounds, throwing, name)
    problem = make_stationary(of_x, x0, bounds)
    _refuse_shards((problem, x0))
    solver = AutoLinearSolver(well_posed=True)
    return solve_implicitly(problem, chosen, x0, solver, adjoint, throwing, name)


def _chosen(method: Any, rtol: Any, atol: Any, max_steps: Any, options: Any) -> Any:
    """The method behind a name or an object."""
    if isinstance(method, GradientDescent):
        return method
    if isinstance(method, str):
        found = scipy_name(method)
        if found is not None:
            extra = tuple(sorted((options or {}).items()))
            return ScipyMethod(found, rtol, atol, max_steps, extra)
        if method.upper() == "GD":
            steps = {} if max_steps is None else {"max_steps": max_steps}
            return GradientDescent(rtol, atol, **steps)
    own = as_optimistix(method, rtol, atol, max_steps)
    if own is None:
        raise WrongTypeError(
            f"method: must be one of {', '.join(scipy_names())} (SciPy), 'GD', an optimistix minimiser "
            f"or 'optimistix.NAME'; got {method!r}."
        )
    return own


def _refuse_shards(tree: Any) -> None:
    """Derivatives of a minimiser inside of `shard_map` came out wrong: better none than those."""
    if varying_axes([leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]):
        raise NotImplementedError(
            "f: must not depend on values that vary over the devices of `jax.shard_map`, whose "
            "derivatives are not supported here. Minimise outside of it, or find a root of the gradient "
            "with `root_solve`."
        )


def _check_bounds(method: Any, bounds: Any) -> None:
    takes = isinstance(method, GradientDescent) or (
        isinstance(method, ScipyMethod) and method.traits.bounds
    )
    if bounds is not None and not takes:
        raise WrongTypeError(
            f"bounds: {method!r} takes none. Take 'L-BFGS-B', 'TNC', 'SLSQP', 'trust-constr', "
            "'Nelder-Mead', 'Powell', 'COBYLA', 'COBYQA' or 'GD'."
        )


def _without_autodiff(
    method: Any, f: Any, x0: Any, bounds: Any, throw: frozenset[int], name: str | None
) -> Solution:
    if not isinstance(method, ScipyMethod):
        raise WrongTypeError(
            f"autodiff: {method!r} needs derivatives by JAX. Take one of SciPy's methods, such as "
            "'Nelder-Mead' or 'L-BFGS-B', or drop autodiff=False."
        )
    own = jax.tree.map(np.asarray, x0)
    value, result, stats = by_differences(method, f, own, as_bounds(bounds, x0))
    what = Failure(repr(method), FORWARD, name)
    value = jax.tree.map(jnp.asarray, value)
    return Solution(*deliver(value, result, stats, throw, what), None)


__all__ = ["OptimistixMethod", "minimize"]
