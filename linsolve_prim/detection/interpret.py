"""The dependence of a jaxpr's variables on its unknowns, element by element.

An abstract interpretation, like `operators/dependence.py` (which has found by then that the program
is affine). The value of a variable is `Rows` if it varies with the unknowns, else a `Constant`.
Rules are looked up by a primitive's name. For one without a rule, each element of a result depends
on all that any operand depends on: too much, perhaps, but never too little.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from ..errors import NonlinearFunctionError
from ..operators.dependence import adds_up
from ..operators.program import evaluate
from . import sums
from .constants import UNKNOWN, Constant, ahead, known, outputs_of
from .moves import MOVES, dynamic_slice, dynamic_update_slice
from .rows import GaveUp, Meter, Rows, numbers_of, pairs, stack

Value = Rows | Constant
Values = list[Any]  # of Rows or Constant
Rule = Callable[[Any, Values, "Context"], Values]


@dataclasses.dataclass
class Context:
    """What an interpretation carries along."""

    unknowns: int
    meter: Meter
    complex_unknowns: np.ndarray | None = None  # (unknowns,), where some are complex

    def nothing(self, size: int) -> Rows:
        return Rows.nothing(size, self.unknowns, self.meter)


def interpret(jaxpr: Any, values: Sequence[Value], context: Context) -> Values:
    """The dependence of each output of a jaxpr (open or closed), given that of its inputs."""
    consts = getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    last = _last_uses(jaxpr)
    env: dict[Any, Value] = dict(zip(jaxpr.invars, values))
    env.update((var, known(const)) for var, const in zip(jaxpr.constvars, consts))

    def read(atom: Any) -> Value:
        return known(atom.val) if isinstance(atom, jex.Literal) else env[atom]

    for number, eqn in enumerate(jaxpr.eqns):
        env.update(zip(eqn.outvars, apply(eqn, [read(atom) for atom in eqn.invars], context)))
        for var in last.get(number, ()):
            del env[var]
    return [read(atom) for atom in jaxpr.outvars]


def _last_uses(jaxpr: Any) -> dict[int, list[Any]]:
    """The variables that no equation after the one with a given number reads, nor the result."""
    last: dict[Any, int] = {}
    for number, eqn in enumerate(jaxpr.eqns):
        atoms = [*eqn.invars, *eqn.outvars]
        last.update((atom, number) for atom in atoms if not isinstance(atom, jex.Literal))
    for atom in jaxpr.outvars:
        if not isinstance(atom, jex.Literal):
            last.pop(atom, None)
    out: dict[int, list[Any]] = {}
    for var, number in last.items():
        out.setdefault(number, []).append(var)
    return out


def apply(eqn: Any, values: Values, context: Context) -> Values:
    """The dependence of an equation's results."""
    if all(isinstance(value, Constant) for value in values):
        return outputs_of(eqn, values)
    context.meter.step()
    rule = RULES.get(eqn.primitive.name, everything)
    try:
        return rule(eqn, values, context)
    except GaveUp as error:
        error.primitive = error.primitive or eqn.primitive.name
        raise


def _varying(values: Values) -> list[int]:
    return [i for i, value in enumerate(values) if isinstance(value, Rows)]


# ---- Rules ---------------------------------------------------------------------------------------


def everything(eqn: Any, values: Values, context: Context) -> Values:
    """Each element of each result on whatever any operand depends on."""
    together = stack([value for value in values if isinstance(value, Rows)])
    groups = np.zeros(together.size, np.int32)
    sizes = [math.prod(var.aval.shape) for var in eqn.outvars]
    return [together.blocks(groups, np.zeros(size, np.int32)) for size in sizes]


def _same(eqn: Any, values: Values, context: Context) -> Values:
    """Element by element, result for operand."""
    return list(values)


def _real(eqn: Any, values: Values, context: Context) -> Values:
    """Where results are linear over the real numbers only: real unknowns, or no matrix."""
    (rows,) = values
    is_complex = context.complex_unknowns
    if is_complex is not None and is_complex[rows.matrix.indices].any():
        raise NonlinearFunctionError(
            f"fn: must be linear over the complex numbers to be a matrix, but the JAX primitive "
            f"`{eqn.primitive.name}` is applied to a value that depends on complex unknowns. Take "
            "real and imaginary parts as unknowns of their own."
        )
    return [rows]


def _convert(eqn: Any, values: Values, context: Context) -> Values:
    was, becomes = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    loses = jnp.issubdtype(was, jnp.complexfloating) > jnp.issubdtype(becomes, jnp.complexfloating)
    return (_real if loses else _same)(eqn, values, context)


def _broadcast(eqn: Any, values: Values, i: int) -> Rows:
    """Operand number i in the shape of the result. (Sizes of 1 are repeated.)"""
    shape, out = eqn.invars[i].aval.shape, eqn.outvars[0].aval.shape
    if shape == out:
        return values[i]
    return values[i].take(np.broadcast_to(numbers_of(shape), out))


def _sum(eqn: Any, values: Values, context: Context) -> Values:
    """Element by element, of all operands."""
    first, *others = [_broadcast(eqn, values, i) for i in _varying(values)]
    for other in others:
        first = first.union(other)
    return [first]


def _product(eqn: Any, values: Values, context: Context) -> Values:
    """A product with a constant, which is left out where that is known to be zero."""
    (out,) = _sum(eqn, values, context)
    for value in values:
        mask = value.nonzero() if isinstance(value, Constant) else None
        if mask is not None:
            out = out.keep(np.broadcast_to(mask, eqn.outvars[0].aval.shape))
    return [out]


def _quotient(eqn: Any, values: Values, context: Context) -> Values:
    return [_broadcast(eqn, values, 0)]


def _moved(
    eqn: Any,
    values: Values,
    context: Context,
    move: Callable[[list[np.ndarray]], Sequence[Any]],
    operands: Sequence[int],
) -> Values:
    """Of a primitive that only moves elements of some operands: it moves their numbers instead.

    Elements of operands that are constant have the number -1.
    """
    parts, indices, first = [], [], 0
    for i in operands:
        shape = eqn.invars[i].aval.shape
        if isinstance(values[i], Rows):
            parts.append(values[i])
            indices.append(numbers_of(shape, first))
            first += values[i].size
        else:
            indices.append(np.broadcast_to(np.int32(-1), shape))
    if not parts:  # only what says where things go varies
        return everything(eqn, values, context)
    together = stack(parts)
    return [together.take(np.asarray(index)) for index in move(indices)]


def _move(eqn: Any, values: Values, context: Context) -> Values:
    move = MOVES[eqn.primitive.name]
    operands = range(len(values))
    return _moved(eqn, values, context, lambda x: move(eqn.params, x), operands)


def _move_by_jax(eqn: Any, values: Values, context: Context) -> Values:
    """The same for what NumPy has no function for."""

    def move(indices: list[np.ndarray]) -> list[Any]:
        with ahead():
            return evaluate(eqn, [jnp.asarray(index) for index in indices])

    return _moved(eqn, values, context, move, range(len(values)))


def _select(eqn: Any, values: Values, context: Context) -> Values:
    which, *cases = values
    chosen = which.value() if isinstance(which, Constant) else None
    if chosen is None:
        return _sum(eqn, [UNKNOWN, *cases], context)
    chosen = np.broadcast_to(chosen, eqn.outvars[0].aval.shape).astype(np.intp)

    def move(indices: list[np.ndarray]) -> list[np.ndarray]:
        return [np.take_along_axis(np.stack(indices), chosen[None], 0)[0]]

    return _moved(eqn, values, context, move, range(1, len(values)))


def _starts(values: Values) -> list[int] | None:
    """Indices of a window, if all of them are known."""
    found = [value.value() if isinstance(value, Constant) else None for value in values]
    return None if any(x is None for x in found) else [int(x) for x in found]  # type: ignore[arg-type]


def _dynamic_slice(eqn: Any, values: Values, context: Context) -> Values:
    starts = _starts(values[1:])
    if starts is None:
        return everything(eqn, values, context)
    sizes = eqn.params["slice_sizes"]
    return _moved(eqn, values, context, lambda x: [dynamic_slice(x[0], starts, sizes)], [0])


def _dynamic_update_slice(eqn: Any, values: Values, context: Context) -> Values:
    starts = _starts(values[2:])
    if starts is not None:
        update = lambda x: [dynamic_update_slice(x[0], x[1], starts)]
        return _moved(eqn, values, context, update, [0, 1])
    size = math.prod(eqn.outvars[0].aval.shape)
    out = values[0] if isinstance(values[0], Rows) else context.nothing(size)
    if isinstance(values[1], Rows):  # it may go anywhere
        (anywhere,) = everything(eqn, values[1:2], context)
        out = out.union(anywhere)
    return [out]


def _gather(eqn: Any, values: Values, context: Context) -> Values:
    index = values[1].value() if isinstance(values[1], Constant) else None
    if index is None:
        return everything(eqn, values, context)
    params = eqn.params
    if params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:
        params = params | {"fill_value": -1}

    def move(indices: list[np.ndarray]) -> list[Any]:
        with ahead():
            return [eqn.primitive.bind(jnp.asarray(indices[0]), jnp.asarray(index), **params)]

    return _moved(eqn, values, context, move, [0])


def _scatter(eqn: Any, values: Values, context: Context) -> Values:
    """What was there (unless it is overwritten), and what comes to it."""
    operand, where, update = values
    index = where.value() if isinstance(where, Constant) else None
    size = math.prod(eqn.outvars[0].aval.shape)
    out = operand if isinstance(operand, Rows) else context.nothing(size)
    places = None if index is None else _places(eqn, index)
    if places is not None and eqn.primitive.name == "scatter":
        stays = np.ones(size, bool)
        stays[places[places >= 0]] = False
        out = out.keep(stays)
    if not isinstance(update, Rows):
        return [out]
    if places is None:
        (comes,) = everything(eqn, [update], context)
    else:
        inside = np.flatnonzero(places >= 0)
        comes = update.sums(pairs(places[inside], inside, (size, update.size)))
    return [out.union(comes)]


def _places(eqn: Any, index: np.ndarray) -> np.ndarray:
    """Where each element of the update goes: the gather that reads from there tells (-1: nowhere)."""
    shape, update_shape = eqn.invars[0].aval.shape, eqn.invars[2].aval.shape
    numbers = eqn.params["dimension_numbers"]
    single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = iter(update_shape[axis] for axis in numbers.update_window_dims)
    sizes = tuple(1 if axis in single else next(window) for axis in range(len(shape)))
    dimension_numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=numbers.update_window_dims,
        collapsed_slice_dims=numbers.inserted_window_dims,
        start_index_map=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        start_indices_batching_dims=numbers.scatter_indices_batching_dims,
    )
    with ahead():
        places = jax.lax.gather(
            jnp.asarray(numbers_of(shape)),
            jnp.asarray(index),
            dimension_numbers,
            sizes,
            mode=eqn.params["mode"],
            fill_value=-1,
        )
    return np.asarray(places).ravel()


def _reduce_sum(eqn: Any, values: Values, context: Context) -> Values:
    return [values[0].sums(sums.reduce_sum(eqn.invars[0].aval.shape, tuple(eqn.params["axes"])))]


def _cumsum(eqn: Any, values: Values, context: Context) -> Values:
    shape, (axis, reverse) = eqn.invars[0].aval.shape, map(eqn.params.get, ("axis", "reverse"))
    return [values[0].sums(sums.cumulative(shape, axis, reverse, context.meter))]


def _window_sum(eqn: Any, values: Values, context: Context) -> Values:
    shapes = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return [values[0].sums(sums.window_sum(eqn.params, *shapes))]


def _reduction(eqn: Any, values: Values, context: Context) -> Values:
    """With a function of the user's, which may be a sum."""
    if not (adds_up(eqn) and isinstance(values[1], Constant)):
        return everything(eqn, values, context)
    if "window_dimensions" in eqn.params:
        return _window_sum(eqn, values, context)
    shape, axes = eqn.invars[0].aval.shape, tuple(eqn.params["dimensions"])
    return [values[0].sums(sums.reduce_sum(shape, axes))]


def _power(eqn: Any, values: Values, context: Context) -> Values:
    return (_same if eqn.params["y"] == 1 else everything)(eqn, values, context)


def _contraction(terms: Callable[..., Any]) -> Rule:
    """A bilinear function with sums, one operand of which varies."""

    def rule(eqn: Any, values: Values, context: Context) -> Values:
        (i,) = _varying(values)
        shapes = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
        mask = values[1 - i].nonzero()
        out = eqn.outvars[0].aval.shape
        return [values[i].sums(terms(eqn.params, shapes, out, i, mask, context.meter))]

    return rule


def _lines(axes_of: Callable[[Any], Sequence[int]]) -> Rule:
    """Along some axes of the last operand (the same as of the result) everything is mixed."""

    def rule(eqn: Any, values: Values, context: Context) -> Values:
        rows, shape = values[-1], eqn.invars[-1].aval.shape
        axes = [axis % len(shape) for axis in axes_of(eqn)]
        line = lambda shape: [1 if axis in axes else n for axis, n in enumerate(shape)]
        number = lambda shape: np.broadcast_to(numbers_of(line(shape)), shape)
        return [rows.blocks(number(shape), number(eqn.outvars[0].aval.shape))]

    return rule


RULES: dict[str, Rule] = {
    "mul": _product,
    "div": _quotient,
    "convert_element_type": _convert,
    "select_n": _select,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "reduce_sum": _reduce_sum,
    "cumsum": _cumsum,
    "reduce_window_sum": _window_sum,
    "reduce": _reduction,
    "reduce_window": _reduction,
    "integer_pow": _power,
    "dot_general": _contraction(sums.dot_general),
    "conv_general_dilated": _contraction(sums.convolution),
    "fft": _lines(lambda eqn: range(-len(eqn.params["fft_lengths"]), 0)),
    "triangular_solve": _lines(lambda eqn: [-2 if eqn.params["left_side"] else -1]),
    "tridiagonal_solve": _lines(lambda eqn: [-2]),
}
RULES |= dict.fromkeys(("add", "sub", "add_any", "complex"), _sum)
RULES |= dict.fromkeys(("real", "imag", "conj"), _real)
RULES |= dict.fromkeys(
    (
        "neg", "copy", "copy_p", "reduce_precision", "stop_gradient", "optimization_barrier",
        "device_put", "pvary", "pcast", "mesh_cast", "reshard", "sharding_constraint",
    ),
    _same,
)  # fmt: skip
RULES |= dict.fromkeys(MOVES, _move)
RULES |= dict.fromkeys(("expand_dims", "tile", "stack", "unstack"), _move_by_jax)
RULES |= dict.fromkeys(("scatter", "scatter-add", "scatter-sub", "scatter-mul"), _scatter)
