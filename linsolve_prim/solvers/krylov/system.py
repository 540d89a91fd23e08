"""What a Krylov method sees of a solve: products, a residual to start from, a loop to step in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two, two_norm
from ..._tree import tree_add, tree_dtype, tree_scale, tree_sub
from ..._types import Norm, Options
from ...operators import AbstractLinearOperator, conj
from .cycles import OVERFLOW, RUNNING, End, Start, close
from .history import record
from .nullspace import Projector
from .stopping import Problem
from .vectors import frozen, tree_divide, while_loop


class Ran(NamedTuple):
    """The loop of a cycle when it has ended."""

    carry: Any
    trips: Array
    trail: Any
    target: Array

    def end(self, correction: PyTree[Array], *, memory: Any = (), outcome: Any = None) -> End:
        """The end of the cycle, with the outcome that the carry holds, or the given one."""
        c = self.carry
        if outcome is None:
            outcome = close(c.outcome, c.norm, self.target)
        return End(correction, c.steps, outcome, memory, self.trips, self.trail)


class System:
    """One solve, as its method sees it.

    With `side="right"` a method for nonsymmetric systems iterates on A·M for u with x = Mu, with
    `side="left"` on M·A for x: `product`, `begin` and `finish` hide which. Methods that use M in
    the middle (CG, MINRES) call `precondition` instead.
    """

    def __init__(
        self,
        operator: AbstractLinearOperator,
        preconditioner: AbstractLinearOperator | None,
        projector: Projector | None,
        problem: Problem,
        norm: Norm,
        side: str,
        max_steps: int,
        axes: frozenset,
    ):
        self.operator = operator
        self.preconditioner = preconditioner
        self.projector = projector
        self.problem = problem
        self.norm = norm
        self.max_steps = max_steps
        self.axes = axes
        self.options: Options = {}  # a method's own
        self.watch: Callable[[Array, Array], Array] | None = None  # sees steps and norms
        self.on_left = preconditioner is not None and side == "left"
        self.on_right = preconditioner is not None and side == "right"
        self.real_dtype = problem.norm.dtype
        self.dtype = tree_dtype((problem.vector, problem.x))
        self.eps = float(jnp.finfo(self.real_dtype).eps)
        self._unit = jnp.ones((), self.real_dtype)  # of Mr, if M is on the left

    # ---- products ----

    def apply(self, x: PyTree[Array]) -> PyTree[Array]:
        """Ax."""
        y = self.operator.mv(x)
        return y if self.projector is None else self.projector.of_residual(y)

    def apply_adjoint(self, y: PyTree[Array]) -> PyTree[Array]:
        """Aᴴy."""
        x = self._adjoint.mv(y)
        return x if self.projector is None else self.projector.of_solution(x)

    def precondition(self, r: PyTree[Array]) -> PyTree[Array]:
        """Mr; r itself if there is no preconditioner."""
        if self.preconditioner is None:
            return r
        z = self.preconditioner.mv(r)
        return z if self.projector is None else self.projector.of_solution(z)

    def precondition_adjoint(self, x: PyTree[Array]) -> PyTree[Array]:
        """Mᴴx."""
        if self._adjoint_preconditioner is None:
            return x
        r = self._adjoint_preconditioner.mv(x)
        return r if self.projector is None else self.projector.of_residual(r)

    def product(self, u: PyTree[Array]) -> PyTree[Array]:
        """AMu, MAu, or Au: the operator that the method iterates on."""
        if self.on_right:
            return self.apply(self.precondition(u))
        y = self.apply(u)
        return self.precondition(y) if self.on_left else y

    def adjoint_product(self, u: PyTree[Array]) -> PyTree[Array]:
        """The adjoint of `product`."""
        if self.on_left:
            return self.apply_adjoint(self.precondition_adjoint(u))
        x = self.apply_adjoint(u)
        return self.precondition_adjoint(x) if self.on_right else x

    def finish(self, u: PyTree[Array]) -> PyTree[Array]:
        """The correction of x from that of u, in the cycle that began last."""
        if self.on_right:
            return self.precondition(u)
        return tree_scale(self._unit, u) if self.on_left else u

    @functools.cached_property
    def _adjoint(self) -> AbstractLinearOperator:
        return conj(self.operator).transpose()

    @functools.cached_property
    def _adjoint_preconditioner(self) -> AbstractLinearOperator | None:
        return None if self.preconditioner is None else conj(self.preconditioner).transpose()

    def held(self) -> System:
        """The same system for what is estimated beforehand, of which no derivative is taken."""
        return self

    # ---- norms ----

    @property
    def sees_residual(self) -> bool:
        """Whether the residuals of the method's recurrences are those of Ax = b."""
        return not self.on_left

    def measure(self, r: PyTree[Array]) -> Array:
        """The norm of a residual: the user's, or if it is Mr that the method knows, the Euclidean."""
        norm = two_norm if self.on_left else self.norm
        return jnp.asarray(norm(r), self.real_dtype)

    def begin(self, start: Start, euclidean: bool = False) -> tuple[PyTree[Array], Array, Array]:
        """The residual that the method starts from, its norm, and where that norm shall come.

        The norm is `measure`'s, or with `euclidean` the Euclidean one. Where it is not the norm in
        which the solve is judged, the target is what one is worth in the other; `iterate` makes up
        for a miss. Mr is in units of its own, of the size of M, whose square need not be a number.
        """
        if not self.on_left and (self.norm is two_norm or not euclidean):
            return start.residual, start.norm, start.target
        r = start.residual
        if self.on_left:
            r = self.precondition(r)
            self._unit = jax.lax.stop_gradient(power_of_two(max_norm(r)))
            r = tree_divide(r, self._unit)
        norm = jnp.asarray(two_norm(r), self.real_dtype)
        share = start.target / jnp.where(start.norm > 0, start.norm, 1)
        return r, norm, share * norm

    # ---- the loop ----

    def run(
        self,
        step: Callable[[Any], Any],
        first: Any,
        start: Start,
        target: Array,
        *,
        budget: Array | None = None,
        going: Callable[[Any], Array] | None = None,
        correction: Callable[[Any], PyTree[Array]] | None = None,
        exact: bool = True,
        loose: tuple[str, ...] = (),
    ) -> Ran:
        """Step until the carry's `norm` comes to `target`, its `outcome` is set, or `budget` is spent.

        The carry has `norm`, `steps` and `outcome`. `going` replaces that condition. For histories:
        `correction(carry)` is that of x (default: `finish(carry.d)`), and `exact=False` says that
        `norm` is not ‖b − Ax‖, which then takes one more product in each recorded step.

        `loose` names fields of the carry that a lane of a `vmap` which has ended need not keep as they
        are: large arrays of which later steps write other parts, and counters of the loop itself.
        """
        limit = start.budget if budget is None else budget
        if going is None:

            def going(c: Any) -> Array:
                return (c.outcome == RUNNING) & (c.norm > target) & (c.steps < limit)

        corrected = correction or (lambda c: self.finish(c.d))
        exact = exact and not self.on_left

        def body(state: Any) -> Any:
            c, trips, trail = state
            new = step(c)
            if self.watch is not None:
                seen = self.watch(start.steps + new.steps, new.norm)
                new = new.seen(seen) if hasattr(new, "seen") else new._replace(norm=seen)
            if trail is not None:
                trail = self._recorded(trail, c, new, start, corrected, exact)
            return new, trips + 1, trail

        def freeze(active: Array, new: Any, old: Any) -> Any:
            without = {name: None for name in loose}
            (c, *rest), (old_c, *old_rest) = new, old
            kept, *rest = frozen(
                active, (c._replace(**without), *rest), (old_c._replace(**without), *old_rest)
            )
            return (kept._replace(**{name: getattr(c, name) for name in loose}), *rest)

        init = (first, jnp.zeros((), jnp.int32), start.trail)
        c, trips, trail = while_loop(
            lambda state: going(state[0]), body, init, self.axes, freeze if loose else frozen
        )
        return Ran(c, trips, trail, target)

    def _recorded(
        self, trail: Any, old: Any, new: Any, start: Start, corrected: Any, exact: bool
    ) -> Any:
        norm, x = new.norm, None
        if not exact or trail.iterates is not None:
            d = corrected(new)
            x = tree_add(start.x, d)
            if not exact:
                norm = jnp.asarray(self.norm(tree_sub(start.residual, self.apply(d))), norm.dtype)
        moved = (new.steps > old.steps) & (new.outcome != OVERFLOW)
        return record(trail, start.steps + new.steps, norm, x, moved)
