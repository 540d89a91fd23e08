"""What learned preconditioners and solvers are trained on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._norms import sum_squares
from .._tree import HIGHEST, ravel, tree_sub, tree_zeros, unravel
from .._types import inexact_asarray, same_shapes, structure_of, structure_str
from ..errors import StructureError
from ..operators import AbstractLinearOperator, conj
from ..preconditioners.base import AbstractPreconditioner
from ..preconditioners.names import as_preconditioner
from ..primitive.states import stop_gradient
from ..simple import as_operator
from ..solvers.krylov.probe import fixed_vector
from ..solvers.krylov.stopping import check_count
from ..solvers.krylov.vectors import normalise

_DENSE = 512  # up to here singular vectors are those of a matrix
_NOTHING = 100  # units of rounding of a product that are nothing new


def residual_loss(A: Any, b: PyTree[Array], x: PyTree[Array]) -> Array:
    """‖b − Ax‖²/‖b‖² (‖Ax‖² for b = 0). A is a matrix, sparse matrix, operator or function.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.learn.residual_loss(jnp.eye(2), jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0])))
        0.5
    """
    b, x = (jax.tree.map(inexact_asarray, v) for v in (b, x))
    operator = as_operator(A, structure_of(x))
    if not same_shapes(b, operator.out_structure()):
        raise StructureError(
            f"b: must have the structure of Ax, {structure_str(operator.out_structure())}; got "
            f"{structure_str(structure_of(b))}."
        )
    size = sum_squares(b)
    residual = sum_squares(tree_sub(b, operator.mv(x)))
    return residual / jnp.where(size > 0, size, 1)


def condition_number_loss(A: Any, preconditioner: Any = None, *, steps: int = 50) -> Array:
    """log κ₂(MA) = log σ_max(MA) − log σ_min(MA): finite for every nonsingular MA.

    Singular values are used, and not eigenvalues: those may be negative or complex, where a
    logarithm of their ratio is no number. For symmetric MA both are the same but for the sign.

    - `A`: a matrix, sparse matrix or operator.
    - `preconditioner`: M ≈ A⁻¹ as an operator, a matrix or a function, or one of `preconditioners` (an
      object or its name); `None` for A alone.
    - `steps`: of Golub and Kahan's bidiagonalisation (1965, doi:10.1137/0702016), by which operators
      with more than 512 unknowns are looked at; two products with MA each. σ_min, and so κ, is then
      estimated from one side: the loss is a lower bound.

    The singular vectors u, v are found without derivatives, and σ = ‖MAv‖ is differentiated with v
    held, which is its derivative, dσ = Re uᴴ d(MA) v, where σ is simple, and a subgradient where it
    is not. So are first derivatives; of second ones the part from v is missing.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = jnp.diag(jnp.array([1.0, 100.0]))
        >>> print(jnp.exp(lp.learn.condition_number_loss(A)).round(1))
        100.0
        >>> bool(lp.learn.condition_number_loss(A, lp.preconditioners.Jacobi()) < 1e-3)
        True
    """
    check_count("steps", steps, "50")
    operator = as_operator(A, None)
    m = preconditioner
    if m is not None:
        m = as_preconditioner(m, operator.out_structure(), operator.in_structure())
        m = as_operator(m, operator.out_structure(), "preconditioner")
    if isinstance(m, AbstractPreconditioner):
        m = m.init(operator)
    product = operator if m is None else m @ operator
    largest, smallest = extreme_vectors(stop_gradient(product), steps)
    log_size = lambda v: jnp.log(sum_squares(product.mv(v))) / 2
    return log_size(jax.lax.stop_gradient(largest)) - log_size(jax.lax.stop_gradient(smallest))


def extreme_vectors(operator: AbstractLinearOperator, steps: int) -> tuple[Any, Any]:
    """Right singular vectors of the largest and the smallest singular value."""
    structure = operator.in_structure()
    if operator.in_size() <= _DENSE:
        vectors = jnp.linalg.svd(operator.as_matrix(), full_matrices=False)[2].conj()
        return unravel(vectors[0], structure), unravel(vectors[-1], structure)
    basis, bidiagonal = _bidiagonalise(operator, min(steps, operator.in_size()))
    right = jnp.linalg.svd(bidiagonal, full_matrices=False)[2].conj()
    at = lambda w: unravel(jnp.dot(w.astype(basis.dtype), basis, precision=HIGHEST), structure)
    return at(right[0]), at(right[-1])


def _bidiagonalise(operator: AbstractLinearOperator, steps: int) -> tuple[Array, Array]:
    """V and B with AVᵀ = UᵀB: rows of V are orthonormal, B is upper bidiagonal, `(steps, steps)`."""
    adjoint = conj(operator).transpose()
    first = normalise(fixed_vector(tree_zeros(operator.in_structure()), 6))[0]
    v = ravel(first)
    rows_v: list[Array] = [v]
    rows_u: list[Array] = []
    alphas: list[Array] = []
    betas: list[Array] = []
    for k in range(steps):
        u, alpha = _next(ravel(operator.mv(unravel(v, operator.in_structure()))), rows_u)
        rows_u.append(u)
        alphas.append(alpha)
        if k + 1 < steps:
            v, beta = _next(ravel(adjoint.mv(unravel(u, operator.out_structure()))), rows_v)
            rows_v.append(v)
            betas.append(beta)
    return jnp.stack(rows_v), jnp.diag(jnp.stack(alphas)) + jnp.diag(jnp.stack(betas), 1)


def _next(product: Array, rows: list[Array]) -> tuple[Array, Array]:
    """What of a product is new, as a unit vector, and how much that is.

    If nothing is, the earlier rows span an invariant subspace: any other vector leads on.
    """
    unit, size = normalise(_orthogonal(product, rows))
    nothing = size <= _NOTHING * float(jnp.finfo(size.dtype).eps) * normalise(product)[1]
    other = normalise(_orthogonal(fixed_vector(product, 7 + len(rows)), rows))[0]
    return jnp.where(nothing, other, unit), jnp.where(nothing, 0, size)


def _orthogonal(vector: Array, rows: list[Array]) -> Array:
    """What is left of a vector beside earlier ones; twice is enough."""
    if not rows:
        return vector
    basis = jnp.stack(rows)
    for _ in range(2):
        parts = jnp.dot(basis.conj(), vector, precision=HIGHEST)
        vector = vector - jnp.dot(parts, basis, precision=HIGHEST)
    return vector
