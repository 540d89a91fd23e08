"""The pattern of a function's matrix: found once for a program, and remembered.

A pattern depends on the program, and on what the values of captured arrays that are known (no
tracers) decided: where coefficients are zero, what indices and masks are (`decisions.py`). It is
found again where that has changed. Where a floating-point array decides otherwise from call to call,
it is no longer asked: then the pattern holds whatever its values.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.sparse as sp

from .._types import is_inexact
from ..operators.closure import ClosedFunction
from ..operators.program import Program
from ..sparse.pattern import SparsityPattern
from . import control, products, sharded  # noqa: F401  (their rules)
from .constants import UNKNOWN, Constant
from .decisions import Decisions, digest
from .interpret import Context, interpret
from .rows import GaveUp, Limits, Meter, Rows, stack

#: Programs whose patterns are remembered, patterns for each, and bytes of all indices.
_PROGRAMS, _PATTERNS, _BYTES = 256, 8, 1 << 29

#: A floating-point array that changed a decision so many times is not asked again.
_CHANGES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The pattern of a program's matrix, or the reason why there is none within the limits."""

    pattern: SparsityPattern | None
    reason: str = ""

    @property
    def nbytes(self) -> int:
        return 0 if self.pattern is None else 3 * self.pattern.indices.nbytes


@dataclasses.dataclass(eq=False)
class _Case:
    """What was found, for what decisions; and the last arrays for which they were these."""

    found: Found
    decisions: Decisions
    arrays: dict[int, bytes]  # digests, by the numbers of those that were asked

    @property
    def nbytes(self) -> int:
        return self.found.nbytes + self.decisions.nbytes


@dataclasses.dataclass
class _Remembered:
    """Of one program."""

    cases: list[_Case] = dataclasses.field(default_factory=list)
    changes: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)


_lock = threading.RLock()
_memory: collections.OrderedDict[Hashable, _Remembered] = collections.OrderedDict()
_counts: collections.Counter[str] = collections.Counter()


def stats() -> dict[str, int]:
    """Since the last `reset_stats()`:

    - `traces`: Python functions that were traced to become matrices;
    - `detections`: patterns that were found by interpreting a program;
    - `hits`: patterns that were remembered.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.detection.reset_stats()
        >>> f = lambda x: x - jnp.roll(x, 1)
        >>> A, offset = lp.materialise_sparse(f, jnp.zeros(5))
        >>> lp.detection.stats()["traces"], A.pattern.nnz
        (1, 10)
    """
    with _lock:
        return {name: _counts[name] for name in ("traces", "detections", "hits")}


def reset_stats() -> None:
    """Count from zero again. (What is remembered stays: see `clear`.)

    >>> import linsolve_prim as lp
    >>> lp.detection.reset_stats()
    >>> lp.detection.stats()["hits"]
    0
    """
    with _lock:
        _counts.clear()


def clear() -> None:
    """Forget all patterns.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.detection.clear(); lp.detection.reset_stats()
        >>> A, offset = lp.materialise_sparse(lambda x: 2 * x + 1, jnp.zeros(3))
        >>> lp.detection.stats()["detections"]
        1
    """
    with _lock:
        _memory.clear()


def count(name: str) -> None:
    with _lock:
        _counts[name] += 1


def detect(closed: ClosedFunction, limits: Limits) -> Found:
    """The pattern of the matrix of a function that is known to be affine.

    **Raises** `NonlinearFunctionError` for one that is linear over the real numbers only, if its
    unknowns are complex.
    """
    arrays = closed.consts
    is_known = tuple(map(_is_known, arrays))
    key = (closed.program, len(arrays), is_known, limits)
    with _lock:
        memory = _memory.setdefault(key, _Remembered())
        _memory.move_to_end(key)
        cases = memory.cases[::-1]
    digests = _Digests(arrays)
    found = _recall(memory, cases, digests)
    if found is not None:
        count("hits")
        return found
    count("detections")
    decisions = Decisions()
    roots = []
    for i, array in enumerate(arrays):
        asked = is_known[i] and memory.changes[i] < _CHANGES
        root = Constant(lambda: None, decisions=decisions) if asked else UNKNOWN
        if asked:
            decisions.begin(root, i, array)
        roots.append(root)
    found = _find(closed.program, roots, limits)
    case = _Case(found, decisions, {i: digests[i] for i in decisions.close()})
    with _lock:
        memory.cases.append(case)
        del memory.cases[:-_PATTERNS]
        _forget_old()
    return found


def _is_known(array: Any) -> bool:
    """Whether its numbers are here: not of a tracer, nor of an array on several processes."""
    return not isinstance(array, jax.core.Tracer) and getattr(array, "is_fully_addressable", True)


class _Digests(dict[int, bytes]):
    """Of the contents of arrays, as they are asked for."""

    def __init__(self, arrays: Sequence[Any]):
        self.arrays = arrays

    def __missing__(self, i: int) -> bytes:
        self[i] = digest(self.arrays[i])
        return self[i]


def _recall(memory: _Remembered, cases: list[_Case], digests: _Digests) -> Found | None:
    """What was found for these arrays, or for others that decided the same."""
    for case in cases:
        if all(digests[i] == seen for i, seen in case.arrays.items()):
            return case.found
    for case in cases:
        changed = case.decisions.changed(digests.arrays)
        if changed is None:
            case.arrays = {i: digests[i] for i in case.arrays}
            return case.found
        if case is cases[0]:
            with _lock:
                memory.changes.update(
                    i
                    for i in changed
                    if i in case.arrays
                    and is_inexact(digests.arrays[i])
                    and digests[i] != case.arrays[i]
                )
    return None


def _find(program: Program, roots: list[Constant], limits: Limits) -> Found:
    structures = [var.aval for var in program.jaxpr.invars[len(roots) :]]
    sizes = [int(np.prod(s.shape, dtype=np.int64)) for s in structures]
    total = sum(sizes)
    is_complex = np.repeat([np.issubdtype(s.dtype, np.complexfloating) for s in structures], sizes)
    meter = Meter(limits)
    context = Context(total, meter, is_complex if is_complex.any() else None)
    try:
        firsts = np.cumsum([0, *sizes])
        unknowns = [Rows.unknowns(int(k), n, total, meter) for k, n in zip(firsts, sizes)]
        outs = interpret(program.jaxpr, [*roots, *unknowns], context)
        out_sizes = [int(np.prod(v.aval.shape, dtype=np.int64)) for v in program.jaxpr.outvars]
        rows = [
            out if isinstance(out, Rows) else context.nothing(size)
            for out, size in zip(outs, out_sizes)
        ]
        matrix = stack(rows).matrix if rows else sp.csr_array((0, total), dtype=bool)
    except GaveUp as error:
        return Found(None, str(error))
    return Found(SparsityPattern.from_csr(matrix.indptr, matrix.indices, matrix.shape))


def _forget_old() -> None:
    def size() -> int:
        return sum(case.nbytes for m in _memory.values() for case in m.cases)

    while len(_memory) > _PROGRAMS or (len(_memory) > 1 and size() > _BYTES):
        _memory.popitem(last=False)
