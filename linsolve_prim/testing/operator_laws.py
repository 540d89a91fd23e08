"""The laws of `AbstractLinearOperator`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._tree import ravel, tree_add, tree_conj, tree_dtype, tree_scale
from .._types import structure_equal
from ..operators import (
    AbstractLinearOperator,
    conj,
    diagonal,
    has_unit_diagonal,
    is_diagonal,
    is_lower_triangular,
    is_negative_semidefinite,
    is_positive_semidefinite,
    is_symmetric,
    is_tridiagonal,
    is_upper_triangular,
    linearise,
    materialise,
    tridiagonal,
)
from .compare import assert_close, assert_true
from .random import random_like


def _dot(x, y):
    """Σ xᵢyᵢ, without conjugation."""
    x, y = ravel(x), ravel(y)
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return jnp.sum(x.astype(dtype) * y.astype(dtype))


def check_operator(
    operator: AbstractLinearOperator, *, rtol: float | None = None, seed: int = 0
) -> None:
    """Check every law in the docstring of `AbstractLinearOperator`.

    - `operator`: any operator; its matrix is formed, so keep it small.
    - `rtol`: allowed relative error of a vector; default √ε.

    Raises `AssertionError` naming the first law that does not hold.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> lp.testing.check_operator(lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 4.0]])))
        >>> try:
        ...     lp.testing.check_operator(lp.MatrixLinearOperator(jnp.diag(jnp.ones(2), 1), lp.symmetric_tag))
        ... except AssertionError as error:
        ...     print(str(error).split(":")[0])
        transpose
    """
    x, x2 = (random_like(operator.in_structure(), seed + i) for i in (0, 1))
    y = random_like(operator.out_structure(), seed + 2)
    ax = operator.mv(x)
    assert_true("A.mv(x) has out_structure", structure_equal(ax, operator.out_structure()))
    transposed = operator.transpose()
    swapped = structure_equal(transposed.in_structure(), operator.out_structure())
    swapped &= structure_equal(transposed.out_structure(), operator.in_structure())
    assert_true("A.T swaps the structures", swapped)

    alpha = 0.37
    combined = operator.mv(tree_add(tree_scale(alpha, x), x2))
    parts = tree_add(tree_scale(alpha, ax), operator.mv(x2))
    assert_close("linearity: A(αx + x₂) = αAx + Ax₂", combined, parts, rtol)

    left, right = _dot(y, ax), _dot(transposed.mv(y), x)
    scale = jnp.linalg.norm(ravel(y)) * jnp.linalg.norm(ravel(ax))
    error = float(jnp.abs(left - right) / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))
    bound = rtol or float(jnp.finfo(scale.dtype).eps) ** 0.5
    assert_true("transpose: ⟨y, Ax⟩ = ⟨Aᵀy, x⟩", error <= bound, f"Relative error {error:.2e}.")
    assert_close("A.T.T acts as A", transposed.transpose().mv(x), ax, rtol)

    conjugated = conj(operator)
    assert_close(
        "conj(A)x = conj(A conj(x))", conjugated.mv(x), tree_conj(operator.mv(tree_conj(x))), rtol
    )
    assert_close(
        "conj(A).T = conj(A.T)", conjugated.transpose().mv(y), conj(transposed).mv(y), rtol
    )
    _check_matrix(operator, rtol)
    _check_structure(operator)
    for name, same in {
        "linearise": linearise(operator),
        "materialise": materialise(operator),
    }.items():
        assert_close(f"{name}(A) acts as A", same.mv(x), ax, rtol)
    assert_close("jit: A.mv", jax.jit(lambda a, v: a.mv(v))(operator, x), ax, rtol)


def _check_matrix(operator: AbstractLinearOperator, rtol: float | None) -> None:
    matrix = operator.as_matrix()
    shape = (operator.out_size(), operator.in_size())
    assert_true("as_matrix has shape (out_size, in_size)", matrix.shape == shape, str(matrix.shape))
    x = random_like(operator.in_structure(), 3)
    product = matrix @ ravel(x).astype(matrix.dtype)
    ax = ravel(operator.mv(x))
    dtype = jnp.promote_types(ax.dtype, product.dtype)
    if jnp.iscomplexobj(product) and not jnp.iscomplexobj(ax):
        product = product.real
    assert_close("as_matrix() @ x = A.mv(x)", product.astype(dtype), ax.astype(dtype), rtol)
    assert_close("diagonal(A)", diagonal(operator), jnp.diagonal(matrix), rtol)
    if shape[0] == shape[1] and shape[0] > 1 and is_tridiagonal(operator):
        main, lower, upper = tridiagonal(operator)
        assert_close("tridiagonal(A): main", main, jnp.diagonal(matrix), rtol)
        assert_close("tridiagonal(A): lower", lower, jnp.diagonal(matrix, -1), rtol)
        assert_close("tridiagonal(A): upper", upper, jnp.diagonal(matrix, 1), rtol)


def _check_structure(operator: AbstractLinearOperator) -> None:
    matrix = np.asarray(operator.as_matrix())
    dtype = tree_dtype((operator.in_structure(), operator.out_structure()))
    tol = float(jnp.finfo(dtype).eps) ** 0.5 * max(1.0, float(np.abs(matrix).max(initial=0)))
    close = lambda a, b: np.allclose(a, b, rtol=0, atol=tol)
    rules: list[tuple[Any, Any]] = [
        (is_symmetric, lambda: close(matrix, matrix.T)),
        (is_diagonal, lambda: close(matrix, np.diag(np.diag(matrix)))),
        (is_tridiagonal, lambda: close(matrix, np.triu(np.tril(matrix, 1), -1))),
        (has_unit_diagonal, lambda: close(np.diag(matrix), 1)),
        (is_lower_triangular, lambda: close(matrix, np.tril(matrix))),
        (is_upper_triangular, lambda: close(matrix, np.triu(matrix))),
        (is_positive_semidefinite, lambda: _semidefinite(matrix, tol)),
        (is_negative_semidefinite, lambda: _semidefinite(-matrix, tol)),
    ]
    for has, holds in rules:
        if has(operator):
            assert_true(f"{has.__name__}(A) promises what the matrix keeps", holds())


def _semidefinite(matrix: np.ndarray, tol: float) -> bool:
    hermitian = np.allclose(matrix, matrix.conj().T, rtol=0, atol=tol)
    return bool(hermitian and np.linalg.eigvalsh(matrix).min(initial=0) >= -tol * len(matrix))
