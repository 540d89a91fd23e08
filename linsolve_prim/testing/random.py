"""Random vectors and perturbations of a given structure."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._types import Structure, is_array
from ..operators import AbstractLinearOperator, has_unit_diagonal


def random_like(structure: Structure, seed: int = 0) -> PyTree[Array]:
    """A pytree of standard normal entries (complex ones with both parts) of the given structure.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> x = lp.testing.random_like({"p": jnp.zeros(2), "q": jnp.zeros((3, 1))}, seed=1)
        >>> x["p"].shape, x["q"].shape
        ((2,), (3, 1))
    """
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> Array:
        values = rng.standard_normal(leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            values = values + 1j * rng.standard_normal(leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(draw, structure)


def structured_direction(operator: AbstractLinearOperator, seed: int = 0) -> Any:
    """A direction in which an operator can move and keep its promises: a list for its array leaves.

    Square matrices move along DAD with a random positive diagonal D, which keeps symmetry,
    definiteness, triangles and bands; everything else is scaled.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.tril(jnp.ones((3, 3))), lp.lower_triangular_tag)
        >>> (direction,) = lp.testing.structured_direction(A)
        >>> bool((jnp.triu(direction, 1) == 0).all())
        True
    """
    rng = np.random.default_rng(seed)
    unit = has_unit_diagonal(operator)
    out = []
    for leaf in jax.tree.leaves(operator):
        if not is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        if leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1]:
            d = jnp.asarray(rng.uniform(0.2, 1.0, leaf.shape[0]), leaf.dtype)
            move = d[:, None] * leaf * d[None, :]
            out.append(move - jnp.diag(jnp.diag(move)) if unit else move)
        else:
            out.append(leaf * jnp.asarray(0.7, leaf.dtype))
    return out
