"""Our solvers where a Lineax solver is expected (Optimistix, Diffrax), and Lineax's operators as ours.

root_finder = optimistix.Newton(rtol, atol, linear_solver=as_lineax(lp.GMRES(preconditioner="ilu")))
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
from jaxtyping import Array, PyTree

from .. import operators as ours
from ..api import linear_solve
from ..auto import AutoLinearSolver
from ..detection import materialise_sparse
from ..errors import WrongTypeError
from ..operators import AbstractLinearOperator
from ..results import RESULTS
from ..solvers.base import AbstractLinearSolver

try:
    import lineax as lx
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "linsolve_prim.interop.lineax needs Lineax, which is not installed: "
        "pip install 'linsolve-prim[lineax]'"
    ) from error

_TAGS = (
    "symmetric",
    "diagonal",
    "tridiagonal",
    "lower_triangular",
    "upper_triangular",
    "positive_semidefinite",
    "negative_semidefinite",
)


def from_lineax(operator: Any) -> AbstractLinearOperator:
    """A `lineax.AbstractLinearOperator` as one of ours, with all that it promises.

    Those that hold arrays (matrices, diagonals, bands, pytrees) become ours of the same kind; others
    are taken by their products. Derivatives flow into their arrays.

    **Raises** `TypeError` for anything else.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> import lineax
        >>> A = lp.interop.lineax.from_lineax(lineax.DiagonalLinearOperator(jnp.array([2.0, 4.0])))
        >>> print(type(A).__name__, lp.solve(A, jnp.ones(2)))
        DiagonalLinearOperator [0.5  0.25]
    """
    if not isinstance(operator, lx.AbstractLinearOperator):
        raise WrongTypeError(
            f"operator: must be a `lineax.AbstractLinearOperator`; got {type(operator).__name__}."
        )
    tags = _tags(operator)
    if isinstance(operator, lx.TaggedLinearOperator):
        return ours.TaggedLinearOperator(from_lineax(operator.operator), tags)
    if isinstance(operator, lx.MatrixLinearOperator):
        return ours.MatrixLinearOperator(operator.matrix, tags)
    if isinstance(operator, lx.DiagonalLinearOperator):
        return ours.DiagonalLinearOperator(operator.diagonal)
    if isinstance(operator, lx.TridiagonalLinearOperator):
        bands = operator.diagonal, operator.lower_diagonal, operator.upper_diagonal
        made = ours.TridiagonalLinearOperator(*bands)
        more = tags - {ours.tridiagonal_tag}
        return ours.TaggedLinearOperator(made, more) if more else made
    if isinstance(operator, lx.IdentityLinearOperator):
        return ours.IdentityLinearOperator(operator.in_structure(), operator.out_structure())
    if isinstance(operator, lx.PyTreeLinearOperator):
        return ours.PyTreeLinearOperator(operator.pytree, operator.out_structure(), tags)
    linear = lx.linearise(operator)
    return ours.FunctionLinearOperator(linear.mv, operator.in_structure(), tags)


def _tags(operator: Any) -> frozenset[object]:
    found = {getattr(ours, f"{name}_tag") for name in _TAGS if getattr(lx, f"is_{name}")(operator)}
    if found and lx.has_unit_diagonal(operator):
        found.add(ours.unit_diagonal_tag)
    return frozenset(found)


class _Both(eqx.Module):
    """The operator and the state that a solver made for it."""

    operator: AbstractLinearOperator
    state: Any


class LineaxSolver(lx.AbstractLinearSolver):
    """What `as_lineax` returns.

    The factorization is made in `init`, once, and kept; the verdict is ours: `compute` judges the true
    residual, and says what Lineax has a code for.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> import lineax
        >>> solver = lp.interop.lineax.as_lineax(lp.GMRES(rtol=1e-5))
        >>> A = lineax.FunctionLinearOperator(lambda x: 2 * x, jax.ShapeDtypeStruct((2,), jnp.zeros(()).dtype))
        >>> print(lineax.linear_solve(A, jnp.ones(2), solver).value.round(3))
        [0.5 0.5]
    """

    solver: AbstractLinearSolver[Any]
    sparse: bool = eqx.field(static=True, default=False)

    def init(self, operator: Any, options: dict[str, Any]) -> _Both:
        own = from_lineax(operator)
        if self.sparse and isinstance(own, ours.FunctionLinearOperator):
            own = materialise_sparse(own, own.in_structure())[0]
        chosen, state = self.solver.start(own, _ours(options))
        state = (chosen, state) if isinstance(self.solver, AutoLinearSolver) else state
        return _Both(own, state)

    def compute(
        self, state: _Both, vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[PyTree[Array], Any, dict[str, Any]]:
        found = linear_solve(
            state.operator,
            vector,
            self.solver,
            options=_ours(options),
            state=state.state,
            throw=False,
        )
        return found.value, _result(found.result), found.stats

    def transpose(self, state: _Both, options: dict[str, Any]) -> tuple[_Both, dict[str, Any]]:
        inner, _ = self.solver.transpose(state.state, _ours(options))
        return _Both(state.operator.transpose(), inner), _turned(options, lambda m: m.transpose())

    def conj(self, state: _Both, options: dict[str, Any]) -> tuple[_Both, dict[str, Any]]:
        inner, _ = self.solver.conj(state.state, _ours(options))
        return _Both(ours.conj(state.operator), inner), _turned(options, lx.conj)

    def assume_full_rank(self) -> bool:
        return self.solver.assume_full_rank()


def as_lineax(solver: AbstractLinearSolver[Any], *, sparse: bool = False) -> LineaxSolver:
    """One of our solvers as a `lineax.AbstractLinearSolver`, its preconditioner included.

    - `sparse`: find the sparse matrix of an operator that is a function, such as the Jacobian of a
      discretised equation, and solve with that (for `SuperLU`, `RSLab`, `GMRES(preconditioner="ilu")`, …).
      Its vectors must be arrays `(n,)`.

    For `lineax.linear_solve` and all that calls it: Optimistix' `Newton`, `Chord` and `ImplicitAdjoint`,
    Diffrax' implicit steps. Derivatives are Lineax's, by this solver.

    **Raises** `TypeError` for what is no solver of ours.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> import lineax
        >>> A = lineax.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]))
        >>> solver = lp.interop.lineax.as_lineax(lp.LU())
        >>> print(lineax.linear_solve(A, jnp.array([4.0, 7.0]), solver).value.round(3))
        [1. 2.]
    """
    if not isinstance(solver, AbstractLinearSolver):
        raise WrongTypeError(
            f"solver: must be an `AbstractLinearSolver` of linsolve_prim; got {solver!r}."
        )
    return LineaxSolver(solver, sparse)


def _ours(options: dict[str, Any]) -> dict[str, Any]:
    m = options.get("preconditioner")
    if isinstance(m, lx.AbstractLinearOperator):
        return {**options, "preconditioner": from_lineax(m)}
    return options


def _turned(options: dict[str, Any], turn: Any) -> dict[str, Any]:
    out = {k: v for k, v in options.items() if k not in ("y0", "x0")}
    m = out.get("preconditioner")
    if m is not None:
        out["preconditioner"] = turn(m)
    return out


def _result(result: Any) -> Any:
    """Our code as the one of Lineax that comes nearest."""
    names = {
        "max_steps_reached": "max_steps_reached",
        "singular": "singular",
        "breakdown": "breakdown",
        "stagnation": "stagnation",
        "conlim": "conlim",
        "nonfinite_input": "nonfinite_input",
        "inaccurate": "singular",
    }
    out = lx.RESULTS.where(
        result == RESULTS.successful, lx.RESULTS.successful, lx.RESULTS.breakdown
    )
    for mine, theirs in names.items():
        out = lx.RESULTS.where(result == getattr(RESULTS, mine), getattr(lx.RESULTS, theirs), out)
    return out
