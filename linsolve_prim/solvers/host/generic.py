"""`HostSolver`: any library in two or three functions, without a class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ...host.matrices import csr_of
from ...sparse.pattern import SparsityPattern
from .base import AbstractHostSolver


class HostSolver(AbstractHostSolver):
    """A solver from functions.

    - `factorize(A)`: what can be done for a matrix alone; A is a `scipy.sparse.csr_matrix` (of your
      own: keep it, change it).
    - `solve(factor, b, transpose)`: the solution of Ax = b, or of Aᵀx = b; b and x are `(n,)`, or
      `(n, k)` if `multiple`.
    - `nbytes(factor)`: how many bytes the factor holds, roughly. By default 1 MiB.
    - `logdet(factor)`: `(sign, log|det A|)`, or log |det A| alone if the determinant is positive; for
      `linsolve_prim.slogdet`, which else has SuperLU factorize once more.
    - `multiple`: whether `solve` takes several right-hand sides at once.
    - `threads`: whether it may be called for several matrices at the same time.

    ```python
    superlu = lp.HostSolver(
        factorize=lambda A: scipy.sparse.linalg.splu(A.tocsc()),
        solve=lambda lu, b, transpose: lu.solve(b, trans="T" if transpose else "N"),
    )
    ```

    The functions must be pure; they run inside of a callback, and must not use JAX. Make the solver
    once: it is compared by its functions.

    **Raises** `TypeError` if `factorize` or `solve` is no function. What they raise becomes a result code.

        >>> import jax.numpy as jnp, numpy as np, scipy.sparse as sp, linsolve_prim as lp
        >>> dense = lp.HostSolver(
        ...     factorize=lambda A: A.toarray(),
        ...     solve=lambda M, b, transpose: np.linalg.solve(M.T if transpose else M, b),
        ... )
        >>> print(lp.solve(sp.csr_array([[2.0, 1.0], [0.0, 4.0]]), jnp.array([4.0, 8.0]), dense).round(3))
        [1. 2.]
    """

    factorize_function: Callable[[Any], Any]
    solve_function: Callable[[Any, np.ndarray, bool], Any]
    nbytes_function: Callable[[Any], int] | None
    logdet_function: Callable[[Any], Any] | None
    multiple: bool
    threads: bool

    def __init__(
        self,
        factorize: Callable[[Any], Any],
        solve: Callable[[Any, np.ndarray, bool], Any],
        nbytes: Callable[[Any], int] | None = None,
        *,
        logdet: Callable[[Any], Any] | None = None,
        multiple: bool = False,
        threads: bool = False,
    ):
        for name, function in (("factorize", factorize), ("solve", solve)):
            if not callable(function):
                raise TypeError(f"{name}: must be a function; got {type(function).__name__}.")
        self.factorize_function = factorize
        self.solve_function = solve
        self.nbytes_function = nbytes
        self.logdet_function = logdet
        self.multiple = multiple
        self.threads = threads

    def runs_in_threads(self) -> bool:
        return self.threads

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        return self.factorize_function(csr_of(pattern, values).copy())

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        if self.multiple:
            return np.asarray(self.solve_function(factor, np.asfortranarray(b.T), transpose)).T
        return np.stack([self.solve_function(factor, row.copy(), transpose) for row in b])

    def has_logdet(self) -> bool:
        return self.logdet_function is not None

    def logdet(self, factor: Any) -> Any:
        if self.logdet_function is None:
            raise NotImplementedError("logdet: was not given to `HostSolver`.")
        found = self.logdet_function(factor)
        return found if isinstance(found, tuple) else (1.0, found)

    def nbytes(self, factor: Any) -> int:
        return 1 << 20 if self.nbytes_function is None else int(self.nbytes_function(factor))


def by_calling(function: Callable[[Any, Any], Any]) -> HostSolver:
    """The host solver of a function of a matrix and a vector, which factorizes nothing."""
    return HostSolver(factorize=_as_it_is, solve=_Call(function))


def _as_it_is(matrix: Any) -> Any:
    return matrix


@dataclasses.dataclass(frozen=True)
class _Call:
    """`solve` of a host solver by a function of the matrix; equal for equal functions."""

    function: Callable[[Any, Any], Any]

    def __call__(self, matrix: Any, b: np.ndarray, transpose: bool) -> Any:
        return self.function(matrix.T.tocsr() if transpose else matrix, b)
