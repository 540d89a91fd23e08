"""Polynomial smoothers, which need products only, and so run on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Apply = Callable[[Array], Array]

NAMES = ("chebyshev", "l1_jacobi")
#: Power steps of the estimate of λmax(D⁻¹A), and what it is then multiplied by: six steps and 1.15, or
#: more of them, change no count of iterations. [measured on Poisson, anisotropic, elasticity problems]
POWER_STEPS = 4
MARGIN = 1.2


class Smoother(eqx.Module):
    """x ← x + q(SA)S(b − Ax) with a polynomial q of degree `degree` − 1, and a diagonal S.

    - "chebyshev": polynomials of the fourth kind, for S = D⁻¹/λ with λ ≥ λmax(D⁻¹A). They are small
      where a coarse grid cannot correct, with no other bound to be chosen. (Lottes, "Optimal
      polynomial smoothers for multigrid V-cycles", 2023, doi:10.1002/nla.2518, Algorithm 4.1.)
    - "l1_jacobi": `degree` steps with S the inverse of the rows' ℓ1 norms, which converge for each
      definite A. (Baker, Falgout, Kolev, Yang, "Multigrid smoothers for ultraparallel
      computing", 2011, doi:10.1137/100798806.)

    Both are steps x ← x + d, r ← r − Ad, d ← αd + βSr, one product each.
    """

    name: str = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"smoother: must be one of {', '.join(NAMES)}; got {self.name!r}.")
        if not (isinstance(self.degree, int) and self.degree >= 1):
            raise ValueError(f"degree: must be a positive integer; got {self.degree!r}.")

    def _coefficients(self) -> list[tuple[float, float]]:
        """(α, β) with which each of the `degree` directions is made; the first has α = 0."""
        if self.name == "l1_jacobi":
            return [(0.0, 1.0)] * self.degree
        later = [((2 * k - 1) / (2 * k + 3), (8 * k + 4) / (2 * k + 3)) for k in range(self.degree)]
        return [(0.0, 4 / 3), *later[1:]]

    def cycle(self, apply: Apply, scale: Array, r: Array, correct: Apply) -> Array:
        """From zero for Ax = r: smoothed, corrected by `correct` of the residual, smoothed.

        2·`degree` products. All steps are one loop, so that the product is compiled once: a step ends
        with the next direction, and the one in the middle finds it on the coarser grid.
        """
        (_, first), *before = self._coefficients()
        steps = [*before, (0.0, 0.0), *self._coefficients()]
        alphas, betas = (jnp.array(c, r.dtype) for c in zip(*steps))

        def smooth(k: Array, r: Array, d: Array) -> Array:
            return alphas[k] * d + betas[k] * (scale * r)

        def step(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, r, d = carry
            r = r - apply(d)
            in_the_middle = k == self.degree - 1
            d = jax.lax.cond(in_the_middle, lambda k, r, d: correct(r), smooth, k, r, d)
            return x + d, r, d

        d = first * (scale * r)
        x, _, _ = jax.lax.fori_loop(0, 2 * self.degree, step, (d, r, d))
        return x


def diagonal_of_smoother(apply: Apply, d: Array, norms: Array, name: str) -> Array:
    """S for the operator with this diagonal and these ℓ1 norms of its rows.

    λmax(D⁻¹A) is estimated by power steps, with a margin, and is at most what the norms prove.
    Rows without diagonal are not smoothed.
    """
    if name == "l1_jacobi":
        sign = jnp.where(d.real < 0, -1, 1).astype(norms.dtype)
        return (sign * jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)).astype(d.dtype)
    inverse = jnp.where(d == 0, 0, 1 / jnp.where(d == 0, 1, d))
    proven = jnp.max(jnp.abs(inverse) * norms)
    size = lambda v: jnp.sqrt(jnp.sum(jnp.abs(v) ** 2))

    def step(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        v, norm = carry
        v = inverse * apply(v / jnp.where(norm > 0, norm, 1).astype(v.dtype))
        return v, size(v)

    start = start_of_power_steps(d.shape, d.dtype)
    v = jax.lax.optimization_barrier(jnp.asarray(start)) + 0 * d
    _, estimate = jax.lax.fori_loop(0, POWER_STEPS, step, (v, size(v)))
    bound = jnp.minimum(MARGIN * estimate, proven)
    return inverse / jnp.where(bound > 0, bound, 1).astype(d.dtype)


def start_of_power_steps(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers between −1 and 1, always the same."""
    return 2 * np.random.default_rng(0).random(shape, np.float32).astype(dtype) - 1


def cutoff(dtype: Any) -> float:
    """Singular values of the coarsest operator below this, relative to the largest, count as zero."""
    return float(jnp.finfo(dtype).eps) ** 0.75


def pseudo_inverse(matrix: Array, hermitian: bool) -> Array:
    """Of the coarsest operator, which may be singular."""
    return jnp.linalg.pinv(matrix, rtol=cutoff(matrix.dtype), hermitian=hermitian)
