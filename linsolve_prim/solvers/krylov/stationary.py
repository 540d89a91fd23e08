"""Iterations without inner products: Chebyshev's, and Richardson's."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_axpy, tree_dot, tree_scale, tree_size
from ..._types import is_array
from .base import AbstractKrylovSolver
from .cycles import OVERFLOW, RUNNING, SINGULAR, End, Method, Start, outcome_of
from .lanczos import estimate_bounds
from .probe import fixed_vector
from .stopping import NormLike, Steps, Tolerance
from .system import System
from .vectors import normalise, tree_zeros_like, while_loop

#: Products that an estimate takes.
_LANCZOS, _POWER = 10, 10

#: Steps of Chebyshev's iteration from which a bound can be read, and how many corrections of the
#: bound in a row may leave the residual where it is.
_SHORTEST, _PATIENCE = 10, 10


class _Step(NamedTuple):
    d: PyTree[Array]
    r: PyTree[Array]
    p: PyTree[Array]
    rho: Array
    norm: Array
    steps: Array
    outcome: Array


def _check_real(name: str, value: Any) -> None:
    if value is None or (is_array(value) and jnp.ndim(value) == 0):
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or value == 0 or value != value:
        raise ValueError(
            f"{name}: must be a real number other than 0, or None; got {value!r}. Leave it out to "
            "have it estimated."
        )


class Chebyshev(AbstractKrylovSolver):
    """Chebyshev's iteration (Golub and Varga, 1961, doi:10.1007/BF01386013), preconditioned.

    For operators tagged positive or negative definite, where the eigenvalues of MA lie between
    `lower` and `upper`. One product with A and one with M (definite) for each step, one with A at
    the end, and no inner product beside the norm that is tested: that is for machines on which
    `CG`'s cost more than its faster convergence saves. Four vectors.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.
    - `lower`, `upper`: bounds of the spectrum of MA, `lower` < `upper`, both of one sign. `None`
      estimates one or both by ten steps of Lanczos' process (ten products). What is farther from
      zero is then beyond all eigenvalues in practice, but what is nearer is beyond some; if neither
      is given it is corrected by the convergence that is seen, whenever the residual should have
      become 200 times smaller (by one product more). An eigenvalue farther from zero than the
      bounds makes the iteration diverge; one that is nearer makes it slow.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [1.0, 2.0]]), lp.positive_semidefinite_tag)
        >>> solver = lp.Chebyshev(rtol=1e-5, lower=1.0, upper=3.0)  # the eigenvalues of A
        >>> print(lp.linear_solve(A, jnp.array([4.0, 5.0]), solver).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    lower: Tolerance = None
    upper: Tolerance = None

    needs_definite: ClassVar[bool] = True
    in_the_middle: ClassVar[bool] = True

    def __check_init__(self) -> None:
        _check_real("lower", self.lower)
        _check_real("upper", self.upper)

    def method(self, system: System) -> Method:
        real = system.real_dtype
        given = [self.lower, self.upper]
        cost, bounds = 0, [jnp.ones((), real)] * 2
        if any(bound is None for bound in given):
            cost = min(_LANCZOS, max(tree_size(system.problem.vector), 1))
            bounds = list(estimate_bounds(system, cost))
        low, high = (b if g is None else jnp.asarray(g, real) for g, b in zip(given, bounds))
        adapts = all(bound is None for bound in given)
        near = jnp.where(high + low > 0, low, high)
        far = jnp.where(high + low > 0, high, low)

        def cycle(start: Start) -> End:
            near = start.memory
            theta = (far + near) / 2
            theta = jnp.where(theta == 0, 1, theta)
            ratio = (far - near) / 2 / theta

            def step(c: _Step) -> _Step:
                z = system.precondition(c.r)
                first = c.steps == 0
                rho = jnp.where(first, ratio, ratio / (2 - ratio * c.rho))
                share = jnp.where(first, 1, 2 / (2 - ratio * c.rho)) / theta
                p = tree_axpy(share, z, tree_scale(jnp.where(first, 0, rho * c.rho), c.p))
                return _moved(system, c, p, rho)

            # The residual falls by 1/cosh(k·rate) in k steps.
            rate = jnp.arccosh(jnp.maximum(1 / jnp.where(ratio > 0, ratio, 1), 1 + 4 * system.eps))
            budget = start.budget
            if adapts:
                length = jnp.minimum(6 / rate, 1e9).astype(jnp.int32)
                budget = jnp.minimum(budget, jnp.maximum(length, _SHORTEST))
            first = _first(start, far == 0)
            ran = system.run(
                step, first, start, start.target, budget=budget, correction=_correction
            )
            c = ran.carry
            if adapts:
                near = _nearer(near, far, rate, c, start.norm)
            return ran.end(c.d, memory=near)

        share = near / jnp.where(far == 0, 1, far)
        far_enough = jnp.where(share > 10 * system.eps, near, 10 * system.eps * far)
        memory = far_enough if adapts else near
        return Method(cycle, memory=memory, patience=_PATIENCE, before=(cost, 0))


def _nearer(near: Array, far: Array, rate: Array, c: _Step, norm: Array) -> Array:
    """The bound that explains what k steps have left of the residual, if it is nearer to zero.

    They multiply the part of it for an eigenvalue λ by cosh(kx)/cosh(k·rate), if
    λ = (far + near)/2 − cosh(x)·(far − near)/2.
    """
    k = jnp.maximum(c.steps, 1).astype(rate.dtype)
    seen = jnp.log(jnp.where(c.norm > 0, c.norm, norm) / jnp.where(norm > 0, norm, 1))
    x = jnp.maximum(rate + seen / k, 0)
    guess = (far + near) / 2 - jnp.cosh(x) * (far - near) / 2
    guess = jnp.where(guess / far > 0.1 * near / far, guess, 0.1 * near)
    worse = (guess / far < near / far) & (c.outcome == RUNNING) & (c.steps >= _SHORTEST)
    return jnp.where(worse, guess, near)


class Richardson(AbstractKrylovSolver):
    """Richardson's iteration, x ← x + ωM(b − Ax) (1911, doi:10.1098/rsta.1911.0009).

    For square operators where all eigenvalues λ of MA have |1 − ωλ| < 1: with a preconditioner
    that is nearly the inverse (a multigrid cycle, an incomplete or a float32 factorization) or as a
    smoother. One product with A and one with M for each step, one with A at the end; three vectors.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.
    - `omega`: the factor ω. `None` takes 1/λ for the largest eigenvalue λ of MA, by ten products:
      enough for definite operators, where it damps all errors; give 1 for a good preconditioner.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 2.0]]))
        >>> print(lp.linear_solve(A, jnp.array([4.0, 4.0]), lp.Richardson(rtol=1e-5, omega=0.4)).value.round(3))
        [1. 2.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    omega: Tolerance = None

    sides: ClassVar[tuple[str, ...]] = ("middle",)

    def __check_init__(self) -> None:
        _check_real("omega", self.omega)

    def method(self, system: System) -> Method:
        if self.omega is None:
            top = _largest(system)
            is_zero, omega = top == 0, 1 / jnp.where(top == 0, 1, top)
        else:
            is_zero, omega = jnp.array(False), jnp.asarray(self.omega, system.real_dtype)

        def step(c: _Step) -> _Step:
            return _moved(system, c, tree_scale(omega, system.precondition(c.r)), c.rho)

        def cycle(start: Start) -> End:
            first = _first(start, is_zero)
            ran = system.run(step, first, start, start.target, correction=_correction)
            return ran.end(ran.carry.d)

        return Method(cycle, before=(_POWER if self.omega is None else 0, 0))


def _moved(system: System, c: _Step, p: PyTree[Array], rho: Array) -> _Step:
    """One step along p."""
    r = tree_axpy(-1, system.apply(p), c.r)
    norm = jnp.asarray(system.norm(r), c.norm.dtype)
    overflow = ~jnp.isfinite(norm)
    return _Step(
        d=tree_axpy(1, p, c.d),
        r=r,
        p=p,
        rho=rho,
        norm=norm,
        steps=c.steps + (~overflow).astype(jnp.int32),
        outcome=outcome_of((OVERFLOW, overflow)),
    )


def _first(start: Start, is_zero: Array) -> _Step:
    """Before the first step, which `is_zero` says that there is none: A was found to be zero."""
    zeros, zero = tree_zeros_like(start.residual), jnp.zeros((), jnp.int32)
    rho, outcome = jnp.zeros_like(start.norm), outcome_of((SINGULAR, is_zero))
    return _Step(zeros, start.residual, zeros, rho, start.norm, zero, outcome)


def _correction(c: _Step) -> PyTree[Array]:
    return c.d


def _largest(system: System) -> Array:
    """The eigenvalue of MA that is largest in size, with its sign, by the power method."""
    system = system.held()  # where steps are differentiated, their length is not
    v = normalise(fixed_vector(system.problem.residual, 4))[0]
    state = (v, jnp.zeros((), system.real_dtype), jnp.zeros((), jnp.int32))

    def body(state: tuple[PyTree[Array], Array, Array]) -> tuple[PyTree[Array], Array, Array]:
        v, _, k = state
        w, size = normalise(system.precondition(system.apply(v)))
        sign = jnp.where(tree_dot(v, w).real < 0, -1, 1)
        return w, (sign * size).astype(system.real_dtype), k + 1

    return while_loop(lambda s: s[2] < _POWER, body, state, system.axes)[1]
