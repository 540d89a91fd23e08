"""`outcome_p`: how an iteration that is no linear solve (Newton's, a minimiser's) tells of its end.

It is the identity on what such an iteration returns. Where it is evaluated, the tapes that are open
are told, and a failure is raised: eagerly by its own class, in a compiled program by a callback that
the lowering adds, after all `vmap`s, so that a batch is one record and one exception. Tangents pass
it by.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .._recording import tapes_of, told_when_run
from .._static import Skeleton, split
from .._varying import vary_together
from ..results import RESULTS, Solution
from .failure import Failure, Inputs, raise_if_failed, raise_inside
from .judge import Verdict
from .run import _stat, unwrap_stats
from .told import tell_when_run, telling


@dataclasses.dataclass(frozen=True)
class Ending:
    """Everything about the end of an iteration that is not an array."""

    skeleton: Skeleton  # of (value, result, stats)
    throw: frozenset[int]
    what: Failure
    record: bool = False

    def solution(self, arrays: Any) -> Solution:
        value, result, stats = self.skeleton.fill(list(arrays))
        return Solution(value, result, unwrap_stats(stats), None)

    def __repr__(self) -> str:
        return f"<end of {self.what.solver}>"


class _Outcome(Primitive):
    def bind_with_trace(self, trace: Any, args: Any, *rest: Any) -> Any:
        told = tapes_of(trace)
        if not told:
            return super().bind_with_trace(trace, args, *rest)
        ending = rest[-1]["ending"]
        with telling(told, lambda: ending.what) as tell:
            flat = super().bind_with_trace(trace, args, *rest)
            tell(ending.solution(flat))
        return flat


outcome_p = _Outcome("outcome")
outcome_p.multiple_results = True


def deliver(
    value: Any, result: RESULTS, stats: dict[str, Any], throw: frozenset[int], what: Failure
) -> tuple[Any, RESULTS, dict[str, Any]]:
    """The same three, such that whoever uses the value learns of a failure."""
    stats = jax.tree.map(_stat, stats)
    arrays, skeleton = split((value, result, stats))
    ending = Ending(skeleton, throw, what, told_when_run())
    flat = outcome_p.bind(*vary_together(*arrays), ending=ending)
    value, result, stats = skeleton.fill(flat)
    return value, result, unwrap_stats(stats)


@outcome_p.def_impl
def _impl(*arrays: Any, ending: Ending) -> list[Any]:
    if ending.throw:
        raise_if_failed(ending.solution(arrays), ending.throw, lambda: ending.what)
    return list(arrays)


@outcome_p.def_abstract_eval
def _abstract_eval(*avals: Any, ending: Ending) -> list[Any]:
    return list(avals)


def _batched(arrays: Any, dims: Any, *, ending: Ending) -> tuple[list[Any], list[int]]:
    size = next(x.shape[d] for x, d in zip(arrays, dims) if d is not None)
    moved = [batching.bdim_at_front(x, d, size) for x, d in zip(arrays, dims)]
    return outcome_p.bind(*moved, ending=ending), [0] * len(moved)


batching.primitive_batchers[outcome_p] = _batched


def _derivative(primals: Any, tangents: Any, *, ending: Ending) -> tuple[list[Any], list[Any]]:
    return outcome_p.bind(*primals, ending=ending), list(tangents)


ad.primitive_jvps[outcome_p] = _derivative


def _lowered(*arrays: Any, ending: Ending) -> list[Any]:
    value, result, stats = ending.skeleton.fill(list(arrays))
    if ending.record:
        value, result, stats = tell_when_run(value, result, stats, ending.what)
    if ending.throw:
        (code,) = jax.tree.leaves(result)
        steps = stats.get("num_steps", jnp.zeros_like(code))
        failed = jnp.isin(code, jnp.array(sorted(ending.throw), jnp.int32))
        verdict = Verdict(failed, code, steps, stats.get("relative_residual"), None)
        value = raise_inside(value, failed, lambda: verdict, Inputs([], []), ending.what)
    return jax.tree.leaves((value, result, stats))


mlir.register_lowering(outcome_p, mlir.lower_fun(_lowered, multiple_results=True))
