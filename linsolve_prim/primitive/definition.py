"""`linear_solve_p` itself: how it is bound, evaluated, typed and lowered.

The rules stand in files of their own, and are registered in `register.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from .._compiled import compiled
from .._recording import tapes_of, told_when_run
from .._second_look import sums
from .._varying import vary_like, vary_together, varying_axes
from ..results import SUCCESSFUL, Solution
from .call import FORWARD, SolveCall
from .failure import EVERY_FAILURE, Failure, Inputs, SecondLook, raise_if_failed, raise_inside
from .groups import Finished, in_groups
from .margin import Margin, small_residual
from .run import Program, trace, unwrap_stats
from .stages import Stages
from .told import tell_when_run, telling


class _LinearSolve(Primitive):
    """The primitive, which tells the tapes that were opened in the trace that computes it.

    `bind_with_trace` is where every evaluation and staging passes, also those that JAX's own rules
    ask for. Without it, `bind` below would tell them of most solves.
    """

    def bind_with_trace(self, trace: Any, args: Any, *rest: Any) -> Any:
        told = tapes_of(trace)
        if not told:
            return super().bind_with_trace(trace, args, *rest)
        call, program = rest[-1]["call"], rest[-1]["program"]
        with telling(told, functools.partial(_describe, call, args)) as tell:
            flat = super().bind_with_trace(trace, args, *rest)
            value, result, stats = program.unflatten(flat)
            tell(Solution(value, result, unwrap_stats(stats), None))
        return flat


linear_solve_p = _LinearSolve("linear_solve")
"""The primitive itself: one equation `linear_solve[call, program]` in a jaxpr for each solve."""
linear_solve_p.multiple_results = True


def bind(
    call: SolveCall, operands: Sequence[Any], *, unwrap: bool = True, lane: Program | None = None
) -> tuple[Any, Any, dict[str, Any]]:
    """`(value, result, stats)` of a solve, as one equation of the program being traced.

    `lane` is the program that the outermost `vmap` maps, if there is one.
    """
    # Under `shard_map`, operands that vary over different mesh axes are first brought to vary over
    # the same ones: the transpose of that cast is the `psum` that cotangents of replicated
    # operands need.
    operands = vary_together(*(_strong(x) for x in operands))
    program = trace(call, operands, lane)
    record = told_when_run()
    if record != call.record:
        call = dataclasses.replace(call, record=record)
    flat = linear_solve_p.bind(*operands, call=call, program=program)
    value, result, stats = program.unflatten(flat)
    return value, result, unwrap_stats(stats) if unwrap else stats


def _strong(x: Any) -> Any:
    """Without weak type, which would make a program of its own."""
    return jax.lax.convert_element_type(x, x.dtype) if jax.typeof(x).weak_type else x


def _describe(call: SolveCall, operands: Sequence[Any]) -> Failure:
    """What a message about this solve says."""
    solver = repr(call.problem(operands).solver)
    return Failure(solver, call.kind, call.name)


@functools.partial(compiled, static_argnums=(0, 1))
def _run_eagerly(call: SolveCall, program: Program, *operands: Any) -> Any:
    return program.unflatten(linear_solve_p.bind(*operands, call=call, program=program))


@linear_solve_p.def_impl
def _impl(*operands: Any, call: SolveCall, program: Program) -> list[Any]:
    """Eager evaluation: compiled without a callback; a failure is raised here, by its own class."""
    value, result, stats = _run_eagerly(call.essence(), program, *operands)
    if call.throw:
        solution = Solution(value, result, unwrap_stats(stats), call.problem(operands).state)
        raise_if_failed(solution, call.throw, functools.partial(_describe, call, operands))
    return jax.tree.leaves((value, result, stats))


@linear_solve_p.def_abstract_eval
def _abstract_eval(*avals: Any, call: SolveCall, program: Program) -> list[Any]:
    # A fresh aval would forget over which mesh axes the solution varies, and gradients under
    # `shard_map` would silently lack a `psum`: every output varies as the operands do.
    varying = avals[-1].manual_axis_type
    return [aval.update(weak_type=False, manual_axis_type=varying) for aval in program.out_avals()]


def _inputs(call: SolveCall, operands: Sequence[Any], vector: bool) -> Inputs:
    """What a failed solve looks at, to tell whether it was given NaN or infinity.

    Of derivatives not the operator: the solution could not have been finite without a finite one. (And
    the transposed operator would have to be written to memory for it.)
    """
    count, num_vector = len(operands), call.vector.num_arrays
    which = list(range(count - num_vector, count)) if vector else []
    if call.kind == FORWARD:
        which += range(call.operator.num_arrays)
    batched = [[level.batched[k] for level in call.levels] for k in which]
    return Inputs([operands[k] for k in which], batched)


def lowered(*operands: Any, call: SolveCall, program: Program, grouped: bool = False) -> list[Any]:
    """The compiled program of a solve; with `throw`, it ends in a conditional that raises.

    With `grouped`, lanes may be solved in groups.
    """
    in_stages, (value, result, stats, verdict) = program.in_stages(*operands)
    stages: Stages | Finished = in_stages
    if grouped:
        short = verdict._replace(margin=None) if call.throw else None
        asked = call.facts or call.record or call.throw not in (EVERY_FAILURE, frozenset())
        wanted = (value, short, (result, stats) if asked else None)
        finished = in_groups(call, program, operands, wanted)
        if finished is not None:
            stages, verdict = finished, short
    out: tuple[Any, ...] = (stages.get(value),)
    if call.record:
        facts = stages.get((result, stats))
        out = tell_when_run(out[0], facts[0], facts[1], _describe(call, operands))
    if call.throw:
        raising: Any = _raising_by_looks if _looks_do(call, verdict) else _raising
        out = (raising(call, operands, stages, out[0], result, verdict), *out[1:])
    if not call.record:
        out = (*out, stages.get((result, stats)) if call.facts else program.no_facts())
    return jax.tree.leaves(out)


def _raising(
    call: SolveCall,
    operands: Sequence[Any],
    stages: Stages | Finished,
    value: Any,
    result: Any,
    verdict: Any,
) -> Any:
    """`value`, such that using it raises if the verdict says so."""
    told = lambda: stages.inside().get(verdict._replace(failed=None, margin=None))
    if call.throw == EVERY_FAILURE:
        failed = stages.get(verdict.failed)
    else:
        (code,) = jax.tree.leaves(stages.get(result))  # which takes longer to find out
        failed = jnp.isin(code, jnp.array(sorted(call.throw), jnp.int32))
        without_claim = lambda: stages.inside().get(
            verdict._replace(failed=None, margin=None, claim=None)
        )
        told = lambda: without_claim()._replace(claim=code)
    inputs = _inputs(call, operands, vector=verdict.rhs_size is None)
    return raise_inside(value, failed, told, inputs, _describe(call, operands))


def _looks_do(call: SolveCall, verdict: Any) -> bool:
    """Whether nothing needs to be known but that there is no doubt of a success."""
    return call.throw == EVERY_FAILURE and not call.facts and verdict.margin is not None


def _raising_by_looks(
    call: SolveCall, operands: Sequence[Any], stages: Stages, value: Any, result: Any, verdict: Any
) -> Any:
    """The same, but the verdict is only asked for where first looks, at sums, leave doubt.

    Of one system the callback takes the second looks, so that no more is compiled; and may return. Of a
    batch, of which one system may often be in doubt, the device does.
    """
    looks = stages.looks(verdict.claim)
    product = stages.get(verdict.margin.product)
    arrays = [stages.arrays(each) for each in looks]
    first = stages.copy()  # the terms are handed over to no conditional, so that they are no arrays
    claim = first.assuming(looks).get(verdict.claim)
    terms = [[first.get(verdict.margin.term)], *(first.terms(each) for each in looks)]
    totals = iter(sums([*itertools.chain(*terms)]))
    tests = [Margin.clear, *(each.look.clear for each in looks)]
    clear = [test(*itertools.islice(totals, len(t))) for test, t in zip(tests, terms)]
    doubt = _any_false([claim == SUCCESSFUL, *clear])
    if call.levels:
        inner = stages.inside()
        examine = lambda value: _raising(call, operands, inner.seen(looks), value, result, verdict)
        value = vary_like(value, varying_axes((value, doubt)))
        return jax.lax.cond(doubt, examine, lambda value: value, value)
    unknown = verdict._replace(failed=None, margin=None, claim=None, rhs_size=None)
    told = lambda: stages.inside().get(unknown)._replace(claim=claim)
    inputs = _inputs(call, operands, vector=True)
    vector = call.groups(operands)[2]
    second = [SecondLook(small_residual, (jax.tree.leaves(product), vector))]
    second = [
        *(SecondLook(e.look.on_host, a, factors=True) for e, a in zip(looks, arrays)),
        *second,
    ]
    return raise_inside(value, doubt, told, inputs, _describe(call, operands), second)


def _any_false(flags: list[Any]) -> Any:
    """Whether any is, in any lane."""
    by_shape: dict[Any, list[Any]] = {}
    for flag in flags:
        by_shape.setdefault(flag.shape, []).append(flag)
    alike = (functools.reduce(jnp.logical_and, group) for group in by_shape.values())
    return functools.reduce(jnp.logical_or, [jnp.any(~x) for x in alike])
