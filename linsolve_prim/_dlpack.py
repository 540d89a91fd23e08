"""Arrays of other libraries as JAX arrays, by the DLPack protocol: without a copy where possible."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array

from ._types import is_array
from .errors import StructureError


def from_dlpack(x: Any, argument: str) -> Array:
    """A JAX array of the same numbers, on the same device; on CPU it shares their memory.

    **Raises** `StructureError` if `x` holds 64-bit numbers and `jax_enable_x64` is off, which would
    round them; `ValueError` if `x` cannot be handed over.
    """
    try:
        with jax.enable_x64(True):
            out = jax.dlpack.from_dlpack(x)
    except Exception as error:
        raise StructureError(
            f"{argument}: this {type(x).__name__} cannot be handed over by DLPack: {error} (A sparse "
            "tensor, or one that requires a gradient, goes through "
            "`linsolve_prim.interop.torch`; one on a device that JAX does not have has to be moved.)"
        ) from error
    if jax.dtypes.canonicalize_dtype(out.dtype) != out.dtype:
        raise StructureError(
            f"{argument}: has dtype {out.dtype}, and `jax_enable_x64` is off, so that JAX would round "
            "it. Set it (`with jax.enable_x64(True):` does so for a while), or cast the array to "
            "single precision first."
        )
    return out


def owned(x: Any, argument: str) -> Any:
    """An array of another library, such as a tensor, as one of JAX; anything else as it is."""
    foreign = not is_array(x) and hasattr(x, "__dlpack__") and not hasattr(x, "todense")
    return from_dlpack(x, argument) if foreign else x
