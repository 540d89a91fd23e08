"""log Σ exp over rows, columns or all entries of a sparse matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import StructureError
from .algebra import as_operators
from .triplets import from_any, is_sparse


def sparse_logsumexp(
    A: Any,
    axis: int | tuple[int, ...] | None = None,
    *,
    keepdims: bool = False,
    include_zeros: bool = True,
) -> Array:
    """log Σ exp Aᵢⱼ over an axis, as `jax.scipy.special.logsumexp` of the dense matrix, without making it.

    - `A`: a real `SparseLinearOperator`, SciPy matrix, `BCOO` or `BCSR`.
    - `axis`: 1 for one number in each row, 0 in each column, None or (0, 1) for one number.
    - `include_zeros`: whether positions without an entry count as zeros, each of which adds exp 0 = 1.
      If not, they count as −∞, and a row without entries gives −∞.

    Stable: the largest number is taken out. The gradient by A lives on its pattern (a softmax).

    **Raises** `StructureError` for a complex A, `ValueError` for an axis that is not there.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[1.0, 0.0], [0.0, 0.0]])
        >>> print(jnp.exp(lp.sparse_logsumexp(A, axis=1)).round(2))  # e + 1, and 1 + 1
        [3.72 2.  ]
    """
    operator = from_any(A) if is_sparse(A) else A
    (given,) = as_operators([operator], name="A")
    if jnp.iscomplexobj(given.values):
        raise StructureError(f"A: must be real; got {given.values.dtype}.")
    axes = (0, 1) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    if (
        not axes
        or any(a not in (-2, -1, 0, 1) for a in axes)
        or len({a % 2 for a in axes}) < len(axes)
    ):
        raise ValueError(f"axis: must be 0, 1, (0, 1) or None; got {axis!r}.")
    (m, n), pattern = given.pattern.shape, given.pattern
    kept = {a % 2 for a in axes}
    if kept == {0, 1}:
        out = _grouped(given.values, np.zeros(pattern.nnz, int), 1, m * n, include_zeros)
        return out.reshape((1, 1) if keepdims else ())
    if kept == {1}:
        out = _grouped(given.values, pattern.rows, m, n, include_zeros)
        return out[:, None] if keepdims else out
    out = _grouped(given.values, pattern.indices, n, m, include_zeros)
    return out[None, :] if keepdims else out


def sparse_bidir_logsumexp(
    A: Any, *, keepdims: bool = False, include_zeros: bool = True
) -> tuple[Array, Array]:
    """`sparse_logsumexp` over both axes: `(of columns (n,), of rows (m,))`.

    - `A`, `include_zeros`: as for `sparse_logsumexp`, whose errors it raises.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> columns, rows = lp.sparse_bidir_logsumexp(sp.csr_array([[1.0, 0.0]]))
        >>> print(jnp.exp(columns).round(2), jnp.exp(rows).round(2))
        [2.72 1.  ] [3.72]
    """
    both = [
        sparse_logsumexp(A, axis, keepdims=keepdims, include_zeros=include_zeros) for axis in (0, 1)
    ]
    return both[0], both[1]


def _grouped(values: Array, group: np.ndarray, count: int, full: int, zeros: bool) -> Array:
    """For each of `count` groups, of `full` positions each, of which some have entries."""
    missing = full - np.bincount(group, minlength=count)
    missing = missing if zeros else np.zeros(count, int)
    most = jax.ops.segment_max(jax.lax.stop_gradient(values), group, count)
    most = jnp.where(missing > 0, jnp.maximum(most, 0), most)
    shift = jnp.where(jnp.isfinite(most), most, 0)
    total = jax.ops.segment_sum(jnp.exp(values - shift[group]), group, count)
    absent = jnp.asarray(missing, values.dtype) * jnp.exp(-jnp.where(missing > 0, shift, 0))
    total = total + absent
    none = total == 0
    return jnp.where(none, -jnp.inf, shift + jnp.log(jnp.where(none, 1, total)))
