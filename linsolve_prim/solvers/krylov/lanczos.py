"""Lanczos' process for Hermitian operators, with a definite preconditioner in the middle."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import max_norm, power_of_two, two_norm
from ..._tree import tree_axpy, tree_dot, tree_scale
from .probe import fixed_vector
from .system import System
from .vectors import safe_norm, tree_divide, tree_zeros_like, while_loop


class Lanczos(NamedTuple):
    """After j steps: A Z = V T, with Z = MV, VᴴZ = I and T tridiagonal (of order j + 1 by j).

    `v` and `z` are the vectors that belong to the next step. M may be negative definite; then `sign`
    is −1, and Z = −MV.
    """

    v_old: PyTree[Array]
    v: PyTree[Array]
    z: PyTree[Array]
    beta: Array  # what they were divided by; zero if the space is invariant
    off: Array  # the same, as an entry of T beside its diagonal, where the first is no part of T
    sign: Array
    indefinite: Array  # ⟨p, Mp⟩ of the wrong sign was met


def start_lanczos(system: System, r: PyTree[Array]) -> Lanczos:
    """Before the first step: v = r/β, with β² = ⟨r, Mr⟩."""
    p, mp, square, unit = _weighed(system, r)
    sign = jnp.where(square < 0, -1, 1).astype(system.real_dtype)
    size = jnp.sqrt(jnp.abs(square))
    safe = jnp.where(size > 0, size, 1)
    v, z = tree_divide(p, safe), tree_divide(mp, sign * safe)
    beta = size * unit
    none = jnp.zeros((), bool)
    return Lanczos(tree_zeros_like(v), v, z, beta, jnp.zeros_like(beta), sign, none)


def lanczos_step(system: System, c: Lanczos) -> tuple[Lanczos, Array]:
    """One product with A and one with M; also the new entry of the diagonal of T."""
    p = tree_axpy(-c.off, c.v_old, system.apply(c.z))
    alpha = tree_dot(c.z, p).real.astype(system.real_dtype)
    p, mp, square, unit = _weighed(system, tree_axpy(-alpha, c.v, p))
    square = c.sign * square
    size = jnp.sqrt(jnp.maximum(square, 0))
    # What is left may be rounding errors only: then the space is invariant.
    none = size * unit <= 10 * system.eps * jnp.hypot(alpha, c.off)
    keep, safe = jnp.where(none, 0, 1), jnp.where(size > 0, size, 1)
    v = tree_scale(keep, tree_divide(p, safe))
    z = tree_scale(keep, tree_divide(mp, c.sign * safe))
    indefinite = square < -system.eps * two_norm(p) * safe_norm(mp)
    beta = jnp.where(none, 0, size * unit)
    return Lanczos(c.v, v, z, beta, beta, c.sign, indefinite), alpha


def _weighed(system: System, p: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array], Array, Array]:
    """p′, Mp′ and ⟨p′, Mp′⟩ for p = unit·p′, so that squares neither over- nor underflow."""
    unit = power_of_two(max_norm(p))
    p = tree_divide(p, unit)
    mp = system.precondition(p)
    return p, mp, tree_dot(p, mp).real.astype(system.real_dtype), unit


class Bounds(NamedTuple):
    """What a few steps tell of the spectrum of MA: it lies between, or nearly so."""

    lower: Array
    upper: Array


def estimate_bounds(system: System, steps: int) -> Bounds:
    """Bounds for the eigenvalues of MA, which are of one sign, from `steps` steps.

    With θ the Ritz values: max |θ| + β, which in practice is above all eigenvalues (Zhou and Li,
    2011, doi:10.1016/j.laa.2010.06.034), and min |θ|, which is never below them.
    """
    start = fixed_vector(system.problem.residual, 3)
    if system.projector is not None:
        start = system.projector.of_residual(start)
    first = start_lanczos(system, start)
    zeros = jnp.zeros((steps,), system.real_dtype)
    state = (first, jnp.zeros((), jnp.int32), zeros, zeros)

    def body(state: tuple[Lanczos, Array, Array, Array]) -> tuple[Lanczos, Array, Array, Array]:
        c, j, alphas, betas = state
        new, alpha = lanczos_step(system, c)
        # After the end of an invariant space its first value is repeated, which bounds nothing new.
        alpha = jnp.where(c.beta > 0, alpha, alphas[0])
        return new, j + 1, alphas.at[j].set(alpha), betas.at[j].set(new.beta)

    c, _, alphas, betas = while_loop(lambda s: s[1] < steps, body, state, system.axes)
    last = betas[-1]
    off = jnp.diag(betas[:-1], 1)
    t = jnp.diag(alphas) + off + off.T
    theta = jnp.linalg.eigvalsh(jnp.where(jnp.isfinite(t), t, 0))
    low, high = theta[0], theta[-1]
    negative = high + low < 0
    low, high = jnp.where(negative, low - last, low), jnp.where(negative, high, high + last)
    return Bounds(*(jnp.sort(c.sign * jnp.stack([low, high]))))
