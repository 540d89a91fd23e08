"""A program whose equations are evaluated where their results are asked for.

Kernels cost time and compilation, and much of a verdict matters only once a solve has failed. What is
asked for inside of a conditional is computed inside of it: XLA does not move it there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex

from .._second_look import Look, parts, second_look_p
from .._varying import vary_like, varying_axes
from ..operators.program import evaluate
from ..results import SUCCESSFUL


class Looks(NamedTuple):
    """An equation that looks twice."""

    eqn: Any

    @property
    def look(self) -> Look:
        return self.eqn.params["look"]


class Stages:
    """The results of a jaxpr, by need; they are called by their numbers."""

    def __init__(self, jaxpr: Any, operands: Sequence[Any]):
        self._jaxpr = jaxpr.jaxpr
        self._known = dict(zip(self._jaxpr.constvars, jaxpr.consts))
        self._known |= dict(zip(self._jaxpr.invars, operands))

    def get(self, numbers: Any) -> Any:
        """A pytree of results, given that of their numbers. Nothing else is computed."""
        atoms = [self._jaxpr.outvars[i] for i in jax.tree.leaves(numbers)]
        return jax.tree.unflatten(jax.tree.structure(numbers), self._values(atoms))

    def inside(self) -> Stages:
        """The same, for code that is traced inside of a conditional: what it computes stays there.

        A few numbers that were made of a few others are made again, and not handed over.
        """
        copy = self.copy()
        small = [out for eqn in self._jaxpr.eqns if _is_small(eqn) for out in eqn.outvars]
        for variable in small:
            copy._known.pop(variable, None)
        return copy

    def looks(self, number: int) -> list[Looks]:
        """The second looks that a result depends on."""
        needed = self._needed([self._jaxpr.outvars[number]])
        eqns = (e for e in self._jaxpr.eqns if e.primitive is second_look_p)
        return [Looks(e) for e in eqns if not needed.isdisjoint(e.outvars)]

    def terms(self, looks: Looks) -> list[Any]:
        """The terms of a first look."""
        return self._values(parts(looks.eqn.invars, looks.look)[0])

    def arrays(self, looks: Looks) -> list[Any]:
        """What a second look is at."""
        return self._values(parts(looks.eqn.invars, looks.look)[1])

    def _values(self, atoms: Sequence[Any]) -> list[Any]:
        self._evaluate(atoms)
        return list(map(self._read, atoms))

    def copy(self) -> Stages:
        """The same: what it comes to know stays with it."""
        copy = object.__new__(Stages)
        copy._jaxpr, copy._known = self._jaxpr, dict(self._known)
        return copy

    def seen(self, looks: Sequence[Looks]) -> Stages:
        """The same, with those second looks taken on the device, whatever the first ones told."""
        copy = self.copy()
        for each in looks:
            copy._known[each.eqn.outvars[0]] = each.look.on_device(*self.arrays(each))
        return copy

    def assuming(self, looks: Sequence[Looks]) -> Stages:
        """The same, as if those second looks told of success."""
        copy = self.copy()
        for each in looks:
            (out,) = each.eqn.outvars
            success = np.full(out.aval.shape, SUCCESSFUL, np.int32)
            copy._known[out] = vary_like(success, varying_axes(self.arrays(each)))
        return copy

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
