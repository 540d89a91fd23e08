"""The generalised minimal residual method."""

from __future__ import annotations

import jax.numpy as jnp

from ..._norms import two_norm
from ..._tree import tree_size
from .arnoldi import LOOSE, arnoldi, combine, row
from .base import AbstractKrylovSolver
from .cycles import End, Method, Start
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise


class GMRES(AbstractKrylovSolver):
    """Restarted GMRES (Saad and Schultz, 1986, doi:10.1137/0907058), preconditioned.

    For square operators of any kind. One product with A and one with M for each step, and one with
    A for each restart; a basis of `restart + 1` vectors. Gram–Schmidt is done twice, in matrix
    form: twice is enough (Giraud, Langou and Rozložník, 2005, doi:10.1016/j.camwa.2005.08.009).

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol). (What is minimised is the Euclidean norm.)
    - `max_steps`: default 10 per unknown. Steps inside of restarts count.
    - `restart`: the length of a cycle.
    - `stagnation_iters`: how many cycles in a row may leave the residual where it is.
    - `side`: `"right"` minimises ‖b − Ax‖, `"left"` ‖M(b − Ax)‖.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 3 * x - jnp.roll(x, 1), jnp.zeros(5))
        >>> print(lp.linear_solve(A, 2 * jnp.ones(5), lp.GMRES(restart=3)).value.round(3))
        [1. 1. 1. 1. 1.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    restart: Steps = 20
    stagnation_iters: Steps = 20

    def __check_init__(self) -> None:
        check_count("restart", self.restart, "20")
        check_count("stagnation_iters", self.stagnation_iters, "20")

    def method(self, system: System) -> Method:
        length = min(int(self.restart or 1), max(tree_size(system.problem.vector), 1))

        def cycle(start: Start) -> End:
            r, _, target = system.begin(start, euclidean=True)
            v, beta = normalise(r)
            expand = lambda c: (None, system.product(row(c.basis, c.trip)), ())
            step, first = arnoldi(expand, v, beta, length)
            ran = system.run(
                step,
                first,
                start,
                target,
                budget=jnp.minimum(start.budget, length),
                correction=lambda c: system.finish(combine(c, beta)),
                exact=self.norm is two_norm,
                loose=LOOSE,
            )
            return ran.end(system.finish(combine(ran.carry, beta)))

        return Method(cycle, patience=int(self.stagnation_iters or 1))
