"""Iterative refinement: a solver in low precision, the residual in the operator's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two, two_norm
from ..._tree import tree_scale
from ..._types import Options
from ...operators import AbstractLinearOperator, linearise
from ...operators.cast import cast, cast_leaves
from ...results import RESULTS
from ...sparse.operator import SparseLinearOperator
from ...sparse.triplets import TripletLinearOperator
from ..base import AbstractLinearSolver
from ..inner import InverseOperator, counts_of, inverse_by, named_counts, no_counts
from .base import AbstractKrylovSolver, KrylovState, check_square
from .cycles import BROKE_DOWN, RAN_OUT, SINGULAR, End, Method, Start
from .nullspace import projector
from .stopping import NormLike, Steps, Tolerance
from .system import System
from .vectors import tree_divide

for _kind in (SparseLinearOperator, TripletLinearOperator):
    cast.register(_kind, cast_leaves)

# `__check_init__` says more than a run-time type checker.
if TYPE_CHECKING:
    InnerSolver = AbstractLinearSolver[Any]
else:
    InnerSolver = Any


class IterativeRefinement(AbstractKrylovSolver):
    """Iterative refinement (Wilkinson, 1963; in two precisions Langou et al., 2006,
    doi:10.1109/SC.2006.30; error analysis: Carson and Higham, 2018, doi:10.1137/17M1140819).

    For square systems: x ← x + d, where an inner solver finds Ad ≈ b − Ax in low precision, and the
    residual is that of the operator's own precision, until ‖b − Ax‖ ≤ max(rtol·‖b‖, atol). There
    is one factorization, in low precision: on accelerators, and for large matrices, half the time and
    memory or less. Each step costs one product with A and one inner solve, and reduces the error by
    about ε·cond(A), ε that of the low precision: from cond(A) ≈ 1/ε on it ends in
    `RESULTS.stagnation`. (`FGMRES(preconditioner=inner)` goes further.)

    - `inner`: any solver for square systems: a factorization, on the host too, or an iteration with
      a loose tolerance. It goes to the transpose and the conjugate by its own state.
    - `precision`: "float32", or another real dtype; complex systems take the complex one. Inner solvers
      without kernels for half precision (all factorizations) need "float32".
    - `rtol`, `atol`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: how many inner solves. (`stats["inner_steps"]` counts the steps of an iteration.)

    **Raises** `ValueError` if `inner` is no solver, or is given a preconditioner here.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.IterativeRefinement(lp.LU())).value.round(3))
        [1. 2.]
    """

    inner: InnerSolver
    precision: str = eqx.field(static=True)
    norm: NormLike = two_norm
    max_steps: Steps = 100

    def __init__(
        self,
        inner: InnerSolver,
        precision: Any = "float32",
        rtol: Tolerance = None,
        atol: Tolerance = 0.0,
        *,
        norm: NormLike = two_norm,
        max_steps: Steps = 100,
        history: Any = False,
        progress: Any = False,
        nullspace: Any = None,
        preconditioner: Any = None,
        side: Any = "right",
    ):
        self.inner = inner
        self.precision = _checked_precision(precision)
        self.rtol = rtol
        self.atol = atol
        self.norm = norm
        self.max_steps = max_steps
        self.history = history
        self.progress = progress
        self.nullspace = nullspace
        self.preconditioner = preconditioner
        self.side = side

    def __check_init__(self) -> None:
        if not isinstance(self.inner, AbstractLinearSolver):
            raise ValueError(
                f"inner: must be a solver; got {self.inner!r}. Pass for example `LU()`."
            )
        if self.preconditioner is not None or self.side != "right":
            raise ValueError(
                "preconditioner, side: are settings of the inner solver; pass them to "
                f"`{type(self.inner).__name__}`."
            )

    def init(self, operator: AbstractLinearOperator, options: Options) -> KrylovState:
        _no_preconditioner(options)
        check_square(operator, "IterativeRefinement")
        operator = linearise(operator)
        inverse = inverse_by(self.inner, cast(operator, self.precision), operator)
        return KrylovState(operator, inverse, projector(self.nullspace, operator))

    def compute(
        self, state: KrylovState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        _no_preconditioner(options)
        return super().compute(state, vector, options)

    def assume_full_rank(self) -> bool:
        return self.inner.assume_full_rank()

    def method(self, system: System) -> Method:
        inverse = system.preconditioner
        assert isinstance(inverse, InverseOperator)

        def cycle(start: Start) -> End:
            unit = power_of_two(max_norm(start.residual))  # low precision has a smaller range too
            d, result, stats = inverse.solve(tree_divide(start.residual, unit))
            if system.projector is not None:
                d = system.projector.of_solution(d)
            failed = jnp.where(result == RESULTS.singular, SINGULAR, BROKE_DOWN)
            outcome = jnp.where(result == RESULTS.successful, RAN_OUT, failed)
            running = start.budget > 0
            one = running.astype(jnp.int32)
            counts = start.memory + jnp.where(running, counts_of(stats), 0)
            outcome = outcome.astype(jnp.int32)
            return End(tree_scale(unit, d), one, outcome, counts, one, start.trail)

        return Method(
            cycle, memory=no_counts(), per_trip=(0, 0), statistics=lambda c, x: named_counts(c)
        )


def _checked_precision(precision: Any) -> str:
    """The name of a real floating dtype."""
    try:
        dtype = jnp.dtype(precision)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"precision: must be a real floating-point dtype; got {precision!r}. Pass for example "
            '"float32".'
        )
    return dtype.name


def _no_preconditioner(options: Options) -> None:
    if options.get("preconditioner") is not None:
        raise ValueError(
            "options['preconditioner']: must not be given to `IterativeRefinement`, whose inner solver "
            "is one. Pass it to that solver: `IterativeRefinement(CG(preconditioner=...))`."
        )
