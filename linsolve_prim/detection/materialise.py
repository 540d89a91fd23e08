"""`materialise_sparse`: any affine function, or any operator, as a sparse matrix and an offset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from jaxtyping import Array, PyTree

from .._tree import tree_zeros
from ..errors import WrongTypeError
from ..operators import AbstractLinearOperator
from ..operators.dense import tags_of
from ..operators.tags import as_tags
from ..sparse.operator import SparseLinearOperator, sparse_of
from .affine import matrix_of, trace
from .linear_function import LinearFunction


def materialise_sparse(
    A: AbstractLinearOperator | Callable[..., PyTree[Any]],
    x_like: PyTree[Any] = None,
    *,
    args: tuple[Any, ...] = (),
    tags: object | Iterable[object] = (),
) -> tuple[SparseLinearOperator, Array]:
    """The sparse matrix and the offset of a linear or affine function: f(x) = Ax + offset.

    ```python
    A, offset = lp.materialise_sparse(f, b)
    x = lp.solve(A, b.ravel() - offset).reshape(b.shape)
    ```

    **Arguments**

    - `A`: a Python function of x (and `args`) between pytrees of arrays, of any JAX operations; or an
      `AbstractLinearOperator`.
    - `x_like`: a pytree with the shapes and dtypes of x. Integers stand for the default float.
      Operators do not need it.
    - `args`: further arguments of the function. In these and in all that it closes over, the values of
      the matrix and the offset can be differentiated, batched and traced.
    - `tags`: what is promised of the matrix. The promises of an operator are kept.

    **Returns** `(operator, offset)` between vectors: the leaves of x (of the result), raveled and
    concatenated. The operator has the shape `(m, n)` and the common dtype, the offset `(m,)`.

    *Where* the entries are is found from the function's jaxpr, for each of its operations; what is
    known when that is done (masks, indices, coefficients of zero, loop counts) is used. *What* they are
    is found by products with the function, one for each colour of a colouring of the columns. So
    entries are as exact as the function. Nothing of size n² exists unless there are as many entries;
    if the matrix is dense, it is returned as a full pattern, and the logger `linsolve_prim` says so.

    **Raises** `NonlinearFunctionError` naming the primitive that is not linear; `StructureError` if no
    pattern is found and a dense matrix would be too large.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A, offset = lp.materialise_sparse(lambda x: jnp.diff(x, prepend=0.0) + 1, jnp.zeros(3))
        >>> print(A.as_matrix(), offset, A.pattern.nnz)
        [[ 1.  0.  0.]
         [-1.  1.  0.]
         [ 0. -1.  1.]] [1. 1. 1.] 5
    """
    if isinstance(A, AbstractLinearOperator):
        return _of_operator(A, args, tags)
    if not callable(A):
        raise WrongTypeError(
            f"A: must be a function or an AbstractLinearOperator; got {type(A).__name__}. For "
            "matrices there are `SparseLinearOperator.from_scipy`, `from_bcoo` and `from_dense`."
        )
    if x_like is None:
        raise ValueError("x_like: is needed for a function, to know its size; got None.")
    if isinstance(A, LinearFunction):
        operator, offset = A.matrix_and_bias(x_like, *args)
    else:
        operator, offset = matrix_of(trace(A, x_like, *args).check())
    return SparseLinearOperator(operator.values, operator.pattern, tags), offset


def _of_operator(
    operator: AbstractLinearOperator, args: tuple[Any, ...], tags: Any
) -> tuple[SparseLinearOperator, Array]:
    if args:
        raise ValueError("args: are only taken when `A` is a function; drop them.")
    sparse = sparse_of(operator)
    kept = tags_of(operator) | as_tags(tags)
    if sparse is None:
        sparse, offset = matrix_of(trace(operator.mv, operator.in_structure()).check())
    else:
        offset = tree_zeros(sparse.out_structure())
    return SparseLinearOperator(sparse.values, sparse.pattern, kept), offset
