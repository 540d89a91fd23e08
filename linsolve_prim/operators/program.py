"""`Program`: a jaxpr that compares by content, so that it can be a static argument.

Two jaxprs from two traces of the same code are different objects. Their content is equal if they
apply the same primitives with equal parameters to the same variables in the same order. What is
not provably equal is unequal: that costs a compilation, never a wrong result. (So are two traces of
a function with a `jax.custom_jvp` or `jax.custom_vjp` of its own, unless it is under a `jax.jit`,
which remembers its trace.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from .._static import hashable
from .._varying import vary_like, vary_together, varying_axes

_SMALL = 1 << 16  # bytes up to which constants inside of a program are compared by value


class Program:
    """A jaxpr without constants: a function of arrays, hashable by content.

    The arguments are the constants of the jaxpr it was made from, then its inputs.
    """

    __slots__ = ("__weakref__", "_hash", "_key", "jaxpr")

    def __init__(self, closed: Any):
        jaxpr = closed.jaxpr
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        self.jaxpr = jaxpr.replace(constvars=[], invars=inputs)
        self._key = _jaxpr_key(self.jaxpr)
        self._hash = hash(self._key)

    def __call__(self, *arrays: Any) -> list[Any]:
        if varying_axes(arrays):
            return evaluate_inlined(self.jaxpr, arrays)
        return jax.core.eval_jaxpr(self.jaxpr, (), *arrays)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Program):
            return NotImplemented
        return self._hash == other._hash and self._key == other._key

    def __repr__(self) -> str:
        return f"<program of {len(self.jaxpr.eqns)} equations>"


def _jaxpr_key(jaxpr: Any) -> tuple[Any, ...]:
    """Inputs, equations and outputs, with variables numbered as they appear."""
    numbers: dict[Any, int] = {}

    def binder(var: Any) -> tuple[Any, ...]:
        return numbers.setdefault(var, len(numbers)), var.aval

    def atom(x: Any) -> Any:
        if isinstance(x, jex.Literal):
            return _key(x.val), x.aval
        return numbers[x]

    inputs = tuple(map(binder, [*jaxpr.constvars, *jaxpr.invars]))
    equations = tuple(
        (
            eqn.primitive,
            tuple(map(atom, eqn.invars)),
            tuple(map(binder, eqn.outvars)),
            _key(dict(sorted(eqn.params.items()))),
            eqn.ctx,
        )
        for eqn in jaxpr.eqns
    )
    return inputs, equations, tuple(map(atom, jaxpr.outvars))


def _key(value: Any) -> Any:
    """The key of a parameter."""
    kind = type(value)
    if isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr)):
        consts = getattr(value, "consts", ())
        jaxpr = getattr(value, "jaxpr", value)
        return "jaxpr", _jaxpr_key(jaxpr), tuple(map(_key, consts))
    if isinstance(value, (tuple, list)):
        return kind, tuple(map(_key, value))
    if isinstance(value, dict):
        return kind, tuple((_key(k), _key(v)) for k, v in value.items())
    if isinstance(value, (bool, int, float, complex)):
        return kind, repr(value)  # 1 == 1.0 == True, 0.0 == -0.0 and nan != nan
    if _is_constant(value):
        array = np.asarray(value)
        return kind, array.shape, array.dtype, array.tobytes()
    return kind, hashable(value)


def _is_constant(value: Any) -> bool:
    """A small array that is no `jax.Array`, so that looking at it waits for nothing."""
    if isinstance(value, jax.Array) or not hasattr(value, "__array__"):
        return False
    array = np.asarray(value)
    return array.dtype != object and array.nbytes <= _SMALL


def primitive_names(jaxpr: Any) -> set[str]:
    """The names of all primitives in a jaxpr, and in the jaxprs inside of it."""
    names: set[str] = set()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        names.add(eqn.primitive.name)
        for inner in jex.jaxprs_in_params(eqn.params):
            names |= primitive_names(inner)
    return names


def called_jaxpr(eqn: Any) -> Any:
    """The jaxpr that an equation calls, if it is the call of a jitted function; else None."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def evaluate(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """One equation of a jaxpr, applied to operands (literals included)."""
    with eqn.ctx.manager:
        params = eqn.primitive.get_bind_params(eqn.params)
        out = eqn.primitive.bind(*operands, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def evaluate_inlined(jaxpr: Any, arrays: Sequence[Any]) -> list[Any]:
    """A jaxpr applied to arrays for its constants and inputs, with the calls in it inlined.

    The arrays may vary over more axes of a `jax.shard_map` than those it was traced for.
    """
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], arrays))
    read = lambda atom: atom.val if isinstance(atom, jex.Literal) else env[atom]
    for eqn in jaxpr.eqns:
        operands, inner = [read(atom) for atom in eqn.invars], called_jaxpr(eqn)
        if inner is not None:
            out = evaluate_inlined(inner.jaxpr, [*inner.consts, *operands])
        elif varying_axes(operands):
            out = _evaluate_varying(eqn, operands)
        else:
            out = evaluate(eqn, operands)
        env.update(zip(eqn.outvars, out))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate_varying(eqn: Any, operands: list[Any]) -> list[Any]:
    if eqn.primitive.name == "pvary":  # they may vary already
        return [vary_like(x, frozenset(eqn.params["axes"])) for x in operands]
    return evaluate(eqn, vary_together(*operands))
