"""A result code that takes a second look, where a first one leaves doubt.

Some failures are told apart from successes by a test that is seldom needed, and costs: as kernels at run
time, if it is not inside of a conditional, and as kernels to compile in any case. So the test is an
equation of its own, `second_look`, with two forms: for the device, and for the host. Code that only
has to raise after a failure compiles the first look alone, and does the second one in the callback
(`primitive/stages.py`).

First looks are at sums: kernels are not free, and sums over vectors of one length share one, whoever asks
for them. [measured: benchmarks/dense.py]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array

from ._varying import vary_like, varying_axes
from .results import SUCCESSFUL

second_look_p = Primitive("second_look")


class Look(NamedTuple):
    """Both looks at the arrays of a system `(...,)`, as functions.

    `clear` tells from the sums `(...,)` of `num_terms` vectors whether there is no doubt; the other two
    make result codes `(...,)` of arrays. `small` says that a second look costs less than a conditional,
    so that a single system always takes it; then it repeats the first one.
    """

    clear: Callable[..., Array]
    on_device: Callable[..., Array]
    on_host: Callable[..., np.ndarray]
    num_terms: int
    small: bool = False


def second_look(look: Look, terms: Sequence[Array], *arrays: Array) -> Array:
    """The result codes of `look` at `arrays`, but success where the sums of `terms` (..., n) are clear.

    It has no derivative.
    """
    shape = jnp.sum(terms[0], axis=-1)  # of the result, which has its type; nobody computes it
    fixed = [jax.lax.stop_gradient(x) for x in (shape, *terms, *arrays)]
    return second_look_p.bind(*fixed, look=look)


def sums(terms: Sequence[Array]) -> list[Array]:
    """Of each term `(..., n)`, over its last axis; those of one shape by one kernel (or two, of few)."""
    groups: dict[Any, list[int]] = {}
    for i, term in enumerate(terms):
        groups.setdefault((term.shape, term.dtype), []).append(i)
    out: dict[int, Array] = {}
    for places in groups.values():
        out |= zip(places, _sums_of_alike([terms[i] for i in places]))
    return [out[i] for i in range(len(terms))]


def _sums_of_alike(terms: list[Array]) -> Sequence[Array]:
    if terms[0].ndim == 1 and terms[0].size <= 32:  # as vectors, which takes less time
        return list(jnp.sum(jnp.stack(terms), axis=1))
    zeros = tuple(np.zeros((), x.dtype) for x in terms)
    add = lambda x, y: tuple(a + b for a, b in zip(x, y))
    axes = varying_axes(terms)
    terms, zeros = vary_like((tuple(terms), zeros), axes)
    return jax.lax.reduce(terms, zeros, add, (terms[0].ndim - 1,))


@second_look_p.def_abstract_eval
def _aval(shape: Any, *avals: Any, look: Look) -> Any:
    return shape.update(dtype=np.dtype(np.int32), weak_type=False)


def parts(args: Sequence[Any], look: Look) -> tuple[Sequence[Any], Sequence[Any]]:
    """The terms and the arrays among the operands of an equation."""
    return args[1 : 1 + look.num_terms], args[1 + look.num_terms :]


def _on_device(*args: Array, look: Look) -> Array:
    terms, arrays = parts(args, look)
    if look.small and terms[0].ndim == 1:
        return look.on_device(*arrays)
    doubt = ~look.clear(*sums(terms))
    none = vary_like(jnp.full(doubt.shape, SUCCESSFUL, jnp.int32), varying_axes((doubt, arrays)))
    # of a batch, one system in doubt is enough to ask
    codes = lambda: jnp.where(doubt, look.on_device(*arrays), none)
    return jax.lax.cond(jnp.any(doubt), codes, lambda: none)


mlir.register_lowering(second_look_p, mlir.lower_fun(_on_device, multiple_results=False))


@second_look_p.def_impl
def _impl(*args: Array, look: Look) -> Array:
    return jax.jit(functools.partial(_on_device, look=look))(*args)


def _batch(args: Any, dims: Any, *, look: Look) -> tuple[Array, int]:
    size = next(x.shape[d] for x, d in zip(args, dims) if d is not None)
    front = lambda x, d: (
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
    )
    return second_look_p.bind(*map(front, args, dims), look=look), 0


batching.primitive_batchers[second_look_p] = _batch
