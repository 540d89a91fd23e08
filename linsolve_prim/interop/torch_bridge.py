"""Between PyTorch's tensors and JAX's arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jaxtyping import Array

from .._dlpack import from_dlpack
from ..errors import WrongTypeError

try:
    import torch
except ImportError as error:
    raise ImportError(
        "linsolve_prim.interop.torch needs PyTorch, which is not installed: "
        "pip install 'linsolve-prim[torch]'"
    ) from error

_WIDE = (torch.float64, torch.complex128)


def to_jax(tensor: torch.Tensor) -> Array:
    """A dense tensor as a JAX array of the same dtype on the same device.

    They share memory (on CPU always, on a GPU where JAX has it), so do not write to the tensor while
    the array is used. No gradient passes: see `as_torch`.

    **Raises** `TypeError` for anything else, `ValueError` for 64-bit numbers while `jax_enable_x64` is
    off (nothing is rounded silently), and for a device that JAX does not have.

        >>> import linsolve_prim as lp
        >>> import torch
        >>> print(lp.interop.torch.to_jax(torch.tensor([1.0, 2.0])))
        [1. 2.]
    """
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        what = tensor.layout if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise WrongTypeError(
            f"tensor: must be a dense `torch.Tensor`; got {what}. Sparse ones go through "
            "`sparse_to_jax`."
        )
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return from_dlpack(plain, "tensor")


def to_torch(array: Any) -> torch.Tensor:
    """A JAX array as a tensor of the same dtype on the same device, which shares its memory.

    JAX takes its arrays to be constant: clone the tensor before you write to it.

    **Raises** `TypeError` for what is no concrete JAX array.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.interop.torch.to_torch(jnp.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array):
        raise WrongTypeError(
            f"array: must be a concrete `jax.Array`; got {type(array).__name__}. Call `to_torch` "
            "outside of `jax.jit` and of derivatives."
        )
    return torch.from_dlpack(jax.block_until_ready(array))


@contextlib.contextmanager
def precision_of(tensors: Sequence[Any]) -> Iterator[None]:
    """JAX with 64-bit numbers in this block and thread, if some tensor has such."""
    wide = any(isinstance(x, torch.Tensor) and x.dtype in _WIDE for x in tensors)
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        yield
