"""Values and patterns of matrices in other forms: SciPy's, and JAX's BCOO and BCSR."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array

from ..errors import StructureError, WrongTypeError
from .indices import concrete
from .pattern import SparsityPattern, check_scipy
from .values import place


def read_scipy(matrix: Any) -> tuple[Array, SparsityPattern]:
    """Of a `scipy.sparse` matrix or array."""
    check_scipy(matrix)
    csr = matrix.tocsr()
    pattern, slots = SparsityPattern._from_csr(csr.indptr, csr.indices, csr.shape)
    return place(csr.data, slots, pattern, "data"), pattern


def read_bcoo(matrix: Any) -> tuple[Array, SparsityPattern]:
    """Of a BCOO, without the entries that pad it: those with an index past the end."""
    from jax.experimental.sparse import BCOO

    check_jax_sparse(matrix, BCOO)
    indices = concrete("matrix.indices", matrix.indices, axes=2)
    inside = np.all(indices < np.asarray(matrix.shape), axis=1)
    kept = np.flatnonzero(inside)
    data = matrix.data if len(kept) == len(indices) else matrix.data[kept]
    pattern, slots = SparsityPattern.from_coo(indices[kept, 0], indices[kept, 1], matrix.shape)
    return place(data, slots, pattern, "matrix.data"), pattern


def read_bcsr(matrix: Any) -> tuple[Array, SparsityPattern]:
    """Of a BCSR, without the entries that pad it: those after the last row."""
    from jax.experimental.sparse import BCSR

    check_jax_sparse(matrix, BCSR)
    indptr = concrete("matrix.indptr", matrix.indptr)
    indices = concrete("matrix.indices", matrix.indices)
    count = int(indptr[-1])
    pattern, slots = SparsityPattern._from_csr(indptr, indices[:count], matrix.shape)
    return place(matrix.data[:count], slots, pattern, "matrix.data"), pattern


def check_jax_sparse(matrix: Any, kind: Any) -> None:
    """Refuse what is not of `kind` (BCOO or BCSR) with two sparse axes alone."""
    name = kind.__name__
    if not isinstance(matrix, kind):
        raise WrongTypeError(
            f"matrix: must be a `jax.experimental.sparse.{name}`; got {type(matrix).__name__}."
        )
    if matrix.n_batch or matrix.n_dense or matrix.ndim != 2:
        raise StructureError(
            f"matrix: must be a {name} with two sparse axes and no others; got n_batch = "
            f"{matrix.n_batch}, n_sparse = {matrix.n_sparse}, n_dense = {matrix.n_dense}. Make a "
            "batch by `jax.vmap` over the values of one pattern."
        )


def to_scipy(values: Array, pattern: SparsityPattern) -> sp.csr_array:
    """A `csr_array` with copies of the values and indices."""
    if isinstance(values, jax.core.Tracer):
        raise StructureError(
            f"values: must be concrete to become a SciPy matrix; got a traced array, "
            f"{values.aval.str_short()}. Call `to_scipy` outside of `jax.jit` and `jax.grad`, or "
            "use `to_bcoo`."
        )
    arrays = (np.array(values), pattern.indices.copy(), pattern.indptr.copy())
    out = sp.csr_array(arrays, shape=pattern.shape)
    out.has_canonical_format = True
    return out


def to_bcoo(values: Array, pattern: SparsityPattern) -> Any:
    """A BCOO that knows that its indices are sorted and unique."""
    from jax.experimental.sparse import BCOO

    indices = jnp.asarray(np.stack([pattern.rows, pattern.indices], axis=1))
    return BCOO((values, indices), shape=pattern.shape, indices_sorted=True, unique_indices=True)


def to_bcsr(values: Array, pattern: SparsityPattern) -> Any:
    """A BCSR that knows that its indices are sorted and unique."""
    from jax.experimental.sparse import BCSR

    arrays = (values, jnp.asarray(pattern.indices), jnp.asarray(pattern.indptr))
    return BCSR(arrays, shape=pattern.shape, indices_sorted=True, unique_indices=True)
