"""Steps along directions that a network proposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from .._tree import tree_axpy, tree_dot, tree_sub, tree_where
from .._types import Options, same_shapes, structure_of, structure_str
from ..errors import StructureError
from ..operators import AbstractLinearOperator
from ..results import RESULTS
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.stopping import check_count
from ..solvers.krylov.vectors import tree_zeros_like
from .ending import begun, ended, ratio


class DirectionSolver(AbstractLinearSolver[Any]):
    """x ← x + αd, with d = direction(…, A, x, r, b) and the best α along it.

    - `direction_fn`: with `params` a function of (params, A, x, r, b), else of (A, x, r, b), such as
      the network `MessagePassing`; A is an operator. It returns a direction like x.
    - `params`: a pytree that is learned.
    - `steps`: how many.
    - `line_search`: "residual" takes α = ⟨Ad, r⟩/⟨Ad, Ad⟩, with which ‖r‖ never grows, for every A
      and every direction; "energy" α = ⟨d, r⟩/⟨d, Ad⟩, for definite A, with which the energy norm of
      the error never grows. With d = r that is steepest descent.

    In `solve` and `linear_solve` its derivatives, also by its parameters, are those of the steps. The
    residual is reported, and not judged.

    **Raises** `ValueError` for another line search.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> descent = lp.learn.DirectionSolver(lambda A, x, r, b: r, steps=30)  # minimal residuals
        >>> print(lp.solve(jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([4.0, 7.0]), descent).round(2))
        [1. 2.]
    """

    direction_fn: Callable[..., PyTree[Array]]
    params: Any = None
    steps: int = eqx.field(default=20, kw_only=True, static=True)
    line_search: Literal["residual", "energy"] = eqx.field(
        default="residual", kw_only=True, static=True
    )

    def __init__(
        self,
        direction_fn: Callable[..., PyTree[Array]],
        params: Any = None,
        *,
        steps: int = 20,
        line_search: Literal["residual", "energy"] = "residual",
    ):
        """**Raises** `TypeError` or `ValueError` for settings that cannot be meant."""
        plain = callable(direction_fn) and not isinstance(direction_fn, eqx.Module)
        self.direction_fn = (
            Partial(direction_fn) if plain else direction_fn
        )  # no leaf of the pytree
        self.params, self.steps, self.line_search = params, steps, line_search

    def __check_init__(self) -> None:
        check_count("steps", self.steps, "20")
        if self.line_search not in ("residual", "energy"):
            raise ValueError(
                f"line_search: must be 'residual' or 'energy'; got {self.line_search!r}."
            )
        if not callable(self.direction_fn):
            raise TypeError(
                "direction_fn: must be a function or a network that returns a direction; got "
                f"{type(self.direction_fn).__name__}."
            )

    def differentiates_itself(self) -> bool:
        return True

    def init(self, operator: AbstractLinearOperator, options: Options) -> AbstractLinearOperator:
        del options
        return operator

    def compute(
        self, state: AbstractLinearOperator, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator = state
        x, r = begun(operator, vector, options, self)

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            x, r = carry
            d = self.direction(operator, x, r, vector)
            q = operator.mv(d)
            against = q if self.line_search == "residual" else d
            alpha = ratio(tree_dot(against, r), tree_dot(against, q))
            return (tree_axpy(alpha, d, x), tree_axpy(-alpha, q, r)), None

        (x, _), _ = jax.lax.scan(step, (x, r), length=self.steps)
        return ended(operator, x, tree_sub(vector, operator.mv(x)), vector, self.steps)

    def direction(
        self, operator: AbstractLinearOperator, x: Any, r: Any, vector: Any
    ) -> PyTree[Array]:
        """d, or zero where r is: there is nothing left to do."""
        given = () if self.params is None else (self.params,)
        d = self.direction_fn(*given, operator, x, r, vector)
        if not same_shapes(d, x):
            raise StructureError(
                "direction_fn: must return a direction like x, of structure "
                f"{structure_str(operator.in_structure())}; got {structure_str(structure_of(d))}."
            )
        return tree_where(tree_dot(r, r).real > 0, d, tree_zeros_like(d))

    def transpose(self, state: Any, options: Options) -> tuple[Any, Options]:
        return state.T, options

    def assume_full_rank(self) -> bool:
        return True

    def checks_residual(self) -> bool:
        return True
