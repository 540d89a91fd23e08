"""Probability distributions whose parameters are sparse matrices."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._types import inexact_asarray
from .api import linear_solve
from .determinants import logdet
from .errors import StructureError, WrongTypeError
from .operators import AbstractLinearOperator, diagonal, is_positive_semidefinite
from .solvers import Triangular
from .sparse.algebra import as_operators


class SparseMVN(eqx.Module):
    """The normal distribution N(μ, Σ) on ℝⁿ, Σ or its inverse Ω given by sparse matrices.

    Exactly one of

    - `scale_tril`: Σ = LLᵀ, or with `diagonal` d Σ = (I + L) diag(d) (I + L)ᵀ, L strictly lower;
    - `precision_tril`: the same for Ω = Σ⁻¹;
    - `precision`: Ω itself, tagged positive definite, of any kind of operator: then `log_prob` takes
      `logdet(Ω)`, and there are no samples.

    Σ is never made: samples and densities take products and substitutions with L, O(nnz) each. All is
    differentiable by μ, d and the values of L, which stay on the pattern; batches are made by `jax.vmap`.

    ```python
    mvn = lp.distributions.SparseMVN(loc, precision_tril=L)
    x = mvn.rsample(key, (100,))
    loss = -jnp.mean(jax.vmap(mvn.log_prob)(x))
    ```

    **Raises** `ValueError` if not exactly one matrix is given, or shapes do not fit.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> L = lp.SparseLinearOperator.from_dense(jnp.array([[1.0, 0.0], [0.5, 2.0]]))
        >>> mvn = lp.distributions.SparseMVN(jnp.zeros(2), scale_tril=L)
        >>> print(mvn.rsample(jax.random.key(0), (3,)).shape, (-mvn.log_prob(jnp.zeros(2))).round(1))
        (3, 2) 2.5
    """

    loc: Array
    diagonal: Array | None
    scale_tril: AbstractLinearOperator | None
    precision_tril: AbstractLinearOperator | None
    precision: AbstractLinearOperator | None

    def __init__(
        self,
        loc: Any,
        diagonal: Any = None,
        *,
        scale_tril: Any = None,
        precision_tril: Any = None,
        precision: Any = None,
    ):
        given = [x for x in (scale_tril, precision_tril, precision) if x is not None]
        if len(given) != 1:
            raise ValueError(
                "scale_tril, precision_tril, precision: exactly one must be given; got "
                f"{len(given)}."
            )
        if precision is None:
            (factor,) = as_operators(given, name="scale_tril or precision_tril")
            _check_triangle(factor.pattern, diagonal is not None)
            scale_tril = None if scale_tril is None else factor
            precision_tril = None if precision_tril is None else factor
        else:
            factor = _checked_precision(precision, diagonal)
        self.loc = inexact_asarray(loc)
        self.diagonal = None if diagonal is None else inexact_asarray(diagonal)
        n = factor.in_size()
        for name, x in (("loc", self.loc), ("diagonal", self.diagonal)):
            if x is not None and x.shape != (n,):
                raise StructureError(
                    f"{name}: must have shape ({n},) for a matrix of shape {(n, n)}; got {x.shape}."
                )
        self.scale_tril, self.precision_tril, self.precision = scale_tril, precision_tril, precision

    @property
    def mean(self) -> Array:
        return self.loc

    def rsample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples `(*sample_shape, n)`, differentiable by the parameters (reparametrised).

        **Raises** `NotImplementedError` where only the precision itself is given.
        """
        noise = jax.random.normal(key, (*sample_shape, self.loc.shape[0]), self.loc.dtype)
        one = self.transform
        for _ in sample_shape:
            one = jax.vmap(one)
        return one(noise)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """The same without derivatives."""
        return jax.lax.stop_gradient(self.rsample(key, sample_shape))

    def transform(self, noise: Array) -> Array:
        """μ + Σ^½ε for one ε `(n,)` of independent standard normal numbers."""
        d = self.diagonal
        if self.scale_tril is not None:
            scaled = noise if d is None else jnp.sqrt(d) * noise
            moved = self.scale_tril.mv(scaled)
            return self.loc + (moved if d is None else moved + scaled)
        if self.precision_tril is None:
            raise NotImplementedError(
                "rsample: needs a factor; of a precision alone only `log_prob` is known. Give "
                "`precision_tril`."
            )
        scaled = noise if d is None else noise / jnp.sqrt(d)
        solver = Triangular(lower=False, unit_diagonal=d is not None)
        return self.loc + linear_solve(self.precision_tril.T, scaled, solver).value

    def log_prob(self, value: Any) -> Array:
        """The logarithm of the density at one point `(n,)`."""
        offset = inexact_asarray(value) - self.loc
        square, half_logdet = self._square(offset), self._half_logdet()
        return -0.5 * (self.loc.shape[0] * math.log(2 * math.pi) + square) - half_logdet

    def entropy(self) -> Array:
        """½ n (1 + log 2π) + ½ log det Σ."""
        return 0.5 * self.loc.shape[0] * (1 + math.log(2 * math.pi)) + self._half_logdet()

    def _square(self, x: Array) -> Array:
        """xᵀΩx."""
        d = self.diagonal
        if self.precision is not None:
            return x @ self.precision.mv(x)
        if self.scale_tril is not None:
            solver = Triangular(lower=True, unit_diagonal=d is not None)
            z = linear_solve(self.scale_tril, x, solver).value
            return jnp.sum(z**2 if d is None else z**2 / d)
        assert self.precision_tril is not None
        z = self.precision_tril.T.mv(x)
        return jnp.sum(z**2 if d is None else d * (z + x) ** 2)

    def _half_logdet(self) -> Array:
        """½ log det Σ."""
        if self.precision is not None:
            return -0.5 * logdet(self.precision)
        sign = 1 if self.scale_tril is not None else -1
        if self.diagonal is not None:
            return sign * 0.5 * jnp.sum(jnp.log(self.diagonal))
        factor = self.scale_tril if self.scale_tril is not None else self.precision_tril
        assert factor is not None
        return sign * jnp.sum(jnp.log(jnp.abs(diagonal(factor))))


def _check_triangle(pattern: Any, strict: bool) -> None:
    m, n = pattern.shape
    above = pattern.indices >= pattern.rows if strict else pattern.indices > pattern.rows
    if m != n or above.any():
        kind = (
            "strictly lower triangular, since `diagonal` is given,"
            if strict
            else "lower triangular"
        )
        raise StructureError(
            f"scale_tril, precision_tril: must be {kind} and square; got a {m}×{n} matrix with "
            f"{int(above.sum())} entries elsewhere. Take `tril` of it."
        )


def _checked_precision(precision: Any, diagonal: Any) -> AbstractLinearOperator:
    if not isinstance(precision, AbstractLinearOperator):
        raise WrongTypeError(
            f"precision: must be an AbstractLinearOperator; got {type(precision).__name__}."
        )
    if diagonal is not None or not is_positive_semidefinite(precision):
        raise ValueError(
            "precision: must be tagged `positive_semidefinite_tag`, and given without `diagonal`."
        )
    return precision
