"""Conjugate gradients with learned coefficients."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import Skeleton, split
from .._tree import tree_axpy, tree_dot, tree_real_dtype
from .._types import Options, inexact_asarray, is_array, is_inexact
from ..errors import StructureError
from ..operators import AbstractLinearOperator, linearise
from ..preconditioners.base import AbstractPreconditioner
from ..preconditioners.names import by_name
from ..results import RESULTS
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.base import (
    KrylovState,
    check_definite,
    check_keeps_definite,
    read_preconditioner,
)
from .ending import begun, ended, ratio


class _Fixed(AbstractPreconditioner):
    """A preconditioner whose settings are compiled in: numbers such as a degree are no parameters.

    A pytree that `jax.grad` and `optax` take has inexact arrays as its leaves, and nothing else.
    """

    arrays: list[Array]
    rest: Skeleton = eqx.field(static=True)

    @classmethod
    def of(cls, given: Any) -> Any:
        """What was given, if nothing about it is in the way."""
        if not isinstance(given, AbstractPreconditioner):
            return given
        learned = all(is_array(x) and is_inexact(x) for x in jax.tree.leaves(given))
        return given if learned else cls(*split(given))

    def itself(self) -> AbstractPreconditioner:
        return self.rest.fill(self.arrays)

    @property
    def needs_values(self) -> bool:
        return self.itself().needs_values

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        return self.itself().init(operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.itself().keeps_definite(operator)

    def __repr__(self) -> str:
        return repr(self.itself())


class UnrolledCG(AbstractLinearSolver[Any]):
    """As many steps of conjugate gradients as there are coefficients, each with its own two.

        x ← x + α p,  r ← r − α Ap,  p ← Mr + β p

    - `alphas`, `betas`: `(k,)`. With `relative` they scale and shift what CG would take,
      α = αₖ·⟨r, p⟩/⟨p, Ap⟩ and β = βₖ − ⟨Mr, Ap⟩/⟨p, Ap⟩, so that ones and zeros are CG(k), and
      0 < αₖ < 2 lets the energy norm of the error fall, whatever βₖ. Otherwise they are α and β
      themselves, and no inner product is computed: a fixed polynomial of MA, for one kind of problem.
    - `preconditioner`: an operator that approximates A⁻¹, or one of `preconditioners` (an object or its
      name), such as `LearnedPreconditioner`, which is then learned as well. Definite, as CG's.

    In `solve` and `linear_solve` its derivatives, also by its own coefficients, are those of the steps.
    The residual is reported, and not judged. For operators tagged definite.

    ```python
    solver = lp.learn.UnrolledCG.of_cg(5)
    loss = lambda solver: lp.learn.residual_loss(A, b, lp.solve(A, b, solver))
    jax.grad(loss)(solver).alphas
    ```

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> print(lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.learn.UnrolledCG.of_cg(2)).value.round(3))
        [1. 2.]
    """

    alphas: Array
    betas: Array
    preconditioner: Any = None
    relative: bool = eqx.field(default=True, kw_only=True, static=True)

    def __init__(
        self, alphas: Any, betas: Any, preconditioner: Any = None, *, relative: bool = True
    ):
        """**Raises** `StructureError` if the two are not vectors of one length."""
        self.alphas, self.betas = inexact_asarray(alphas), inexact_asarray(betas)
        if self.alphas.ndim != 1 or self.alphas.shape != self.betas.shape:
            raise StructureError(
                "alphas, betas: must be two vectors of one length, the number of steps; got shapes "
                f"{self.alphas.shape} and {self.betas.shape}."
            )
        self.preconditioner, self.relative = _Fixed.of(by_name(preconditioner)), relative

    @classmethod
    def of_cg(cls, steps: int, preconditioner: Any = None) -> UnrolledCG:
        """The coefficients of CG itself: where learning starts."""
        return cls(jnp.ones(steps), jnp.zeros(steps), preconditioner)

    def differentiates_itself(self) -> bool:
        return True

    def init(self, operator: AbstractLinearOperator, options: Options) -> Any:
        check_definite(operator, "UnrolledCG")
        m = self.preconditioner
        if isinstance(m, AbstractPreconditioner):
            m = self.make_preconditioner(m, operator)
        operator, m = linearise(operator), None if m is None else linearise(m)
        return operator, read_preconditioner(KrylovState(operator, m, None), options)

    def check_preconditioner(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> None:
        check_keeps_definite(preconditioner, operator, "UnrolledCG")

    def compute(
        self, state: Any, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator, m = state
        precondition = (lambda r: r) if m is None else m.mv
        x, r = begun(operator, vector, options, (self, m))
        dtype = tree_real_dtype(vector)

        def step(carry: Any, coefficients: Any) -> tuple[Any, None]:
            x, r, p = carry
            alpha, beta = coefficients
            q = operator.mv(p)
            curvature = tree_dot(p, q).real
            if self.relative:
                alpha = alpha * ratio(tree_dot(p, r).real, curvature)
            x, r = tree_axpy(alpha, p, x), tree_axpy(-alpha, q, r)
            z = precondition(r)
            if self.relative:
                beta = beta - ratio(tree_dot(q, z).real, curvature)
            return (x, r, tree_axpy(beta, p, z)), None

        coefficients = self.alphas.astype(dtype), self.betas.astype(dtype)
        (x, r, _), _ = jax.lax.scan(step, (x, r, precondition(r)), coefficients)
        return ended(operator, x, r, vector, self.alphas.shape[0])

    def transpose(self, state: Any, options: Options) -> tuple[Any, Options]:
        operator, m = state
        return (operator.T, None if m is None else m.T), options

    def assume_full_rank(self) -> bool:
        return True

    def checks_residual(self) -> bool:
        return True
