"""SciPy's minimisers: one loop on the host, with value, gradient and Hessian products compiled."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._static import split
from .._tree import ravel, tree_real_dtype, unravel
from .._types import structure_of
from ..errors import WrongTypeError
from ..results import REASONS, RESULTS
from .stationary import Stationary
from .verdict import default_atol, judge


@dataclasses.dataclass(frozen=True)
class _Traits:
    """What SciPy calls a method's tolerances, and what the method can use."""

    tolerance: tuple[str, ...]  # options that take our tolerance
    fixed: tuple[tuple[str, float], ...] = ()  # options that would end it before that
    gradient: bool = True
    bounds: bool = False
    second: str = ""  # "hessp" or "hess": how it takes second derivatives
    steps: str = "maxiter"
    share: float = 1.0  # of our tolerance that is asked for: what an interior point keeps away


_EPS = float(np.finfo(np.float64).eps)
_METHODS = {
    "nelder-mead": _Traits(("xatol", "fatol"), gradient=False, bounds=True),
    "powell": _Traits(("xtol", "ftol"), gradient=False, bounds=True),
    "cg": _Traits(("gtol",)),
    "bfgs": _Traits(("gtol",)),
    "newton-cg": _Traits((), (("xtol", 1e-12),), second="hessp"),
    "l-bfgs-b": _Traits(("gtol",), (("ftol", 4 * _EPS),), bounds=True),
    "tnc": _Traits(
        ("gtol",), (("ftol", 0.0), ("xtol", 0.0), ("maxfun", 10_000)), bounds=True, steps="maxfun"
    ),
    "cobyla": _Traits(("tol",), gradient=False, bounds=True),
    "cobyqa": _Traits(("final_tr_radius",), gradient=False, bounds=True),
    "slsqp": _Traits((), (("ftol", 4 * _EPS),), bounds=True),
    "trust-constr": _Traits(("gtol",), (("xtol", 1e-14),), bounds=True, second="hessp", share=1e-3),
    "dogleg": _Traits(("gtol",), second="hess"),
    "trust-ncg": _Traits(("gtol",), second="hessp"),
    "trust-krylov": _Traits(("gtol",), second="hessp"),
    "trust-exact": _Traits(("gtol",), second="hess"),
}
_ALIASES = {"l-bfgs": "l-bfgs-b", "lbfgs": "l-bfgs-b", "lbfgsb": "l-bfgs-b"}


def scipy_names() -> list[str]:
    return sorted(_METHODS)


def scipy_name(method: str) -> str | None:
    """SciPy's name for a method, in lower case; `None` if it has none."""
    name = method.lower()
    name = _ALIASES.get(name, name)
    return name if name in _METHODS else None


@dataclasses.dataclass(frozen=True)
class ScipyMethod:
    """A minimiser of `scipy.optimize.minimize`, by its name."""

    name: str
    rtol: float
    atol: float | None
    max_steps: int | None
    options: tuple[tuple[str, Any], ...] = ()

    runs_on_host: ClassVar[bool] = True

    @property
    def traits(self) -> _Traits:
        return _METHODS[self.name]

    def __repr__(self) -> str:
        return f"scipy.optimize.minimize(method={self.name!r})"

    def find(
        self, problem: Stationary, x0: PyTree[Array]
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """A minimiser, from x0, both concrete.

        **Raises** `WrongTypeError` inside `jax.jit` or `jax.vmap`.
        """
        arrays, skeleton = split((problem, x0))
        if any(isinstance(x, jax.core.Tracer) for x in arrays):
            raise WrongTypeError(
                f"method: {self.name!r} runs in SciPy, so it cannot be a part of what `jax.jit`, "
                "`jax.vmap` or `lax.scan` traces. Call it outside (`jax.grad` of that works), or take "
                "a method that runs on the device: method='GD', or an optimistix minimiser such as "
                "`optimistix.BFGS(rtol=1e-6, atol=1e-6)`."
            )
        return _Run(self, skeleton, arrays, x0).run()


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluated(what: str, skeleton: Any, arrays: list[Array], vector: Array, *more: Array) -> Any:
    """f, (f, ∇f), ∇²f·p or ∇²f at a vector in double precision."""
    problem, x0 = skeleton.fill(arrays)
    structure = structure_of(x0)
    f = lambda v: problem.loss(unravel(v, structure)).astype(vector.dtype)
    if what == "value":
        return f(vector)
    if what == "both":
        return jax.value_and_grad(f)(vector)
    if what == "hessp":
        return jax.jvp(jax.grad(f), (vector,), more)[1]
    return jax.hessian(f)(vector)


class _Run:
    """One minimisation."""

    def __init__(self, method: ScipyMethod, skeleton: Any, arrays: Any, x0: PyTree[Array]):
        self.method, self.skeleton, self.arrays, self.x0 = method, skeleton, arrays, x0
        self.problem = skeleton.fill(arrays)[0]
        self.dtype = tree_real_dtype(x0)

    def ask(self, what: str, vector: Any, *more: Any) -> Any:
        given = [jnp.asarray(x) for x in (vector, *more)]
        return _evaluated(what, self.skeleton, self.arrays, *given)

    def value(self, v: np.ndarray) -> float:
        return float(self.ask("value", v))

    def both(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.ask("both", v)
        return float(value), np.array(gradient, np.float64)

    def hessp(self, v: np.ndarray, p: np.ndarray) -> np.ndarray:
        return np.array(self.ask("hessp", v, np.asarray(p, np.float64)), np.float64)

    def hess(self, v: np.ndarray) -> np.ndarray:
        return np.array(self.ask("hess", v), np.float64)

    def goal(self) -> float:
        """The tolerance of the gradient."""
        atol = default_atol(self.dtype) if self.method.atol is None else float(self.method.atol)
        if self.method.rtol == 0:
            return atol
        first = self.problem.measure(self.x0, self.problem.gradient(self.x0))
        return max(float(self.method.rtol) * float(first), atol)

    def run(self) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        start = np.array(ravel(self.problem.project(self.x0)), np.float64)
        goal = self.goal()
        bounds = None
        if self.problem.bounds is not None:
            bounds = [np.array(ravel(side), np.float64) for side in self.problem.bounds]
        traits = self.method.traits
        more = {traits.second: getattr(self, traits.second)} if traits.second else {}
        if not traits.gradient:
            found = call_scipy(self.method, self.value, start, goal, bounds)
        else:
            found = call_scipy(self.method, self.both, start, goal, bounds, jac=True, **more)
        return self.judged(found, goal)

    def judged(self, found: Any, goal: float) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        x = unravel(jnp.asarray(found.x), structure_of(self.x0))
        result, stats = _judged(
            self.skeleton,
            self.arrays,
            x,
            jnp.asarray(goal, self.dtype),
            jnp.asarray(bool(found.success)),
            jnp.asarray(ran_out(found)),
            self.method.traits.gradient,
        )
        return x, result, stats | counts(found)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _judged(
    skeleton: Any, arrays: Any, x: Any, goal: Any, claimed: Any, spent: Any, by_gradient: bool
) -> tuple[RESULTS, dict[str, Any]]:
    problem, _ = skeleton.fill(arrays)
    return judge(problem, x, goal, claimed=claimed, spent=spent, by_gradient=by_gradient)


def call_scipy(
    method: ScipyMethod, function: Any, start: np.ndarray, goal: float, bounds: Any, **more: Any
) -> Any:
    """`scipy.optimize.minimize`, its warnings left out: the verdict is ours."""
    import scipy.optimize

    traits = method.traits
    options = dict(traits.fixed) | {key: traits.share * goal for key in traits.tolerance}
    if method.max_steps is not None:
        options[traits.steps] = method.max_steps
    options |= dict(method.options)
    limits = None if bounds is None else scipy.optimize.Bounds(*bounds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scipy.optimize.minimize(
            function, start, method=method.name, bounds=limits, options=options, **more
        )


def ran_out(found: Any) -> bool:
    """Whether SciPy stopped at a limit of steps or evaluations."""
    text = str(found.message).lower()
    return not found.success and ("limit" in text or "max" in text)


def counts(found: Any) -> dict[str, Any]:
    steps = getattr(found, "nit", getattr(found, "nfev", 0))
    return {
        "num_steps": jnp.asarray(int(steps), jnp.int32),
        "evaluations": jnp.asarray(int(found.nfev), jnp.int32),
    }


def by_differences(
    method: ScipyMethod, f: Any, x0: PyTree[Any], bounds: Any
) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
    """Minimise a function of NumPy arrays: SciPy takes finite differences, and its claim is believed."""
    structure = structure_of(x0)
    leaves, treedef = jax.tree.flatten(x0)
    sizes = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]

    def tree(v: np.ndarray) -> PyTree[np.ndarray]:
        parts = [p.reshape(np.shape(x)) for p, x in zip(np.split(v, sizes), leaves)]
        return jax.tree.unflatten(treedef, parts)

    function = lambda v: float(f(tree(v)))
    start = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves])
    sides = None if bounds is None else [np.array(ravel(s), np.float64) for s in bounds]
    atol = default_atol(np.float64) if method.atol is None else float(method.atol)
    found = call_scipy(method, function, start, atol, sides)
    good = bool(found.success) and bool(np.isfinite(found.fun))
    failure = RESULTS.max_steps_reached if ran_out(found) else RESULTS.stagnation
    failure = failure if np.isfinite(found.fun) else RESULTS.diverged
    stats = counts(found) | {
        "loss": jnp.asarray(found.fun, tree_real_dtype(structure)),
        "reason": REASONS.claimed if good else REASONS.failed,
    }
    return unravel(jnp.asarray(found.x), structure), RESULTS.successful if good else failure, stats
