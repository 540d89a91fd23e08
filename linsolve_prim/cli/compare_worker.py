"""The process in which contestants of `compare` run, so that each can be killed.

It reads one JSON object a line from standard input: first the system, then contestants. It answers
by JSON lines on standard output: `{"phase": ...}` before something that may take long, `{"facts":
{...}}` when something was measured, `{"done": true}` at the end of a contestant. (What libraries
print goes to standard error.)
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

import linsolve_prim as lp

from ..results import SUCCESSFUL, member_name
from . import compare_memory as memory
from .checking import check_solution
from .compare_rows import FAILED, REFUSED, SOLVED
from .reading import System, read_system
from .solve_command import make_operator

#: Later calls are repeated until there are enough of them, or enough time is gone.
_MOST_CALLS, _FEWEST_CALLS, _SECONDS = 15, 3, 0.6

Tell = Callable[[dict[str, Any]], None]


class Setting(NamedTuple):
    """What all contestants share."""

    system: System
    dtype: np.dtype
    tags: list[str]
    tolerances: tuple[float, float]
    gradient: bool
    limit: float


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    setting = _setting(json.loads(sys.stdin.readline()))
    jax.block_until_ready(jnp.zeros(3) + 1)
    tell({"ready": True})
    for line in sys.stdin:
        _last_resort(setting.limit)
        facts = run(json.loads(line), setting, tell)
        tell({"facts": facts})
        tell({"done": True})


def _setting(message: dict[str, Any]) -> Setting:
    system = read_system(message["matrix"], message["rhs"])
    dtype = np.dtype(message["dtype"])
    tolerances = (message["rtol"], 0.0)
    return Setting(
        system, dtype, message["tags"], tolerances, message["gradient"], message["limit"]
    )


def _last_resort(limit: float) -> None:
    """Should the parent be gone, the system ends this process: also while it is deep inside C."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(10 * limit) + 600)


# ---- one contestant ------------------------------------------------------------------------------


def run(job: dict[str, str], setting: Setting, tell: Tell) -> dict[str, Any]:
    """Measure one contestant; how it ended. What is refused when it is traced is said as such."""
    jax.clear_caches()
    lp.host.registry.clear()
    step = {"name": "solver"}

    def enter(phase: str) -> None:
        step["name"] = phase
        tell({"phase": phase})

    try:
        return _measure(job, setting, tell, enter)
    except Exception as error:  # a contestant may raise whatever it likes
        refused = isinstance(error, ValueError | TypeError | NotImplementedError)
        outcome = REFUSED if refused and "solve" not in step["name"] else FAILED
        words = f"{type(error).__name__}: " + " ".join(str(error).split())
        key = "gradient_" if step["name"].startswith("gradient") else ""
        return {f"{key}outcome": outcome, f"{key}reason": words}


def _measure(
    job: dict[str, str], setting: Setting, tell: Tell, enter: Callable[[str], None]
) -> dict[str, Any]:
    enter("set-up")
    matrix, sparse = setting.system.matrix, job["form"] == "sparse"
    operator = make_operator(
        sp.csr_array(matrix) if sparse else matrix, setting.dtype, setting.tags, sparse
    )
    with np.errstate(over="ignore"):
        rhs = jnp.asarray(setting.system.rhs.astype(setting.dtype))
    before = memory.start()
    start = time.perf_counter()
    solver = eval(job["code"], {"lp": lp, "A": operator})  # written by compare_contestants
    jax.block_until_ready(jax.tree.leaves(eqx.filter(solver, eqx.is_array)))
    facts: dict[str, Any] = {"setup": time.perf_counter() - start}
    task = _Task("", _forward, operator, rhs, solver)
    (value, result, stats), times = task.time(enter)
    facts |= times | {"memory": memory.grown(before)}
    facts |= _judge(setting, solver, value, result, stats)
    if facts["outcome"] != SOLVED or not setting.gradient:
        return facts
    tell({"facts": facts})
    return _measure_gradient(setting, operator, rhs, solver, enter)


def _measure_gradient(
    setting: Setting, operator: Any, rhs: Any, solver: Any, enter: Callable[[str], None]
) -> dict[str, Any]:
    """Value and gradient of Re(cᵀx) by A and b. With w = ∂/∂b, Aᵀw = c, which is checked."""
    with np.errstate(all="ignore"):
        noise = np.random.default_rng(0).standard_normal(setting.system.rhs.shape)
        target = setting.system.matrix.T @ noise  # in the range of Aᵀ, whatever the rank of A
        c = jnp.asarray(target.astype(setting.dtype))
    before = memory.start()
    task = _Task("gradient ", _gradient, operator, (rhs, c), solver)
    (_, (d_operator, d_rhs)), times = task.time(enter)
    facts: dict[str, Any] = times | {"gradient_memory": memory.grown(before)}
    adjoint = System(setting.system.matrix.T, np.asarray(c), "c")
    check = check_solution(adjoint, np.asarray(d_rhs), solver, setting.tolerances, setting.dtype)
    finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(d_operator))
    facts["adjoint_residual"] = check.relative
    facts["gradient_outcome"] = SOLVED if check.passed and finite else FAILED
    facts["gradient_reason"] = "" if check.passed and finite else f"adjoint {check.verdict}"
    return facts


def _judge(setting: Setting, solver: Any, value: Any, result: Any, stats: Any) -> dict[str, Any]:
    """The solver's own verdict, and the residual that is computed again from the file."""
    codes = np.atleast_1d(np.asarray(jax.tree.leaves(result)[0]))
    check = check_solution(
        setting.system, np.asarray(value), solver, setting.tolerances, setting.dtype
    )
    told = [str(name) for name in np.unique(np.atleast_1d(member_name(result)))]
    told = [name for name in told if name != "successful"]
    facts = {"residual": check.relative, "steps": float(np.max(np.asarray(stats["num_steps"])))}
    if np.all(codes == SUCCESSFUL) and check.passed:
        return facts | {"outcome": SOLVED, "reason": ""}
    words = ", ".join(told) or f"says successful, but is {check.verdict}"
    return facts | {"outcome": FAILED, "reason": words}


# ---- timing --------------------------------------------------------------------------------------


def _forward(operator: Any, rhs: Any, solver: Any) -> Any:
    def one(b: jax.Array) -> Any:
        solution = lp.linear_solve(operator, b, solver, throw=False)
        return solution.value, solution.result, solution.stats

    if rhs.ndim == 1:
        return one(rhs)
    value, result, stats = jax.vmap(one, in_axes=1)(rhs)
    return value.T, result, stats


def _gradient(operator: Any, vectors: Any, solver: Any) -> Any:
    rhs, c = vectors

    def loss(pair: tuple[Any, Any]) -> jax.Array:
        return jnp.sum(c * _forward(*pair, solver)[0]).real

    return jax.value_and_grad(loss)((operator, rhs))


class _Task(NamedTuple):
    """A program and its arguments."""

    prefix: str
    function: Callable[..., Any]
    operator: Any
    vectors: Any
    solver: Any

    def time(self, enter: Callable[[str], None]) -> tuple[Any, dict[str, float]]:
        """The result with the numbers of the file, and seconds: to compile, first, later ones."""
        key = self.prefix.replace(" ", "_")
        enter(f"{self.prefix}compilation")
        start = time.perf_counter()
        arguments = self.operator, self.vectors, self.solver
        program = eqx.filter_jit(self.function).lower(*arguments).compile()
        compiled = time.perf_counter() - start
        enter(f"{self.prefix}first solve")
        first, out = self._call(program, 0)
        enter(f"{self.prefix}later solves")
        later: list[float] = []
        while len(later) < _FEWEST_CALLS or (len(later) < _MOST_CALLS and sum(later) < _SECONDS):
            later.append(self._call(program, 1 + len(later))[0])
            if later[0] > _SECONDS:
                break
        low, middle, high = np.percentile(later, [25, 50, 75])
        times = {"compile": compiled, "first": first, "later": float(middle)}
        if not key:
            times["spread"] = float((high - low) / middle)
        return out, {f"{key}{name}": value for name, value in times.items()}

    def _call(self, program: Any, k: int) -> tuple[float, Any]:
        """Seconds for one call with the k-th set of values. (Nobody knows its factor.)"""
        operator = jax.tree.map(lambda leaf: leaf * (1 + 1e-6 * k), self.operator)
        jax.block_until_ready(jax.tree.leaves(operator))
        start = time.perf_counter()
        out = jax.block_until_ready(program(operator, self.vectors, self.solver))
        return time.perf_counter() - start, out


if __name__ == "__main__":
    main()
