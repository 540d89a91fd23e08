"""Optimistix's minimisers, which run on the device (extra `learn`)."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_real_dtype
from ..errors import WrongTypeError
from ..results import RESULTS
from .stationary import Stationary
from .verdict import default_atol, judge

_PREFIX = "optimistix."


def load_optimistix() -> Any:
    """**Raises** `ImportError` with what to install."""
    try:
        import optimistix
    except ImportError as error:
        raise ImportError(
            "Optimistix is not installed: `pip install 'linsolve-prim[learn]'`, or take a method that "
            "comes with the package, such as method='L-BFGS-B' or 'GD'."
        ) from error
    return optimistix


class OptimistixMethod(eqx.Module):
    """A minimiser of Optimistix, judged as all others are."""

    minimiser: Any
    rtol: float | Array
    atol: float | Array | None
    max_steps: int

    def find(
        self, problem: Stationary, x0: PyTree[Array]
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """A minimiser, from x0. (Called by `minimize`, under `jax.jit`.)"""
        optimistix, dtype = load_optimistix(), tree_real_dtype(x0)
        found = optimistix.minimise(
            lambda x, _: problem.loss(x),
            self.minimiser,
            x0,
            max_steps=self.max_steps,
            throw=False,
        )
        first = problem.measure(x0, problem.gradient(x0)).astype(dtype)
        atol = default_atol(dtype) if self.atol is None else self.atol
        goal = jnp.maximum(jnp.asarray(self.rtol, dtype) * first, jnp.asarray(atol, dtype))
        steps = jnp.asarray(found.stats["num_steps"], jnp.int32)
        claimed = found.result == optimistix.RESULTS.successful
        spent = ~claimed & (steps >= self.max_steps)
        by_gradient = type(self.minimiser).__name__ not in ("NelderMead", "GoldenSearch")
        result, stats = judge(
            problem, found.value, goal, claimed=claimed, spent=spent, by_gradient=by_gradient
        )
        finite = jnp.isfinite(first)
        result = RESULTS.where(finite, result, RESULTS.nonfinite_input)
        return found.value, result, stats | {"num_steps": steps}

    def __repr__(self) -> str:
        return f"optimistix.{type(self.minimiser).__name__}"


@functools.cache
def _tolerances(class_name: str) -> bool:
    return hasattr(load_optimistix(), class_name)


def as_optimistix(
    method: Any, rtol: Any, atol: Any, max_steps: int | None
) -> OptimistixMethod | None:
    """A minimiser of Optimistix, or its name after "optimistix."; `None` for anything else."""
    steps = 10_000 if max_steps is None else max_steps
    if isinstance(method, str):
        if not method.startswith(_PREFIX):
            return None
        name = method.removeprefix(_PREFIX)
        if not _tolerances(name):
            raise WrongTypeError(f"method: Optimistix has no minimiser {name!r}.")
        small = 1e-8 if jax.config.jax_enable_x64 else 1e-4
        method = getattr(load_optimistix(), name)(rtol=small, atol=small)
    elif not type(method).__module__.startswith("optimistix"):
        return None
    if not isinstance(method, load_optimistix().AbstractMinimiser):
        raise WrongTypeError(f"method: must be a minimiser; got {method!r} of Optimistix.")
    return OptimistixMethod(method, rtol, atol, steps)
