"""What is compiled even where `jax.disable_jit` holds: the evaluation of a primitive, as of JAX's own.

(Run eagerly, a program that binds its own primitive would never end.)
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax


def compiling() -> contextlib.AbstractContextManager[Any]:
    """A context in which `jax.jit` compiles, and loops are staged rather than run in Python."""
    return jax.disable_jit(False) if jax.config.jax_disable_jit else contextlib.nullcontext()


def compiled(fn: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """`jax.jit(fn, **settings)` that nothing turns off."""
    jitted = jax.jit(fn, **settings)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        with compiling():
            return jitted(*args, **kwargs)

    return call
