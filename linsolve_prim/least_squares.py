"""`lstsq`: least squares for whatever describes a system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._tree import tree_real_dtype, tree_zeros
from ._types import Options
from .api import linear_solve
from .auto import AutoLinearSolver, is_matrix_free, is_sparse_operator
from .operators import AbstractLinearOperator, is_diagonal
from .operators.damped import DampedLinearOperator
from .simple import as_solver, dispatch
from .solvers import LSMR
from .solvers.base import AbstractLinearSolver
from .solvers.krylov.least_squares import is_damped
from .solvers.krylov.stopping import check_tolerance

#: Up to this many rows and columns, what is sparse or known by its products is made dense: the SVD
#: takes any condition number, and no longer than the products of an iteration.
DENSE_SIZE = 256


def lstsq(
    A: Any,
    b: PyTree[Any],
    solver: AbstractLinearSolver[Any] | Callable[[Any, Any], Any] | None = None,
    *,
    damp: Any = 0.0,
    x0: PyTree[Any] = None,
    preconditioner: Any = None,
    adjoint: Any = None,
    throw: bool = True,
    suppress: Any = (),
    name: str | None = None,
    args: tuple[Any, ...] = (),
) -> PyTree[Array]:
    """The x that minimises ‖b − Ax‖² + damp²‖x‖², and among several the one of minimum norm: x = A†b.

    **Arguments**

    - `A`, `b`: as for `solve`, of any shape `(..., M, N)` and rank: tall, wide, rank-deficient; `b` is
      `(..., M)` or `(..., M, K)`, or a pytree for operators and functions.
    - `solver`: any solver for operators that are not square. By default `SVD` for matrices, and up to
      256 unknowns for everything else; `LSMR(rtol=ε^¾)` for what is sparse or known by its products.
      `QR()` is faster than `SVD` where full rank is sure, and so are its derivatives.
    - `damp`: a real number (Tikhonov's regularisation, ridge regression); it can be differentiated.
    - `x0`: where an iteration starts. With it the solution is the nearest one to x0, where there are
      several. For functions it also says what x looks like; it must be given if that is not like b.
    - `preconditioner`: approximates A† (see `LSMR`).
    - `adjoint`, `throw`, `suppress`, `name`, `args`: as for `solve`.

    Derivatives, forward, reverse and of any order, are those of A†b at constant rank, with all terms
    (Golub and Pereyra, 1973, doi:10.1137/0710036); those by a sparse A live on its pattern.

    **Raises** as `solve` does.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A, b = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), jnp.array([1.0, 3.0, 5.0])
        >>> print(lp.lstsq(A, b).round(3))  # a line through three points: 1 + 2t
        [1. 2.]
        >>> print(lp.lstsq(jnp.ones((2, 2)), jnp.array([1.0, 3.0])).round(3))  # of rank one: least norm
        [1. 1.]
    """
    check_tolerance("damp", damp)
    chosen = None if solver is None else as_solver(solver)
    settings: dict[str, Any] = {"adjoint": adjoint, "throw": throw, "suppress": suppress}

    def one(operator: AbstractLinearOperator, rhs: PyTree[Array], options: Options) -> Any:
        own = default_solver(operator) if chosen is None else chosen
        if is_damped(damp):
            rhs = rhs, tree_zeros(operator.in_structure())
            operator = DampedLinearOperator(operator, jnp.asarray(damp, tree_real_dtype(rhs)))
        return linear_solve(operator, rhs, own, options=options, name=name, **settings).value

    return dispatch(A, b, x0, preconditioner, args, one)


def default_solver(operator: AbstractLinearOperator) -> AbstractLinearSolver[Any]:
    """What `lstsq` takes for an operator if it is not told."""
    by_products = is_sparse_operator(operator) or is_matrix_free(operator)
    large = max(operator.in_size(), operator.out_size()) > DENSE_SIZE
    if not (by_products and large) or is_diagonal(operator):
        return AutoLinearSolver(well_posed=False)
    eps = float(jnp.finfo(tree_real_dtype(operator.out_structure())).eps)
    return LSMR(rtol=eps**0.75, conlim=1 / eps)
