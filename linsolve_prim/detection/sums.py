"""Primitives that add up elements, as Boolean matrices: which elements of an operand go where.

Each function takes the equation's parameters and shapes, and returns the matrix of shape
`(size of the result, size of the operand)`. Coefficients that are known to be zero are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from .rows import Meter, numbers_of, pairs

Shape = tuple[int, ...]

#: Terms may be this many times as many as entries are allowed, as several may fall together.
_TERMS = 4


def reduce_sum(shape: Shape, axes: Shape) -> sp.csr_array:
    """Sums over some axes."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    count = math.prod(shape[axis] for axis in kept)
    indices = numbers_of(shape).transpose(*kept, *axes).reshape(count, -1)
    indptr = np.arange(count + 1) * indices.shape[1]
    entries = (np.ones(indices.size, bool), indices.ravel(), indptr)
    return sp.csr_array(entries, shape=(count, math.prod(shape)))


def cumulative(shape: Shape, axis: int, reverse: bool, meter: Meter) -> sp.csr_array:
    """Sums of all elements up to each one along an axis (or from it on)."""
    length, size = shape[axis], math.prod(shape)
    meter.check(size * (length + 1) // 2 // _TERMS)
    later, earlier = np.tril_indices(length)
    if reverse:
        later, earlier = earlier, later
    lines = np.moveaxis(numbers_of(shape), axis, -1).reshape(-1, length)
    return pairs(lines[:, later], lines[:, earlier], (size, size))


def window_sum(params: dict[str, Any], shape: Shape, out_shape: Shape) -> sp.csr_array:
    """`reduce_window_sum`."""
    numbers, out, size = numbers_of(shape), numbers_of(out_shape), math.prod(shape)
    none = (1,) * len(shape)
    geometry = zip(
        shape,
        out_shape,
        params["window_strides"],
        params["padding"],
        params.get("base_dilation") or none,
        params.get("window_dilation") or none,
    )
    rows, columns = [], []
    for _, to, come in _taps(params["window_dimensions"], list(geometry)):
        rows.append(out[np.ix_(*to)].ravel())
        columns.append(numbers[np.ix_(*come)].ravel())
    return pairs(_joined(rows), _joined(columns), (out.size, size))


def dot_general(
    params: dict[str, Any],
    shapes: tuple[Shape, Shape],
    out_shape: Shape,
    varying: int,
    mask: np.ndarray | None,
    meter: Meter,
) -> sp.csr_array:
    """A product in which operand number `varying` varies; `mask` is where the other is not zero."""
    contracted, batch = params["dimension_numbers"]
    constant = 1 - varying
    numbers = _arranged(numbers_of(shapes[varying]), batch[varying], contracted[varying])
    if mask is None:
        mask = np.broadcast_to(np.ones((), bool), shapes[constant])
    coefficients = _arranged(mask, batch[constant], contracted[constant])
    batches, free, _ = numbers.shape
    meter.check(np.count_nonzero(coefficients) * free // _TERMS)
    out = numbers_of(out_shape)
    if varying == 0:  # (batch, free of the constant, free of what varies)
        out = out.reshape(batches, free, coefficients.shape[1]).swapaxes(1, 2)
    else:
        out = out.reshape(batches, coefficients.shape[1], free)
    b, f, k = np.nonzero(coefficients)
    return pairs(out[b, f, :], numbers[b, :, k], (out.size, numbers.size))


def _arranged(x: np.ndarray, batch: Any, contracted: Any) -> np.ndarray:
    """Axes brought into the order batch, free, contracted, each group as one axis."""
    free = [axis for axis in range(x.ndim) if axis not in (*batch, *contracted)]
    sizes = [math.prod(x.shape[axis] for axis in group) for group in (batch, free, contracted)]
    return x.transpose(*batch, *free, *contracted).reshape(sizes)


def convolution(
    params: dict[str, Any],
    shapes: tuple[Shape, Shape],
    out_shape: Shape,
    varying: int,
    mask: np.ndarray | None,
    meter: Meter,
) -> sp.csr_array:
    """`conv_general_dilated`, in which operand number `varying` varies (0: image, 1: kernel)."""
    image, kernel, out = _channels(params, shapes, out_shape)
    size = math.prod(shapes[varying])
    flat = None if mask is None else mask.ravel()
    geometry = zip(
        image.shape[3:],
        out.shape[3:],
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
    )
    rows, columns, count = [], [], 0
    for tap, to, come in _taps(kernel.shape[3:], list(geometry)):
        weights = _inner(kernel, [np.array([k]) for k in tap])  # of this tap alone
        terms = np.broadcast_arrays(
            _inner(out, to)[:, :, :, None],
            _inner(image, come)[:, :, None],
            weights[None],
        )
        result, *operands = [term.ravel() for term in terms]
        if flat is not None:
            here = flat[operands[1 - varying]]
            result, operands = result[here], [x[here] for x in operands]
        rows.append(result)
        columns.append(operands[varying])
        count += len(result)
        meter.check(count // _TERMS)
    return pairs(_joined(rows), _joined(columns), (out.size, size))


def _channels(
    params: dict[str, Any], shapes: tuple[Shape, Shape], out_shape: Shape
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Elements numbered, with the axes

    image (N, group, in feature, …), kernel (group, out feature, in feature, …) and result
    (N, group, out feature, …). Groups of features and of batches are one thing then.
    """
    image_axes, kernel_axes, out_axes = params["dimension_numbers"]
    image = numbers_of(shapes[0]).transpose(image_axes)
    kernel = numbers_of(shapes[1]).transpose(kernel_axes)
    out = numbers_of(out_shape).transpose(out_axes)
    features, batches = params["feature_group_count"], params["batch_group_count"]
    groups = max(features, batches)
    if batches > 1:
        image = _split(image, 0, batches).swapaxes(0, 1)
    else:
        image = _split(image, 1, features)
    return image, _split(kernel, 0, groups), _split(out, 1, groups)


def _split(x: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """An axis as two, the first of them of groups. (Other axes may be empty.)"""
    shape = x.shape
    return x.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def _inner(x: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """The elements at some positions along the axes after the third."""
    for axis, index in enumerate(positions):
        x = np.take(x, index, axis + 3)
    return x


def _taps(
    window: Shape, geometry: list[Any]
) -> Iterator[tuple[Shape, list[np.ndarray], list[np.ndarray]]]:
    """For each position in a window: to where its elements go, and from where they come."""
    for tap in itertools.product(*map(range, window)):
        to, come = [], []
        for k, (size, out_size, stride, (low, _), dilation, window_dilation) in zip(tap, geometry):
            place = np.arange(out_size) * stride + k * window_dilation - low
            inside = (place >= 0) & (place % dilation == 0) & (place // dilation < size)
            to.append(np.flatnonzero(inside))
            come.append(place[inside] // dilation)
        yield tap, to, come


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
