"""The lanes of a `vmap` in groups, one group after the other: how a batch of iterations is run on CPU.

A step of an iterative method streams what its loop carries, of all lanes together. Where that leaves
the caches, and the state of one lane would have stayed, a batch takes several times as long as one
system after the other. So the lanes are divided into groups whose state stays in the cache, and a loop
runs over the groups. A lane does not see its neighbours, so nothing else changes: results and
statistics come in the same order, derivatives are taken of the solve as a whole, and what happens after
it (an exception that names the lanes, what a tape is told) happens once.

What no lane decides (a packed matrix, say) is computed before the loop, once. A batch that calls the
host stays one batch, for which that is one call; so does one that is spread over devices, and one whose axis
has a name, which lanes may ask for their neighbours by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from .._varying import vary_like, varying_axes
from ..operators.program import evaluate
from .call import Level, SolveCall

#: Bytes of state that a group of several lanes may have, and how many lanes are worth a group. Below
#: that a lane goes alone: what a group saves is the time in which kernels start, and what it costs is to
#: hold lanes still. [measured: benchmarks/krylov.py, `many`]
GROUP_BYTES = 3 << 17
_FEWEST = 4

_ON_THE_HOST = ("callback", "host_")


class Finished:
    """Results of a solve that are there, where `Stages` would compute them by need."""

    def __init__(self, numbers: Sequence[int], results: Sequence[Any]):
        self._results = dict(zip(numbers, results))

    def get(self, numbers: Any) -> Any:
        """A pytree of results, given that of their numbers."""
        return jax.tree.map(lambda number: self._results[number], numbers)

    def inside(self) -> Finished:
        return self


def group_size(lanes: int, lane_bytes: int, shared_bytes: int) -> int:
    """How many lanes are solved together: all of them, if their state is small.

    A group also streams what its lanes share, a dense matrix for example. So its own state is made no
    smaller than that: at most half of what is streamed could be saved by more lanes.
    """
    if lanes * lane_bytes <= GROUP_BYTES:
        return max(lanes, 1)
    most = GROUP_BYTES // lane_bytes
    most = max(most if most >= _FEWEST else 1, shared_bytes // lane_bytes)
    groups = -(-lanes // most)
    return -(-lanes // groups)


def in_groups(
    call: SolveCall, program: Any, operands: Sequence[Any], wanted: Any
) -> Finished | None:
    """The wanted results of a batched solve, group by group; `None` if it is better done at once.

    `wanted` is a pytree of their numbers.
    """
    if not call.levels or program.lane is None or any(map(_is_named, call.levels)):
        return None
    if _size(call.levels[-1], program, operands) >= call.levels[-1].size:
        return None
    kinds = _primitives(program.lane.jaxpr.jaxpr)
    if any(mark in name for name in kinds for mark in _ON_THE_HOST):
        return None
    numbers = jax.tree.leaves(wanted)
    return Finished(numbers, _run(call.levels, program, operands, numbers))


def _is_named(level: Level) -> bool:
    # (JAX's name for an axis without one is an `object()`.)
    named = level.axis_name is not None and type(level.axis_name) is not object
    return named or level.spmd_axis_name is not None


def on_one_device(axis_context: Any) -> bool:
    """Whether what is lowered runs on one device, or by itself on each (all of `shard_map`'s axes)."""
    mesh = getattr(axis_context, "mesh", None)
    if mesh is not None:
        return set(mesh.axis_names) == set(axis_context.manual_axes)
    return getattr(axis_context, "num_devices", None) == 1


def _size(level: Level, program: Any, operands: Sequence[Any]) -> int:
    state = _loop_bytes(program.lane.jaxpr.jaxpr)
    if state is None:  # no iteration
        return level.size
    own = sum(_nbytes(x) for x, batched in zip(operands, level.batched) if batched)
    shared = sum(_nbytes(x) for x, batched in zip(operands, level.batched) if not batched)
    return group_size(level.size, max(state + own // max(level.size, 1), 1), shared)


def _run(
    levels: tuple[Level, ...], program: Any, operands: Sequence[Any], numbers: list[int]
) -> list[Any]:
    """Results of a batched solve, with the lanes of its last level along their first axis."""
    level, lane = levels[-1], program.lane
    size = _size(level, program, operands)
    own = [x for x, batched in zip(operands, level.batched) if batched]
    if size == 1 and len(levels) > 1 and lane.lane is not None:

        def solve(*own: Any) -> list[Any]:
            given = iter(own)
            full = [next(given) if b else x for x, b in zip(operands, level.batched)]
            return _run(levels[:-1], lane, full, numbers)

    else:
        solve = _lane(lane.jaxpr, operands, level.batched, numbers)
    if size == level.size:
        return jax.vmap(solve, axis_size=size)(*own)
    out = [program.jaxpr.out_avals[number] for number in numbers]
    return _over_groups(solve, size, level.size, own, out)


def _over_groups(
    solve: Callable[..., list[Any]], size: int, lanes: int, own: Sequence[Any], out: Sequence[Any]
) -> list[Any]:
    """`vmap(solve)` for `size` lanes at a time. The last group goes over lanes again to be a full one."""
    axes = varying_axes(own)

    def group(i: Any, results: list[Any]) -> list[Any]:
        start = jnp.minimum(i * size, lanes - size)
        rows = [jax.lax.dynamic_slice_in_dim(x, start, size, 0) for x in own]
        # A single lane is a solve without a `vmap`, which needs to hold nothing still.
        new = jax.vmap(solve)(*rows) if size > 1 else solve(*(x[0] for x in rows))
        new = [
            jnp.asarray(x, like.dtype).reshape(size, *like.shape[1:]) for x, like in zip(new, out)
        ]
        put = lambda x, rows: jax.lax.dynamic_update_slice_in_dim(x, rows, start, 0)
        return vary_like(list(map(put, results, new)), axes)

    empty = vary_like([jnp.zeros(aval.shape, aval.dtype) for aval in out], axes)
    return jax.lax.fori_loop(0, -(-lanes // size), group, empty)


def _lane(
    closed: Any, operands: Sequence[Any], batched: Sequence[bool], numbers: Sequence[int]
) -> Callable[..., list[Any]]:
    """A lane's results as a function of its own operands; what is the same in all is computed here."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts))
    known |= {v: x for v, x, own in zip(jaxpr.invars, operands, batched) if not own}
    results = [jaxpr.outvars[number] for number in numbers]
    later = []
    for eqn in _needed(jaxpr, results):
        if not eqn.effects and all(isinstance(x, jex.Literal) or x in known for x in eqn.invars):
            known.update(_evaluated(eqn, known))
        else:
            later.append(eqn)
    variables = [v for v, own in zip(jaxpr.invars, batched) if own]

    def solve(*own: Any) -> list[Any]:
        values = {**known, **dict(zip(variables, own))}
        for eqn in later:
            values.update(_evaluated(eqn, values))
        return [_read(x, values) for x in results]

    return solve


def _needed(jaxpr: Any, results: Sequence[Any]) -> list[Any]:
    """The equations that results are made by, and those with effects."""
    variables = lambda atoms: {x for x in atoms if not isinstance(x, jex.Literal)}
    needed, equations = variables(results), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not needed.isdisjoint(eqn.outvars):
            equations.append(eqn)
            needed |= variables(eqn.invars)
    return equations[::-1]


def _read(atom: Any, values: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, jex.Literal) else values[atom]


def _evaluated(eqn: Any, values: dict[Any, Any]) -> Any:
    return zip(eqn.outvars, evaluate(eqn, [_read(x, values) for x in eqn.invars]))


# ---- What a program holds ------------------------------------------------------------------------


def _inner(eqn: Any) -> list[Any]:
    """The jaxprs inside of an equation, also those of a solve inside of a solve."""
    nested = [eqn.params["program"].jaxpr] if eqn.primitive.name == "linear_solve" else []
    jaxprs = [*jex.jaxprs_in_params(eqn.params), *nested]
    return [getattr(each, "jaxpr", each) for each in jaxprs]


def _primitives(jaxpr: Any) -> set[str]:
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    return names.union(*(_primitives(inner) for eqn in jaxpr.eqns for inner in _inner(eqn)))


def _loop_bytes(jaxpr: Any) -> int | None:
    """What the largest loop carries, with those inside of it; `None` if no loop has an open end."""
    largest = None
    for eqn in jaxpr.eqns:
        found = [_loop_bytes(inner) for inner in _inner(eqn)]
        inside = max((n for n in found if n is not None), default=None)
        if eqn.primitive.name == "while":
            carry = sum(_nbytes(x.aval) for x in eqn.outvars)
            inside = carry + (inside or 0)
        if inside is not None:
            largest = max(inside, largest or 0)
    return largest


def _nbytes(x: Any) -> int:
    aval = x if hasattr(x, "shape") else jax.typeof(x)
    return math.prod(aval.shape) * aval.dtype.itemsize
