"""BiCGStab(ℓ): ℓ steps of BiCG, then one minimisation over ℓ dimensions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two
from ..._tree import tree_axpy, tree_dot, tree_where
from .cycles import BROKE_DOWN, OVERFLOW, End, Method, Start, outcome_of
from .probe import shadow
from .system import System
from .vectors import normalise, safe_norm, tree_divide, tree_zeros_like


class _Step(NamedTuple):
    d: PyTree[Array]  # as if A were A/unit
    r: PyTree[Array]
    u: PyTree[Array]
    unit: Array  # ‖Ar‖/‖r‖ at the start, a power of two: powers of A need not be numbers
    rho: Array
    alpha: Array
    omega: Array
    norm: Array
    steps: Array
    outcome: Array


def bicgstab_l(system: System, ell: int) -> Method:
    """The method of Sleijpen and Fokkema (1993), with 2ℓ products in each step."""
    eps = system.eps

    def cycle(start: Start) -> End:
        r0, r0_norm, target = system.begin(start)
        dual = shadow(r0, start.index)
        dual_norm = safe_norm(dual)

        def corrected(c: _Step) -> PyTree[Array]:
            return system.finish(tree_divide(c.d, c.unit))

        def step(c: _Step) -> _Step:
            d, rho, alpha, unit = c.d, -c.omega * c.rho, c.alpha, c.unit
            rs, us = [c.r], [c.u]  # r, Ar, A²r, …, and the same of u
            going, broken, moved = jnp.array(True), jnp.array(False), jnp.array(False)
            for j in range(ell):
                rho_new = tree_dot(dual, rs[j])
                beta = alpha * rho_new / jnp.where(rho == 0, 1, rho)
                rho = rho_new
                us = [tree_axpy(-beta, u, r) for u, r in zip(us, rs)]
                product = system.product(us[j])
                if j == 0:
                    size = power_of_two(max_norm(product)) / power_of_two(max_norm(us[0]))
                    size = jax.lax.stop_gradient(power_of_two(size))
                    unit = jnp.where(c.steps == 0, size, unit)
                us.append(tree_divide(product, unit))
                gamma = tree_dot(dual, us[-1])
                ok = jnp.abs(rho) > eps * dual_norm * safe_norm(rs[j])
                ok &= jnp.abs(gamma) > eps * dual_norm * safe_norm(us[-1])
                broken |= going & ~ok
                going &= ok
                moved |= going
                alpha = jnp.where(going, rho / jnp.where(going, gamma, 1), 0)
                rs = [tree_axpy(-alpha, u, r) for r, u in zip(rs, us[1:])]
                rs.append(tree_divide(system.product(rs[j]), unit))
                d = tree_axpy(alpha, us[0], d)
                going &= system.measure(rs[0]) > target  # if it is small already, end here
            shares, rest, last = _minimise(rs, eps)
            smooth = going & last
            omega = jnp.where(smooth, shares[-1], 0)
            for share, r, u in zip(shares, rs, us[1:]):
                share = jnp.where(smooth, share, 0)
                d, us[0] = tree_axpy(share, r, d), tree_axpy(-share, u, us[0])
            r = tree_where(smooth, rest, rs[0])
            r_norm = system.measure(r)
            broken |= going & ~last
            overflow = ~jnp.isfinite(jnp.abs(rho) + jnp.abs(alpha) + r_norm)
            return _Step(
                d=d,
                r=r,
                u=us[0],
                unit=unit,
                rho=rho,
                alpha=alpha,
                omega=omega,
                norm=r_norm,
                steps=c.steps + (moved & ~overflow).astype(jnp.int32),
                outcome=outcome_of((BROKE_DOWN, broken & (r_norm > target)), (OVERFLOW, overflow)),
            )

        zeros, zero = tree_zeros_like(r0), jnp.zeros((), jnp.int32)
        one, none = jnp.ones((), system.dtype), jnp.zeros((), system.dtype)
        unit = jnp.ones_like(r0_norm)
        first = _Step(zeros, r0, zeros, unit, one, none, one, r0_norm, zero, zero)
        ran = system.run(step, first, start, target, correction=corrected)
        return ran.end(corrected(ran.carry))

    return Method(cycle, per_trip=(2 * ell, 0))


def _minimise(rs: list[PyTree[Array]], eps: float) -> tuple[list[Array], PyTree[Array], Array]:
    """The γⱼ that minimise ‖r − Σ γⱼ Aʲr‖, what is left, and whether the last γ is not zero."""
    rest = rs[0]
    basis: list[PyTree[Array]] = []
    triangle: list[list[Array]] = []
    parts: list[Array] = []
    r_norm = safe_norm(rest)
    for r in rs[1:]:
        q, size = normalise(r)
        column = []
        for other in basis:
            share = tree_dot(other, q)
            q = tree_axpy(-share, other, q)
            column.append(share * size.astype(share.dtype))
        q, left = normalise(q)
        some = left > 10 * eps
        part = jnp.where(some, tree_dot(q, rest), 0)
        rest = tree_axpy(-part, q, rest)
        column.append(jnp.where(some, left * size, 1).astype(part.dtype))
        basis, triangle, parts = [*basis, q], [*triangle, column], [*parts, part]
    gammas: list[Array] = []
    for i in reversed(range(len(basis))):
        later = zip(gammas, triangle[i + 1 :])
        sum_ = parts[i] - sum((g * column[i] for g, column in later), jnp.zeros_like(parts[i]))
        gammas.insert(0, sum_ / triangle[i][i])
    return gammas, rest, jnp.abs(parts[-1]) > eps * r_norm
