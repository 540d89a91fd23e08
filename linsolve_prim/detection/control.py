"""Calls and control flow: loops are followed trip by trip while that is known and affordable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.extend import core as jex

from ..operators.dependence import called
from .constants import UNKNOWN, Constant, part
from .interpret import RULES, Context, Value, Values, interpret
from .rows import Rows, stack


def _call(eqn: Any, values: Values, context: Context) -> Values:
    return interpret(called(eqn), values, context)


def _cond(eqn: Any, values: Values, context: Context) -> Values:
    index, *operands = values
    branches = eqn.params["branches"]
    chosen = index.value() if isinstance(index, Constant) else None
    if chosen is not None:
        return interpret(branches[min(max(int(chosen), 0), len(branches) - 1)], operands, context)
    first, *others = [interpret(branch, operands, context) for branch in branches]
    for other in others:
        first = [join(a, b) for a, b in zip(first, other)]
    return first


def join(a: Value, b: Value) -> Value:
    """What may be either."""
    if isinstance(a, Rows):
        return a.union(b) if isinstance(b, Rows) else a
    if isinstance(b, Rows):
        return b
    return a if a is b else UNKNOWN


def _count(jaxpr: Any) -> int:
    """About how many equations are interpreted in one trip."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    inner = (j for eqn in jaxpr.eqns for j in jex.jaxprs_in_params(eqn.params))
    return len(jaxpr.eqns) + sum(map(_count, inner))


# ---- scan ----------------------------------------------------------------------------------------


def _scan(eqn: Any, values: Values, context: Context) -> Values:
    body = eqn.params["jaxpr"]
    jaxpr = getattr(body, "jaxpr", body)
    # what is scanned over has one axis more outside than inside; this tells the groups apart
    longer = lambda outer, inner: sum(x.aval.ndim > y.aval.ndim for x, y in zip(outer, inner))
    stop = len(values) - longer(eqn.invars, jaxpr.invars)
    carries = len(eqn.outvars) - longer(eqn.outvars, jaxpr.outvars)
    consts, carry, xs = values[: stop - carries], values[stop - carries : stop], values[stop:]
    length = eqn.params["length"]
    run = lambda carry, xs: interpret(body, [*consts, *carry, *xs], context)
    if not context.meter.can_take(length * _count(body)):
        return _scan_at_once(run, carry, xs, length)
    trips = range(length)[:: -1 if eqn.params["reverse"] else 1]
    ys: dict[int, Values] = {}
    for trip in trips:
        out = run(carry, [_slice(x, trip, length) for x in xs])
        carry, ys[trip] = out[:carries], out[carries:]
    sizes = [math.prod(var.aval.shape[1:]) for var in eqn.outvars[carries:]]
    columns = [[ys[trip][i] for trip in range(length)] for i in range(len(sizes))]
    return [*carry, *(_stacked(y, size, context) for y, size in zip(columns, sizes))]


def _slice(value: Value, trip: int, length: int) -> Value:
    if isinstance(value, Constant):
        return part(value, trip)
    size = value.size // length
    return Rows(value.matrix[trip * size : (trip + 1) * size], value.meter)


def _stacked(column: Values, size: int, context: Context) -> Value:
    """The results of all trips as one array."""
    if not column:
        return context.nothing(0)
    if any(isinstance(y, Rows) for y in column):
        return stack([y if isinstance(y, Rows) else context.nothing(size) for y in column])
    return Constant(lambda *ys: np.stack([np.asarray(y) for y in ys]), column)


def _scan_at_once(
    run: Callable[[Values, Values], Values], carry: Values, xs: Values, length: int
) -> Values:
    """All trips are taken for one: each sees what any sees."""
    any_trip = [_any_slice(x, length) for x in xs]
    carry = _settled(lambda carry: run(carry, any_trip)[: len(carry)], carry)
    ys = run(carry, any_trip)[len(carry) :]
    return [*carry, *(_repeated(y, length) for y in ys)]


def _any_slice(value: Value, length: int) -> Value:
    if isinstance(value, Constant) or length == 0:
        return UNKNOWN
    size = value.size // length
    number = np.arange(value.size, dtype=np.int32) % size
    return value.blocks(number, np.arange(size, dtype=np.int32))


def _repeated(value: Value, length: int) -> Value:
    if isinstance(value, Constant):
        return UNKNOWN
    return value.take(np.tile(np.arange(value.size, dtype=np.int32), length))


def _settled(body: Callable[[Values], Values], carry: Values) -> Values:
    """The least carry that a loop's body does not add to. It is found: patterns only grow."""
    carry = [value if isinstance(value, Rows) else UNKNOWN for value in carry]
    while True:
        after = [join(a, b) for a, b in zip(carry, body(carry))]
        if all(_count_of(a) == _count_of(b) for a, b in zip(carry, after)):
            return carry
        carry = after


def _count_of(value: Value) -> int:
    return value.nnz if isinstance(value, Rows) else -1


# ---- while ---------------------------------------------------------------------------------------


def _while(eqn: Any, values: Values, context: Context) -> Values:
    cond_end = eqn.params["cond_nconsts"]
    body_end = cond_end + eqn.params["body_nconsts"]
    cond_consts, body_consts, carry = (
        values[:cond_end],
        values[cond_end:body_end],
        values[body_end:],
    )
    body = lambda carry: interpret(eqn.params["body_jaxpr"], [*body_consts, *carry], context)
    cond = lambda carry: interpret(eqn.params["cond_jaxpr"], [*cond_consts, *carry], context)[0]
    trip = 1 + _count(eqn.params["body_jaxpr"])
    now = carry
    while context.meter.can_take(trip):
        goes_on = cond(now)
        decided = goes_on.value() if isinstance(goes_on, Constant) else None
        if decided is None:
            break
        if not decided:
            return now
        context.meter.step()
        now = body(now)
    return _settled(body, carry)


RULES |= {"cond": _cond, "scan": _scan, "while": _while}
#: Primitives that call one jaxpr, once.
CALLS = (
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2",
    "custom_jvp_call", "custom_vmap_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
)  # fmt: skip
RULES |= dict.fromkeys(CALLS, _call)
