"""The method of conjugate gradients."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_neg, tree_where
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, End, Ledger, Method, Start, close, outcome_of
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import in_lane, tree_zeros_like

#: What joins two steps, also across a recomputation of the residual, at the end of the ledger:
#: 1/⟨r, Mr⟩ (0 if there is no last direction), ⟨p, M⁻¹p⟩ / ⟨r, Mr⟩, and the largest
#: |⟨p, Ap⟩| / ⟨p, M⁻¹p⟩ so far; and what the residual's norm was by recurrence when the last cycle ended.
_NUMBERS = (0.0, 1.0, 0.0, 0.0)

#: By how much that may differ from the true norm for the last direction to be kept. What differs is
#: rounding, to which no direction is conjugate: with it, a residual near the limit of the precision never
#: falls again. (A vector of a seventh of r changes ‖r‖ by a hundredth where it is orthogonal to r.)
_DRIFT = 0.01


class _Step(NamedTuple):
    e: PyTree[Array]  # the correction is −e, so that e and r change alike: by one kernel
    r: PyTree[Array]
    p: PyTree[Array]  # search direction
    square: Array  # ‖r‖², whose root costs no kernel where it is used
    trips: Array
    ledger: Array  # whose `step` is α, 0 if it broke down, NaN if it overflowed

    @property
    def norm(self) -> Array:
        return jnp.sqrt(self.square)

    def seen(self, norm: Array) -> _Step:
        """The same, after somebody saw the norm."""
        return self._replace(square=jnp.where(norm >= 0, self.square, norm))

    @property
    def took(self) -> Array:
        """Whether the last step was one. (Not a field: what can be found out is not carried.)"""
        return (jnp.abs(Ledger(self.ledger)["step"]) > 0) & (self.norm < jnp.inf)

    @property
    def outcome(self) -> Array:
        """How the last step ended."""
        broke_down = (Ledger(self.ledger)["step"] == 0) & (self.norm < jnp.inf)
        return outcome_of((OVERFLOW, ~self.took), (BROKE_DOWN, broke_down))

    @property
    def steps(self) -> Array:
        """Trips without one that failed, which is the last."""
        return self.trips - (~self.took).astype(jnp.int32)


class _Measured(_Step):
    """The same with another norm than the Euclidean in the place of ‖r‖²."""

    @property
    def norm(self) -> Array:
        return self.square


def _moved(ledger: Array, p: PyTree[Array], y: PyTree[Array], active: Array) -> PyTree[Array]:
    """y − αp with the ledger's step α; y if there is none.

    At the start of a cycle α is one: then this is a difference, by the kernel that takes a step.
    """
    alpha = Ledger(ledger)["step"]
    return tree_where(active & (jnp.abs(alpha) > 0), tree_axpy(-alpha, p, y), y)


class CG(AbstractKrylovSolver):
    """Conjugate gradients (Hestenes and Stiefel, 1952, doi:10.6028/jres.049.044), preconditioned.

    For operators tagged positive or negative (semi)definite, real symmetric or complex Hermitian;
    semidefinite ones if b lies in the range. One product with A and one with M (definite) for each
    step, and one with A at the end.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `stabilise_every`: recompute the residual every so many steps, by another product. `None` does
      so at the end only, where it is always done.
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 3.0]]), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.array([4.0, 7.0]), lp.CG(rtol=1e-4))
        >>> print(solution.value.round(3), solution.stats["num_steps"])
        [1. 2.] 2
    """

    norm: NormLike = two_norm
    stabilise_every: Steps = None
    max_steps: Steps = None

    needs_definite: ClassVar[bool] = True
    in_the_middle: ClassVar[bool] = True

    def __check_init__(self) -> None:
        check_count("stabilise_every", self.stabilise_every, "the end only", optional=True)

    def method(self, system: System) -> Method:
        problem = system.problem
        zeros = tree_zeros_like(problem.residual)
        euclidean = self.norm is two_norm
        carry = _Step if euclidean else _Measured
        gauge_is_square = system.preconditioner is None and euclidean
        tiny = float(jnp.finfo(system.real_dtype).tiny)

        def square(r: PyTree[Array]) -> Array:
            size = tree_dot(r, r).real if euclidean else self.norm(r)
            return jnp.asarray(size, system.real_dtype)

        # A and −A, M and −M give the same iterates, so that the signs need no care.
        def step(c: _Step, active: Array) -> _Step:
            ledger = Ledger(c.ledger)
            inverse, size, top, last = ledger.numbers()
            drifted = jnp.abs(ledger["norm"] - last) > _DRIFT * last
            inverse = jnp.where((c.trips == 0) & drifted, 0, inverse)
            z = system.precondition(c.r)
            rho = c.square if gauge_is_square else tree_dot(c.r, z).real.astype(inverse.dtype)
            beta = rho * inverse
            p = tree_where(active, tree_axpy(beta, c.p, z), c.p)
            q = system.apply(p)
            curvature = tree_dot(p, q).real.astype(inverse.dtype)
            size = 1 + jnp.abs(beta) * size
            # Along p the operator is zero to working precision, against what it is along others.
            noise = jnp.where(inverse == 0, 0, system.eps * jnp.abs(rho) * size * top)
            ok = (jnp.abs(curvature) > noise) & (jnp.abs(rho) >= tiny)
            ok &= jnp.abs(rho) >= tiny * jnp.abs(curvature)  # else there is no such step
            ordinary = jnp.isfinite(rho + curvature)
            took = ok & ordinary
            safe_rho, safe = jnp.where(took, rho, 1), jnp.where(took, curvature, 1)
            # Each quotient is used once: one that is used twice is a kernel by itself.
            alpha = jnp.where(took, safe_rho / safe, jnp.where(ordinary, 0, jnp.nan))
            inverse = jnp.where(took, 1 / safe_rho, 0)
            largest = jnp.abs(safe) / (jnp.abs(safe_rho) * size)
            top = jnp.maximum(top, jnp.where(took, largest, 0))
            written = ledger.written(step=alpha, numbers=(inverse, size, top))
            r = _moved(written, q, c.r, active)
            e = _moved(written, p, c.e, active)
            return carry(e, r, p, square(r), c.trips + 1, written)

        def cycle(start: Start) -> End:
            everywhere, none = jnp.array(True), jnp.zeros((), jnp.int32)
            r = start.residual
            if start.image is not None:
                r = _moved(start.ledger, start.image, problem.vector, everywhere)
            first = carry(zeros, r, start.memory, square(r), none, start.ledger)

            def going(c: _Step) -> Array:
                ledger = Ledger(c.ledger)
                going = c.took & (c.norm > ledger["target"])
                going &= ledger.steps(start.begun + c.trips) < system.max_steps
                if self.stabilise_every is not None:
                    going &= c.trips < self.stabilise_every
                return going

            # The step itself holds vectors of lanes that are done: choosing again would read and write
            # each of them once more.
            ran = system.run(
                lambda c: step(c, in_lane(going(c))),
                first,
                start,
                start.target,
                going=going,
                correction=lambda c: tree_neg(c.e),
                loose=("e", "r", "p"),
            )
            c = ran.carry
            outcome = close(c.outcome, c.norm, Ledger(c.ledger)["target"])
            x = _moved(start.ledger, c.e, start.x, everywhere)
            inverse, size, top, _ = Ledger(c.ledger).numbers()
            ledger = Ledger(c.ledger).written(numbers=(inverse, size, top, c.norm))
            return End(x, c.trips, outcome, c.p, ran.trips, ran.trail, ledger, lost=~c.took)

        return Method(
            cycle,
            memory=zeros,
            numbers=_NUMBERS,
            moves=True,
            patience=system.max_steps,
            monotone=False,  # what falls from step to step is the error, not the residual
        )
