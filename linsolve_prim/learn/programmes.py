"""Quadratic programmes with equality constraints, by their saddle-point system."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_add, tree_neg
from .._types import Structure, inexact_asarray, structure_equal, structure_of, structure_str
from ..api import linear_solve
from ..auto import AutoLinearSolver
from ..errors import StructureError
from ..operators import AbstractLinearOperator, conj, is_symmetric, linearise, materialise
from ..results import Solution
from ..simple import as_operator
from ..solvers.base import AbstractLinearSolver
from ..sparse.algebra import symmetrize


class SaddlePointOperator(AbstractLinearOperator):
    """[P Aᵀ; A −C] on pairs (x, y): what the conditions of Karush, Kuhn and Tucker lead to.

    - `P`: square, of the structure of x. The whole is symmetric if P is (and C).
    - `A`: from x to y.
    - `C`: square, of the structure of y; `None` for zero.

    **Raises** `StructureError` if P, A and C do not fit together.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> P, A = lp.MatrixLinearOperator(jnp.eye(2)), lp.MatrixLinearOperator(jnp.ones((1, 2)))
        >>> print(lp.learn.SaddlePointOperator(P, A).as_matrix())
        [[1. 0. 1.]
         [0. 1. 1.]
         [1. 1. 0.]]
    """

    P: AbstractLinearOperator
    A: AbstractLinearOperator
    C: AbstractLinearOperator | None = None

    def __check_init__(self) -> None:
        square = structure_equal(self.P.in_structure(), self.P.out_structure())
        fits = structure_equal(self.P.in_structure(), self.A.in_structure())
        if not (square and fits):
            raise StructureError(
                "P, A: P must map the structure of x to itself, and A start from it; got P from "
                f"{structure_str(self.P.in_structure())} to {structure_str(self.P.out_structure())}, "
                f"and A from {structure_str(self.A.in_structure())}."
            )

    def mv(self, vector: tuple[PyTree[Array], PyTree[Array]]) -> tuple[PyTree[Array], Any]:
        x, y = vector
        top = tree_add(self.P.mv(x), self.A.transpose().mv(y))
        bottom = self.A.mv(x)
        if self.C is not None:
            bottom = tree_add(bottom, tree_neg(self.C.mv(y)))
        return top, bottom

    def transpose(self) -> AbstractLinearOperator:
        if is_symmetric(self):
            return self
        return SaddlePointOperator(self.P.T, self.A, None if self.C is None else self.C.T)

    def in_structure(self) -> Structure:
        return self.P.in_structure(), self.A.out_structure()

    def out_structure(self) -> Structure:
        return self.in_structure()


@is_symmetric.register(SaddlePointOperator)
def _is_symmetric(operator: SaddlePointOperator) -> bool:
    return is_symmetric(operator.P) and (operator.C is None or is_symmetric(operator.C))


def _by_parts(function: Any) -> None:
    @function.register(SaddlePointOperator)
    def _(operator: SaddlePointOperator) -> SaddlePointOperator:
        parts = operator.P, operator.A, operator.C
        return SaddlePointOperator(*(None if part is None else function(part) for part in parts))


for _function in (conj, linearise, materialise):
    _by_parts(_function)


class QPSolution(NamedTuple):
    """The minimiser, the multipliers of the constraints, and how the solve went.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> x, y, solution = lp.learn.equality_qp(jnp.eye(2), jnp.zeros(2), jnp.ones((1, 2)), jnp.ones(1))
        >>> print(x.round(3), y.round(3), solution.result == lp.RESULTS.successful)
        [0.5 0.5] [-0.5] True
    """

    x: PyTree[Array]
    y: PyTree[Array]
    solution: Solution


def equality_qp(
    P: Any,
    q: PyTree[Any],
    A: Any,
    b: PyTree[Any],
    solver: AbstractLinearSolver[Any] | None = None,
    *,
    throw: bool = True,
    adjoint: Any = None,
    name: str | None = None,
) -> QPSolution:
    """Minimise ½⟨x, Px⟩ + ⟨q, x⟩ subject to Ax = b: the core of OptNet (Amos and Kolter, 2017,
    arXiv:1703.00443).

    The conditions Px + Aᵀy = −q, Ax = b are one linear solve, and so is each derivative: by P, q, A
    and b, forward and reverse, to any order.

    - `P`: positive definite where Ax = 0: a matrix `(n, n)`, sparse matrix, operator or function. If it is
      not tagged symmetric its symmetric part is taken, on which alone ⟨x, Px⟩ depends.
    - `A`: of full row rank: a matrix `(m, n)`, sparse matrix or operator.
    - `solver`: default `AutoLinearSolver()`: `LU` if it is small. The system is indefinite: `MINRES()`
      is for large ones.
    - `throw`, `adjoint`, `name`: as for `linear_solve`.

    **Returns** `(x, y, solution)`, y being the multipliers. **Raises** `StructureError` for shapes that
    do not fit and for complex numbers, `SingularMatrixError` if there is no unique solution.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> q = jnp.array([-1.0, -3.0])  # the point of x + y = 2 that is next to (1, 3)
        >>> print(lp.learn.equality_qp(jnp.eye(2), q, jnp.ones((1, 2)), 2 * jnp.ones(1)).x.round(3) + 0.0)
        [0. 2.]
    """
    q, b = (jax.tree.map(inexact_asarray, v) for v in (q, b))
    for what, given in (("q", q), ("b", b)):
        if any(map(jnp.iscomplexobj, jax.tree.leaves(given))):
            raise StructureError(
                f"{what}: must be real, as the function that is minimised; got "
                f"{structure_str(structure_of(given))}. Pass real and imaginary parts as a pair."
            )
    quadratic, constraint = as_operator(P, structure_of(q), "P"), as_operator(A, structure_of(q))
    square = structure_equal(quadratic.in_structure(), quadratic.out_structure())
    if square and not is_symmetric(quadratic):
        quadratic = symmetrize(quadratic)
    operator = SaddlePointOperator(quadratic, constraint)
    for what, given, wanted in (("q", q, operator.P), ("b", b, operator.A)):
        if not structure_equal(given, wanted.out_structure()):
            raise StructureError(
                f"{what}: must have the structure {structure_str(wanted.out_structure())}; got "
                f"{structure_str(structure_of(given))}."
            )
    solution = linear_solve(
        operator,
        (tree_neg(q), b),
        AutoLinearSolver(well_posed=True) if solver is None else solver,
        throw=throw,
        adjoint=adjoint,
        name=name,
    )
    x, y = solution.value
    return QPSolution(x, y, solution)
