"""Solves outside of any trace: one compiled program for each kind of call, found by a short key.

Of a small system the solve itself takes a few microseconds, so that each thing done here counts. [all
numbers measured: benchmarks/dense.py, 2-core CPU]
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._static import Skeleton, Static, split, take_apart
from ._types import sentinel
from .operators import MatrixLinearOperator
from .results import RESULTS, SUCCESSFUL, Solution

_STATE = 4  # where the state stands in a problem
_MANY = 4096  # kinds of calls, which is as many as `jax.jit` keeps programs of

#: (operator, vector, solver, options, state, adjoint)
Problem: TypeAlias = tuple[Any, Any, Any, Any, Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """The static half of a call. Equal calls share one object, so identity is equality."""

    skeleton: Skeleton
    name: str | None


@functools.lru_cache(maxsize=_MANY)
def _settings(treedef: Any, leaves: tuple[Any, ...], name: str | None) -> Settings:
    """One object for all equal calls: comparing it is much of what a call costs."""
    return Settings(Skeleton(treedef, leaves), name)


def settings_of(problem: Problem, name: str | None) -> tuple[Settings, list[Array]]:
    """The static half of a problem, and its arrays."""
    arrays, treedef, leaves = take_apart(problem)
    return _settings(treedef, leaves, name), arrays


# ---- the short way to the settings of the commonest call -----------------------------------------

_ATOMS = (bool, int, float, str, type(None), type(_settings.__wrapped__))
_known: dict[Any, Settings] = {}
_fields = object.__getattribute__  # that of operators takes 0.3 µs


def quick_settings(
    operator: Any, vector: Any, solver: Any, name: str | None
) -> tuple[Settings, tuple[Array, Array]] | None:
    """The same for a matrix, an array and a solver of plain numbers, whose trees take 3 µs to flatten.

    None for everything else, and if one of the two is traced.
    """
    if type(operator) is not MatrixLinearOperator or not isinstance(vector, jax.Array):
        return None
    fields = _fields(operator, "__dict__")
    try:
        own = tuple(_fields(solver, "__dict__").items())
        key = (type(solver), own, fields["tags"], fields["_is_view"], name)
        settings = _known.get(key)
    except (AttributeError, TypeError):  # something in the solver has no hash, or it is none
        return None
    arrays = fields["matrix"], vector
    for x in arrays:
        if isinstance(x, jax.core.Tracer):
            return None
    if settings is None:
        if not all(type(value) in _ATOMS for _, value in own):
            return None
        problem: Problem = (operator, vector, solver, {}, sentinel, None)
        settings, found = settings_of(problem, name)
        if len(found) != 2:  # the vector is not what it seems
            return None
        if len(_known) >= _MANY:
            _known.clear()
        _known[key] = settings
    return settings, arrays


# ---- the programs --------------------------------------------------------------------------------

# value, result, the arrays of (stats, state) as `_pack` packs them, and what is no array of these
_Output: TypeAlias = tuple[Any, Any, list[Array], Static]


class EagerSolves:
    """The compiled programs around `solve(*problem, throw=, name=)`, which checks its input.

    That runs once for each trace, so a repeated call costs no check. The programs hold no callback for
    failures: those are looked at in Python.
    """

    def __init__(self, solve: Callable[..., Solution]):
        self._solve = solve
        self.plain = jax.jit(self._plain, static_argnums=0)
        self.checked = jax.jit(self._checked, static_argnums=0)

    def _plain(self, settings: Settings, *arrays: Array) -> _Output:
        problem = settings.skeleton.fill(arrays)
        solution = self._solve(*problem, throw=frozenset(), name=settings.name)
        given = problem[_STATE] is not sentinel  # then the caller has it
        rest, skeleton = split((solution.stats, () if given else solution.state))
        packed, plan = _pack(rest)
        return solution.value, solution.result, packed, Static((plan, skeleton))

    def _checked(self, settings: Settings, *arrays: Array) -> tuple[Array, _Output]:
        """A solve, and whether it succeeded.

        On CPU, JAX runs a program that may call back on the thread that asks for it, and any other of
        this size on another one, which costs 25 µs when the result is looked at at once. Hence the
        callback that does nothing, and that only a failure calls.
        """
        value, result, rest, skeleton = self._plain(settings, *arrays)
        (code,) = jax.tree.leaves(result)
        ok = code == SUCCESSFUL
        if jax.default_backend() == "cpu":
            same = lambda: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), bool), ok)
            ok = jax.lax.cond(ok, lambda: ok, same)
        return ok, (value, None, rest, skeleton)  # the result is not needed: see `ok`


_SUCCESS = RESULTS.successful


def solution_of(output: _Output, state: Any) -> Solution:
    """The solution, with statistics and state as the solver made them once they are asked for."""
    value, result, packed, static = output
    rest = functools.partial(_rest, packed, static, state)
    return Solution.later(value, _SUCCESS if result is None else result, rest)


def _rest(packed: list[Array], static: Static, state: Any) -> tuple[dict[str, Any], Any]:
    plan, skeleton = static.value
    if any(isinstance(x, jax.core.Tracer) for x in packed):
        arrays = _unpack(plan, packed)
    else:
        with jax.ensure_compile_time_eval():  # somebody may be tracing by now
            arrays = _unpack(plan, packed)
    stats, made = skeleton.fill(arrays)
    return stats, made if state is sentinel else state


# ---- few arrays for many -------------------------------------------------------------------------

# for each array: where it is in the packed list, its place there (None: all of it), its dtype
_Plan: TypeAlias = tuple[tuple[int, int | None, Any], ...]


def _pack(arrays: list[Array]) -> tuple[list[Array], _Plan]:
    """All scalars of one kind as one array: each that a program returns costs 0.8 µs."""
    places: dict[Any, int] = {}  # of the groups
    packed: list[list[Array]] = []
    plan: list[tuple[int, int | None, Any]] = []
    for x in arrays:
        if jnp.ndim(x):
            plan.append((len(packed), None, x.dtype))
            packed.append([x])
            continue
        carrier = jnp.dtype(jnp.int32) if x.dtype == bool else x.dtype
        group = places.setdefault(carrier, len(packed))
        if group == len(packed):
            packed.append([])
        plan.append((group, len(packed[group]), x.dtype))
        packed[group].append(jax.lax.convert_element_type(x, carrier))
    return [jnp.stack(x) if jnp.ndim(x[0]) == 0 else x[0] for x in packed], tuple(plan)


@functools.partial(jax.jit, static_argnums=0)
def _unpack(plan: _Plan, packed: list[Array]) -> list[Array]:
    """The inverse of `_pack`."""
    return [
        packed[i] if place is None else packed[i][place].astype(dtype) for i, place, dtype in plan
    ]
