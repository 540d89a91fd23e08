"""`Nystrom` and `PivotedCholesky`: low-rank approximations of a definite operator, plus a diagonal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._static import stop_gradient
from .._tree import HIGHEST, ravel, tree_dtype, unravel
from .._types import complex_to_real_dtype
from ..operators import (
    AbstractLinearOperator,
    diagonal,
    is_negative_semidefinite,
    is_positive_semidefinite,
    linearise,
    positive_semidefinite_tag,
)
from .base import AbstractPreconditioner
from .jacobi import Jacobi
from .low_rank import LowRankPlusDiagonal
from .parts import as_inverse_of, is_definite, refuse_products, require_square


class Nystrom(AbstractPreconditioner):
    """A randomised low-rank approximation of a definite A = K + μI (Frangella, Tropp, Udell,
    "Randomized Nyström preconditioning", 2021/2023, doi:10.1137/21M1466244).

    K ≈ UΛUᴴ from `rank` products with random vectors; M = U(Λ + μ)⁻¹Uᴴ + (λᵣ + μ)⁻¹(I − UUᴴ), with λᵣ
    the least of Λ: for operators whose large eigenvalues are few (kernel matrices, regularised least
    squares), whichever those are.

    - `rank`: as many as the effective dimension of K, or more.
    - `shift`: μ, where the diagonal of A holds a known multiple of the identity.
    - `seed`: of the random vectors. The same one gives the same M.

    **Raises** `ValueError` for an operator that does not promise to be definite.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> U = jnp.array([[3.0], [4.0], [0.0]])
        >>> A = lp.MatrixLinearOperator(U @ U.T + 0.1 * jnp.eye(3), lp.positive_semidefinite_tag)
        >>> M = lp.preconditioners.Nystrom(rank=2, shift=0.1).init(A)
        >>> bool(jnp.linalg.cond(M.as_matrix() @ A.as_matrix()) < 1.2)
        True
    """

    rank: int = 50
    shift: Any = 0.0
    seed: int = 0

    def __check_init__(self) -> None:
        check_rank(self.rank)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        columns, sign = _definite_columns(operator, "Nystrom")
        if operator.in_size() == 0:
            return Jacobi().init(operator)
        n, dtype = operator.in_size(), tree_dtype(operator.in_structure())
        real = complex_to_real_dtype(dtype)
        rank, shift = min(self.rank, n), jnp.asarray(self.shift, real)
        U, values, unit = _nystrom(columns, n, rank, dtype, shift, self.seed)
        # M is (λᵣ + μ)⁻¹(I − UCUᴴ) with C = 1 − (λᵣ + μ)/(λ + μ), which is between 0 and 1
        values = values + shift / unit
        least = jnp.maximum(jnp.min(values, initial=jnp.inf), least_part(real) * jnp.max(values))
        least = jnp.where(least > 0, least, 1)
        part = jnp.clip(1 - least / jnp.maximum(values, least), 0, 1)
        half = U * jnp.sqrt(part / least / unit).astype(dtype)
        made = LowRankPlusDiagonal(
            jnp.full(n, 1 / least / unit), half, sign=-1, tags=(positive_semidefinite_tag,)
        )
        return as_inverse_of(-made if sign < 0 else made, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


def _nystrom(
    columns: Any, n: int, rank: int, dtype: Any, shift: Array, seed: int
) -> tuple[Array, Array, Array]:
    """U `(n, rank)`, Λ from the largest on (their algorithm 2.1), and the unit in which it is given."""
    key = jax.random.key(seed)
    test = jnp.linalg.qr(jax.random.normal(key, (n, rank), dtype))[0]
    sketch = columns(test) - shift.astype(dtype) * test
    top = jnp.max(jnp.abs(sketch))
    unit = jnp.where(top > 0, top, 1)  # so that no square overflows
    sketch = sketch / unit.astype(dtype)
    # the shift that makes the small matrix definite in spite of rounding
    nu = jnp.sqrt(jnp.asarray(n, shift.dtype)) * jnp.finfo(dtype).eps * jnp.linalg.norm(sketch)
    sketch = sketch + nu.astype(dtype) * test
    inner = jnp.matmul(test.conj().T, sketch, precision=HIGHEST)
    # by eigenvalues, as a Cholesky factorization may fail where K has a lower rank
    sizes, vectors = jnp.linalg.eigh((inner + inner.conj().T) / 2)
    good = sizes > nu
    root = jnp.where(good, 1 / jnp.sqrt(jnp.where(good, sizes, 1)), 0)
    b = jnp.matmul(sketch, vectors * root.astype(dtype), precision=HIGHEST)
    U, singular, _ = jnp.linalg.svd(b, full_matrices=False)
    return U, jnp.maximum(singular**2 - nu, 0), unit


class PivotedCholesky(AbstractPreconditioner):
    """A partial Cholesky factorization with diagonal pivots of a definite A = K + D: M = (LLᴴ + D)⁻¹.

    `rank` columns of K, each chosen where most of the diagonal is left, for kernel matrices (Harbrecht,
    Peters, Schneider, "On the low-rank approximation by the pivoted Cholesky decomposition", 2012,
    doi:10.1016/j.apnum.2011.10.001; Gardner et al. 2018, arXiv:1809.11165). M is applied by Woodbury's
    formula.

    - `shift`: D = σ²I, the noise. None: D is what is left of the diagonal after `rank` columns, or its
      mean where that is more.

    **Raises** `ValueError` for an operator that does not promise to be definite.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> U = jnp.array([[3.0], [4.0]])
        >>> A = lp.MatrixLinearOperator(U @ U.T + 0.1 * jnp.eye(2), lp.positive_semidefinite_tag)
        >>> M = lp.preconditioners.PivotedCholesky(rank=1, shift=0.1).init(A)
        >>> bool(jnp.linalg.cond(M.as_matrix() @ A.as_matrix()) < 1.2)
        True
    """

    rank: int = 20
    shift: Any = None

    def __check_init__(self) -> None:
        check_rank(self.rank)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        columns, sign = _definite_columns(operator, "PivotedCholesky")
        refuse_products(operator, "PivotedCholesky", "Use `Nystrom`, which only multiplies.")
        if operator.in_size() == 0:
            return Jacobi().init(operator)
        operator = stop_gradient(operator)
        n, dtype = operator.in_size(), tree_dtype(operator.in_structure())
        real = complex_to_real_dtype(dtype)
        shift = jnp.asarray(0.0 if self.shift is None else self.shift, real)
        d = jnp.maximum(sign * diagonal(operator).real - shift, 0)
        L, left = _pivoted(columns, d, min(self.rank, n), shift, dtype)
        rest = jnp.full(n, shift)
        if self.shift is None:
            rest = jnp.maximum(left, jnp.mean(left))
        rest = jnp.maximum(rest, least_part(real) * jnp.max(d))
        rest = jnp.where(rest > 0, rest, 1)
        made = LowRankPlusDiagonal(rest, L, tags=(positive_semidefinite_tag,)).inv()
        return as_inverse_of(-made if sign < 0 else made, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


def _pivoted(columns: Any, d: Array, rank: int, shift: Array, dtype: Any) -> tuple[Array, Array]:
    """L `(n, rank)`, and what it leaves of the diagonal."""
    n = d.shape[0]
    stop = jnp.finfo(d.dtype).eps * jnp.max(d)

    def step(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        L, d = state
        pivot = jnp.argmax(d)
        unit = (jnp.arange(n) == pivot).astype(dtype)
        column = columns(unit[:, None])[:, 0] - shift.astype(dtype) * unit
        column = column - jnp.matmul(L, L[pivot].conj(), precision=HIGHEST)
        size = d[pivot]
        good = size > stop
        scale = jnp.where(good, 1 / jnp.sqrt(jnp.where(good, size, 1)), 0)
        column = column * scale.astype(dtype)
        return L.at[:, k].set(column), jnp.maximum(d - jnp.abs(column) ** 2, 0).at[pivot].set(0)

    return jax.lax.fori_loop(0, rank, step, (jnp.zeros((n, rank), dtype), d))


def least_part(dtype: Any) -> float:
    """Of the largest eigenvalue, the part that the diagonal of M⁻¹ has at least.

    M = D⁻¹ − D⁻¹UC⁻¹UᴴD⁻¹ is a difference, whose rounding errors are ε/D: they must be smaller than
    M is where it is smallest, or it is not definite.
    """
    return float(jnp.finfo(dtype).eps) ** 0.75


def check_rank(rank: Any) -> None:
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank: must be an int ≥ 1; got {rank!r}.")


def _definite_columns(operator: AbstractLinearOperator, name: str) -> Any:
    """`(n, k)` to its product with ±A, which is positive definite, and the sign."""
    require_square(operator, name)
    if not is_definite(operator):
        raise ValueError(
            f"operator: `{name}` needs a positive or negative definite operator, and this "
            f"{type(operator).__name__} does not promise that. Tag it with "
            "`positive_semidefinite_tag` if it is, or use `ILU`, `SPAI` or `Jacobi`."
        )
    negative = is_negative_semidefinite(operator) and not is_positive_semidefinite(operator)
    sign = -1 if negative else 1
    fixed, structure = linearise(stop_gradient(operator)), operator.in_structure()
    product = lambda x: ravel(fixed.mv(unravel(x, structure)))
    return lambda x: sign * jax.vmap(product, 1, 1)(x), sign
