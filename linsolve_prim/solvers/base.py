"""The contract of every linear solver."""

from __future__ import annotations

import abc
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import is_concrete
from .._types import Options
from ..operators import AbstractLinearOperator
from ..preconditioners.auto import Auto
from ..preconditioners.base import AbstractPreconditioner
from ..preconditioners.names import by_name
from ..results import IN_JAX, RESULTS, Implementation

State = TypeVar("State")


def usual_rtol(dtype: Any) -> float:
    """ε^⅓, which is 6e-6 in float64 and 5e-3 in float32: a third of the digits."""
    return float(jnp.finfo(dtype).eps) ** (1 / 3)


class AbstractLinearSolver(eqx.Module, Generic[State]):
    """How x = A⁻¹b (or the pseudo-inverse solution A†b) is found.

    A subclass writes plain JAX (or a `jax.pure_callback`); it never sees a derivative. The
    primitive differentiates, transposes and batches the solve around it, by solving again with the
    same solver: with `state` for tangents, and with the transposed state for cotangents.

    **Required**: `init`, `compute`, `assume_full_rank`. **Wanted**: `transpose` and `conj`, which
    turn the state of A into that of Aᵀ and conj(A); where they are not overridden the state is made
    again by `init(A.T)` or `init(conj(A))`, which costs another factorization.

    **Laws** (checked by `linsolve_prim.testing.check_solver`): `state` is a pytree whose arrays
    are traced and whose other leaves are compiled in; `compute` is linear in `vector` (to
    tolerance); the transposed state solves with Aᵀ, the conjugated one with conj(A), and doing
    either twice leads back.

    ```python
    class Jacobi(lp.AbstractLinearSolver):
        steps: int

        def init(self, operator, options):
            return operator, lp.diagonal(operator)

        def compute(self, state, vector, options):
            operator, diagonal = state
            x = jax.lax.fori_loop(
                0, self.steps, lambda _, x: x + (vector - operator.mv(x)) / diagonal, vector / diagonal
            )
            return x, lp.RESULTS.successful, {}

        def transpose(self, state, options):
            operator, diagonal = state
            return (operator.T, diagonal), options

        def conj(self, state, options):
            operator, diagonal = state
            return (lp.conj(operator), diagonal.conj()), options

        def assume_full_rank(self):
            return True
    ```

    **Raises** nothing by itself: `init` is where a class refuses operators, by `ValueError` or
    `StructureError`, while a program is traced.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> class Halving(lp.AbstractLinearSolver):  # x ← x + (b − Ax)/2
        ...     def init(self, operator, options):
        ...         return operator
        ...     def compute(self, operator, b, options):
        ...         step = lambda _, x: x + (b - operator.mv(x)) / 2
        ...         return jax.lax.fori_loop(0, 50, step, jnp.zeros_like(b)), lp.RESULTS.successful, {}
        ...     def assume_full_rank(self):
        ...         return True
        >>> A = jnp.array([[1.0, 0.5], [0.0, 2.0]])
        >>> solve = lambda b: lp.solve(A, b, Halving())
        >>> print(solve(jnp.array([2.0, 4.0])).round(3), jax.jacobian(solve)(jnp.ones(2)).round(3))
        [1. 2.] [[ 1.   -0.25]
         [ 0.    0.5 ]]
    """

    @abc.abstractmethod
    def init(self, operator: AbstractLinearOperator, options: Options) -> State:
        """All work that depends on the operator alone, such as a factorization.

        Returns a pytree of arrays and static values. It never carries tangents.
        """

    @abc.abstractmethod
    def compute(
        self, state: State, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        """Solve for one right-hand side of `operator.out_structure()`.

        Returns the solution (of `operator.in_structure()`), a member of `RESULTS`, and a dictionary
        of statistics. Under `vmap` this function is batched by JAX; a solver inside which
        `jax.pure_callback(..., vmap_method=...)` stands says there how.
        """

    def transpose(self, state: State, options: Options) -> tuple[State, Options]:
        """The state and options of Aᵀ, so that `compute` solves Aᵀx = b."""
        raise NotImplementedError(
            f"{type(self).__name__} does not override `transpose(state, options)`."
        )

    def conj(self, state: State, options: Options) -> tuple[State, Options]:
        """The state and options of conj(A), so that `compute` solves conj(A)x = b."""
        raise NotImplementedError(
            f"{type(self).__name__} does not override `conj(state, options)`."
        )

    @abc.abstractmethod
    def assume_full_rank(self) -> bool:
        """Whether the solver takes every operator to have full rank.

        `True` leaves out the terms of the pseudo-inverse's derivative that vanish then; `False` is
        always right, and costs up to three solves more per derivative.
        """

    def slogdet(self, state: State) -> tuple[Array, Array]:
        """The sign (phase) and log |det| of A, from its factors: see `linsolve_prim.slogdet`.

        **Raises** `NotImplementedError` for solvers without factors that show a determinant.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no factorization that shows a determinant. Use `LU()`, "
            "`Cholesky()`, `QR()` or `SuperLU()`, or `stochastic_logdet`, which takes products only."
        )

    def lenient(self, state: State) -> State:
        """The state for tangent and cotangent solves, if it differs: see `krylov/nullspace.py`."""
        return state

    def start(
        self, operator: AbstractLinearOperator, options: Options
    ) -> tuple[AbstractLinearSolver[Any], Any]:
        """The solver that will really be used, with its state. (A chooser gives its choice.)"""
        return self, self.init(operator, options)

    def check_preconditioner(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> None:
        """Refuse, by a `ValueError`, a preconditioner that this solver cannot use for A."""

    def suited(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> AbstractPreconditioner | None:
        """The preconditioner that is really used: what `Auto` chooses, which may be none."""
        if isinstance(preconditioner, Auto):
            return preconditioner.choose(operator).preconditioner
        return preconditioner

    def make_preconditioner(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> AbstractLinearOperator | None:
        """M for an operator. **Raises** `ValueError` if this solver cannot use it."""
        chosen = self.suited(preconditioner, operator)
        if chosen is None:
            return None
        self.check_preconditioner(chosen, operator)
        return chosen.init(operator)

    def made_options(self, operator: AbstractLinearOperator, options: Options) -> Options:
        """The options with the preconditioner made for this operator; now, if A is known now."""
        given = options.get("preconditioner")
        given = by_name(given) if isinstance(given, str) else given
        if not isinstance(given, AbstractPreconditioner):
            return options
        if is_concrete((operator, given)):
            with jax.ensure_compile_time_eval():
                return {**options, "preconditioner": self.make_preconditioner(given, operator)}
        return {**options, "preconditioner": self.make_preconditioner(given, operator)}

    def differentiates_itself(self) -> bool:
        """Whether derivatives are those of `compute` as ordinary code, and also by the solver's arrays.

        So it is for solvers that are learned: the implicit derivative would not see their parameters.
        """
        return False

    def regularise(
        self, operator: AbstractLinearOperator, vector: PyTree[Array], options: Options
    ) -> tuple[AbstractLinearOperator, PyTree[Array], AbstractLinearSolver[Any]]:
        """The system that is really solved, and who solves it: before `linear_solve` binds it.

        A solver that solves another system on purpose says so here, so that the derivatives are
        those of what it solves. The operator keeps its input structure.
        """
        return operator, vector, self

    def allow_dependent_columns(self, operator: AbstractLinearOperator) -> bool:
        """Whether A may have linearly dependent columns, so that their derivative term is needed."""
        return not (self.assume_full_rank() and operator.in_size() <= operator.out_size())

    def allow_dependent_rows(self, operator: AbstractLinearOperator) -> bool:
        """Whether A may have linearly dependent rows, so that their derivative term is needed."""
        return not (self.assume_full_rank() and operator.out_size() <= operator.in_size())

    def tolerance(self, rhs_norm: Any) -> Any:
        """The largest ‖b − Ax‖₂ with which a solve counts as successful, given ‖b‖₂.

        The default is ε^⅓·‖b‖ (6e-6 in float64, 5e-3 in float32): a third of the digits. Below it no
        stable factorization ends unless the condition number comes near 1/ε.
        """
        return usual_rtol(rhs_norm.dtype) * rhs_norm

    def checks_residual(self) -> bool:
        """Whether `compute` judges the true residual itself, and returns it in its statistics.

        If so, its statistics hold `"residual_norm"` and `"reason"`, and nothing is checked again.
        """
        return False

    def implementation(self) -> Implementation:
        """What does the work, in words: JAX, or which library on the host (of the solver inside, too).

        It is `solution.stats["implementation"]`.
        """
        for inner in vars(self).values():
            if isinstance(inner, AbstractLinearSolver) and inner.implementation() != IN_JAX:
                return inner.implementation()
        return IN_JAX
