"""`slogdet` and `logdet`: of any square operator, by rules where there are some, else by factors."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..auto import MATRIX_FREE_SIZE, AutoLinearSolver, is_matrix_free, is_sparse_operator
from ..errors import StructureError, WrongTypeError
from ..factorization import Factorization
from ..operators import AbstractLinearOperator
from ..operators.functions import promises_hermitian
from ..simple import as_array, as_operator, is_matrix
from ..solvers import SuperLU
from ..solvers.base import AbstractLinearSolver
from ..sparse.triplets import is_sparse
from . import factored
from .rules import by_rule


class SLogDet(NamedTuple):
    """A determinant as `sign * exp(logabsdet)`, as `jax.numpy.linalg.slogdet` gives it.

    - `sign`: 1, −1 or 0; for complex A, det A / |det A|. It has the dtype of A.
    - `logabsdet`: log |det A|, real; −inf if A is singular.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> sign, log = lp.slogdet(lp.DiagonalLinearOperator(jnp.array([2.0, -4.0])))
        >>> print(sign, jnp.exp(log).round(3))
        -1.0 8.0
    """

    sign: Array
    logabsdet: Array


def slogdet(
    A: Any, solver: AbstractLinearSolver[Any] | None = None, *, throw: bool = True
) -> SLogDet:
    """The sign (for complex A the phase) and the logarithm of |det A|.

    **Arguments**

    - `A`: an operator; an array `(..., N, N)`; a sparse matrix; or what `factorize` returned, whose
      factors are then used.
    - `solver`: whose factorization is taken: `LU()`, `Cholesky()`, `QR()`, `SVD()` or a host solver. By
      default what costs least: a diagonal or triangle is read off; tridiagonal operators take O(n);
      products, multiples, negatives and conjugates follow from their parts; `LowRankPlusDiagonal` takes
      r×r determinants; sparse matrices `SuperLU`; definite operators `Cholesky`; others `LU`.
    - `throw`: whether solves of derivatives raise if they fail, as that of a singular matrix does.

    Host libraries that do not show their factors (RSLab, UMFPACK, PARDISO) have SuperLU factorize again.

    **Derivatives** of every order, and under `jit` and `vmap`: d log det A = tr(A⁻¹ dA). For dense A
    that is one inverse. For sparse A they live on the pattern, and take the entries of A⁻¹ there: n
    solves with the one factorization, in blocks of right-hand sides, and no n×n array. Beyond some 10⁵
    unknowns `stochastic_logdet` is cheaper.

    **Raises** `StructureError` if A is not square, or is known by its products only and has more than
    4096 unknowns; `NotImplementedError` if `solver` has no factors.

    ```python
    def negative_log_likelihood(theta):  # of a Gaussian process, y ~ N(0, K(θ))
        K = lp.MatrixLinearOperator(kernel(theta), lp.positive_semidefinite_tag)
        factors = lp.factorize(K)
        return 0.5 * (y @ factors.solve(y) + lp.logdet(factors) + n * jnp.log(2 * jnp.pi))

    gradient = jax.grad(negative_log_likelihood)(theta)
    ```

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> sign, log = lp.slogdet(A)
        >>> print(sign, jnp.exp(log).round(3))
        -1.0 2.0
        >>> print(jax.grad(lambda A: lp.slogdet(A).logabsdet)(A).round(1))  # A⁻ᵀ
        [[-2.   1.5]
         [ 1.  -0.5]]
    """
    if isinstance(A, Factorization):
        _square(A.operator)
        return SLogDet(*factored.of_state(A.operator, A.solver, A.state, throw))
    if not isinstance(A, AbstractLinearOperator) and not is_sparse(A) and is_matrix(A):
        return _of_array(A, solver, throw)
    return _of_operator(_operator(A), solver, throw)


def logdet(A: Any, solver: AbstractLinearSolver[Any] | None = None, *, throw: bool = True) -> Array:
    """log det A: real if A is, or if it promises to be Hermitian; else complex, log |det A| + i·phase.

    NaN where a real determinant is negative: there `slogdet` gives the sign and log |det A|. Arguments,
    derivatives and errors are those of `slogdet`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> print(jnp.exp(lp.logdet(A)).round(2), jnp.exp(lp.logdet(lp.factorize(A))).round(2))
        5.0 5.0
    """
    operator = A.operator if isinstance(A, Factorization) else A
    sign, log = slogdet(A, solver, throw=throw)
    hermitian = isinstance(operator, AbstractLinearOperator) and promises_hermitian(operator)
    if jnp.iscomplexobj(sign) and not hermitian:
        return jax.lax.complex(log, jnp.angle(sign))
    return log + jnp.where(jax.lax.stop_gradient(sign.real) < 0, jnp.nan, 0).astype(log.dtype)


def _operator(A: Any) -> AbstractLinearOperator:
    if isinstance(A, AbstractLinearOperator) or is_sparse(A):
        return as_operator(A, None)
    raise WrongTypeError(
        "A: must be an operator, an array, a sparse matrix or a `Factorization`; got "
        f"{type(A).__name__}. Wrap a function as `FunctionLinearOperator(fn, structure)`."
    )


def _of_array(A: Any, solver: Any, throw: bool) -> SLogDet:
    matrix = as_array(A, "A")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise StructureError(f"A: must have shape (..., N, N); got {matrix.shape}.")
    one = lambda a: _of_operator(as_operator(a, None), solver, throw)
    for _ in matrix.shape[:-2]:
        one = jax.vmap(one)
    return one(matrix)


def _of_operator(operator: AbstractLinearOperator, solver: Any, throw: bool) -> SLogDet:
    _square(operator)
    if solver is None:
        found = by_rule(operator, lambda part: _of_operator(part, None, throw))
        if found is not None:
            return SLogDet(*found)
        solver = _choose(operator)
    elif not isinstance(solver, AbstractLinearSolver):
        raise WrongTypeError(f"solver: must be an AbstractLinearSolver or None; got {solver!r}.")
    return SLogDet(*factored.of_operator(operator, solver, throw))


def _square(operator: AbstractLinearOperator) -> None:
    rows, columns = operator.out_size(), operator.in_size()
    if rows != columns:
        raise StructureError(
            f"A: must be square to have a determinant; got a {rows}×{columns} operator. (For the "
            "volume of a rectangular one take that of its Gram matrix, conj(A).T @ A.)"
        )


def _choose(operator: AbstractLinearOperator) -> AbstractLinearSolver[Any]:
    """A factorization that shows its determinant."""
    size = operator.in_size()
    if is_sparse_operator(operator):
        return SuperLU()
    if size > MATRIX_FREE_SIZE and is_matrix_free(operator):
        raise StructureError(
            f"A: is known by its products only and has {size} unknowns, more than {MATRIX_FREE_SIZE}: "
            "it is not made dense. Take `stochastic_logdet(A, key)` if it is definite, or "
            "`materialise_sparse` if it is sparse; or pass `solver=lp.LU()` to make it dense."
        )
    return AutoLinearSolver(well_posed=True)
