"""The flexible generalised minimal residual method."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_size
from ..inner import InverseOperator, counts_of, named_counts, no_counts
from .arnoldi import LOOSE, Arnoldi, arnoldi, combine, row
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, SINGULAR, End, Method, Start, close
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise


class FGMRES(AbstractKrylovSolver):
    """Flexible GMRES (Saad, 1993, doi:10.1137/0914028): the preconditioner may change at each step.

    For square operators of any kind, with a preconditioner that is not linear, or not the same
    each time: a few steps of another iteration, for example. It keeps what the preconditioner
    made of each basis vector, so `2·restart + 1` vectors in all. One product with A and one with M
    for each step, and one with A for each restart.

    - `preconditioner`: an operator M that approximates A⁻¹, linear or not; or a *solver*, which is
      called for Az = v with A itself: `FGMRES(preconditioner=CG(rtol=0.1))`, or any class with a
      `compute` of its own. A function that is not linear cannot be transposed for gradients: make
      it a solver that overrides `transpose`, or give `adjoint=`.
    - `rtol`, `atol`, `history`, `nullspace`: see `AbstractKrylovSolver`. The side is the right one.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol). (What is minimised is the Euclidean norm.)
    - `max_steps`: default 10 per unknown. Steps inside of restarts count; those of an inner solver
      stand in `stats["inner_steps"]`, and its products in `"inner_matvecs"` and `"inner_rmatvecs"`.
    - `restart`: the length of a cycle.
    - `stagnation_iters`: how many cycles in a row may leave the residual where it is.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.FGMRES(preconditioner=lp.CG(rtol=0.1)))
        >>> print(solution.value.round(3), solution.stats["inner_steps"] > 0)
        [1. 2.] True
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    restart: Steps = 20
    stagnation_iters: Steps = 20

    flexible: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ("right",)

    def __check_init__(self) -> None:
        check_count("restart", self.restart, "20")
        check_count("stagnation_iters", self.stagnation_iters, "20")
        check_right(self)

    def method(self, system: System) -> Method:
        length = min(int(self.restart or 1), max(tree_size(system.problem.vector), 1))

        def expand(c: Arnoldi) -> tuple[PyTree[Array], PyTree[Array], Any]:
            z, counts = precondition_counted(system, row(c.basis, c.trip))
            return z, system.apply(z), c.extra + counts

        def cycle(start: Start) -> End:
            v, beta = normalise(start.residual)
            like = system.problem.x
            step, first = arnoldi(expand, v, beta, length, directions=like, extra=start.memory)
            target = euclidean_target(system, start, beta)
            ran = system.run(
                step,
                first,
                start,
                target,
                budget=jnp.minimum(start.budget, length),
                correction=lambda c: combine(c, beta),
                exact=self.norm is two_norm,
                loose=LOOSE,
            )
            c = ran.carry
            return ran.end(combine(c, beta), memory=c.extra, outcome=flexible_outcome(c, target))

        return Method(
            cycle,
            memory=no_counts(),
            patience=int(self.stagnation_iters or 1),
            statistics=lambda counts, x: count_statistics(system, counts),
        )


def check_right(solver: AbstractKrylovSolver) -> None:
    """Refuse a side that a flexible method does not have."""
    if solver.side == "left":
        name = type(solver).__name__
        raise ValueError(
            f"side: `{name}` preconditions on the right, as a preconditioner that changes must; got "
            "'left'. Leave it out, or use `GMRES`."
        )


def euclidean_target(system: System, start: Start, beta: Array) -> Array:
    """Where the Euclidean norm of the residual, `beta`, shall come."""
    if system.norm is two_norm:
        return start.target
    return start.target * beta / jnp.where(start.norm > 0, start.norm, 1)


def flexible_outcome(c: Arnoldi, target: Array) -> Array:
    """The outcome of a cycle in which dependent directions need not mean that A is singular."""
    return jnp.where(c.outcome == SINGULAR, BROKE_DOWN, close(c.outcome, c.norm, target))


def precondition_counted(system: System, v: PyTree[Array]) -> tuple[PyTree[Array], Array]:
    """Mv, and what an inner solver counted on the way."""
    inner = system.preconditioner
    if not isinstance(inner, InverseOperator):
        return system.precondition(v), no_counts()
    z, _, stats = inner.solve(v)
    if system.projector is not None:
        z = system.projector.of_solution(z)
    return z, counts_of(stats)


def count_statistics(system: System, counts: Array) -> dict[str, Any]:
    """The counts of an inner solver by their names, if there is one."""
    if not isinstance(system.preconditioner, InverseOperator):
        return {}
    return named_counts(counts)
