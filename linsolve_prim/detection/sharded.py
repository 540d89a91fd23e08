"""`jax.shard_map`: its body is interpreted for all devices of the mesh side by side.

Each operation is followed device by device, on the parts of arrays that lie there; collectives combine
the devices of a group. One that has no rule here, or that is hidden in a loop or a branch, makes every
element on every device depend on whatever any of its operands does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex

from ..operators.dependence import called
from .constants import UNKNOWN, Constant, known, part
from .control import CALLS
from .interpret import RULES, Context, Value, Values, apply, everything
from .rows import Rows, numbers_of, stack

Lanes = list[Values]  # for each device, the values of some variables
Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The axes over which a body is split, and the place of each device on them."""

    sizes: dict[str, int]
    places: list[dict[str, int]]

    @classmethod
    def of(cls, params: dict[str, Any]) -> Mesh:
        shape, manual = params["mesh"].shape, params["newly_manual_axes"]
        sizes = {name: size for name, size in shape.items() if name in manual}
        places = [dict(zip(sizes, place)) for place in np.ndindex(*sizes.values())]
        return cls(sizes, places)

    def number(self, device: int, names: Iterable[str]) -> int:
        """Of a device along some axes together, of which the last one runs fastest."""
        out = 0
        for name in names:
            out = out * self.sizes[name] + self.places[device][name]
        return out

    def groups(self, names: Sequence[str]) -> list[list[int]]:
        """The devices that differ along these axes only, each group in the order of the axes."""
        others = [name for name in self.sizes if name not in names]
        found: dict[int, list[int]] = {}
        for device in range(len(self.places)):
            found.setdefault(self.number(device, others), []).append(device)
        return [sorted(group, key=lambda d: self.number(d, names)) for group in found.values()]

    def block(self, shape: tuple[int, ...], spec: Any, device: int) -> tuple[slice, ...]:
        """Which part of an array of this (global) shape lies on a device."""
        out = []
        for size, entry in zip(shape, [*spec, *[None] * len(shape)]):
            names = _names(entry)
            length = size // math.prod(self.sizes[name] for name in names)
            first = self.number(device, names) * length
            out.append(slice(first, first + length))
        return tuple(out)


def _names(entry: Any) -> list[str]:
    """Of axes, given by one name, several, or none."""
    if entry is None:
        return []
    return [entry] if isinstance(entry, str) else [*entry]


def _shard_map(eqn: Any, values: Values, context: Context) -> Values:
    mesh, body = Mesh.of(eqn.params), eqn.params["jaxpr"]

    def local(value: Value, var: Any, spec: Any, device: int) -> Value:
        shape = var.aval.shape
        block = mesh.block(shape, spec, device)
        if isinstance(value, Constant):
            return part(value, block)
        return value.take(numbers_of(shape)[block])

    arguments = list(zip(values, eqn.invars, eqn.params["in_specs"]))
    lanes = [[local(*argument, d) for argument in arguments] for d in range(len(mesh.places))]
    outs = _side_by_side(body, lanes, mesh, context)
    columns = zip(eqn.outvars, eqn.params["out_specs"], zip(*outs))
    return [_whole(list(column), var.aval.shape, spec, mesh) for var, spec, column in columns]


def _whole(parts: Values, shape: tuple[int, ...], spec: Any, mesh: Mesh) -> Value:
    """An array of its parts. (Of copies, which should be equal, there are no promises: any of them.)"""
    first = next((value for value in parts if isinstance(value, Rows)), None)
    if first is None:
        return UNKNOWN
    split = [name for entry in spec for name in _names(entry)]
    whole: Rows | None = None
    for group in mesh.groups(split):
        index = np.full(shape, -1, np.int32)
        rows, count = [], 0
        for device in group:
            value = parts[device]
            if not isinstance(value, Rows):
                continue
            block = index[mesh.block(shape, spec, device)]
            block[...] = count + numbers_of(block.shape)
            count += value.size
            rows.append(value)
        if rows:
            copy = stack(rows).take(index)
            whole = copy if whole is None else whole.union(copy)
    return whole if whole is not None else first


def _side_by_side(jaxpr: Any, lanes: Lanes, mesh: Mesh, context: Context) -> Lanes:
    """The values of a jaxpr's outputs on each device."""
    consts = getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    fixed = {var: known(const) for var, const in zip(jaxpr.constvars, consts)}
    envs = [{**fixed, **dict(zip(jaxpr.invars, values))} for values in lanes]
    read = lambda env, atom: known(atom.val) if isinstance(atom, jex.Literal) else env[atom]
    for eqn in jaxpr.eqns:
        operands = [[read(env, atom) for atom in eqn.invars] for env in envs]
        for env, out in zip(envs, _apply(eqn, operands, mesh, context)):
            env.update(zip(eqn.outvars, out))
    return [[read(env, atom) for atom in jaxpr.outvars] for env in envs]


def _apply(eqn: Any, lanes: Lanes, mesh: Mesh, context: Context) -> Lanes:
    name = eqn.primitive.name
    rule = _COLLECTIVES.get(name)
    if rule is not None and eqn.params.get("axis_index_groups") is None:
        return rule(eqn, lanes, mesh, context)
    if name in _LOCAL:
        return lanes
    if name in CALLS:  # (also of constants: their types name axes, which are not known outside)
        return _side_by_side(called(eqn), lanes, mesh, context)
    if not _communicates(eqn):
        return [apply(eqn, values, context) for values in lanes]
    together = [value for values in lanes for value in values if isinstance(value, Rows)]
    mixed = everything(eqn, together, context) if together else [UNKNOWN] * len(eqn.outvars)
    return [mixed] * len(lanes)


def _communicates(eqn: Any) -> bool:
    """Whether an equation, or one inside of it, names axes of a mesh."""
    named = [eqn.params.get("axes"), eqn.params.get("axis_name")]
    flat = [x for entry in named for x in (entry if isinstance(entry, (tuple, list)) else [entry])]
    if any(isinstance(x, str) for x in flat):
        return True
    inner = (getattr(j, "jaxpr", j) for j in jex.jaxprs_in_params(eqn.params))
    return any(_communicates(other) for jaxpr in inner for other in jaxpr.eqns)


# ---- Collectives ---------------------------------------------------------------------------------


def _axis_index(eqn: Any, lanes: Lanes, mesh: Mesh, context: Context) -> Lanes:
    number = lambda d: np.int32(mesh.number(d, _names(eqn.params["axis_name"])))
    return [[known(number(device))] for device in range(len(lanes))]


def _added(members: Values) -> Value:
    """The sum over a group."""
    rows: list[Rows] = [value for value in members if isinstance(value, Rows)]
    if not rows:
        return Constant(lambda *parts: sum(map(np.asarray, parts)), members)
    total: Rows = rows[0]
    for other in rows[1:]:
        total = total.union(other)
    return total


def _psum(eqn: Any, lanes: Lanes, mesh: Mesh, context: Context) -> Lanes:
    out: Lanes = [[] for _ in lanes]
    for group in mesh.groups(_names(eqn.params["axes"])):
        for i in range(len(eqn.invars)):
            total = _added([lanes[device][i] for device in group])
            for device in group:
                out[device].append(total)
    return out


def _exchange(moved: Callable[[dict[str, Any], Arrays], Arrays]) -> Any:
    """A collective that moves elements between the members of a group, as it moves their numbers."""

    def rule(eqn: Any, lanes: Lanes, mesh: Mesh, context: Context) -> Lanes:
        out: Lanes = [[] for _ in lanes]
        shape = eqn.invars[0].aval.shape
        for group in mesh.groups(_names(eqn.params["axis_name"])):
            members = [lanes[device][0] for device in group]
            for device, value in zip(group, _exchanged(eqn.params, moved, members, shape)):
                out[device].append(value)
        return out

    return rule


def _exchanged(params: Any, moved: Any, members: Values, shape: tuple[int, ...]) -> Values:
    rows = [value for value in members if isinstance(value, Rows)]
    if not rows:
        together = Constant(lambda *x: moved(params, list(map(np.asarray, x))), members)
        one = lambda k: Constant(lambda parts: parts[k], [together])
        return [one(k) for k in range(len(members))]
    # numbers begin with 1, so that 0 is what is constant, or what nobody sends
    numbers, count = [], 1
    for value in members:
        varies = isinstance(value, Rows)
        numbers.append(count + numbers_of(shape) if varies else np.zeros(shape, np.int32))
        count += math.prod(shape) if varies else 0
    stacked = stack(rows)
    return [stacked.take(index - 1) for index in moved(params, numbers)]


def _permuted(params: dict[str, Any], members: Arrays) -> Arrays:
    out = [np.zeros_like(member) for member in members]
    for source, target in params["perm"]:
        out[target] = members[source]
    return out


def _gathered(params: dict[str, Any], members: Arrays) -> Arrays:
    join = np.concatenate if params["tiled"] else np.stack
    return [join(members, params["all_gather_dimension"])] * len(members)


def _dealt(x: np.ndarray, axis: int, count: int, tiled: bool) -> Arrays:
    """What each of `count` members gets of an array."""
    parts = np.split(x, count, axis)
    return parts if tiled else [piece.squeeze(axis) for piece in parts]


def _all_to_all(params: dict[str, Any], members: Arrays) -> Arrays:
    join = np.concatenate if params["tiled"] else np.stack
    deal = lambda x: _dealt(x, params["split_axis"], len(members), params["tiled"])
    return [join(pieces, params["concat_axis"]) for pieces in zip(*map(deal, members))]


def _reduce_scatter(eqn: Any, lanes: Lanes, mesh: Mesh, context: Context) -> Lanes:
    out: Lanes = [[] for _ in lanes]
    params, shape = eqn.params, eqn.invars[0].aval.shape
    deal = lambda p, x: _dealt(x[0], p["scatter_dimension"], p["axis_size"], p["tiled"])
    for group in mesh.groups(_names(params["axis_name"])):
        total = _added([lanes[device][0] for device in group])
        if isinstance(total, Rows):
            pieces = [total.take(index) for index in deal(params, [numbers_of(shape)])]
        else:
            together = Constant(lambda x: deal(params, [np.asarray(x)]), [total])
            pieces = [part(together, k) for k in range(len(group))]
        for device, piece in zip(group, pieces):
            out[device].append(piece)
    return out


_COLLECTIVES: dict[str, Any] = {
    "axis_index": _axis_index,
    "psum": _psum,
    "psum2": _psum,
    "psum_invariant": _psum,
    "ppermute": _exchange(_permuted),
    "all_gather": _exchange(_gathered),
    "all_gather_invariant": _exchange(_gathered),
    "all_to_all": _exchange(_all_to_all),
    "reduce_scatter": _reduce_scatter,
}

#: These name axes, and do nothing to values.
_LOCAL = ("pvary", "pcast", "pbroadcast")

RULES["shard_map"] = _shard_map
