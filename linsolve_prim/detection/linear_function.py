"""`linear_function`: a decorator for functions that are solved through their matrices."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from ..errors import WrongTypeError
from ..operators.closure import ClosedFunction, Signature
from ..operators.structures import inexact_structure
from ..sparse.operator import SparseLinearOperator
from .affine import AffineFunction, bind, matrix_of, trace_all

#: Signatures of a function for which its trace is kept.
_TRACES = 64


class LinearFunction:
    """A linear or affine function of its first argument, with its matrix. See `linear_function`.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> shift = lp.detection.LinearFunction(lambda x: 2 * x - jnp.roll(x, 1))
        >>> print(shift(jnp.arange(3.0)), shift.matrix(jnp.arange(3.0)).pattern.nnz)
        [-2.  2.  3.] 6
    """

    def __init__(self, fn: Callable[..., PyTree[Any]]):
        if not callable(fn):
            raise WrongTypeError(f"fn: must be a function; got {type(fn).__name__}.")
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._traces: collections.OrderedDict[Hashable, ClosedFunction] = collections.OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> PyTree[Any]:
        return self._fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<linear_function {getattr(self, '__qualname__', self._fn)!s}>"

    def matrix(self, x_like: PyTree[Any], *args: Any, **kwargs: Any) -> SparseLinearOperator:
        """The matrix A of f(x, *args, **kwargs) = Ax + bias, for x like `x_like`."""
        return self.matrix_and_bias(x_like, *args, **kwargs)[0]

    def matrix_and_bias(
        self, x_like: PyTree[Any], *args: Any, **kwargs: Any
    ) -> tuple[SparseLinearOperator, Array]:
        """`(matrix, bias)`, as `materialise_sparse` returns them, and raising as it does."""
        return matrix_of(self.traced(x_like, *args, **kwargs))

    def traced(self, x_like: PyTree[Any], *args: Any, **kwargs: Any) -> AffineFunction:
        """The function of x alone. Python runs it once for each signature.

        That is: the structures of x and of the arrays in `args` and `kwargs`, and the values of what
        is no array there. (Each time, if it closes over arrays that are being traced.)
        """
        given, structure = (args, kwargs), inexact_structure(x_like)
        config = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
        key = (Signature.of((given, structure))[0], config)
        with self._lock:
            closed = self._traces.get(key)
            if closed is None:
                closed = trace_all(self._fn, structure, given)
                bind(closed, structure, given).check()
                self._keep(key, closed)
        return bind(closed, structure, given)

    def _keep(self, key: Hashable, closed: ClosedFunction) -> None:
        if any(isinstance(x, jax.core.Tracer) for x in closed.consts):
            return
        self._traces[key] = closed
        if len(self._traces) > _TRACES:
            self._traces.popitem(last=False)


def linear_function(fn: Callable[..., PyTree[Any]]) -> LinearFunction:
    """Decorate a function that is linear or affine in its first argument: it is solved as a matrix.

    ```python
    @lp.linear_function
    def laplace(u, kappa):
        return kappa * (jnp.roll(u, 1) + jnp.roll(u, -1) - 2 * u)

    laplace(u, kappa)                           # as before
    laplace.matrix(u, kappa)                    # a SparseLinearOperator
    laplace.matrix_and_bias(u, kappa)
    lp.solve(laplace, b, args=(kappa,))         # solves with the matrix, by any solver
    ```

    Python runs the function once for each signature, as under `jax.jit`: what else it reads is taken as
    it is at that time. Inside of `jax.jit`, `grad` and `vmap` it is used in the same way; derivatives by
    its further arguments, and by what it closes over, go through the entries of the matrix.

    **Raises** `NonlinearFunctionError`, where it is used as a matrix, for a function that is neither.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> @lp.linear_function
        ... def step(u, dt):
        ...     return u - dt * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1))
        >>> print(step.matrix(jnp.ones(4), jnp.array(0.5)).as_matrix())
        [[ 2.  -0.5  0.  -0.5]
         [-0.5  2.  -0.5  0. ]
         [ 0.  -0.5  2.  -0.5]
         [-0.5  0.  -0.5  2. ]]
        >>> print(lp.solve(step, jnp.ones(4), args=(jnp.array(0.5),)).round(3))  # a constant stays
        [1. 1. 1. 1.]
    """
    return LinearFunction(fn)
