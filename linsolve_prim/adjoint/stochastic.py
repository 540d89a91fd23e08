"""Random derivatives that are right on average."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._tree import tree_real_dtype, tree_size
from .._types import is_array
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.stopping import check_count
from .implicit import ImplicitAdjoint, check_preconditioner


class StochasticAdjoint(eqx.Module):
    """The cotangent of the matrix from `num_samples` of its rows, drawn at random: unbiased.

    The cotangent of A is Ā = −λxᵀ with Aᵀλ = x̄. Of it, rows are drawn uniformly and with
    replacement, and scaled by n / num_samples; all others are zero:

        Ā̂ = D Ā,  D = (n/s) Σₖ e_{iₖ} e_{iₖ}ᵀ,  E[D] = I,  Var(Ā̂ᵢⱼ) = (n − 1)/s · Āᵢⱼ².

    So the relative error of one sample is √((n − 1)/s), and a mean over K keys has √K less. λ itself, and
    the cotangent of b, are exact. (Solving with a principal submatrix of A instead, which would save
    work, gives (A_II)⁻¹ where (A⁻¹)_II is meant: that is biased for every A but block-diagonal ones.)
    What is saved is what comes after: the backward pass of whatever made those rows of A. The estimate
    is for first derivatives; of higher ones it would be a product of dependent samples.

    - `key`: a key of `jax.random`. The same key draws the same rows, in every lane of a `vmap`.
    - `num_samples`: s.
    - `solver`, `preconditioner`: of tangent and cotangent solves, as for `ImplicitAdjoint`.

    **Raises** `TypeError` if `key` is no key.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> adjoint = lp.StochasticAdjoint(jax.random.key(0), num_samples=1)
        >>> dA = jax.grad(lambda A: lp.solve(A, jnp.ones(4), adjoint=adjoint).sum())(2 * jnp.eye(4))
        >>> int((dA != 0).any(axis=1).sum())  # rows of dA that are not zero
        1
    """

    key: Array
    num_samples: int
    solver: AbstractLinearSolver[Any] | None = dataclasses.field(default=None, kw_only=True)
    preconditioner: Any = dataclasses.field(default=None, kw_only=True)

    def __check_init__(self) -> None:
        check_preconditioner(self.preconditioner)
        check_count("num_samples", self.num_samples)
        if not is_array(self.key):
            raise TypeError(
                f"key: must be a key of `jax.random`, as `jax.random.key(0)`; got {self.key!r}."
            )

    def implicit(self) -> ImplicitAdjoint:
        """The same for the primitive's rules."""
        key = self.key
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            sketch = _Rows(
                jax.random.key_data(key), self.num_samples, str(jax.random.key_impl(key))
            )
        else:
            sketch = _Rows(key, self.num_samples, None)
        return ImplicitAdjoint(self.solver, self.preconditioner, sketch=sketch)


class _Rows(eqx.Module):
    """v ↦ Dv. A pytree of several leaves is one long vector."""

    key: Array
    num_samples: int
    implementation: str | None

    def __call__(self, vector: PyTree[Array]) -> PyTree[Array]:
        key = self.key
        if self.implementation is not None:
            key = jax.random.wrap_key_data(key, impl=self.implementation)
        size = tree_size(vector)
        drawn = jax.random.randint(key, (self.num_samples,), 0, size)
        counts = jnp.zeros(size, jnp.int32).at[drawn].add(1)
        weights = counts.astype(tree_real_dtype(vector)) * (size / self.num_samples)
        leaves, treedef = jax.tree.flatten(vector)
        out, start = [], 0
        for leaf in leaves:
            own = jax.lax.slice_in_dim(weights, start, start + leaf.size).reshape(leaf.shape)
            out.append(own.astype(leaf.dtype) * leaf)
            start += leaf.size
        return jax.tree.unflatten(treedef, out)
