"""When is a factor singular to working precision?"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array


def pivot_threshold(n: int, dtype: jnp.dtype) -> float:
    """10·√n·ε: below it, relative to its row and column, a pivot is rounding error.

    Rounding errors of n-step eliminations add up like √n in practice (Higham 2002, Accuracy and
    Stability of Numerical Algorithms, section 2.8), and the last pivot of an exactly singular matrix
    comes out as a small multiple of that.
    """
    return 10 * math.sqrt(max(n, 1)) * float(jnp.finfo(dtype).eps)


def default_rcond(rcond: float | Array | None, n: int, m: int, dtype: jnp.dtype) -> float | Array:
    """The relative size below which singular values (or diagonal entries) count as zero.

    `None` stands for 2·max(n, m)·ε; a negative value stands for ε.
    """
    eps = float(jnp.finfo(dtype).eps)
    if rcond is None:
        return 2 * max(n, m) * eps
    return jnp.where(rcond < 0, eps, rcond)
