"""Arrays of 64-bit numbers as uint32 with a longer last axis, in a program and on the host.

Others, and arrays without axes, stay what they are.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WORDS = {np.dtype(np.float64): 2, np.dtype(np.complex128): 4}


def _count(x: Any) -> int:
    return _WORDS.get(np.dtype(x.dtype), 0)


def words_like(like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The shape and dtype of the words of an array."""
    if not _count(like):
        return like
    shape = (*like.shape[:-1], like.shape[-1] * _count(like))
    return jax.ShapeDtypeStruct(shape, jnp.uint32)


# ---- In a program --------------------------------------------------------------------------------


def to_words(x: Any) -> Any:
    if not _count(x):
        return x
    parts = jnp.stack([x.real, x.imag], axis=-1) if jnp.iscomplexobj(x) else x
    return jax.lax.bitcast_convert_type(parts, jnp.uint32).reshape(words_like(x).shape)


def from_words(x: Any, like: Any) -> Any:
    """The array like `like` that these are the words of."""
    if not _count(like):
        return x
    if np.dtype(like.dtype) == np.float64:
        return jax.lax.bitcast_convert_type(x.reshape(*like.shape, 2), jnp.float64)
    parts = jax.lax.bitcast_convert_type(x.reshape(*like.shape, 2, 2), jnp.float64)
    return jax.lax.complex(parts[..., 0], parts[..., 1])


# ---- On the host ---------------------------------------------------------------------------------


def words(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint32) if _count(x) else x


def of_words(x: np.ndarray, dtype: Any) -> np.ndarray:
    return np.ascontiguousarray(x).view(dtype) if np.dtype(dtype) in _WORDS else x
