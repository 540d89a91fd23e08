"""Craig's method: minimum norm by Golub–Kahan bidiagonalisation."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._static import Static
from ..._tree import tree_axpy, tree_where
from ..._types import Options
from ...operators import AbstractLinearOperator
from ...results import RESULTS
from .base import AbstractKrylovSolver, KrylovState
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .least_squares import Bidiagonal, begin, extend, take_side
from .lsqr import LSQR
from .stopping import NormLike, Steps
from .system import System
from .vectors import tree_zeros_like

#: The state, and whether it is that of a transpose.
_CRAIGState: TypeAlias = tuple[KrylovState, Static]


class _Step(NamedTuple):
    d: PyTree[Array]
    pair: Bidiagonal
    zeta: Array
    a_norm: Array
    norm: Array
    steps: Array
    outcome: Array


class CRAIG(AbstractKrylovSolver):
    """Craig's method (Craig, 1955, doi:10.1002/sapm195534164; as in Paige and Saunders, 1982,
    doi:10.1145/355984.355989), for consistent systems of any shape and rank.

    Finds the solution of minimum norm of Ax = b: conjugate gradients on AAᴴy = b, x = Aᴴy, so that
    the error ‖x − A†b‖ falls from step to step. One product with A and one with Aᴴ for each step; three
    vectors. Where b is not in the range of A it breaks down or runs out of steps, and says so:
    `LSQR` and `LSMR` are for those. Transposed solves (the derivatives need them) are problems of
    least squares, and go to `LSQR` with the same settings.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown or equation, whichever are fewer.

    A preconditioner M that approximates A† stands on the left of A (`side` cannot be chosen), so that
    ‖x‖ stays what is least.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 1.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0]), lp.CRAIG()).value.round(3))  # of x + y = 4
        [2. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    is_square: ClassVar[bool] = False
    sides: ClassVar[tuple[str, ...]] = ("left",)

    def __check_init__(self) -> None:
        if self.side == "left":
            raise ValueError(
                "side: `CRAIG` always preconditions on the left, so that x stays A†b; got 'left'. "
                "Leave it out."
            )

    def init(self, operator: AbstractLinearOperator, options: Options) -> Any:
        return super().init(operator, options), Static(False)

    def compute(
        self, state: Any, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        inner, turned = state
        if not turned.value:
            return super().compute(inner, vector, options)
        other = LSQR(self.rtol, self.atol, self.norm, self.max_steps, history=self.history)
        return other.compute(inner, vector, options)

    def transpose(self, state: Any, options: Options) -> tuple[Any, Options]:
        inner, turned = state
        inner, options = super().transpose(inner, options)
        return (inner, Static(not turned.value)), options

    def conj(self, state: Any, options: Options) -> tuple[Any, Options]:
        inner, turned = state
        inner, options = super().conj(inner, options)
        return (inner, turned), options

    def lenient(self, state: Any) -> Any:
        return super().lenient(state[0]), state[1]

    def assume_full_rank(self) -> bool:
        return False

    def allow_dependent_rows(self, operator: AbstractLinearOperator) -> bool:
        return False  # b − Ax is zero, and with it what they add to the derivative

    def method(self, system: System) -> Method:
        take_side(system, left=True)

        def cycle(start: Start) -> End:
            r, _, target = system.begin(start, euclidean=True)
            pair = begin(system, r)
            limit = pair.b / system.eps
            step = lambda c: _step(c, system, limit)
            zero = jnp.zeros((), jnp.int32)
            one = -jnp.ones_like(pair.a)
            first = _Step(tree_zeros_like(pair.v), pair, one, pair.a, pair.b, zero, zero)
            ran = system.run(step, first, start, target, exact=self.norm is two_norm)
            return ran.end(system.finish(ran.carry.d))

        return Method(cycle, monotone=False, per_trip=(1, 1), per_cycle=(0, 1))


def _step(c: _Step, system: System, limit: Array) -> _Step:
    """d grows by ζv, with ζₖ = −(βₖ/αₖ) ζₖ₋₁; then ‖r‖ = βₖ₊₁|ζₖ|.

    That may rise for a while; beyond `limit` there is no solution that it could come down to.
    """
    old = c.pair
    ok = old.a > system.eps * c.a_norm
    zeta = -c.zeta * old.b / jnp.where(ok, old.a, 1)
    pair = extend(system, old)
    norm = pair.b * jnp.abs(zeta)
    overflow = ~(jnp.isfinite(pair.a) & (norm <= limit))
    ok &= ~overflow
    return _Step(
        d=tree_where(ok, tree_axpy(zeta, old.v, c.d), c.d),
        pair=pair,
        zeta=zeta,
        a_norm=jnp.maximum(c.a_norm, jnp.hypot(old.a, pair.b)),
        norm=jnp.where(ok, norm, c.norm),
        steps=c.steps + ok.astype(jnp.int32),
        outcome=outcome_of((BROKE_DOWN, ~ok), (OVERFLOW, overflow)),
    )
