"""Telling what a solve would do, without doing it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ._tree import tree_zeros
from ._types import structure_str
from .auto import AutoLinearSolver, is_matrix_free
from .functions import function_system
from .operators import (
    AbstractLinearOperator,
    MatrixLinearOperator,
    has_unit_diagonal,
    is_diagonal,
    is_lower_triangular,
    is_negative_semidefinite,
    is_positive_semidefinite,
    is_symmetric,
    is_tridiagonal,
    is_upper_triangular,
)
from .preconditioners.auto import Auto
from .preconditioners.names import by_name
from .simple import as_array, is_matrix
from .solvers.base import AbstractLinearSolver
from .solvers.krylov.base import AbstractKrylovSolver
from .solvers.triangular import Triangular
from .sparse.operator import SparseLinearOperator
from .sparse.triplets import from_any, is_sparse

_PROPERTIES = {
    "symmetric": is_symmetric,
    "diagonal": is_diagonal,
    "tridiagonal": is_tridiagonal,
    "unit diagonal": has_unit_diagonal,
    "lower triangular": is_lower_triangular,
    "upper triangular": is_upper_triangular,
    "positive semidefinite": is_positive_semidefinite,
    "negative semidefinite": is_negative_semidefinite,
}


def explain(
    A: Any,
    b: Any = None,
    solver: AbstractLinearSolver[Any] | None = None,
    *,
    preconditioner: Any = None,
) -> str:
    """What `solve(A, b, solver, preconditioner=...)` would do and why, in words. Nothing is solved.

    `A` and `b` are as for `solve`; a function needs `b` (to know its size).

    **Raises** as `solve` does for input that does not fit.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.explain(jnp.eye(3), jnp.ones(3)).splitlines()[2])
        solver: LU(), because the operator is square, and nothing more is promised of it
    """
    solver = AutoLinearSolver(well_posed=True) if solver is None else solver
    operator, reason = _describe_operator(A, b, solver)
    promised = [name for name, has in _PROPERTIES.items() if has(operator)]
    lines = [
        f"operator: {type(operator).__name__}, {operator.out_size()}×{operator.in_size()}, from "
        f"{structure_str(operator.in_structure())} to {structure_str(operator.out_structure())}, "
        + _held(operator),
        f"promised: {', '.join(promised) or 'nothing'}",
    ]
    if reason:
        lines.append(f"function: {reason}")
    if isinstance(solver, AutoLinearSolver):
        choice = solver.choose(operator, preconditioner is not None)
        lines.append(f"solver: {choice.solver!r}, because {choice.reason}")
        chosen = choice.solver
    else:
        lines.append(f"solver: {solver!r}, as asked for")
        chosen = solver
    lines += _substitution(chosen, operator)
    lines += _preconditioner(chosen, operator, preconditioner)
    rank = "assumes full rank" if chosen.assume_full_rank() else "any rank (pseudo-inverse)"
    judged = (
        "its own rule on the true residual"
        if chosen.checks_residual()
        else (
            "the true residual, ‖b − Ax‖ ≤ "
            f"{float(chosen.tolerance(jnp.ones((), _real_dtype(operator)))):.1e}·‖b‖"
        )
    )
    lines.append(f"runs: {chosen.implementation()}")
    lines.append(f"rank: {rank}")
    lines.append(f"success is judged by: {judged}")
    lines.append(
        "derivatives: implicit; tangents with the same state, cotangents with its transpose"
    )
    return "\n".join(lines)


def _preconditioner(
    solver: AbstractLinearSolver[Any], operator: AbstractLinearOperator, given: Any
) -> list[str]:
    own = getattr(solver, "preconditioner", None) if given is None else given
    if own is None:
        return []
    own = by_name(own) if isinstance(solver, AbstractKrylovSolver) else own
    if not isinstance(own, Auto):
        return [f"preconditioner: {own!r}, as asked for"]
    choice = own.choose(operator, getattr(solver, "in_the_middle", False))
    name = "none" if choice.preconditioner is None else repr(choice.preconditioner)
    return [f"preconditioner: {name}, because: {choice.reason}"]


def _substitution(solver: AbstractLinearSolver[Any], operator: AbstractLinearOperator) -> list[str]:
    triangle = solver.triangle(operator) if isinstance(solver, Triangular) else None
    if triangle is None:
        return []
    size, count = operator.out_size(), triangle.levels(transpose=False).height
    return [
        f"substitution: in {count} levels, one after the other, of {size / max(1, count):.1f} unknowns "
        "on average, which are found at once"
    ]


def _held(operator: AbstractLinearOperator) -> str:
    if isinstance(operator, SparseLinearOperator):
        nnz, rows = operator.pattern.nnz, max(1, operator.out_size())
        return f"held as {nnz} entries ({nnz / rows:.1f} in a row)"
    return "known by its products only" if is_matrix_free(operator) else "held as arrays"


def _real_dtype(operator: AbstractLinearOperator) -> Any:
    leaf = jax.tree.leaves(operator.out_structure())[0]
    return jnp.finfo(leaf.dtype).dtype


def _describe_operator(A: Any, b: Any, solver: Any) -> tuple[AbstractLinearOperator, str]:
    """The operator, and how a function came to be it."""
    if isinstance(A, AbstractLinearOperator):
        return A, ""
    if is_sparse(A):
        return from_any(A), ""
    if is_matrix(A):
        matrix = as_array(A, "A")
        return MatrixLinearOperator(matrix.reshape((-1, *matrix.shape[-2:]))[0]), ""
    if callable(A):
        if b is None:
            raise ValueError("b: is needed to explain a function, to know its size; got None.")
        zeros = tree_zeros(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, b)))
        system = function_system(A, zeros, None, (), solver)
        return system.operator, system.reason
    raise TypeError(f"A: must be an array, an operator or a function; got {type(A).__name__}.")
