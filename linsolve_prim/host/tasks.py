"""What the two callbacks do on the host: factorize, and solve with factors. NumPy only; never raises.

A `Task` is everything static about a factorization: the library (with its settings) and the pattern.
Its number, a dtype and a handle are the registry's key.

What a call costs beside the library's work is what a small solve costs [`benchmarks/sparse.py`, 50²]: so a
result is written where it is returned from, and nothing is tested twice.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..results import RESULT_NAMES, SUCCESSFUL
from ..sparse.pattern import SparsityPattern
from .handles import WORDS, handle_of
from .matrices import all_finite, all_true, residual_is_small
from .packing import unpack
from .registry import Failed, registry
from .threads import for_each

_CODES = {name: code for code, name in enumerate(RESULT_NAMES)}
_NO_HANDLE = bytes(4 * WORDS)


class Refused(Exception):
    """Raised by a library's wrapper to end in a certain result: `Refused("singular", "why")`.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> def factorize(A):
        ...     raise lp.host.Refused("singular", "not today")
        >>> solver = lp.HostSolver(factorize=factorize, solve=lambda factor, b, transpose: b)
        >>> solution = lp.linear_solve(lp.MatrixLinearOperator(jnp.eye(2)), jnp.ones(2), solver, throw=False)
        >>> bool(solution.result == lp.RESULTS.singular)
        True
    """

    def __init__(self, result: str, message: str):
        super().__init__(message)
        self.result = result


class Solved:
    """What a library may return from `solve` instead of the bare solution.

    - `x`: `(k, n)`; - `result`: the name of a `RESULTS` member, for each right-hand side or for all;
    - `steps`: iterations, likewise.

        >>> import numpy as np, linsolve_prim as lp
        >>> lp.host.Solved(np.zeros((1, 2)), "max_steps_reached", steps=10).result
        'max_steps_reached'
    """

    def __init__(self, x: np.ndarray, result: str | Sequence[str] = "successful", steps: Any = 0):
        self.x, self.result, self.steps = x, result, steps


class _Habits(NamedTuple):
    """What a library says of itself (`AbstractHostSolver`), asked once."""

    separates_analysis: bool
    keeps_values: bool
    runs_in_threads: bool
    fallback: Any
    stable: bool


@dataclasses.dataclass(frozen=True)
class Task:
    library: Any
    pattern: Any  # a SparsityPattern; while a program is traced, perhaps a RunTimePattern
    #: Stands for it in keys.
    number: int = dataclasses.field(default_factory=itertools.count().__next__, compare=False)

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.library, self.pattern))

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def is_empty(self) -> bool:
        """Without equations or without unknowns; few libraries know that."""
        return 0 in self.pattern.shape

    @functools.cached_property
    def habits(self) -> _Habits:
        library = self.library
        fallback = library.fallback()
        return _Habits(
            library.separates_analysis(),
            library.keeps_values,
            library.runs_in_threads(),
            fallback,
            fallback is None or library.stable,
        )

    def columns(self, transpose: bool) -> int:
        """The length of a solution."""
        return self.pattern.shape[0 if transpose else 1]

    def unpacked(self, values: np.ndarray) -> tuple[Task, np.ndarray]:
        """The task and the values of a matrix whose indices come with its values."""
        if isinstance(self.pattern, SparsityPattern):
            return self, values
        values, pattern = unpack(values, self.pattern)
        return task_of(self.library, pattern), values

    def __repr__(self) -> str:
        return f"<{self.library!r} on {self.pattern!r}>"


_one_task, _lock = functools.lru_cache(maxsize=4096)(Task), threading.Lock()


def task_of(library: Any, pattern: Any) -> Task:
    """One object for equal tasks: comparing them by content costs more than a small solve."""
    with _lock:  # or two threads get two
        return _one_task(library, pattern)


# ---- The callbacks -------------------------------------------------------------------------------


def factorize(values: np.ndarray, *, task: Task) -> tuple[np.ndarray]:
    """Handles `(B, 4)` of the matrices with values `(B, nnz)`; their factors are in the registry."""
    registry.count("callbacks")
    handles = np.empty((len(values), WORDS), np.uint32)

    def one(i: int) -> None:
        own, data = task.unpacked(values[i])
        handles[i] = handle_of(data)
        _factor(own, handles[i].tobytes(), data)

    for_each(one, len(values), task.habits.runs_in_threads)
    return (handles,)


def solve(
    values: np.ndarray, handles: np.ndarray, b: np.ndarray, *, task: Task, transpose: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`x (B, K, n)`, result codes `(B, K)` and steps `(B, K)`, for `b (B, K, n)`."""
    registry.count("callbacks")
    shape = (*b.shape[:2], task.columns(transpose))
    outs = [_Out(shape[1:], b.dtype) for _ in range(shape[0])]

    def one(i: int) -> None:
        own, data = task.unpacked(values[i])
        handle, factor = handles[i].tobytes(), None
        if handle != _NO_HANDLE:
            factor = registry.peek((own.number, data.dtype.char, handle))
        if factor is None:  # none yet, or evicted: the values are the truth
            factor = _factor(own, handle_of(data).tobytes(), data)
        _solve_one(own, factor, data, b[i], transpose, outs[i])

    for_each(one, len(values), task.habits.runs_in_threads)
    if len(outs) == 1:  # what a library returns is handed on
        (out,) = outs
        return out.x[None], out.codes[None], out.steps[None]
    parts = [(out.x, out.codes, out.steps) for out in outs]
    x, codes, steps = (np.stack(each) for each in zip(*parts))
    return x, codes, steps


def slogdet(
    values: np.ndarray, handles: np.ndarray, *, task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Signs (phases) and log |det|, `(B,)` each, of the matrices with values `(B, nnz)`."""
    registry.count("callbacks")
    signs = np.empty(len(values), values.dtype)
    logs = np.empty(len(values), np.finfo(values.dtype).dtype)

    def one(i: int) -> None:
        own, data = task.unpacked(values[i])
        signs[i], logs[i] = _slogdet_one(own, handles[i], data)

    for_each(one, len(values), task.habits.runs_in_threads)
    return signs, logs


def _slogdet_one(task: Task, handle: np.ndarray, values: np.ndarray) -> tuple[Any, Any]:
    """As the library says, or else another that shows its factors.

    One that asks nobody else and calls a matrix singular has met a pivot of zero.
    """
    if task.is_empty:
        return 1.0, 0.0
    library, other = task.library, task.library.determinant_fallback()
    if other is None or library.has_logdet():
        key = (handle if handle.any() else handle_of(values)).tobytes()
        factor = _factor(task, key, values)
        found = factor
        if not isinstance(factor, Failed):
            found = _guarded(library.logdet, factor)
        if not isinstance(found, Failed):
            return found
        if _is_nonfinite(found) or other is None:
            return (0.0, -np.inf) if found.result == "singular" else (np.nan, np.nan)
    return _slogdet_one(task_of(other, task.pattern), handle_of(values), values)


def _factor(task: Task, handle: bytes, values: np.ndarray) -> Any:
    if task.is_empty:  # there is nothing to ask a library for
        return None
    make = functools.partial(_make_factor, task, values)
    return registry.get((task.number, values.dtype.char, handle), make, task.library.nbytes)


def _make_factor(task: Task, values: np.ndarray) -> Any:
    if not all_finite(values):  # libraries call it singular, or return numbers
        return Failed("nonfinite_input", "the matrix holds NaN or infinity")
    if task.habits.keeps_values:  # JAX's buffers do not outlive the callback
        values = np.array(values)
    return _guarded(_ask_for_factor, task, values)


def _ask_for_factor(task: Task, values: np.ndarray) -> Any:
    library, pattern = task.library, task.pattern
    if not task.habits.separates_analysis:
        return library.factorize(pattern, values)
    key = ("analysis", task.number, values.dtype.char)
    analysis = registry.peek(key)
    if analysis is None:
        make = functools.partial(_guarded, library.analyze, pattern, values)
        size = functools.partial(library.analysis_nbytes, pattern)
        analysis = registry.get(key, make, size, "analyses")
    if isinstance(analysis, Failed):
        return analysis
    return library.factorize_with(analysis, pattern, values)


def _guarded(make: Callable[..., Any], *args: Any) -> Any:
    """The result of `make(*args)`, or why it failed."""
    try:
        out = make(*args)
    except Refused as error:
        out = Failed(error.result, str(error))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        singular = (
            "singular",
            "not positive",
            "definite",
            "deficient",
            "zero pivot",
            "zero diagonal",
        )
        known = any(word in text.lower() for word in singular) or isinstance(error, ArithmeticError)
        out = Failed("singular" if known else "host_failure", text)
    return registry.failed(out) if isinstance(out, Failed) else out


class _Out:
    """The results for one matrix: `x (K, n)`, which is never written to, `codes` and `steps` `(K,)`."""

    __slots__ = ("codes", "dtype", "shape", "steps", "x")

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype = shape, dtype
        self.codes, self.steps = np.empty(shape[0], np.int32), np.empty(shape[0], np.int32)

    def fill(self, x: float, code: int) -> None:
        """The same for every right-hand side."""
        self.x = np.full(self.shape, x, self.dtype)
        self.codes[...], self.steps[...] = code, 0


def _solve_one(
    task: Task, factor: Any, values: np.ndarray, b: np.ndarray, transpose: bool, out: _Out
) -> None:
    """For one matrix and `b (K, n)`, whatever happened to its factorization."""
    if all_finite(b):
        return _solve_finite(task, factor, values, b, transpose, out)
    bad = ~np.isfinite(b).all(axis=1)
    _solve_finite(task, factor, values, np.where(bad[:, None], 0, b), transpose, out)
    out.x = np.where(bad[:, None], out.dtype.type(np.nan), out.x)
    out.codes[bad] = _CODES["nonfinite_input"]
    return None


def _solve_finite(
    task: Task, factor: Any, values: np.ndarray, b: np.ndarray, transpose: bool, out: _Out
) -> None:
    _try(task, factor, b, transpose, out)
    fallback, stable = task.habits.fallback, task.habits.stable
    failed = np.count_nonzero(out.codes)  # success is 0
    if fallback is None or (stable and not failed):
        return
    suspect = out.codes != SUCCESSFUL
    if not stable and failed < len(suspect):
        good = residual_is_small(task.pattern, values, out.x, b, transpose)
        if not failed and all_true(good):
            return
        suspect |= ~good
    if suspect.any() and not _is_nonfinite(factor):
        registry.count("fallbacks")
        other = task_of(fallback, task.pattern)
        factor = _factor(other, handle_of(values).tobytes(), values)
        found = _Out((int(suspect.sum()), out.shape[1]), out.dtype)
        _try(other, factor, b[suspect], transpose, found)
        out.x = np.array(out.x)
        for name in ("x", "codes", "steps"):
            getattr(out, name)[suspect] = getattr(found, name)


def _is_nonfinite(factor: Any) -> bool:
    return isinstance(factor, Failed) and factor.result == "nonfinite_input"


def _try(task: Task, factor: Any, b: np.ndarray, transpose: bool, out: _Out) -> None:
    """What the library makes of it."""
    if task.is_empty:
        return out.fill(0, SUCCESSFUL)
    found = factor
    if not isinstance(factor, Failed):
        found = _guarded(_call_library, task.library, factor, b, transpose, out)
    if isinstance(found, Failed):
        out.fill(np.nan, _CODES[found.result])
    return None


def _call_library(library: Any, factor: Any, b: np.ndarray, transpose: bool, out: _Out) -> None:
    found = library.solve(factor, b, transpose=transpose)
    if isinstance(found, Solved):
        names = found.result
        one = isinstance(names, str)
        out.codes[...] = _CODES[names] if one else [_CODES[name] for name in names]
        out.steps[...], found = found.steps, found.x
    else:
        out.codes[...], out.steps[...] = SUCCESSFUL, 0
    x = np.asarray(found)
    if x.shape != out.shape:
        raise TypeError(f"{library!r}.solve returned shape {x.shape}, not {out.shape}")
    if x.dtype != b.dtype:
        if np.iscomplexobj(x) and not np.iscomplexobj(b):
            raise TypeError(
                f"{library!r}.solve returned {x.dtype} for a right-hand side of {b.dtype}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is a result like any other
            x = x.astype(b.dtype)
    out.x = x
    if not all_finite(x):
        lost = ~np.isfinite(x).all(axis=1)
        out.codes[lost & (out.codes == SUCCESSFUL)] = _CODES["singular"]
