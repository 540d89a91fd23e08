"""Primitives that only move elements, as NumPy does them.

Applied to an array that numbers its elements, they tell where each element of the result comes
from. NumPy does so without compiling a program for each shape, as JAX would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Params = dict[str, Any]
Arrays = list[np.ndarray]
Move = Callable[[Params, Arrays], Arrays]


def _reshape(params: Params, arrays: Arrays) -> Arrays:
    x = arrays[0]
    if params.get("dimensions") is not None:
        x = x.transpose(params["dimensions"])
    return [x.reshape(params["new_sizes"])]


def _squeeze(params: Params, arrays: Arrays) -> Arrays:
    return [arrays[0].squeeze(tuple(params["dimensions"]))]


def _broadcast_in_dim(params: Params, arrays: Arrays) -> Arrays:
    x, shape = arrays[0], params["shape"]
    own = [1] * len(shape)
    for axis, size in zip(params["broadcast_dimensions"], x.shape):
        own[axis] = size
    return [np.broadcast_to(x.reshape(own), shape)]


def _transpose(params: Params, arrays: Arrays) -> Arrays:
    return [arrays[0].transpose(params["permutation"])]


def _rev(params: Params, arrays: Arrays) -> Arrays:
    return [np.flip(arrays[0], tuple(params["dimensions"]))]


def _slice(params: Params, arrays: Arrays) -> Arrays:
    steps = params["strides"] or (1,) * arrays[0].ndim
    bounds = zip(params["start_indices"], params["limit_indices"], steps)
    return [arrays[0][tuple(slice(*bound) for bound in bounds)]]


def _concatenate(params: Params, arrays: Arrays) -> Arrays:
    return [np.concatenate(arrays, params["dimension"])]


def _split(params: Params, arrays: Arrays) -> Arrays:
    ends = np.cumsum(params["sizes"])[:-1]
    return list(np.split(arrays[0], ends, params["axis"]))


def _pad(params: Params, arrays: Arrays) -> Arrays:
    """`lax.pad`: zeros between elements, and on both sides as many as asked for, or fewer."""
    x, value = arrays
    config = params["padding_config"]
    sizes = [size + max(size - 1, 0) * inner for size, (_, _, inner) in zip(x.shape, config)]
    spread = np.full(sizes, value, x.dtype)
    spread[tuple(slice(None, None, inner + 1) for _, _, inner in config)] = x
    cut = tuple(slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi, _) in zip(sizes, config))
    width = [(max(lo, 0), max(hi, 0)) for lo, hi, _ in config]
    return [np.pad(spread[cut], width, constant_values=value)]


MOVES: dict[str, Move] = {
    "reshape": _reshape,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "rev": _rev,
    "slice": _slice,
    "concatenate": _concatenate,
    "split": _split,
    "pad": _pad,
}


def dynamic_slice(x: np.ndarray, starts: list[int], sizes: tuple[int, ...]) -> np.ndarray:
    return x[_window(x.shape, starts, sizes)]


def dynamic_update_slice(x: np.ndarray, update: np.ndarray, starts: list[int]) -> np.ndarray:
    out = x.copy()
    out[_window(x.shape, starts, update.shape)] = update
    return out


def _window(shape: Any, starts: list[int], sizes: Any) -> tuple[slice, ...]:
    """A window that is moved inside, as XLA does it."""
    inside = [min(max(at, 0), n - size) for at, n, size in zip(starts, shape, sizes)]
    return tuple(slice(at, at + size) for at, size in zip(inside, sizes))
