"""The primitives inside a host solver: `host_factorize`, `host_solve` and `host_slogdet`.

They are canonically batched, so that one rule covers every nest of `vmap`:

    host_factorize   values (B, nnz)                                 -> handles (B, 4) uint32
    host_solve       values (B, nnz), handles (B, 4), b (B, K, n)    -> x (B, K, m), codes, steps (B, K)
    host_slogdet     values (B, nnz), handles (B, 4)                 -> signs, log|det| (B,)

A batch of right-hand sides of one matrix goes into K, a batch of matrices into B. Derivatives are
taken one level up, by `linear_solve`, whose state carries no tangents: so these need no rule for them.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from .._varying import vary_together
from . import tasks
from .bridge import call_host
from .handles import WORDS

factorize_p = Primitive("host_factorize")
solve_p = Primitive("host_solve")
slogdet_p = Primitive("host_slogdet")
factorize_p.multiple_results = solve_p.multiple_results = slogdet_p.multiple_results = True


#: Up to this many values `host_solve` takes their hash itself: that costs less than a callback.
SMALL = 20_000


def factorize(values: Any, task: tasks.Task) -> Any:
    """The handle `(4,)` of one matrix with values `(nnz,)`, whose factor is then in the registry.

    For a small matrix it is zero, which is no hash of anything: the first solve factorizes.
    """
    if values.shape[0] <= SMALL:
        return jnp.zeros(WORDS, jnp.uint32)
    (handle,) = factorize_p.bind(values[None], task=task)
    return handle[0]


def solve(values: Any, handle: Any, b: Any, task: tasks.Task, transpose: bool) -> tuple[Any, ...]:
    """`x (K, m)`, codes and steps `(K,)` for one matrix and `b (K, n)`."""
    out = _bind_solve(values[None], handle[None], b[None], task=task, transpose=transpose)
    return tuple(x[0] for x in out)


def slogdet(values: Any, handle: Any, task: tasks.Task) -> tuple[Any, Any]:
    """The sign and log |det| of one matrix, from its factor."""
    sign, log = slogdet_p.bind(*vary_together(values[None], handle[None]), task=task)
    return sign[0], log[0]


def _bind_solve(values: Any, handles: Any, b: Any, **params: Any) -> list[Any]:
    return solve_p.bind(*vary_together(values, handles, b), **params)


# ---- Types: outputs are made from an input's, or `shard_map` would forget how they vary -----------


@factorize_p.def_abstract_eval
def _factorize_aval(values: Any, *, task: tasks.Task) -> list[Any]:
    shape = (values.shape[0], WORDS)
    return [values.update(shape=shape, dtype=jnp.dtype("uint32"), weak_type=False)]


@solve_p.def_abstract_eval
def _solve_aval(
    values: Any, handles: Any, b: Any, *, task: tasks.Task, transpose: bool
) -> list[Any]:
    columns = task.columns(transpose)
    x = b.update(shape=(*b.shape[:2], columns), weak_type=False)
    count = b.update(shape=b.shape[:2], dtype=jnp.dtype("int32"), weak_type=False)
    return [x, count, count]


@slogdet_p.def_abstract_eval
def _slogdet_aval(values: Any, handles: Any, *, task: tasks.Task) -> list[Any]:
    sign = values.update(shape=values.shape[:1], weak_type=False)
    return [sign, sign.update(dtype=jnp.finfo(sign.dtype).dtype)]


# ---- Evaluation ----------------------------------------------------------------------------------


def _factorize_stage(values: Any, *, task: tasks.Task) -> list[Any]:
    out = jax.ShapeDtypeStruct((values.shape[0], WORDS), jnp.uint32)
    return call_host(functools.partial(tasks.factorize, task=task), [out], values)


def _solve_stage(
    values: Any, handles: Any, b: Any, *, task: tasks.Task, transpose: bool
) -> list[Any]:
    columns = task.columns(transpose)
    count = jax.ShapeDtypeStruct(b.shape[:2], jnp.int32)
    out = [jax.ShapeDtypeStruct((*b.shape[:2], columns), b.dtype), count, count]
    fn = functools.partial(tasks.solve, task=task, transpose=transpose)
    return call_host(fn, out, values, handles, b)


def _slogdet_stage(values: Any, handles: Any, *, task: tasks.Task) -> list[Any]:
    dtypes = values.dtype, jnp.finfo(values.dtype).dtype
    out = [jax.ShapeDtypeStruct(values.shape[:1], one) for one in dtypes]
    return call_host(functools.partial(tasks.slogdet, task=task), out, values, handles)


for _primitive, _stage, _names in (
    (factorize_p, _factorize_stage, ("task",)),
    (solve_p, _solve_stage, ("task", "transpose")),
    (slogdet_p, _slogdet_stage, ("task",)),
):
    mlir.register_lowering(
        _primitive, mlir.lower_fun(_stage, multiple_results=True), cacheable=False
    )
    _primitive.def_impl(jax.jit(_stage, static_argnames=_names))


# ---- Batching ------------------------------------------------------------------------------------


def _first(x: Any, dim: int | None, size: int) -> Any:
    return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)


def _factorize_batch(args: Any, dims: Any, *, task: tasks.Task) -> tuple[Any, Any]:
    values = jnp.moveaxis(args[0], dims[0], 0)
    size, batch, nnz = values.shape
    (handles,) = factorize_p.bind(values.reshape(size * batch, nnz), task=task)
    return [handles.reshape(size, batch, WORDS)], [0]


def _solve_batch(args: Any, dims: Any, **params: Any) -> tuple[Any, Any]:
    size = next(x.shape[d] for x, d in zip(args, dims) if d is not None)
    values, handles, b = args
    if dims[0] is None and dims[1] is None:  # one matrix, more right-hand sides
        b = jnp.moveaxis(b, dims[2], 1)
        batch, _, k, n = b.shape
        out = _bind_solve(values, handles, b.reshape(batch, size * k, n), **params)
        return [x.reshape(batch, size, k, *x.shape[2:]) for x in out], [1, 1, 1]
    values, handles, b = (_first(x, d, size) for x, d in zip(args, dims))
    flat = [x.reshape(-1, *x.shape[2:]) for x in (values, handles, b)]
    out = _bind_solve(*flat, **params)
    return [x.reshape(size, -1, *x.shape[1:]) for x in out], [0, 0, 0]


def _slogdet_batch(args: Any, dims: Any, *, task: tasks.Task) -> tuple[Any, Any]:
    size = next(x.shape[d] for x, d in zip(args, dims) if d is not None)
    values, handles = (_first(x, d, size) for x, d in zip(args, dims))
    flat = values.reshape(-1, values.shape[-1]), handles.reshape(-1, WORDS)
    out = slogdet_p.bind(*vary_together(*flat), task=task)
    return [x.reshape(size, -1) for x in out], [0, 0]


batching.primitive_batchers[slogdet_p] = _slogdet_batch
batching.primitive_batchers[factorize_p] = _factorize_batch
batching.primitive_batchers[solve_p] = _solve_batch
