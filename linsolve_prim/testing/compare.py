"""Assertions on pytrees, with messages that name the law."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._tree import ravel, tree_real_dtype
from .._types import structure_equal, structure_str


def default_rtol(x: PyTree[Array]) -> float:
    """√ε of a pytree's dtype."""
    return float(jnp.finfo(tree_real_dtype(x)).eps) ** 0.5


def assert_close(
    law: str, actual: PyTree[Array], desired: PyTree[Array], rtol: float | None = None
) -> None:
    """‖actual − desired‖ ≤ rtol·max(‖desired‖, tiny), or an `AssertionError` that names the law."""
    if not structure_equal(actual, desired):
        raise AssertionError(
            f"{law}: structures differ, {structure_str(actual)} against {structure_str(desired)}."
        )
    if not jax.tree.leaves(desired):
        return
    rtol = default_rtol(desired) if rtol is None else rtol
    a, d = np.asarray(ravel(actual)), np.asarray(ravel(desired))
    scale = max(float(np.linalg.norm(d)), float(np.finfo(d.real.dtype).tiny))
    error = float(np.linalg.norm(a - d)) / scale
    if not error <= rtol:
        raise AssertionError(f"{law}: relative error {error:.2e}, allowed {rtol:.2e}.")


def assert_true(law: str, condition: Any, detail: str = "") -> None:
    if not bool(condition):
        raise AssertionError(f"{law}: does not hold. {detail}".rstrip())
