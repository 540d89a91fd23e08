"""LGMRES: GMRES that remembers the corrections of its last cycles."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_size, tree_where
from ..inner import no_counts
from .arnoldi import LOOSE, Arnoldi, arnoldi, combine, put_last, row
from .base import AbstractKrylovSolver
from .cycles import End, Method, Start
from .fgmres import (
    check_right,
    count_statistics,
    euclidean_target,
    flexible_outcome,
    precondition_counted,
)
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise


class _Memory(NamedTuple):
    corrections: PyTree[Array]  # of norm one; those to come are zero
    count: Array
    inner: Array  # what an inner solver counted


class LGMRES(AbstractKrylovSolver):
    """LGMRES (Baker, Jessup and Manteuffel, 2005, doi:10.1137/S0895479803422014).

    For square operators of any kind on which the residuals of restarted `GMRES` alternate, so that
    each cycle undoes some of the one before: the last `outer` corrections are added to the space
    of each cycle. One product with A and one with M for each step, and one with A for each cycle;
    `2·(restart + outer) + outer + 1` vectors. (`GCROT` is more robust, and keeps more.)

    - `preconditioner`: an operator or a solver, as for `FGMRES`.
    - `restart`, `outer`: the steps of a cycle with A, and those with earlier corrections.
    - `rtol`, `atol`, `history`, `nullspace`: see `AbstractKrylovSolver`. The side is the right one.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.
    - `stagnation_iters`: how many cycles in a row may leave the residual where it is.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 3 * x - jnp.roll(x, 1), jnp.zeros(5))
        >>> print(lp.linear_solve(A, 2 * jnp.ones(5), lp.LGMRES(restart=3, outer=1)).value.round(3))
        [1. 1. 1. 1. 1.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    restart: Steps = 30
    outer: Steps = 3
    stagnation_iters: Steps = 20

    flexible: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ("right",)

    def __check_init__(self) -> None:
        check_count("restart", self.restart, "30")
        check_count("outer", self.outer, "3")
        check_count("stagnation_iters", self.stagnation_iters, "20")
        check_right(self)

    def method(self, system: System) -> Method:
        like = system.problem.x
        krylov, outer = int(self.restart or 1), int(self.outer or 1)
        length = min(krylov + outer, max(tree_size(like), 1))

        def cycle(start: Start) -> End:
            old: _Memory = start.memory

            def expand(c: Arnoldi) -> tuple[PyTree[Array], PyTree[Array], Any]:
                z, counts = precondition_counted(system, row(c.basis, c.trip))
                earlier = c.trip >= krylov
                z = tree_where(earlier, row(old.corrections, jnp.maximum(c.trip - krylov, 0)), z)
                return z, system.apply(z), c.extra + jnp.where(earlier, 0, counts)

            v, beta = normalise(start.residual)
            step, first = arnoldi(expand, v, beta, length, directions=like, extra=old.inner)
            target = euclidean_target(system, start, beta)
            ran = system.run(
                step,
                first,
                start,
                target,
                budget=jnp.minimum(start.budget, jnp.minimum(krylov + old.count, length)),
                correction=lambda c: combine(c, beta),
                exact=self.norm is two_norm,
                loose=LOOSE,
            )
            c = ran.carry
            d = combine(c, beta)
            direction, d_norm = normalise(d)
            useful = (d_norm > 0) & jnp.isfinite(d_norm)
            kept = put_last(old.corrections, old.count, direction)
            memory = _Memory(
                corrections=tree_where(useful, kept, old.corrections),
                count=jnp.minimum(old.count + useful.astype(jnp.int32), outer),
                inner=c.extra,
            )
            return ran.end(d, memory=memory, outcome=flexible_outcome(c, target))

        empty = lambda leaf: jnp.zeros((outer, *leaf.shape), leaf.dtype)
        return Method(
            cycle,
            memory=_Memory(jax.tree.map(empty, like), jnp.zeros((), jnp.int32), no_counts()),
            patience=int(self.stagnation_iters or 1),
            statistics=lambda memory, x: count_statistics(system, memory.inner),
        )
