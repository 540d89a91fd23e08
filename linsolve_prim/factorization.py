"""`factorize`: the work that depends on the matrix alone, to keep and to use again."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._static import Static, split
from ._tree import tree_dtype
from ._types import Options, inexact_asarray
from .api import linear_solve
from .auto import AutoLinearSolver
from .errors import StructureError, WrongTypeError
from .operators import AbstractLinearOperator, TaggedLinearOperator
from .primitive.states import stop_gradient
from .results import Solution
from .simple import as_operator
from .solvers.base import AbstractLinearSolver
from .sparse.operator import SparseLinearOperator


class Factorization(eqx.Module):
    """A matrix with its factors: a pytree, which goes through `jit`, `vmap` and the carry of `scan`.

    - `solve(b)`: the solution of Ax = b; b as the operator's output, or `(n, k)` for k of them.
    - `linear_solve(b)`: the same for one b, as a `Solution` with result and statistics.
    - `T`: the factorization of Aᵀ, which is the same one.
    - `update(values)`: that of another matrix with the same pattern; the symbolic analysis is kept.

    It can be pickled. (What a host library made is not in it, but made again from the values.)

    Derivatives by b and by the operator's arrays are those of `linear_solve`; the factors carry none.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> factors = lp.factorize(jnp.array([[2.0, 0.0], [1.0, 4.0]]))
        >>> print(factors.linear_solve(jnp.array([2.0, 5.0])).value, factors.T.solve(jnp.array([2.0, 4.0])))
        [1. 1.] [0.5 1. ]
    """

    operator: AbstractLinearOperator
    _arrays: list[Array]
    _rest: Static

    def __init__(
        self,
        operator: AbstractLinearOperator,
        solver: AbstractLinearSolver[Any],
        state: PyTree[Any],
        options: Options,
    ):
        self.operator = operator
        # settings that are no arrays are compiled in, so that the whole is a pytree of arrays
        self._arrays, skeleton = split((solver, state, options))
        self._rest = Static(skeleton)

    def __reduce__(self) -> Any:  # tree definitions hold objects that are compared by identity
        return Factorization, (self.operator, self.solver, self.state, self.options)

    @property
    def solver(self) -> AbstractLinearSolver[Any]:
        return self._rest.value.fill(self._arrays)[0]

    @property
    def state(self) -> PyTree[Any]:
        """What `linear_solve` takes as `state=`."""
        return self._rest.value.fill(self._arrays)[1]

    @property
    def options(self) -> Options:
        return self._rest.value.fill(self._arrays)[2]

    def solve(self, b: Any, *, throw: bool = True) -> PyTree[Array]:
        """The solution x, like b; a real b is taken for a complex matrix. **Raises** as `linear_solve` does."""
        b = _as_complex(b, self.operator)
        size = self.operator.out_size()
        if getattr(b, "ndim", None) == 2 and b.shape[0] == size:
            return jax.vmap(lambda v: self.linear_solve(v, throw=throw).value, 1, 1)(jnp.asarray(b))
        return self.linear_solve(b, throw=throw).value

    def linear_solve(self, b: Any, *, throw: bool = True) -> Solution:
        """The whole `Solution` for one right-hand side."""
        return linear_solve(
            self.operator, b, self.solver, options=self.options, state=self.state, throw=throw
        )

    @property
    def T(self) -> Factorization:
        state, options = self.solver.transpose(self.state, self.options)
        return Factorization(self.operator.T, self.solver, state, options)

    def update(self, values: Any) -> Factorization:
        """The factorization of a matrix with other values.

        `values`: for a sparse operator `(nnz,)` in the order of its pattern; else an operator.

        **Raises** `StructureError` for values of another shape.
        """
        return factorize(_with_values(self.operator, values), self.solver, options=self.options)


def _as_complex(b: Any, operator: AbstractLinearOperator) -> Any:
    """Real numbers as complex ones of the same precision, where an operator returns those."""
    wanted = tree_dtype(operator.out_structure())
    if not jnp.issubdtype(wanted, jnp.complexfloating):
        return b
    real = jnp.finfo(wanted).dtype
    return jax.tree.map(lambda x: x.astype(wanted) if getattr(x, "dtype", None) == real else x, b)


def _with_values(operator: AbstractLinearOperator, values: Any) -> AbstractLinearOperator:
    if isinstance(values, AbstractLinearOperator):
        return values
    if isinstance(operator, TaggedLinearOperator):
        return TaggedLinearOperator(_with_values(operator.operator, values), operator.tags)
    if isinstance(operator, SparseLinearOperator):
        return SparseLinearOperator(values, operator.pattern, operator.tags)
    values = inexact_asarray(values)
    if values.shape != (operator.out_size(), operator.in_size()):
        raise StructureError(
            f"values: must be a matrix of shape {(operator.out_size(), operator.in_size())}, or an "
            f"operator; got shape {values.shape}."
        )
    return as_operator(values, operator.in_structure())


def factorize(
    A: Any,
    solver: AbstractLinearSolver[Any] | None = None,
    *,
    options: Options | None = None,
) -> Factorization:
    """Factorize A (or set up whatever `solver` prepares), once, for many solves.

    - `A`: a matrix, sparse matrix or operator, as for `solve`.
    - `solver`: default `AutoLinearSolver(well_posed=True)`.

    ```python
    factors = lp.factorize(A)
    x = factors.solve(b)
    factors = factors.update(new_values)  # keeps the symbolic analysis
    ```

    **Raises** `WrongTypeError` for a function (wrap it as an operator), and what `solver` raises for a
    matrix that it does not take. A singular matrix is told by the solves.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> factors = lp.factorize(jnp.array([[2.0, 0.0], [1.0, 4.0]]))
        >>> print(factors.solve(jnp.array([2.0, 5.0])), factors.T.solve(jnp.array([2.0, 4.0])))
        [1. 1.] [0.5 1. ]
        >>> print(factors.solve(4 * jnp.eye(2)))  # two right-hand sides
        [[ 2.   0. ]
         [-0.5  1. ]]
    """
    if callable(A) and not isinstance(A, AbstractLinearOperator):
        raise WrongTypeError(
            "A: must be a matrix or an operator; got a function. Wrap it as "
            "`FunctionLinearOperator(fn, structure)`."
        )
    operator = as_operator(A, None)
    options = {} if options is None else options
    solver = AutoLinearSolver(well_posed=True) if solver is None else solver
    chosen, state = solver.start(stop_gradient(operator), options)
    return Factorization(operator, chosen, stop_gradient(state), options)


def update(state: Factorization, new_values: Any) -> Factorization:
    """`state.update(new_values)`.

    **Raises** `StructureError` for values that are neither a matrix of A's shape nor of its entries.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> factors = lp.factorize(jnp.array([[2.0, 0.0], [0.0, 4.0]]))
        >>> print(lp.update(factors, jnp.array([[1.0, 0.0], [0.0, 2.0]])).solve(jnp.ones(2)))
        [1.  0.5]
    """
    return state.update(new_values)
