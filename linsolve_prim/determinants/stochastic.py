"""`stochastic_logdet`: log det A of a large definite operator from products with it, with its error.

Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. Appl. 38(4), algorithm 1):
log det A = tr log A = E[zᵀ log(A) z] for random signs z, and zᵀ log(A) z is a Gauss quadrature whose
nodes and weights are the eigenvalues of the tridiagonal matrix of Lanczos' method begun with z.

Its derivative is that of log det A, and not that of the quadrature: Hutchinson's estimator (1990)
E[zᵀA⁻¹dA z], which is unbiased, with the same z and one solve for each.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._static import Skeleton, split, stop_gradient
from .._tree import HIGHEST, ravel, tree_dot, tree_dtype, unravel
from .._varying import vary_like, varying_axes
from ..api import linear_solve
from ..auto import AutoLinearSolver
from ..errors import StructureError, WrongTypeError
from ..operators import AbstractLinearOperator, is_positive_semidefinite
from ..simple import as_operator
from ..solvers.base import AbstractLinearSolver

#: Numbers in the Lanczos vectors of the probes that are worked on at once (32 MiB in float64).
_HELD = 1 << 22


class LogDetEstimate(NamedTuple):
    """An estimate of log det A, and its standard error: the square root of its variance.

    `standard_error` is NaN for a single sample, and carries no derivative.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([1.0, 2.0, 4.0])), lp.positive_semidefinite_tag)
        >>> value, error = lp.stochastic_logdet(A, jax.random.key(0), num_samples=4)
        >>> bool(error < 1e-3)  # of a diagonal matrix each probe is exact
        True
    """

    value: Array
    standard_error: Array


def stochastic_logdet(
    A: Any,
    key: Array,
    *,
    num_samples: int = 32,
    num_steps: int = 64,
    solver: AbstractLinearSolver[Any] | None = None,
    throw: bool = True,
) -> LogDetEstimate:
    """An estimate of log det A for a positive definite A that is known by its products only.

    **Arguments**

    - `A`: an operator tagged `positive_semidefinite_tag` (real or Hermitian), of any structure.
    - `key`: of `jax.random.key`. The same key gives the same probes, for values and derivatives.
    - `num_samples`: probes; the standard error falls as 1/√num_samples.
    - `num_steps`: Lanczos steps for each. The error of the quadrature falls as ρ^(−2 num_steps), with
      ρ = (√κ + 1)/(√κ − 1) for the condition number κ; with n steps there is none.
    - `solver`, `throw`: of the solves of derivatives, one for each probe; by default what
      `AutoLinearSolver` chooses (CG for large matrix-free operators). Pass `CG(preconditioner=…)`.

    **Returns** a `LogDetEstimate(value, standard_error)`. Differentiating `value` gives an unbiased
    estimate of the derivative of log det A, to every order and in both modes, if the solves are exact.
    A costs `num_samples * num_steps` products; Lanczos vectors are kept orthogonal, and are held for as
    many probes at once as fit into 32 MiB (at least for one).

    **Raises** `StructureError` if A is not square, `ValueError` if it is not tagged, or for numbers below
    one. NaN is returned where A turns out not to be definite.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([1.0, 2.0, 4.0])), lp.positive_semidefinite_tag)
        >>> print(jnp.exp(lp.stochastic_logdet(A, jax.random.key(0), num_samples=4).value).round(2))
        8.0
    """
    operator = _checked(A, num_samples, num_steps)
    size = operator.in_size()
    dtype = tree_dtype((operator.in_structure(), operator.out_structure()))
    probes = jax.random.rademacher(key, (num_samples, size), dtype=jnp.finfo(dtype).dtype)
    solver = AutoLinearSolver(well_posed=True) if solver is None else solver
    chosen, state = solver.start(stop_gradient(operator), {})
    arrays, skeleton = split(operator)
    probes = vary_like(probes.astype(dtype), varying_axes(arrays))  # under `shard_map`
    others, rest = split((chosen, stop_gradient(state), probes))
    task = _Task(skeleton, rest, min(num_steps, size), throw)
    return LogDetEstimate(*_estimate(task, arrays, others))


def _checked(A: Any, num_samples: int, num_steps: int) -> AbstractLinearOperator:
    if callable(A) and not isinstance(A, AbstractLinearOperator):
        raise WrongTypeError(
            "A: must be an operator; got a function. Wrap it as `FunctionLinearOperator(fn, "
            "structure, positive_semidefinite_tag)`."
        )
    operator = as_operator(A, None)
    if operator.in_size() != operator.out_size():
        raise StructureError(
            f"A: must be square to have a determinant; got a {operator.out_size()}×"
            f"{operator.in_size()} operator."
        )
    if not is_positive_semidefinite(operator):
        raise ValueError(
            f"A: must be tagged positive definite for `stochastic_logdet`; this {type(A).__name__} is "
            "not. Tag it with `positive_semidefinite_tag` if it is, or use `slogdet`."
        )
    for name, number in (("num_samples", num_samples), ("num_steps", num_steps)):
        if number < 1:
            raise ValueError(f"{name}: must be at least 1; got {number}.")
    return operator


@dataclasses.dataclass(frozen=True)
class _Task:
    """The static half: an operator, and (solver, state, probes), without their arrays."""

    operator: Skeleton
    rest: Skeleton
    num_steps: int
    throw: bool


def _over_probes(fn: Any, probes: Array, num_steps: int) -> Array:
    """`fn` of each probe, of as many at once as memory allows."""
    at_once = max(1, _HELD // max(1, probes.shape[1] * num_steps))
    if at_once >= len(probes):
        return jax.vmap(fn)(probes)
    return jax.lax.map(fn, probes, batch_size=at_once)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _estimate(task: _Task, arrays: list[Array], others: list[Array]) -> tuple[Array, Array]:
    operator = task.operator.fill(arrays)
    probes = task.rest.fill(others)[2]
    quadrature = functools.partial(_quadrature, operator, num_steps=task.num_steps)
    found = _over_probes(quadrature, probes, task.num_steps)
    count = len(probes)
    spread = jnp.std(found, ddof=1) if count > 1 else jnp.full((), jnp.nan, found.dtype)
    return jnp.mean(found), spread / jnp.sqrt(jnp.asarray(count, found.dtype))


@_estimate.defjvp
def _derivative(task: _Task, primals: Any, tangents: Any) -> tuple[Any, Any]:
    arrays, others = primals
    value, error = _estimate(task, arrays, others)
    operator = task.operator.fill(arrays)
    solver, state, probes = task.rest.fill(others)
    structure = operator.in_structure()

    def products(*arrays: Array) -> Array:
        A = task.operator.fill(arrays)
        return jax.vmap(lambda z: ravel(A.mv(unravel(z, structure)), A.out_structure()))(probes)

    def solved(z: Array) -> Array:  # A is Hermitian: zᴴA⁻¹ is (A⁻¹z)ᴴ
        rhs = unravel(z, operator.out_structure())
        x = linear_solve(operator, rhs, solver, state=state, throw=task.throw).value
        return ravel(x, structure)

    change = jax.jvp(products, tuple(arrays), tuple(tangents[0]))[1]
    solutions = jax.vmap(solved)(probes)
    rate = tree_dot(solutions, change).real / len(probes)
    return (value, error), (rate.astype(value.dtype), jnp.zeros_like(error))


def _quadrature(operator: AbstractLinearOperator, z: Array, *, num_steps: int) -> Array:
    """zᴴ log(A) z by Gauss quadrature."""
    diagonal, off = _lanczos(operator, z, num_steps)
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)
    nodes, vectors = jnp.linalg.eigh(tridiagonal)
    weights = vectors[0] ** 2
    return z.shape[0] * jnp.sum(weights * jnp.log(nodes))


def _lanczos(operator: AbstractLinearOperator, z: Array, num_steps: int) -> tuple[Array, Array]:
    """The tridiagonal matrix of Lanczos' method (Golub & Van Loan 2013, section 10.1), from z.

    Each vector is made orthogonal to all before it, twice. Where they span an invariant subspace the
    method is done: what follows is an identity, which adds nothing to a sum of logarithms.
    """
    structure, out = operator.in_structure(), operator.out_structure()
    real = jnp.finfo(z.dtype).dtype
    tiny = 10 * float(jnp.finfo(z.dtype).eps)

    def step(carry: Any, k: Array) -> tuple[Any, tuple[Array, Array]]:
        basis, vector, alive, scale = carry
        basis = jax.lax.dynamic_update_index_in_dim(basis, vector, k, 0)
        w = ravel(operator.mv(unravel(vector, structure)), out)
        alpha = jnp.vdot(vector, w, precision=HIGHEST).real
        for _ in range(2):
            inner = jnp.matmul(basis.conj(), w, precision=HIGHEST)
            w = w - jnp.matmul(inner, basis, precision=HIGHEST)
        beta = jnp.linalg.norm(w)
        scale = jnp.maximum(scale, jnp.maximum(jnp.abs(alpha), beta))
        goes_on = alive & (beta > tiny * scale)
        following = jnp.where(goes_on, w / jnp.where(goes_on, beta, 1).astype(w.dtype), 0)
        entries = jnp.where(alive, alpha, 1), jnp.where(goes_on, beta, 0)
        return (basis, following, goes_on, scale), entries

    # (made from z, so that under `shard_map` they vary over the same axes)
    first = z / jnp.sqrt(jnp.asarray(z.shape[0], real)).astype(z.dtype)
    none = jnp.abs(first[0]) * 0
    basis = jnp.zeros((num_steps, 1), z.dtype) * first
    start = basis, first, none == 0, none
    _, (diagonal, off) = jax.lax.scan(step, start, jnp.arange(num_steps))
    return diagonal, off[:-1]
