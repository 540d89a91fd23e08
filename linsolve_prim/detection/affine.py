"""Affine functions: traced, and made into matrices."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Structure, inexact_asarray, structure_size
from ..errors import StructureError
from ..operators.closure import ClosedFunction, Signature, close
from ..operators.linearity import check_linear
from ..operators.numbers import numbers_captured
from ..operators.structures import inexact_structure
from ..sparse.full import full_pattern
from ..sparse.operator import SparseLinearOperator
from ..sparse.pattern import SparsityPattern
from .detect import count, detect
from .rows import Limits
from .values import entries

_log = logging.getLogger("linsolve_prim")

#: Who asks for a matrix gets one of up to 2²⁶ entries (512 MiB in float64), however long it takes
#: to find them: 50 000 operations are a few seconds, 2³⁵ entries some minutes.
ASKED_FOR = Limits(entries=1 << 26, elements=1 << 28, steps=50_000, work=1 << 35)


@dataclasses.dataclass(frozen=True)
class AffineFunction:
    """A traced function x ↦ Ax + c, and what it was traced for."""

    closed: ClosedFunction
    structure: Structure

    @property
    def shape(self) -> tuple[int, int]:
        return structure_size(self.closed.out_structure()), structure_size(self.structure)

    def check(self) -> AffineFunction:
        """Itself; **raises** `NonlinearFunctionError`, naming the primitive, if it is not affine."""
        check_linear(self.closed, self.structure)
        return self

    def numbers_captured(self) -> AffineFunction:
        """The same with its numbers as captured arrays: found and compiled once for all of them."""
        return dataclasses.replace(self, closed=numbers_captured(self.closed))


def trace(
    fn: Callable[..., PyTree[Any]], x_like: PyTree[Any], *given: Any, **named: Any
) -> AffineFunction:
    """`fn(x, *given, **named)` as a function of x, for x like `x_like`."""
    count("traces")
    structure = inexact_structure(x_like)

    def inexact(x: Any) -> Any:
        return jax.tree.map(inexact_asarray, fn(x, *given, **named))

    return AffineFunction(close(inexact, structure), structure)


def trace_all(fn: Callable[..., PyTree[Any]], x_like: PyTree[Any], given: Any) -> ClosedFunction:
    """The same as a function of `(args, kwargs)`, which is `given`, and x: for other arrays there."""
    count("traces")

    def flipped(given: Any, x: Any) -> Any:  # what is constant comes first in the program
        return jax.tree.map(inexact_asarray, fn(x, *given[0], **given[1]))

    return numbers_captured(close(flipped, given, inexact_structure(x_like)))


def bind(closed: ClosedFunction, x_like: PyTree[Any], given: Any) -> AffineFunction:
    """What `trace_all` returned, as a function of x for these other arguments."""
    structure = inexact_structure(x_like)
    (signature, _), (_, arrays) = Signature.of((structure,)), Signature.of((given,))
    consts = [*closed.consts, *arrays]
    return AffineFunction(
        dataclasses.replace(closed, consts=consts, signature=signature), structure
    )


def matrix_of(function: AffineFunction) -> tuple[SparseLinearOperator, Array]:
    """The matrix and the offset of an affine function; the matrix is full if need be.

    **Raises** `StructureError` if no pattern is found and the full matrix is too large.
    """
    function = function.numbers_captured()
    found = detect(function.closed, ASKED_FOR)
    pattern, (m, n) = found.pattern, function.shape
    if pattern is None:
        if m * n > ASKED_FOR.entries:
            raise StructureError(
                f"fn: has no sparse matrix that could be found: {found.reason}. A full matrix would "
                f"have {m}×{n} entries. Use `FunctionLinearOperator(fn, structure)` with a Krylov "
                "method, which takes its products only."
            )
        pattern = full_pattern(m, n)
    if pattern.nnz == m * n > 1:
        why = f" ({found.reason})" if found.reason else ""
        _log.warning("materialise_sparse: the matrix of %d×%d is dense%s", m, n, why)
    return fill(function, pattern)


def fill(function: AffineFunction, pattern: SparsityPattern) -> tuple[SparseLinearOperator, Array]:
    """The matrix of a function whose pattern is known, and its offset."""
    closed = function.closed
    if any(isinstance(x, jax.core.Tracer) for x in closed.consts):
        values, offset = _entries(closed, pattern)
    elif isinstance(jnp.zeros(()), jax.core.Tracer):  # something else is traced: these are known
        leaves, treedef = jax.tree.flatten(closed)
        kinds = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
        values, offset = _executable(treedef, kinds, pattern)(closed)
    else:
        values, offset = _compiled(closed, pattern)
    return SparseLinearOperator(values, pattern), offset


def _entries(closed: ClosedFunction, pattern: SparsityPattern) -> tuple[Array, Array]:
    (structure,) = jax.tree.unflatten(closed.signature.treedef, closed.signature.leaves)
    return entries(closed, structure, pattern)


_compiled = jax.jit(_entries, static_argnums=1)


@functools.lru_cache(maxsize=32)
def _executable(treedef: Any, kinds: tuple[Any, ...], pattern: SparsityPattern) -> Any:
    return _compiled.lower(jax.tree.unflatten(treedef, kinds), pattern).compile()
