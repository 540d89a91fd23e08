"""`Host`: preconditioners of SciPy's kind, made and applied on the host."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Array

from .._static import is_concrete, stop_gradient
from .._tree import tree_dtype
from ..host import preconditioning, primitives, tasks
from ..host.matrices import csr_of
from ..host.parts import packed_parts
from ..host.preconditioning import BothWays
from ..operators import AbstractLinearOperator, TaggedLinearOperator, conj
from ..operators.structures import check_vector
from ..sparse.pattern import SparsityPattern
from .base import AbstractPreconditioner
from .parts import (
    RaveledOperator,
    as_inverse_of,
    is_definite,
    refuse_products,
    require_square,
    symmetry_of,
    tagged,
)


class Host(AbstractPreconditioner):
    """A preconditioner of a library: M is made by `make` on the host, once for each distinct matrix.

    - `make`: a function from a `scipy.sparse.csr_matrix` to what approximates its inverse (a SciPy
      `LinearOperator`, a matrix); or "ilu", "jacobi" or "amg". Functions must be pure, and not use JAX.

    Inside a solver of this package each application of M is a callback, some 20 µs beside its own work,
    and from an accelerator two transfers; with `SciPyIterative(..., preconditioner=Host(...))` the whole
    solve is one. Mᵀ is by the `LinearOperator`'s `rmatvec`; where there is none, made from Aᵀ. M is
    not known to be symmetric, so `CG` does not take it, unless

    - `symmetric=True` promises that M is symmetric (Hermitian) definite wherever A is.

    **Raises** `ValueError` for another name, `TypeError` for what is no function.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> ilu = lambda A: sp.linalg.LinearOperator(A.shape, sp.linalg.spilu(A.tocsc()).solve)
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> solver = lp.SciPyIterative("gmres", rtol=1e-5, preconditioner=lp.preconditioners.Host(ilu))
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), solver).round(3))
        [1. 2.]
    """

    make: Any = eqx.field(static=True)
    symmetric: bool = False

    def __check_init__(self) -> None:
        if self.make is None:
            raise ValueError("make: must be a name or a function; got None.")
        preconditioning.check(self.make)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        made = host_inverse(operator, self.make, "Host")
        return tagged(made, symmetry_of(operator)) if self.symmetric else made

    def host_maker(self) -> Any:
        return self.make

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.symmetric and is_definite(operator)


@dataclasses.dataclass(frozen=True)
class IncompleteLU:
    """`incomplete_lu` with its settings; equal for equal settings, as the registry asks."""

    drop_tol: float | None
    fill_factor: float | None

    def __call__(self, matrix: sp.csr_matrix) -> Any:
        return preconditioning.incomplete_lu(matrix, self.drop_tol, self.fill_factor)


@dataclasses.dataclass(frozen=True)
class _Library:
    """What the callbacks ask of a library (see `solvers/host/base.py`), for a preconditioner."""

    make: Any
    keeps_values: ClassVar[bool] = True

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> _Applied:
        return _Applied(csr_of(pattern, values), functools.partial(preconditioning.make, self.make))

    def solve(self, factor: _Applied, b: np.ndarray, *, transpose: bool) -> np.ndarray:
        return factor.apply(b, transpose)

    def nbytes(self, factor: _Applied) -> int:
        matrix = factor.both.matrix
        return 8 * (matrix.data.nbytes + matrix.indices.nbytes)

    def separates_analysis(self) -> bool:
        return False

    def runs_in_threads(self) -> bool:
        return False

    def fallback(self) -> None:
        return None


class _Applied:
    """M of one matrix, and Mᵀ."""

    def __init__(self, matrix: sp.csr_matrix, make: Any):
        self.both = BothWays(matrix, lambda a: spla.aslinearoperator(make(a)))
        self._has_adjoint = True

    def apply(self, b: np.ndarray, transpose: bool) -> np.ndarray:
        """For `b (k, n)`, one vector to a row."""
        if transpose and self._has_adjoint:
            try:
                return self.both.get(False)[1].rmatmat(b.conj().T).conj().T
            except (NotImplementedError, TypeError, AttributeError):
                self._has_adjoint = False
        return self.both.get(transpose)[1].matmat(b.T).T


class HostInverse(AbstractLinearOperator):
    """M on vectors: `values` and `handle` say which matrix, and the registry keeps what was made of it."""

    values: Array
    handle: Array
    task: Any = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    transposed: bool = eqx.field(static=True, default=False)
    conjugated: bool = eqx.field(static=True, default=False)

    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.in_structure())
        b = vector.conj() if self.conjugated else vector
        x, _, _ = primitives.solve(self.values, self.handle, b[None], self.task, self.transposed)
        return x[0].conj() if self.conjugated else x[0]

    def transpose(self) -> HostInverse:
        return dataclasses.replace(self, transposed=not self.transposed)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.task.pattern.shape[:1], self.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


@conj.register(HostInverse)
def _conj(operator: HostInverse) -> HostInverse:
    if not jnp.issubdtype(operator.dtype, jnp.complexfloating):
        return operator
    return dataclasses.replace(operator, conjugated=not operator.conjugated)


def host_inverse(operator: AbstractLinearOperator, make: Any, name: str) -> AbstractLinearOperator:
    """What `make` makes of an operator on the host, as an operator.

    Of values that are known now it is made now, so that a program that is being traced does not hold
    that; else by the program, and once for each distinct matrix.
    """
    require_square(operator, name)
    refuse_products(operator, name, "Use `Chebyshev`, which only multiplies.")
    operator = stop_gradient(operator)
    values, pattern = packed_parts(operator)
    task = tasks.task_of(_Library(make), pattern)
    if is_concrete(values):
        (handles,) = tasks.factorize(np.asarray(values)[None], task=task)
        handle = jnp.asarray(handles[0])
    else:
        handle = primitives.factorize(values, task)
    dtype = np.dtype(tree_dtype(operator.in_structure()))
    return as_inverse_of(HostInverse(values, handle, task, dtype), operator)


def maker_of(operator: AbstractLinearOperator) -> Any:
    """What a preconditioner was made by on the host, for solvers there; None for all others."""
    while isinstance(operator, (RaveledOperator, TaggedLinearOperator)):
        operator = operator.operator
    return operator.task.library.make if isinstance(operator, HostInverse) else None
