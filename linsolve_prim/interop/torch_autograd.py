"""JAX functions in PyTorch's autograd: `as_torch`.

The derivative of one is another, `_Pullback`, which goes the same way: hence any order.

PyTorch's gradient of a real number by z is ∂/∂x + i∂/∂y, and JAX's the conjugate of that; so gradients
are conjugated on their way in and out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import is_inexact
from ..tracing import original_errors
from .torch_bridge import precision_of, to_jax, to_torch, torch


def as_torch(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A JAX function as one of tensors, with its derivatives of any order in `torch.autograd`.

    - `fn`: takes arrays (or pytrees of them) and returns one or a pytree; `jax.jit` compiles it. It must
      be the same object from call to call, or be equal and hashed so, to be compiled once.

    Arrays are shared with tensors, not copied. What `fn` is given in double precision, it computes in
    double precision, whatever `jax_enable_x64` is. Integers carry no gradient. A solve that fails raises
    our exceptions, in derivatives too.

    ```python
    solve = as_torch(lambda A, b: lp.solve(A, b, lp.GMRES(preconditioner="ilu")))
    solve(A, b).sum().backward()
    ```

    **Raises** `TypeError` for what is no dense tensor, and our exceptions.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> import torch
        >>> from linsolve_prim.interop.torch import as_torch
        >>> b = torch.tensor([4.0, 7.0], requires_grad=True)
        >>> solve = as_torch(lambda b: lp.solve(jnp.array([[2.0, 0.0], [0.0, 4.0]], b.dtype), b))
        >>> solve(b).sum().backward()
        >>> b.grad.tolist()
        [0.5, 0.25]
    """

    @functools.wraps(fn, assigned=("__doc__", "__name__"), updated=())
    def call(*args: Any) -> Any:
        tensors, treedef = jax.tree.flatten(args)
        return apply(_OfLeaves(fn, treedef), *tensors)

    return call


@dataclasses.dataclass(frozen=True)
class _OfLeaves:
    """`fn` as a function of the leaves of its arguments."""

    fn: Callable[..., Any]
    treedef: Any

    def __call__(self, *leaves: Array) -> Any:
        return self.fn(*jax.tree.unflatten(self.treedef, leaves))


def apply(fn: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """`fn` (hashable, of arrays) of tensors."""
    structure: list[Any] = []
    out = _Function.apply(fn, structure, *tensors)
    return jax.tree.unflatten(structure[0], out)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fn: Any, structure: list[Any], *tensors: torch.Tensor) -> Any:
        with precision_of(tensors), original_errors():
            args = [to_jax(x) for x in tensors]
            if any(ctx.needs_input_grad[2:]):
                value, ctx.pullback = jax.block_until_ready(_with_pullback(fn, args))
            else:
                value, ctx.pullback = jax.block_until_ready(_value(fn, args)), None
            leaves, treedef = jax.tree.flatten(value)
            out = tuple(to_torch(x) for x in leaves)
        structure.append(treedef)
        ctx.fn, ctx.count, ctx.treedef = fn, len(tensors), treedef
        # also those that nobody reads again: whoever writes to memory that is shared is told so
        ctx.save_for_backward(*tensors, *out)
        ctx.mark_non_differentiable(*(x for x in out if not _differentiable(x)))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        saved = ctx.saved_tensors
        tensors, out = saved[: ctx.count], saved[ctx.count :]
        kept = [g for g, x in zip(grads, out) if _differentiable(x)]
        if torch.is_grad_enabled():  # somebody wants the derivative of this
            found = apply(_Pullback(ctx.fn, ctx.count), *tensors, *kept)
        else:
            with precision_of(tensors), original_errors():
                cts = [to_jax(g) for g in kept]
                value = jax.tree.unflatten(ctx.treedef, [to_jax(x) for x in out])
                found = jax.block_until_ready(_pulled_back(ctx.pullback, value, cts))
                found = [to_torch(x) for x in found]
        it = iter(found)
        return None, None, *(next(it) if _differentiable(x) else None for x in tensors)


def _differentiable(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


@functools.partial(jax.jit, static_argnums=0)
def _value(fn: Any, args: list[Array]) -> Any:
    return fn(*args)


@functools.partial(jax.jit, static_argnums=0)
def _with_pullback(fn: Any, args: list[Array]) -> tuple[Any, Any]:
    return _vjp(fn, args)


def _vjp(fn: Any, args: Any) -> tuple[Any, Any]:
    """The value, and the pullback to those arguments that are no integers."""

    def of_inexact(*inexact: Array) -> Any:
        it = iter(inexact)
        return fn(*(next(it) if is_inexact(x) else x for x in args))

    return jax.vjp(of_inexact, *(x for x in args if is_inexact(x)))


_pulled_back = jax.jit(lambda pullback, value, grads: _pull(pullback, value, grads))


@dataclasses.dataclass(frozen=True)
class _Pullback:
    """PyTorch's gradients as a function of arguments and gradients of values."""

    fn: Any
    count: int

    def __call__(self, *args: Array) -> tuple[Array, ...]:
        value, pullback = _vjp(self.fn, args[: self.count])
        return _pull(pullback, value, args[self.count :])


def _pull(pullback: Any, value: Any, grads: Any) -> tuple[Array, ...]:
    it = iter(grads)
    zero = lambda x: np.zeros(jnp.shape(x), jax.dtypes.float0)
    cts = jax.tree.map(lambda x: jnp.conj(next(it)) if is_inexact(x) else zero(x), value)
    return tuple(jnp.conj(x) for x in pullback(cts))
