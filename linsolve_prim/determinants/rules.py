"""Determinants that follow from an operator's structure, in code that JAX differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._tree import tree_dtype
from .._types import common_dtype
from .._varying import vary_like, vary_together, varying_axes
from ..operators import (
    AbstractLinearOperator,
    ComposedLinearOperator,
    ConjLinearOperator,
    DivLinearOperator,
    MulLinearOperator,
    NegLinearOperator,
    TaggedLinearOperator,
    diagonal,
    has_unit_diagonal,
    is_diagonal,
    is_lower_triangular,
    is_tridiagonal,
    is_upper_triangular,
    tridiagonal,
)
from ..preconditioners.low_rank import LowRankPlusDiagonal
from ..solvers.determinant import SignAndLog, of_diagonal

Recurse = Callable[[AbstractLinearOperator], Any]


def by_rule(operator: AbstractLinearOperator, recurse: Recurse) -> SignAndLog | None:
    """The determinant of a square operator without a factorization, or None.

    `recurse` finds that of an operand.
    """
    n = operator.in_size()
    dtype = tree_dtype((operator.in_structure(), operator.out_structure()))
    one = jnp.ones((), dtype), jnp.zeros((), jnp.finfo(dtype).dtype)
    triangular = is_lower_triangular(operator) or is_upper_triangular(operator)
    if n == 0 or ((triangular or is_diagonal(operator)) and has_unit_diagonal(operator)):
        return one
    if triangular or is_diagonal(operator):
        return of_diagonal(diagonal(operator))
    if is_tridiagonal(operator):
        return _continuant(*tridiagonal(operator))
    return _by_type(operator, n, recurse)


def _by_type(operator: Any, n: int, recurse: Recurse) -> SignAndLog | None:
    if isinstance(operator, LowRankPlusDiagonal):
        return _low_rank(operator)
    if isinstance(operator, TaggedLinearOperator):
        # tags may say that it is definite, which a factorization had better know
        return by_rule(operator.operator, recurse)
    if isinstance(operator, NegLinearOperator):
        sign, log = recurse(operator.operator)
        return (-sign if n % 2 else sign), log
    if isinstance(operator, MulLinearOperator | DivLinearOperator):
        sign, log = recurse(operator.operator)
        own, size = of_diagonal(operator.scalar.astype(sign.dtype)[None])
        if isinstance(operator, MulLinearOperator):
            return sign * own**n, log + n * size
        return sign * own.conj() ** n, log - n * size
    if isinstance(operator, ConjLinearOperator):
        sign, log = recurse(operator.operator)
        return sign.conj(), log
    if isinstance(operator, ComposedLinearOperator):
        return _product(operator, recurse)
    return None


def _product(operator: ComposedLinearOperator, recurse: Recurse) -> SignAndLog | None:
    """det AB = det A · det B, if both are square."""
    one, two = operator.operator1, operator.operator2
    if one.in_size() != one.out_size():
        return None
    (s, a), (t, b) = recurse(one), recurse(two)
    dtype = common_dtype(s.dtype, t.dtype)
    real = jnp.finfo(dtype).dtype
    return s.astype(dtype) * t.astype(dtype), a.astype(real) + b.astype(real)


def _low_rank(operator: LowRankPlusDiagonal) -> SignAndLog:
    """det(D + UVᵀ) = det D · det(I + VᵀD⁻¹U), the determinant lemma (Harville 1997, thm 18.1.1)."""
    sign, log = of_diagonal(operator.d.astype(operator.U.dtype))
    inner = jnp.linalg.slogdet(operator._capacitance())
    return sign * inner[0].astype(sign.dtype), log + inner[1]


def _continuant(main: Array, lower: Array, upper: Array) -> SignAndLog:
    """By the recurrence fₖ = aₖfₖ₋₁ − bₖ₋₁cₖ₋₁fₖ₋₂ (Golub & Van Loan 2013, section 8.4.1), in O(n).

    Each step's two values are divided by the larger one, so that nothing overflows. That factor is
    taken as a constant: the result does not depend on it, nor does a derivative.
    """
    main, lower, upper = vary_together(main, lower, upper)
    edge = jnp.zeros((1,), main.dtype)
    edge = vary_like(edge, varying_axes(main))
    products = jnp.concatenate([edge, lower * upper])
    real = jnp.finfo(main.dtype).dtype

    def step(carry: Any, entry: tuple[Array, Array]) -> tuple[Any, None]:
        last, before, log = carry
        a, product = entry
        new = a * last - product * before
        size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(new), jnp.abs(last)))
        size = jnp.where(size == 0, 1, size).astype(real)
        scale = size.astype(main.dtype)
        return (new / scale, last / scale, log + jnp.log(size)), None

    # (made from the operand, so that under `shard_map` it varies over the same axes)
    zero = jnp.sum(main) * 0
    start = zero + 1, zero, zero.real
    (last, _, log), _ = jax.lax.scan(step, start, (main, products))
    sign, rest = of_diagonal(last[None])
    return sign, log + rest
