"""`Chebyshev` and `Neumann`: polynomials in D⁻¹A, which need products only."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import stop_gradient
from .._tree import ravel, tree_axpy, tree_dtype, tree_scale, tree_sub, unravel
from .._types import Structure, complex_to_real_dtype
from ..operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    conj,
    diagonal,
    linearise,
)
from ..sparse.held import is_matrix_free
from ..sparse.operator import sparse_of
from .base import AbstractPreconditioner
from .parts import is_definite, nonzero, require_square, symmetry_of, tagged

_POWER_STEPS = 12
#: By how much the largest eigenvalue is taken to be larger than the power method finds it.
_MARGIN = 1.2


class PolynomialOperator(AbstractLinearOperator):
    """r ↦ x after steps x ← x + d, d ← αd + βD⁻¹(b − Ax) from zero: a polynomial in D⁻¹A times D⁻¹.

    - `scale`: D⁻¹, a diagonal operator; - `alphas`, `betas`: `(degree + 1,)`, α of the first is not used.
    """

    operator: AbstractLinearOperator
    scale: DiagonalLinearOperator
    alphas: Array
    betas: Array

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        operator = linearise(self.operator)
        d = tree_scale(self.betas[0], self.scale.mv(vector))

        def step(carry: Any, ab: Any) -> Any:
            x, r, d = carry
            alpha, beta = ab
            r = tree_sub(r, operator.mv(d))
            d = tree_axpy(alpha, d, tree_scale(beta, self.scale.mv(r)))
            return (jax.tree.map(jnp.add, x, d), r, d), None

        (x, _, _), _ = jax.lax.scan(step, (d, vector, d), (self.alphas[1:], self.betas[1:]))
        return x

    def transpose(self) -> PolynomialOperator:
        return eqx.tree_at(lambda p: p.operator, self, self.operator.transpose())

    def in_structure(self) -> Structure:
        return self.operator.out_structure()

    def out_structure(self) -> Structure:
        return self.operator.in_structure()


@conj.register(PolynomialOperator)
def _conj(p: PolynomialOperator) -> PolynomialOperator:
    return PolynomialOperator(conj(p.operator), conj(p.scale), p.alphas.conj(), p.betas.conj())


class Chebyshev(AbstractPreconditioner):
    """M = p(D⁻¹A)D⁻¹ with the polynomial of a `degree` that is best on an interval of eigenvalues.

    It needs `degree` products and no inner product, so nothing waits for a sum over all devices. M is
    definite if A is. (Saad, "Iterative methods for sparse linear systems", algorithm 12.1.)

    - `degree`: of p; 0 is Jacobi.
    - `bounds`: `(least, largest)` eigenvalues of D⁻¹A, or of A if `scaled=False`. By default the
      largest is that of Gershgorin's circles for sparse and dense A, and by 12 steps of the power
      method, and a fifth more, for others; the least is `1/ratio` of it.
    - `ratio`: the smaller, the less is done for the smallest eigenvalues: a smoother has 3 to 10.
    - `scaled`: whether D is the diagonal of A, or 1. None: where the diagonal costs nothing.

    **Raises** `ValueError` for bounds that are no interval.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([1.0, 2.0, 3.0])), lp.positive_semidefinite_tag)
        >>> M = lp.preconditioners.Chebyshev(degree=6, bounds=(1.0, 3.0), scaled=False).init(A)
        >>> print((M @ A).as_matrix().round(2) + 0.0)
        [[1. 0. 0.]
         [0. 1. 0.]
         [0. 0. 1.]]
    """

    degree: int = 4
    bounds: Any = None
    ratio: float = 30.0
    scaled: bool | None = None

    def __check_init__(self) -> None:
        check_degree(self.degree)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "Chebyshev")
        operator = stop_gradient(operator)
        scale = _scale(operator, self.scaled)
        dtype = complex_to_real_dtype(tree_dtype(operator.in_structure()))
        if self.bounds is None:
            largest = largest_eigenvalue(operator, scale)
            least = largest / self.ratio
        else:
            least, largest = (jnp.asarray(x, dtype) for x in self.bounds)
        alphas, betas = _chebyshev(least, largest, self.degree)
        made = PolynomialOperator(operator, scale, alphas.astype(dtype), betas.astype(dtype))
        return tagged(made, symmetry_of(operator))

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


class Neumann(AbstractPreconditioner):
    """M = Σₖ (I − ωD⁻¹A)ᵏ ωD⁻¹, k = 0 … `degree`: that many steps of Jacobi's method more than one.

    - `omega`: ω; by default 1 over the bound of the largest eigenvalue of D⁻¹A that `Chebyshev` takes.
    - `scaled`: as for `Chebyshev`.

    (Dubois, Greenbaum and Rodrigue, 1979, doi:10.1007/BF02243566.)

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.array([[2.0, 1.0], [0.0, 2.0]]))
        >>> print(lp.preconditioners.Neumann(degree=1, omega=1.0).init(A).as_matrix() + 0.0)  # exact: N² = 0
        [[ 0.5  -0.25]
         [ 0.    0.5 ]]
    """

    degree: int = 3
    omega: Any = None
    scaled: bool | None = None

    def __check_init__(self) -> None:
        check_degree(self.degree)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "Neumann")
        operator = stop_gradient(operator)
        scale = _scale(operator, self.scaled)
        dtype = complex_to_real_dtype(tree_dtype(operator.in_structure()))
        omega = 1 / largest_eigenvalue(operator, scale) if self.omega is None else self.omega
        betas = jnp.full(self.degree + 1, jnp.asarray(omega, dtype))
        made = PolynomialOperator(operator, scale, jnp.zeros_like(betas), betas)
        return tagged(made, symmetry_of(operator))

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return is_definite(operator)


def check_degree(degree: Any) -> None:
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ValueError(f"degree: must be an int ≥ 0; got {degree!r}.")


def _chebyshev(least: Array, largest: Array, degree: int) -> tuple[Array, Array]:
    """α and β of Chebyshev's iteration for eigenvalues in that interval."""
    centre, half = (largest + least) / 2, (largest - least) / 2
    alphas, betas = [jnp.zeros_like(centre)], [1 / centre]
    for k in range(degree):
        # β = 1 / (c − α'), α = α'β with α' = (half/2)²·2β at first, and (half/2)²β later
        share = (half / 2) ** 2 * betas[-1] * (2 if k == 0 else 1)
        betas.append(1 / (centre - share))
        alphas.append(share * betas[-1])
    return jnp.stack(alphas), jnp.stack(betas)


def _scale(operator: AbstractLinearOperator, scaled: bool | None) -> DiagonalLinearOperator:
    structure = operator.in_structure()
    if scaled is None:
        scaled = not is_matrix_free(operator)
    if not scaled:
        return DiagonalLinearOperator(jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), structure))
    return DiagonalLinearOperator(unravel(1 / nonzero(diagonal(operator)), structure))


def largest_eigenvalue(operator: AbstractLinearOperator, scale: DiagonalLinearOperator) -> Array:
    """A bound of |λ| of D⁻¹A: its largest row sum where entries are at hand; else an estimate."""
    d = jnp.abs(ravel(scale.diagonal))
    sparse = sparse_of(operator)
    if sparse is not None:
        sums = (
            jnp.zeros_like(d)
            .at[sparse.pattern.rows]
            .add(jnp.abs(sparse.values), indices_are_sorted=True)
        )
        return _positive(jnp.max(d * sums, initial=0))
    if not is_matrix_free(operator):
        return _positive(jnp.max(d * jnp.sum(jnp.abs(operator.as_matrix()), axis=1), initial=0))
    return _positive(_MARGIN * _power_method(operator, scale))


def _power_method(operator: AbstractLinearOperator, scale: DiagonalLinearOperator) -> Array:
    key = jax.random.key(0)
    n, structure = operator.in_size(), operator.in_structure()
    dtype = tree_dtype(structure)
    start = jax.random.normal(key, (n,), complex_to_real_dtype(dtype)).astype(dtype)
    product = linearise(operator).mv

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        x, _ = state
        x = x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(dtype).tiny).astype(dtype)
        y = ravel(scale.mv(product(unravel(x, structure))))
        return y, jnp.linalg.norm(y)

    zero = jnp.zeros((), complex_to_real_dtype(dtype))
    return jax.lax.fori_loop(0, _POWER_STEPS, step, (start, zero))[1]


def _positive(x: Array) -> Array:
    return jnp.where(x > 0, x, 1)
