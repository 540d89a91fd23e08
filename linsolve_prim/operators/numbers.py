"""Programs without the numbers that are written in them: `lambda x: 2.5 * x` as `c * x` with c = 2.5.

A Python number that a function closes over is a part of its jaxpr, so that each new one makes a new
program. As captured arrays, numbers change from call to call like any other coefficient.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.extend import core as jex

from .._types import is_inexact
from .closure import ClosedFunction, known_as_it_is
from .program import Program, called_jaxpr, evaluate_inlined


def numbers_captured(closed: ClosedFunction) -> ClosedFunction:
    """The same function, which captures its floating-point numbers other than zero. (They come first.)

    Those in loops, branches and functions with a derivative of their own stay where they are.
    """
    jaxpr = closed.program.jaxpr
    if any(map(_holds_number, filter(None, map(called_jaxpr, jaxpr.eqns)))):
        structures = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars]
        inlined = jax.make_jaxpr(lambda *args: evaluate_inlined(jaxpr, args))(*structures)
        closed = dataclasses.replace(
            closed,
            consts=[*map(known_as_it_is, inlined.consts), *closed.consts],
            program=Program(inlined),
        )
        jaxpr = closed.program.jaxpr
    numbers: list[Any] = []  # (each by itself: which of them are equal may change)
    variables: list[Any] = []

    def variable(atom: Any) -> Any:
        if not _is_number(atom):
            return atom
        numbers.append(known_as_it_is(atom.val, atom.aval.dtype))
        variables.append(jex.Var(atom.aval))
        return variables[-1]

    equations = [eqn.replace(invars=list(map(variable, eqn.invars))) for eqn in jaxpr.eqns]
    if not numbers:
        return closed
    jaxpr = jaxpr.replace(eqns=equations, invars=[*variables, *jaxpr.invars])
    program = Program(jex.ClosedJaxpr(jaxpr, ()))
    return dataclasses.replace(closed, consts=[*numbers, *closed.consts], program=program)


def _is_number(atom: Any) -> bool:
    return isinstance(atom, jex.Literal) and is_inexact(atom.aval) and bool(atom.val != 0)


def _holds_number(jaxpr: Any) -> bool:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    if any(_is_number(atom) for eqn in jaxpr.eqns for atom in eqn.invars):
        return True
    return any(map(_holds_number, filter(None, map(called_jaxpr, jaxpr.eqns))))
