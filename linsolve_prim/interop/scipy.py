"""Our operators as `scipy.sparse.linalg.LinearOperator`, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from .._tree import ravel, tree_dtype, unravel
from ..errors import WrongTypeError
from ..operators import AbstractLinearOperator, MatrixLinearOperator, conj
from ..sparse.operator import SparseLinearOperator
from .callback import HostLinearOperator


def to_scipy(operator: AbstractLinearOperator) -> spla.LinearOperator:
    """A SciPy `LinearOperator` whose products are those of `operator`, compiled; pytrees are raveled.

    For SciPy's solvers (`eigsh`, `svds`, `lgmres`, …). `matvec`, `rmatvec`, `matmat` and `rmatmat` are there.
    A real operator takes complex vectors too: A(x + iy) = Ax + iAy.

    - `operator`: from `(n,)` to `(m,)`, or pytrees of that size; its arrays must be known, not traced.

        >>> import jax.numpy as jnp, numpy as np, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 3 * x - jnp.roll(x, 1), jnp.zeros(4))
        >>> S = lp.interop.scipy.to_scipy(A)
        >>> print(S.matvec(np.ones(4)), S.shape)
        [2. 2. 2. 2.] (4, 4)
    """
    if not isinstance(operator, AbstractLinearOperator):
        raise WrongTypeError(
            f"operator: must be an AbstractLinearOperator; got {type(operator).__name__}."
        )
    adjoint = conj(operator).transpose()
    dtype = tree_dtype((operator.in_structure(), operator.out_structure()))
    return spla.LinearOperator(
        (operator.out_size(), operator.in_size()),
        matvec=_product(operator),
        rmatvec=_product(adjoint),
        matmat=_products(operator),
        rmatmat=_products(adjoint),
        dtype=np.dtype(dtype),
    )


def _flat(operator: AbstractLinearOperator) -> Any:
    structure = operator.in_structure()
    return lambda x: ravel(operator.mv(unravel(x, structure)))


def _product(operator: AbstractLinearOperator) -> Any:
    fn = _numeric(operator, jax.jit(_flat(operator)))
    return lambda x: fn(np.ravel(x))


def _products(operator: AbstractLinearOperator) -> Any:
    return _numeric(operator, jax.jit(jax.vmap(_flat(operator), in_axes=1, out_axes=1)))


def _numeric(operator: AbstractLinearOperator, fn: Any) -> Any:
    """Of NumPy arrays to such as may be written to (SciPy's methods do)."""
    dtype = np.dtype(tree_dtype(operator.in_structure()))

    def call(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        if np.iscomplexobj(x) and dtype.kind != "c":
            return call(x.real) + 1j * call(x.imag)
        return np.array(fn(jnp.asarray(x, dtype)))

    return call


def from_scipy(operator: Any, tags: Any = ()) -> AbstractLinearOperator:
    """Of a SciPy `LinearOperator`, sparse matrix, or NumPy matrix one of ours.

    Products of a `LinearOperator` are made on the host, by a callback, for one vector or a batch; its
    transpose needs `rmatvec`.

    **Raises** `TypeError` for anything else.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = lp.interop.scipy.from_scipy(sp.csr_array([[2.0, 1.0], [0.0, 4.0]]))
        >>> print(type(A).__name__, A.mv(jnp.ones(2)))
        SparseLinearOperator [3. 4.]
    """
    if sp.issparse(operator):
        return SparseLinearOperator.from_scipy(operator, tags)
    if isinstance(operator, np.ndarray):
        return MatrixLinearOperator(jnp.asarray(operator), tags)
    if not isinstance(operator, spla.LinearOperator):
        raise WrongTypeError(
            "operator: must be a scipy.sparse.linalg.LinearOperator, a sparse matrix or an array; got "
            f"{type(operator).__name__}."
        )
    return HostLinearOperator(operator, tags)
