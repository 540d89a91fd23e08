"""Is a primitive affine in some of its operands? Its own derivative tells.

f is affine if its tangent does not depend on the primal. (One whose tangent is zero throughout,
such as rounding, is not: it is constant on pieces.)
"""

from __future__ import annotations

from typing import Any

import jax
from jax.extend import core as jex

from .._types import is_inexact
from .program import evaluate


def affine_by_derivative(eqn: Any, varying: list[int]) -> list[bool]:
    """For each output of an equation, whether it is affine in the operands numbered `varying`."""
    structures = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in eqn.invars]
    chosen = [structures[i] for i in varying]
    exact = [not is_inexact(var.aval) for var in eqn.outvars]
    nothing = [False] * len(exact)
    if all(exact) or not all(map(is_inexact, chosen)):
        return nothing

    def tangent(operands: list[Any], primals: list[Any], tangents: list[Any]) -> list[Any]:
        def f(*primals: Any) -> list[Any]:
            full = list(operands)
            for i, x in zip(varying, primals):
                full[i] = x
            return [y for y, skip in zip(evaluate(eqn, full), exact) if not skip]

        return jax.jvp(f, primals, tangents)[1]

    try:
        jaxpr = jax.make_jaxpr(tangent)(structures, chosen, chosen).jaxpr
    except Exception:  # it has no derivative: nothing is known, so it is not known to be affine
        return nothing
    first, n = len(structures), len(varying)
    on_primal = _reached(jaxpr, range(first, first + n))
    on_tangent = _reached(jaxpr, range(first + n, first + 2 * n))
    verdicts = iter(moves and not bends for bends, moves in zip(on_primal, on_tangent))
    return [False if skip else next(verdicts) for skip in exact]


def _reached(jaxpr: Any, inputs: range) -> list[bool]:
    """Which outputs of a jaxpr depend on the inputs with the given numbers."""
    marked = {jaxpr.invars[i] for i in inputs}
    is_marked = lambda atom: not isinstance(atom, jex.Literal) and atom in marked
    for eqn in jaxpr.eqns:
        if any(map(is_marked, eqn.invars)):
            marked.update(eqn.outvars)
    return [is_marked(atom) for atom in jaxpr.outvars]
