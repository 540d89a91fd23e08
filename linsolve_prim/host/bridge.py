"""All calls from compiled programs to the host go through here, by one of two transports.

- `"callback"`: Python callbacks, which work everywhere and are the default (`direct.py`).
- `"buffer"`: `jax.experimental.buffer_callback`, on CPU: no copies, and a tenth of the overhead for
  small systems. Its arrays are views that die when the callback returns.

A function that is called this way must be pure, must not raise, and must never touch JAX (the buffer
transport hangs if it does).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from . import bits
from .direct import host_call

TRANSPORTS = ("callback", "buffer")

# Part of `jax.jit`'s cache key: programs that were compiled for one transport stay with it.
_transport: Any = jax.make_user_context("callback")


@contextlib.contextmanager
def transport(name: str) -> Iterator[None]:
    """`with lp.host.transport("buffer"):` selects how programs traced in this block call the host.

    **Raises** `ValueError` for an unknown name, or if this JAX has no buffer callbacks.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> with lp.host.transport("callback"):
        ...     x = lp.solve(jnp.array([[2.0, 0.0], [0.0, 4.0]]), jnp.ones(2), lp.SuperLU())
        >>> print(x)
        [0.5  0.25]
    """
    if name not in TRANSPORTS:
        raise ValueError(f"name: must be one of {', '.join(TRANSPORTS)}; got {name!r}.")
    if name == "buffer" and not has_buffer_callback():
        raise ValueError(
            f"name: this JAX ({jax.__version__}) has no `buffer_callback`; use 'callback'."
        )
    with _transport(name):
        yield


@functools.cache
def has_buffer_callback() -> bool:
    try:
        from jax.experimental.buffer_callback import buffer_callback  # noqa: F401
    except ImportError:
        return False
    return True


def call_host(
    fn: Callable[..., Sequence[np.ndarray]], out: Sequence[jax.ShapeDtypeStruct], *args: Any
) -> list[Any]:
    """`fn(*args)` on the host, with NumPy arrays; `fn` returns arrays like `out`."""
    if _transport.value == "buffer" and jax.default_backend() == "cpu":
        return _by_buffer(fn, out, *args)
    if _other_threads_have_x64():
        return host_call(fn, out, *args)
    # JAX hands arrays over, there and back, as arrays of the thread that runs the callback. Where
    # `jax.enable_x64` holds in this thread only, that would round them: so they go as their bits.
    dtypes = [x.dtype for x in args]

    def on_bits(*args: np.ndarray) -> tuple[np.ndarray, ...]:
        arrays = [bits.of_words(x, d) for x, d in zip(args, dtypes)]
        return tuple(bits.words(x) for x in fn(*arrays))

    sent = host_call(on_bits, list(map(bits.words_like, out)), *map(bits.to_words, args))
    return [bits.from_words(x, like) for x, like in zip(sent, out)]


def _other_threads_have_x64() -> bool:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(bool(jax.config.jax_enable_x64)))
    thread.start()
    thread.join()
    return found[0]


def _by_buffer(
    fn: Callable[..., Sequence[np.ndarray]], out: Sequence[jax.ShapeDtypeStruct], *args: Any
) -> list[Any]:
    from jax.experimental.buffer_callback import buffer_callback

    def fill(context: Any, results: Any, *args: Any) -> None:
        del context
        for result, value in zip(results, fn(*(np.asarray(x) for x in args))):
            np.asarray(result)[...] = value

    return list(buffer_callback(fill, tuple(out))(*args))
