"""A call to the host that hands the arrays over as they are.

`jax.pure_callback` makes JAX arrays of its arguments, on the thread that runs the callback. A large one
is copied on another thread of the same pool: where all of those are busy with callbacks (with one
core: always) the copy never begins, and the program hangs [seen in benchmarks/sparse.py on one
core]. Here the callback gets NumPy views, which die when it returns; that also takes half the time.

`jax.interpreters.mlir.emit_python_callback` is public. Should it go, `jax.pure_callback` replaces it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from .._compiled import compiled

host_call_p = Primitive("host_call")
host_call_p.multiple_results = True


def host_call(
    fn: Callable[..., Sequence[np.ndarray]],
    out: Sequence[jax.ShapeDtypeStruct],
    *args: Any,
    either_way: Sequence[int] = (),
) -> list[Any]:
    """`fn(*args)` on the host: `fn` takes NumPy arrays (views) and returns arrays like `out`.

    `either_way` are the positions of square matrices of which `fn` can do with the transpose: what LAPACK
    has made lies by columns, and is handed over without a copy (which would have to be compiled, too).
    """
    return host_call_p.bind(*args, fn=fn, out=tuple(out), either_way=tuple(either_way))


@host_call_p.def_abstract_eval
def _avals(*avals: Any, fn: Any, out: Any, either_way: Any) -> list[Any]:
    return [jax.core.ShapedArray(x.shape, x.dtype) for x in out]


def _portable(*args: Any, fn: Any, out: Any, either_way: Any) -> list[Any]:
    as_numpy = lambda *args: tuple(fn(*(np.asarray(x) for x in args)))
    return list(jax.pure_callback(as_numpy, out, *args))


_lower_portable = mlir.lower_fun(_portable, multiple_results=True)


def _lowering(ctx: Any, *args: Any, fn: Any, out: Any, either_way: Any) -> Any:
    """On one CPU device the callback itself; else what JAX makes of shardings and memories."""
    devices = getattr(ctx.module_context.axis_context, "num_devices", None)
    if devices != 1 or tuple(ctx.module_context.platforms) != ("cpu",):
        return _lower_portable(ctx, *args, fn=fn, out=out, either_way=either_way)

    def call(*views: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(x, like.dtype) for x, like in zip(fn(*views), out))

    results, _, _ = mlir.emit_python_callback(
        ctx,
        call,
        None,
        list(args),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    if either_way and results:
        _take_by_columns(results[0].owner, either_way)
    return results


def _take_by_columns(call: Any, which: Any) -> None:
    """Let the operands of a call lie by columns. (If JAX comes to write calls otherwise: by rows.)"""
    attributes = getattr(call, "operation", call).attributes
    if "operand_layouts" not in attributes:
        return
    layouts = list(attributes["operand_layouts"])
    for i in which:
        by_columns = "dense<[0, 1]> : tensor<2xindex>"
        layouts[i] = type(layouts[i]).parse(by_columns, context=layouts[i].context)
    kind = type(attributes["operand_layouts"])
    attributes["operand_layouts"] = kind.get(layouts, context=layouts[0].context)


mlir.register_lowering(host_call_p, _lowering, cacheable=False)


@host_call_p.def_impl
def _impl(*args: Any, **params: Any) -> list[Any]:
    return compiled(functools.partial(host_call_p.bind, **params))(*args)
