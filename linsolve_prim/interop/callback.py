"""An operator whose products are made on the host."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import inexact_asarray
from ..operators import AbstractLinearOperator, conj, functions as fns
from ..operators.tags import as_tags, transpose_tags


class HostLinearOperator(AbstractLinearOperator):
    """A SciPy `LinearOperator` (or anything with `shape`, `dtype`, `matmat` and `rmatmat`).

    Linear in the vector, and differentiable by it; it holds nothing that could be differentiated. A
    batch of vectors is one callback.

    - `form`: "A", "T" (Aᵀ), "C" (conj A) or "H" (Aᴴ).

        >>> import jax, jax.numpy as jnp, numpy as np, scipy.sparse as sp
        >>> from linsolve_prim.interop.callback import HostLinearOperator
        >>> A = HostLinearOperator(sp.linalg.aslinearoperator(np.array([[2.0, 1.0], [0.0, 4.0]])))
        >>> print(jax.jit(A.mv)(jnp.ones(2)), A.T.mv(jnp.ones(2)))
        [3. 4.] [2. 5.]
    """

    operator: Any = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)
    form: Literal["A", "T", "C", "H"] = eqx.field(static=True)

    def __init__(self, operator: Any, tags: Any = (), form: Literal["A", "T", "C", "H"] = "A"):
        self.operator, self.tags, self.form = operator, as_tags(tags), form

    def mv(self, vector: Array) -> Array:
        (n,), (m,) = self.in_structure().shape, self.out_structure().shape
        size = max(m, n)
        fit = lambda x: jnp.pad(x, (0, size - x.shape[0]))
        turned = {"A": "T", "T": "A", "C": "H", "H": "C"}[self.form]
        # JAX transposes no callback, but a solve for which both ways are given: of Ix = b, so to say.
        return jax.lax.custom_linear_solve(
            lambda x: x,
            fit(vector),
            solve=lambda _, x: fit(self._called(self.form, x[:n], m)),
            transpose_solve=lambda _, x: fit(self._called(turned, x[:m], n)),
        )[:m]

    def _called(self, form: str, x: Array, size: int) -> Array:
        out = jax.ShapeDtypeStruct((size,), x.dtype)
        call = lambda x: _on_host(self.operator, form, np.asarray(x))
        return jax.pure_callback(call, out, x, vmap_method="broadcast_all")

    def transpose(self) -> AbstractLinearOperator:
        if fns.is_symmetric(self):
            return self
        other: Any = {"A": "T", "T": "A", "C": "H", "H": "C"}[self.form]
        return HostLinearOperator(self.operator, transpose_tags(self.tags), other)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        m, n = self.operator.shape
        return jax.ShapeDtypeStruct((n if self.form in "AC" else m,), _dtype(self.operator))

    def out_structure(self) -> jax.ShapeDtypeStruct:
        m, n = self.operator.shape
        return jax.ShapeDtypeStruct((m if self.form in "AC" else n,), _dtype(self.operator))


@conj.register(HostLinearOperator)
def _conj(operator: HostLinearOperator) -> HostLinearOperator:
    if not jnp.issubdtype(_dtype(operator.operator), jnp.complexfloating):
        return operator
    other: Any = {"A": "C", "C": "A", "T": "H", "H": "T"}[operator.form]
    return HostLinearOperator(operator.operator, operator.tags, other)


def _dtype(operator: Any) -> Any:
    """In the precision that JAX has at the moment; integers count as floating-point numbers."""
    return inexact_asarray(np.zeros((), operator.dtype)).dtype


def _on_host(operator: Any, form: str, x: np.ndarray) -> np.ndarray:
    """The product with a batch of vectors `(..., n)`."""
    columns = x.reshape(-1, x.shape[-1]).T
    columns = columns.conj() if form in "CT" else columns
    if columns.shape[1] == 1:  # many users' products are written for (n,) and not for (n, 1)
        one = operator.matvec if form in "AC" else operator.rmatvec
        y = one(columns[:, 0])[:, None]
    else:
        y = operator.matmat(columns) if form in "AC" else operator.rmatmat(columns)
    y = y.conj() if form in "CT" else y
    return np.ascontiguousarray(y.T, x.dtype).reshape(*x.shape[:-1], y.shape[0])
