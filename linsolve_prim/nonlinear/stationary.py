"""What a minimiser solves: a gradient that vanishes, but for what bounds hold back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._norms import max_norm
from .._static import is_concrete
from .._tree import tree_sub
from .._types import inexact_asarray, structure_of, structure_str
from ..errors import StructureError
from ..operators import AbstractLinearOperator, JacobianLinearOperator, positive_semidefinite_tag
from ..operators.closure import close

Bounds = tuple[PyTree[Array], PyTree[Array]]


class Stationary(eqx.Module):
    """min f(x), lower ≤ x ≤ upper, as the equation F(x) = x − P(x − ∇f(x)) = 0.

    P is the projection on the bounds. Without bounds F is ∇f. Where a bound is active F is the
    distance from it, so that the implicit derivative of x is that of the bound, as it should be.
    """

    loss: Callable[[PyTree[Array]], Array]
    bounds: Bounds | None

    def gradient(self, x: PyTree[Array]) -> PyTree[Array]:
        return jax.grad(self.loss)(x)

    def project(self, x: PyTree[Array]) -> PyTree[Array]:
        """The nearest point within the bounds."""
        if self.bounds is None:
            return x
        return jax.tree.map(lambda a, l, u: jnp.minimum(jnp.maximum(a, l), u), x, *self.bounds)

    def residual_of(self, x: PyTree[Array], gradient: PyTree[Array]) -> PyTree[Array]:
        if self.bounds is None:
            return gradient
        return tree_sub(x, self.project(tree_sub(x, gradient)))

    def residual(self, x: PyTree[Array]) -> PyTree[Array]:
        return self.residual_of(x, self.gradient(x))

    def measure(self, x: PyTree[Array], gradient: PyTree[Array]) -> Array:
        """max |Fᵢ(x)|, which the tolerance bounds."""
        return max_norm(self.residual_of(x, gradient))

    def operator(self, x: PyTree[Array]) -> AbstractLinearOperator:
        """The Hessian (with bounds: its rows where none is active, and those of I)."""
        tags = positive_semidefinite_tag if self.bounds is None else ()
        return JacobianLinearOperator(lambda x, _: self.residual(x), x, tags=tags)


def make_stationary(f: Callable[..., Any], x0: PyTree[Array], bounds: Any) -> Stationary:
    """The problem of minimising f, traced once for x like `x0`.

    **Raises** `StructureError` if f does not return a real scalar, x is complex, or the bounds do not
    fit.
    """
    structure = structure_of(x0)
    for leaf in jax.tree.leaves(structure):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise StructureError(
                f"x0: must be real to be minimised over; got {leaf.dtype}. Pass real and imaginary "
                "part as a tuple."
            )
    loss = close(lambda x: jax.tree.map(inexact_asarray, f(x)), structure)
    out = loss.out_structure()
    scalar = isinstance(out, jax.ShapeDtypeStruct) and out.shape == ()
    if not scalar or jnp.issubdtype(out.dtype, jnp.complexfloating):
        raise StructureError(f"f: must return one real number; got {structure_str(out)}.")
    return Stationary(loss, as_bounds(bounds, x0))


def as_bounds(bounds: Any, x0: PyTree[Array]) -> Bounds | None:
    """`(lower, upper)` as pytrees like x0. Each may be a number, `None`, or a pytree with those."""
    if bounds is None:
        return None
    if not (isinstance(bounds, tuple) and len(bounds) == 2):
        raise StructureError(
            "bounds: must be a pair (lower, upper), each a number, None or a pytree like x0; got "
            f"{bounds!r}."
        )
    lower, upper = bounds
    made = _bound(lower, x0, -jnp.inf, "lower"), _bound(upper, x0, jnp.inf, "upper")
    if is_concrete(made) and any(np.any(a > b) for a, b in zip(*map(jax.tree.leaves, made))):
        raise StructureError(
            f"bounds: the lower ones must not be above the upper ones; got {bounds!r}."
        )
    return made


def _bound(bound: Any, x0: PyTree[Array], none: float, which: str) -> PyTree[Array]:
    if bound is None or (jnp.ndim(bound) == 0 and not isinstance(bound, (tuple, list, dict))):
        bound = jax.tree.map(lambda _: bound, x0)
    leaves, treedef = jax.tree.flatten(bound, is_leaf=lambda x: x is None)
    own, own_treedef = jax.tree.flatten(x0)
    if treedef != own_treedef:
        raise StructureError(
            f"bounds: the {which} ones must be a number, None or a pytree like x0 "
            f"({structure_str(structure_of(x0))}); got {bound!r}."
        )
    filled = [jnp.asarray(none if b is None else b, x.dtype) for b, x in zip(leaves, own)]
    for b, x in zip(filled, own):
        if b.shape not in ((), x.shape):
            raise StructureError(
                f"bounds: an array of x0 has shape {x.shape}, and its {which} bound {b.shape}."
            )
    return jax.tree.unflatten(treedef, [jnp.broadcast_to(b, x.shape) for b, x in zip(filled, own)])
