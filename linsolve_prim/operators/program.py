"""`Program`: a jaxpr that compares by content, so that it can be a static argument.

Two jaxprs from two traces of the same code are different objects. Their content is equal if they
apply the same primitives with equal parameters to the same variables in the same order. What is not
provably equal is unequal: that costs a compilation, never a wrong result.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from .._static import hashable

_SMALL = 1 << 16  # bytes up to which constants inside of a program are compared by value


class Program:
    """A jaxpr without constants: a function of arrays, hashable by content.

    The arguments are the constants of the jaxpr it was made from, then its inputs.
    """

    __slots__ = ("__weakref__", "_hash", "_key", "jaxpr")

    def __init__(self, closed: Any):
        jaxpr = closed.jaxpr
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        self.jaxpr = jex.Jaxpr((), inputs, jaxpr.outvars, jaxpr.eqns, jaxpr.effects)
        self._key = _Keys().of_jaxpr(self.jaxpr)
        self._hash = hash(self._key)

    def __call__(self, *arrays: Any) -> list[Any]:
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


class _Keys:
    """Makes hashable keys that are equal only for what means the same."""

    def __init__(self) -> None:
        self.open: list[Any] = []  # the functions whose key is being made: they may refer to themselves

    def of_jaxpr(self, jaxpr: Any) -> tuple[Any, ...]:
        """Inputs, equations and outputs, with variables numbered as they appear."""
        numbers: dict[Any, int] = {}

        def binder(var: Any) -> tuple[Any, ...]:
            return numbers.setdefault(var, len(numbers)), var.aval

        def atom(x: Any) -> Any:
            if isinstance(x, jex.Literal):
                return self.of(x.val), x.aval
            return numbers[x]

        inputs = tuple(map(binder, [*jaxpr.constvars, *jaxpr.invars]))
        equations = tuple(
            (
                eqn.primitive,
                tuple(map(atom, eqn.invars)),
                tuple(map(binder, eqn.outvars)),
                self.of(dict(sorted(eqn.params.items()))),
                eqn.ctx,
            )
            for eqn in jaxpr.eqns
        )
        return inputs, equations, tuple(map(atom, jaxpr.outvars))

    def of(self, value: Any) -> Any:
        """The key of a parameter."""
        kind = type(value)
        if isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr)):
            consts = getattr(value, "consts", ())
            jaxpr = getattr(value, "jaxpr", value)
            return "jaxpr", self.of_jaxpr(jaxpr), tuple(map(self.of, consts))
        if isinstance(value, (tuple, list)):
            return kind, tuple(map(self.of, value))
        if isinstance(value, dict):
            return kind, tuple((self.of(k), self.of(v)) for k, v in value.items())
        if isinstance(value, (bool, int, float, complex)):
            return kind, repr(value)  # 1 == 1.0 == True, 0.0 == -0.0 and nan != nan
        if _is_constant(value):
            array = np.asarray(value)
            return kind, array.shape, array.dtype, array.tobytes()
        if isinstance(value, types.FunctionType):
            return self.of_function(value)
        if isinstance(value, functools.partial):
            return kind, self.of((value.func, value.args, value.keywords))
        if kind.__name__ == "WrappedFun":  # how the rules of custom derivatives are stored
            return kind, self.of((value.f, value.transforms, value.params, value.in_type))
        return kind, hashable(value)

    def of_function(self, fn: types.FunctionType) -> Any:
        """Functions are equal if their code, and all that it sees besides its arguments, are."""
        for depth, outer in enumerate(self.open):
            if fn is outer:
                return "recursion", depth
        self.open.append(fn)
        try:
            cells = [cell.cell_contents for cell in fn.__closure__ or ()]
            sees = (fn.__defaults__, fn.__kwdefaults__, cells)
            return fn.__code__, id(fn.__globals__), self.of(sees)
        except ValueError:  # a cell that is still empty
            return hashable(fn)
        finally:
            self.open.pop()


def _is_constant(value: Any) -> bool:
    """A small array that is no `jax.Array`, so that looking at it waits for nothing."""
    if isinstance(value, jax.Array) or not hasattr(value, "__array__"):
        return False
    array = np.asarray(value)
    return array.dtype != object and array.nbytes <= _SMALL
