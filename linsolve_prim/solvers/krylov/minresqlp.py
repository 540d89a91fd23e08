"""MINRES-QLP: minimum-norm solutions and least squares for singular symmetric operators."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_add, tree_axpy, tree_dot, tree_scale, tree_sub, tree_where
from .base import AbstractKrylovSolver
from .cycles import BROKE_DOWN, OVERFLOW, RAN_OUT, RUNNING, End, Method, Start, close, outcome_of
from .lanczos import Lanczos, lanczos_step, start_lanczos
from .probe import PROBES, is_skewed
from .stopping import NormLike, Steps
from .system import System
from .vectors import normalise, safe_norm, tree_zeros_like

# What a cycle is for. The smallest ‖r‖ leaves ‖Ar‖ at √ε, because it does not see what is below.
_MINIMISE = 0  # ‖r‖; then, if b is not in the range of A,
_SPLIT = 1  # r = p + n with p in the range and An = 0, from Ap = Ar;
_REFINE = 2  # Ad = p, and take from x its part along n


class _Memory(NamedTuple):
    top: Array  # the largest ‖A zₖ‖ so far: a lower bound of ‖A‖₂
    normal: Array  # ‖Ar‖, one step ago
    phase: Array  # of the next cycle
    refined: Array  # whether the last cycle was one of `_REFINE`
    null: PyTree[Array]  # n


class _Step(NamedTuple):
    """After k steps: QT = R (as in MINRES) and R = LP, with L lower triangular, and Lt = z."""

    lanczos: Lanczos
    r: PyTree[Array] | None  # of the system, where its norm is not `phi_bar`
    # the last rotation of Q, and what it leaves for the next column of R
    cos: Array
    sin: Array
    gamma_bar: Array
    epsilon: Array
    phi_bar: Array
    # the last rows of L; `mu_bis` and `mu_bar` are diagonal entries that will still change
    mu_bis: Array
    mu_bar: Array
    psi_bar: Array
    # of z and t: numerators of the last two entries of t
    nu: Array
    xi: Array
    tau_last: Array
    tau: Array
    # directions and the part of the correction that will not change any more
    w_check: PyTree[Array]
    w_bar: PyTree[Array]
    settled: PyTree[Array]
    memory: _Memory
    norm: Array
    steps: Array
    outcome: Array


class MINRESQLP(AbstractKrylovSolver):
    """MINRES-QLP (Choi, Paige and Saunders, 2011, doi:10.1137/100787921).

    For real symmetric and complex Hermitian operators of any rank: finds x = A†b, the least-squares
    solution of minimum norm (with an initial guess: the one nearest to it). Where A is regular it
    does what `MINRES` does, and loses fewer digits if A is badly conditioned. One product with A and
    one with M (definite) for each step, three with A at the end; two vectors more than `MINRES`.

    It stops when, of the true residual r = b − Ax, either of these is true (`stats["reason"]` says
    which):

    - ‖r‖ ≤ max(rtol·‖b‖, atol);
    - ‖Ar‖ ≤ rtol·‖A‖·‖r‖, with rtol between 10ε and ε^⅔: the least-squares solution. Two further
      iterations split r into its parts in the range and in the null space of A, and solve for the
      first; what x has along the second is taken off (Liu, Milzarek and Roosta, 2023,
      doi:10.48550/arXiv.2309.17096).

    With a preconditioner it is not ‖x‖ but ⟨x, M⁻¹x⟩ that is least, and the second rule is out of
    use: b must be in the range. An operator without a tag that promises A = Aᴴ is tested by two
    products, and ends in `RESULTS.breakdown` if it is not.

    - `rtol`, `atol`, `preconditioner`, `history`, `nullspace`: see `AbstractKrylovSolver`.
    - `norm`: the norm in the first rule.
    - `max_steps`: default 10 per unknown.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[1.0, 1.0], [1.0, 1.0]]), lp.symmetric_tag)  # of rank 1
        >>> print(lp.linear_solve(A, jnp.array([1.0, 3.0]), lp.MINRESQLP()).value.round(3))
        [1. 1.]
    """

    norm: NormLike = two_norm
    max_steps: Steps = None

    in_the_middle: ClassVar[bool] = True

    def method(self, system: System) -> Method:
        problem, eps = system.problem, system.eps
        skewed = is_skewed(system)
        plain = system.preconditioner is None
        ls_rtol = jnp.clip(problem.rtol, 10 * eps, eps ** (2 / 3))

        def cycle(start: Start) -> End:
            phase, null = start.memory.phase, start.memory.null
            minimising, splitting = phase == _MINIMISE, phase == _SPLIT
            r, target = start.residual, start.target
            r_norm = two_norm(r).astype(target.dtype)
            if plain:
                ar = system.apply(r)
                r = tree_where(splitting, ar, tree_where(minimising, r, tree_sub(r, null)))

            def is_least(c: _Step, new: _Step) -> Array:
                """Whether Ar was zero, to working precision, before the step from c to new."""
                # (While ‖r‖ still falls, ‖Ar‖ may be small because A is badly conditioned.)
                bound = jnp.where(new.phi_bar > 0.99 * c.phi_bar, eps**0.5, eps**0.75)
                small = new.memory.normal <= bound * new.memory.top * c.phi_bar
                small &= (new.norm > target) & ~splitting
                return small & (new.outcome == RUNNING)

            def step(c: _Step) -> _Step:
                new = _step(system, c)
                norm = new.phi_bar
                if new.r is not None:
                    norm = jnp.asarray(self.norm(new.r), c.norm.dtype)
                # In the later phases ‖r‖ changes no more than by rounding errors.
                new = new._replace(norm=jnp.where(minimising, norm, c.norm))
                if not plain:
                    return new
                # The step would go far along the null space: it is not taken.
                end = c._replace(memory=new.memory, outcome=jnp.full_like(c.outcome, RAN_OUT))
                return tree_where(is_least(c, new), end, new)

            def is_done(c: _Step) -> Array:
                bound = jnp.where(splitting, c.memory.top, 1) * 10 * eps * r_norm
                return jnp.where(minimising, c.norm <= target, c.phi_bar <= bound)

            def going(c: _Step) -> Array:
                return (c.outcome == RUNNING) & ~is_done(c) & (c.steps < start.budget)

            first = _first(system, start, r, plain and self.norm is two_norm)
            if skewed is not None:
                first = first._replace(outcome=outcome_of((BROKE_DOWN, skewed)))
            ran = system.run(
                step,
                first,
                start,
                target,
                going=going,
                correction=lambda c: tree_scale(jnp.where(splitting, 0, 1), _correction(c)),
            )
            c, d = ran.carry, _correction(ran.carry)
            outcome, memory = close(c.outcome, c.norm, target), c.memory
            if plain:
                done = is_done(c) & ~minimising & (c.outcome == RUNNING)
                least = done | (c.outcome == RAN_OUT)
                d, memory = _end_phase(system, start, d, memory, least)
                # (Not `CLAIMED`: it is not ‖r‖ that had to fall.)
                outcome = jnp.where(least, RAN_OUT, outcome).astype(jnp.int32)
            return ran.end(d, memory=memory, outcome=outcome)

        def least_squares(residual: PyTree[Array], memory: _Memory) -> Array:
            normal = safe_norm(system.apply(residual)).astype(memory.top.dtype)
            bound = ls_rtol * memory.top * two_norm(residual).astype(memory.top.dtype)
            return (normal <= bound) & memory.refined

        def statistics(memory: _Memory, x: PyTree[Array]) -> dict[str, Any]:
            return {"norm_A": memory.top, "norm_x": two_norm(x)}

        zero, steps = jnp.zeros_like(problem.norm), jnp.zeros((), jnp.int32)
        return Method(
            cycle,
            memory=_Memory(
                zero, zero + jnp.inf, steps, steps > 0, tree_zeros_like(problem.residual)
            ),
            patience=6,
            monotone=False,  # by rounding errors it may rise when a least-squares solution is refined
            least_squares=least_squares if plain else None,
            per_cycle=(2 if plain else 0, 0),
            before=(0 if skewed is None else PROBES, 0),
            statistics=statistics if plain else None,
        )

    def assume_full_rank(self) -> bool:
        return False


def _end_phase(
    system: System, start: Start, d: PyTree[Array], memory: _Memory, least: Array
) -> tuple[PyTree[Array], _Memory]:
    """The correction that a cycle makes, and the next phase, which `least` says to go to."""
    splitting = memory.phase == _SPLIT
    null = tree_where(splitting, tree_sub(start.residual, d), memory.null)
    d = tree_scale(jnp.where(splitting, 0, 1), d)
    n = normalise(null)[0]
    along = tree_dot(n, tree_sub(tree_add(start.x, d), system.problem.x))
    refined = least & (memory.phase == _REFINE)
    d = tree_axpy(jnp.where(refined, -along, 0), n, d)
    then = jnp.where(least, jnp.where(splitting, _REFINE, _SPLIT), _MINIMISE)
    return d, memory._replace(phase=then.astype(jnp.int32), refined=refined, null=null)


def _first(system: System, start: Start, r: PyTree[Array], knows_norm: bool) -> _Step:
    zeros = tree_zeros_like(r)
    zero, steps = jnp.zeros_like(start.norm), jnp.zeros((), jnp.int32)
    one, lanczos = zero + 1, start_lanczos(system, r)
    return _Step(
        lanczos=lanczos,
        r=None if knows_norm else r,
        cos=-one,
        sin=zero,
        gamma_bar=zero,
        epsilon=zero,
        phi_bar=lanczos.beta,
        mu_bis=one,
        mu_bar=one,
        psi_bar=zero,
        nu=zero,
        xi=zero,
        tau_last=zero,
        tau=zero,
        w_check=zeros,
        w_bar=zeros,
        settled=zeros,
        memory=start.memory._replace(normal=zero + jnp.inf),
        norm=start.norm,
        steps=steps,
        outcome=steps,
    )


def _correction(c: _Step) -> PyTree[Array]:
    return tree_axpy(c.tau, c.w_bar, tree_axpy(c.tau_last, c.w_check, c.settled))


def _step(system: System, c: _Step) -> _Step:
    lanczos, alpha = lanczos_step(system, c.lanczos)
    beta = lanczos.beta
    # A new column of R: (epsilon, gamma, lambda)
    gamma = c.cos * c.gamma_bar + c.sin * alpha
    lambda_bar = c.sin * c.gamma_bar - c.cos * alpha
    gamma_bar, epsilon = -c.cos * beta, c.sin * beta
    cos, sin, lambda_ = _reflection(lambda_bar, beta)
    size = jnp.hypot(jnp.hypot(c.lanczos.off, alpha), beta)
    top = jnp.maximum(c.memory.top, size)
    rest = lambda_ > system.eps * top  # else A maps nothing to what is left of r
    zeta, phi_bar = jnp.where(rest, cos * c.phi_bar, 0), jnp.where(rest, sin, 1) * c.phi_bar
    normal = jnp.hypot(lambda_bar, gamma_bar) * c.phi_bar

    # Two reflections from the right, which make the last three rows of R those of L
    cos_p, sin_p, mu = _reflection(c.mu_bis, c.epsilon)
    psi = cos_p * c.psi_bar + sin_p * gamma
    theta = sin_p * c.psi_bar - cos_p * gamma
    rho, eta = sin_p * lambda_, -cos_p * lambda_
    cos_d, sin_d, mu_bis = _reflection(c.mu_bar, theta)
    psi_bar, mu_bar = sin_d * eta, -cos_d * eta

    # Lt = z by substitution; where L is singular, the entry that it leaves open is zero
    ratio = lambda a, b: _ratio(a, b, system.eps * top)
    tau_settled = ratio(c.nu, mu)
    nu = c.xi - psi * tau_settled
    tau_last = ratio(nu, mu_bis)
    xi = zeta - rho * tau_settled
    tau = ratio(xi - psi_bar * tau_last, mu_bar)

    z = c.lanczos.z
    w_settled = tree_axpy(sin_p, z, tree_scale(cos_p, c.w_check))
    w_hat = tree_axpy(-cos_p, z, tree_scale(sin_p, c.w_check))
    settled = tree_axpy(tau_settled, w_settled, c.settled)
    overflow = ~jnp.isfinite(top + normal + tau)
    broken = lanczos.indefinite | (c.lanczos.beta == 0)
    ok = ~(overflow | broken)
    r = None
    if c.r is not None:
        r = tree_axpy(jnp.where(rest, sin**2, 1), c.r, tree_scale(-phi_bar * cos, lanczos.v))
    return _Step(
        lanczos=lanczos,
        r=r,
        cos=cos,
        sin=sin,
        gamma_bar=gamma_bar,
        epsilon=epsilon,
        phi_bar=phi_bar,
        mu_bis=mu_bis,
        mu_bar=mu_bar,
        psi_bar=psi_bar,
        nu=nu,
        xi=xi,
        tau_last=tau_last,
        tau=tau,
        w_check=tree_axpy(sin_d, w_hat, tree_scale(cos_d, c.w_bar)),
        w_bar=tree_axpy(-cos_d, w_hat, tree_scale(sin_d, c.w_bar)),
        settled=settled,
        memory=c.memory._replace(
            top=jnp.where(ok, top, c.memory.top), normal=jnp.where(ok, normal, c.memory.normal)
        ),
        norm=c.norm,
        steps=c.steps + ok.astype(jnp.int32),
        outcome=outcome_of((BROKE_DOWN, broken), (OVERFLOW, overflow)),
    )


def _ratio(a: Array, b: Array, floor: Array) -> Array:
    """a/b, and 0 where b is zero to working precision."""
    zero = jnp.abs(b) <= floor
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def _reflection(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """`(c, s, r)` with [c s; s −c][a; b] = [r; 0] and r ≥ 0."""
    r = jnp.hypot(a, b)
    safe = jnp.where(r > 0, r, 1)
    return jnp.where(r > 0, a / safe, 1), b / safe, r
