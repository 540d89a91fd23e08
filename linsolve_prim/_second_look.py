"""A result code that takes a second look, where a first one leaves doubt.

Some failures are told apart from successes by a test that is seldom needed, and costs: as kernels at run
time, if it is not inside of a conditional, and as kernels to compile in any case. So the test is an
equation of its own, `second_look`, with two forms: for the device, and for the host. Code that only
has to raise after a failure compiles the first look alone, and does the second one in the callback
(`primitive/stages.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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
    """The second look, as functions from the arrays of a system `(...,)` to result codes `(...,)`.

    `small` says that it costs less than a conditional, so that a single system always takes it; then
    it repeats the first one.
    """

    on_device: Callable[..., Array]
    on_host: Callable[..., np.ndarray]
    small: bool = False


def second_look(look: Look, doubt: Array, *arrays: Array) -> Array:
    """The result codes of `look` where there is doubt (Booleans `(...,)`), elsewhere success.

    It has no derivative.
    """
    fixed = [jax.lax.stop_gradient(x) for x in (doubt, *arrays)]
    return second_look_p.bind(*fixed, look=look)


@second_look_p.def_abstract_eval
def _aval(doubt: Any, *arrays: Any, look: Look) -> Any:
    return doubt.update(dtype=np.dtype(np.int32), weak_type=False)


def _on_device(doubt: Array, *arrays: Array, look: Look) -> Array:
    if look.small and doubt.ndim == 0:
        return look.on_device(*arrays)
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
