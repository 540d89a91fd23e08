"""From result codes to exceptions: eagerly, or from inside a compiled program.

JAX has no way to raise from compiled code but an exception in a host callback, which arrives as
`jax.JaxRuntimeError` (or `ValueError`) with our class and message as text. So outside of
`jax.jit` we look at the result code ourselves and raise the class proper, with the solution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._varying import vary_like, varying_axes
from ..errors import (
    Diverged,
    HostLibraryError,
    IncompatibleRHS,
    LinearSolveError,
    NonFiniteInputError,
    NotConverged,
    SingularMatrixError,
    remember,
)
from ..host.direct import host_call
from ..results import RESULTS, SUCCESSFUL, Solution, result_of_code
from .judge import Verdict

_EXCEPTIONS: dict[str, type[LinearSolveError]] = {
    "max_steps_reached": NotConverged,
    "stagnation": NotConverged,
    "conlim": NotConverged,
    "inaccurate": NotConverged,
    "breakdown": Diverged,
    "diverged": Diverged,
    "singular": SingularMatrixError,
    "nonfinite_input": NonFiniteInputError,
    "host_failure": HostLibraryError,
    "incompatible": IncompatibleRHS,
}


def _code(result: Any) -> Any:
    (code,) = jax.tree.leaves(result)
    return code


# Codes are numbered in the order of the enumeration's members.
_BY_CODE = {int(_code(getattr(RESULTS, name))): name for name in _EXCEPTIONS}
_NONFINITE = int(_code(RESULTS.nonfinite_input))
_SINGULAR = int(_code(RESULTS.singular))
_INACCURATE = int(_code(RESULTS.inaccurate))
_PHASES = {
    "forward": "",
    "tangent": " for a tangent (jvp)",
    "adjoint": " for a cotangent (adjoint)",
}


class Failure(NamedTuple):
    """What a message says of the solve that failed."""

    solver: str
    kind: str
    name: str | None


class Inputs(NamedTuple):
    """The arrays of A and b, and for each which `vmap`s batch it (innermost first)."""

    arrays: list[Any]
    batched: list[list[bool]]


class SecondLook(NamedTuple):
    """What is asked on the host where there is doubt: a result code, or whether all is well.

    `factors`: of the matrices among the arrays it can do with the transpose.
    """

    ask: Callable[..., Any]
    arrays: Any
    factors: bool = False


def _finite(inputs: Inputs, lane: tuple[int, ...]) -> bool:
    """Whether the input of one lane (outermost `vmap` first) is finite."""
    for array, batched in zip(inputs.arrays, inputs.batched):
        index = tuple(i for i, flag in zip(lane, reversed(batched)) if flag)
        one = np.asarray(array)[index]
        if jnp.issubdtype(one.dtype, jnp.inexact) and not np.all(np.isfinite(one)):
            return False
    return True


def _exception(
    code: int, failed: np.ndarray, stats: dict[str, Any], what: Failure
) -> LinearSolveError:
    """The exception for the given code; `failed` says which lanes did."""
    member = _BY_CODE.get(code)
    cls = _EXCEPTIONS.get(member or "", LinearSolveError)
    shape, where = failed.shape, np.flatnonzero(failed)
    title = f" {what.name!r}" if what.name else ""
    text = (
        f"{cls.__name__}: the solve{title}{_PHASES[what.kind]} by {what.solver} failed ({member})."
    )
    if shape:
        lanes = [np.unravel_index(i, shape) for i in where[:8]]
        shown = ", ".join(str(tuple(int(j) for j in lane)) for lane in lanes)
        more = ", …" if where.size > 8 else ""
        text += f" Failed lanes: {shown}{more} ({where.size} of {failed.size})."
    facts = []
    for key in ("num_steps", "max_steps", "residual_norm", "relative_residual"):
        values = np.asarray(stats[key]) if key in stats else np.zeros(0)
        if values.shape == shape:
            facts.append(f"{key} = {values.ravel()[where[0]]:.3g}")
    if facts:
        text += "\n" + ", ".join(facts) + "."
    if member is not None:
        text += "\n" + RESULTS[getattr(RESULTS, member)]
    return cls(text)


#: All result codes that are failures: what `throw=True` raises for.
EVERY_FAILURE = frozenset(_BY_CODE)


def failures(throw: bool, suppress: Any = ()) -> frozenset[int]:
    """The result codes that raise: all but those of the exceptions in `suppress`, if `throw`."""
    classes = suppress if isinstance(suppress, tuple) else (suppress,)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, LinearSolveError)):
            raise TypeError(
                f"suppress: must be subclasses of LinearSolveError, such as `NotConverged`; got {cls!r}."
            )
    codes = _BY_CODE.items()
    kept = (code for code, name in codes if not issubclass(_EXCEPTIONS[name], classes))
    return frozenset(kept) if throw else frozenset()


def raise_if_failed(
    solution: Solution, throw: frozenset[int], describe: Callable[[], Failure]
) -> None:
    """Raise the named exception of a concrete result, with the solution. Waits for the result."""
    codes = np.asarray(_code(solution.result))
    if not np.any(codes != SUCCESSFUL):
        return
    failed = np.isin(codes, list(throw))
    if not failed.any():
        return
    code = int(codes[failed].ravel()[0])
    stats = {k: v for k, v in solution.stats.items() if hasattr(v, "dtype")}
    error = _exception(code, failed, stats, describe())
    error.solution = solution
    raise error


def raise_inside(
    value: Any,
    failed: Any,
    verdict: Callable[[], Verdict],
    inputs: Inputs,
    what: Failure,
    second: Sequence[SecondLook] = (),
) -> Any:
    """`value`, such that using it raises if the solve (of any lane) failed.

    The callback runs only then, and finds out for itself what else there is to say. `verdict` is asked
    inside of the conditional. With `second` looks, to be taken of one system, `failed` is no more than a
    doubt: the callback takes them, and returns if they find nothing.
    """
    axes = varying_axes((value, failed))
    arrays, batched = inputs
    asked = [look.ask for look in second]
    looked_at = [look.arrays for look in second]
    factors = {id(x) for look in second if look.factors for x in look.arrays if jnp.ndim(x) == 2}
    del inputs, second  # the callback outlives this trace, and must hold none of its tracers
    single = jnp.ndim(failed) == 0  # then the callback knows that it failed
    leaves, treedef = jax.tree.flatten(value)

    def true_code(verdict: Any, leaves: Any, arrays: Any, lane: tuple[int, ...]) -> int:
        finite = verdict.rhs_size is None or np.isfinite(verdict.rhs_size[lane])
        if not (finite and _finite(Inputs(arrays, batched), lane)):
            return _NONFINITE
        claim = int(verdict.claim[lane])
        if claim != SUCCESSFUL:
            return claim
        finite = all(np.all(np.isfinite(np.asarray(leaf)[lane])) for leaf in leaves)
        return _INACCURATE if finite else _SINGULAR

    def fail(verdict: Verdict, arrays: Any, leaves: Any) -> Any:
        failed = np.asarray(True if verdict.failed is None else verdict.failed)
        codes = np.array(verdict.claim)
        for lane in map(tuple, np.argwhere(failed).tolist()):
            codes[lane] = true_code(verdict, leaves, arrays, lane)
        stats = {k: np.array(v) for k, v in verdict._asdict().items() if v is not None}
        error = _exception(int(codes[failed].ravel()[0]), failed, stats, what)
        estimate = jax.tree.unflatten(treedef, [np.array(leaf) for leaf in leaves])
        told = {k: v for k, v in stats.items() if k in ("num_steps", "relative_residual")}
        error.solution = Solution(estimate, result_of_code(codes), told, None)
        remember(error)
        raise error

    def examine(verdict: Verdict, looked_at: Any, arrays: Any, leaves: Any) -> Any:
        """Of one system: the first look that finds something says what it is."""
        for ask, shown in zip(asked, looked_at):
            if verdict.claim != SUCCESSFUL:
                break
            found = ask(*shown)
            if isinstance(found, bool):
                return leaves if found else fail(verdict, arrays, leaves)
            verdict = verdict._replace(claim=found)
        return fail(verdict, arrays, leaves)

    def call(leaves: Any) -> Any:
        structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
        told = verdict()._replace(failed=None if single else failed)
        known = (looked_at,) if asked else ()
        given, form = jax.tree.flatten((told, *known, arrays, leaves))
        either_way = [i for i, x in enumerate(given) if id(x) in factors]
        host = examine if asked else fail
        on_host = lambda *x: host(*jax.tree.unflatten(form, x))
        out = host_call(on_host, structs, *given, either_way=either_way)
        return vary_like(out, axes)

    leaves = vary_like(leaves, axes)
    leaves = jax.lax.cond(jnp.any(failed), call, lambda leaves: leaves, leaves)
    return jax.tree.unflatten(treedef, leaves)
