"""The pattern of a function's matrix: found once for a program, and remembered.

A pattern depends on the program, and on those captured arrays that are known (no tracers) and were
looked at: masks, indices, coefficients that may be zero. It is found again where these have changed.
Floating-point arrays that change from call to call are no longer looked at: then the pattern holds
whatever their values.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
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
from . import control, products  # noqa: F401  (their rules)
from .constants import UNKNOWN, Constant
from .interpret import Context, interpret
from .rows import GaveUp, Limits, Meter, Rows, stack

#: Programs whose patterns are remembered, patterns for each, and bytes of all indices.
_PROGRAMS, _PATTERNS, _BYTES = 256, 8, 1 << 29

#: A floating-point array that had so many values is not looked at again.
_VALUES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The pattern of a program's matrix, or the reason why there is none within the limits."""

    pattern: SparsityPattern | None
    reason: str = ""

    @property
    def nbytes(self) -> int:
        return 0 if self.pattern is None else 3 * self.pattern.indices.nbytes


@dataclasses.dataclass
class _Remembered:
    """Of one program: what was found, for which values of the arrays that were looked at."""

    found: list[tuple[dict[int, bytes], Found]] = dataclasses.field(default_factory=list)
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
        digests = _Digests(arrays)
        found = _recall(memory, digests)
        if found is not None:
            _counts["hits"] += 1
            return found
        _counts["detections"] += 1
        moving = {i for i, times in memory.changes.items() if times >= _VALUES}
    asked: set[int] = set()
    roots = [
        _root(x, i, asked) if known and i not in moving else UNKNOWN
        for i, (x, known) in enumerate(zip(arrays, is_known))
    ]
    found = _find(closed.program, roots, limits)
    with _lock:
        memory.found.append(({i: digests[i] for i in asked}, found))
        del memory.found[:-_PATTERNS]
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
        array = np.ascontiguousarray(self.arrays[i])
        self[i] = hashlib.blake2b(array.view(np.uint8).reshape(-1), digest_size=16).digest()
        return self[i]


def _recall(memory: _Remembered, digests: _Digests) -> Found | None:
    for seen, found in reversed(memory.found):
        if all(digests[i] == digest for i, digest in seen.items()):
            return found
    if memory.found:
        seen, _ = memory.found[-1]
        changed = (i for i, digest in seen.items() if digests[i] != digest)
        memory.changes.update(i for i in changed if is_inexact(digests.arrays[i]))
    return None


def _root(array: Any, number: int, asked: set[int]) -> Constant:
    def look() -> Any:
        asked.add(number)
        return array

    return Constant(look)


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
        return sum(f.nbytes for m in _memory.values() for _, f in m.found)

    while len(_memory) > _PROGRAMS or (len(_memory) > 1 and size() > _BYTES):
        _memory.popitem(last=False)
