"""A program whose equations are evaluated where their results are asked for.

Kernels cost time and compilation, and much of a verdict matters only once a solve has failed. What is
asked for inside of a conditional is computed inside of it: XLA does not move it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex

from .._second_look import second_look_p
from .._varying import vary_like, varying_axes
from ..operators.program import evaluate
from ..results import SUCCESSFUL


class Doubt(NamedTuple):
    """That a solve may have failed: who takes the second look on the host, and at what."""

    raised: Any
    arrays: list[Any]
    look: Callable[..., Any]


class Stages:
    """The results of a jaxpr, by need; they are called by their numbers."""

    def __init__(self, jaxpr: Any, operands: Sequence[Any]):
        self._jaxpr = jaxpr.jaxpr
        self._known = dict(zip(self._jaxpr.constvars, jaxpr.consts))
        self._known |= dict(zip(self._jaxpr.invars, operands))

    def get(self, numbers: Any) -> Any:
        """A pytree of results, given that of their numbers. Nothing else is computed."""
        atoms = [self._jaxpr.outvars[i] for i in jax.tree.leaves(numbers)]
        self._evaluate(atoms)
        return jax.tree.unflatten(jax.tree.structure(numbers), map(self._read, atoms))

    def inside(self) -> Stages:
        """The same, for code that is traced inside of a conditional: what it computes stays there.

        A few numbers that were made of a few others are made again, and not handed over.
        """
        copy = object.__new__(Stages)
        small = [out for eqn in self._jaxpr.eqns if _is_small(eqn) for out in eqn.outvars]
        copy._jaxpr, copy._known = self._jaxpr, dict(self._known)
        for variable in small:
            copy._known.pop(variable, None)
        return copy

    def first_look(self, failed: Any, claim: Any) -> tuple[Any, Doubt] | None:
        """`failed` as it is if the result code `claim` is success, and what doubts that.

        None if it is not a second look that decides on the claim. (Both are numbers of results.)
        """
        atom = self._jaxpr.outvars[claim]
        looks = [e for e in self._jaxpr.eqns if e.primitive is second_look_p and atom in e.outvars]
        if not looks:
            return None
        (look,) = looks
        after = {atom}  # what depends on the claim
        for eqn in self._jaxpr.eqns:
            if any(x in after for x in eqn.invars if not isinstance(x, jex.Literal)):
                after.update(eqn.outvars)
        wanted = self._jaxpr.outvars[failed]
        needed = self._needed([wanted])
        self._evaluate([x for x in needed if x not in after] + look.invars)
        raised, *arrays = map(self._read, look.invars)
        success = vary_like(np.int32(SUCCESSFUL), varying_axes((raised, arrays)))
        copy = object.__new__(Stages)
        copy._jaxpr = self._jaxpr
        copy._known = self._known | {atom: success}
        return copy.get(failed), Doubt(raised, arrays, look.params["look"].on_host)

    def _read(self, atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else self._known[atom]

    def _missing(self, atoms: Sequence[Any]) -> set[Any]:
        variables = (atom for atom in atoms if not isinstance(atom, jex.Literal))
        return {variable for variable in variables if variable not in self._known}

    def _needed(self, atoms: Sequence[Any]) -> set[Any]:
        """The variables that the given ones are made from, as far as they are not known."""
        needed = self._missing(atoms)
        for eqn in reversed(self._jaxpr.eqns):
            if not needed.isdisjoint(eqn.outvars):
                needed |= self._missing(eqn.invars)
        return needed

    def _evaluate(self, atoms: Sequence[Any]) -> None:
        """Evaluate the equations that the given variables need; those with effects always."""
        needed, equations = self._missing(atoms), []
        for eqn in reversed(self._jaxpr.eqns):
            again = any(variable in self._known for variable in eqn.outvars)
            if not again and (eqn.effects or not needed.isdisjoint(eqn.outvars)):
                equations.append(eqn)
                needed |= self._missing(eqn.invars)
        for eqn in reversed(equations):
            self._known.update(zip(eqn.outvars, evaluate(eqn, [self._read(x) for x in eqn.invars])))


def _is_small(eqn: Any) -> bool:
    variables = (*eqn.invars, *eqn.outvars)
    return not eqn.effects and all(math.prod(v.aval.shape) <= 4 for v in variables)
