"""`AbstractHostSolver`: any library in two functions."""

from __future__ import annotations

import abc
import types
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._static import Static
from ..._types import Options
from ...host import primitives
from ...host.available import versions
from ...host.tasks import Task, task_of
from ...operators import AbstractLinearOperator
from ...results import RESULTS, Implementation, result_of_code
from ...sparse.pattern import SparsityPattern
from ..base import AbstractLinearSolver
from ..structures import (
    PackedStructures,
    pack_structures,
    ravel_vector,
    require_square,
    transpose_packed_structures,
    unravel_solution,
)
from .parts import packed_parts

_ON_THE_HOST = frozenset(
    (
        "analysis_nbytes",
        "analyze",
        "factorize",
        "factorize_with",
        "determinant_fallback",
        "fallback",
        "has_logdet",
        "logdet",
        "nbytes",
        "runs_in_threads",
        "separates_analysis",
        "solve",
    )
)


class _Flags(NamedTuple):
    task: Task
    transposed: bool
    conjugated: bool


# values (nnz,), handle (4,) uint32
_HostState: TypeAlias = tuple[Array, Array, PackedStructures, Static]


class AbstractHostSolver(AbstractLinearSolver[_HostState]):
    """A solver of a library on the host. Its factorizations live in `linsolve_prim.host.registry`.

    A subclass writes NumPy and SciPy only (it runs inside of a callback, and must never touch JAX):

    **Required**: `factorize(pattern, values)` and `solve(factor, b, transpose=)`.
    **Wanted**: `nbytes(factor)`. **Optional**: `analyze` with `factorize_with`, `specialize`, `logdet`.

    There is one factorization for each distinct matrix, whatever the transformation: the registry
    finds it again by the content of its values. A batch of matrices is one callback, and a batch of
    right-hand sides one call of `solve`. An exception becomes a result code: `singular` if its
    text speaks of that, else `host_failure`; to choose one, raise `lp.host.Refused(result, text)`.

    Settings are fields of the class; they must be hashable, and are a part of the registry's key.

    ```python
    class MyLU(lp.AbstractHostSolver):
        drop_tol: float = 0.0

        def factorize(self, pattern, values):
            matrix = sp.csr_matrix((values, pattern.indices, pattern.indptr), pattern.shape)
            return spla.splu(matrix.tocsc())

        def solve(self, factor, b, *, transpose):  # b: (k, n), one right-hand side to a row
            return factor.solve(b.T, trans="T" if transpose else "N").T

        def nbytes(self, factor):
            return 16 * factor.nnz
    ```

    **Raises** `StructureError` for an operator that is not square.

        >>> import jax, jax.numpy as jnp, numpy as np, linsolve_prim as lp
        >>> class Dense(lp.AbstractHostSolver):
        ...     def factorize(self, pattern, values):
        ...         matrix = np.zeros(pattern.shape, values.dtype)
        ...         matrix[pattern.rows, pattern.indices] = values
        ...         return np.linalg.inv(matrix)
        ...     def solve(self, factor, b, *, transpose):
        ...         return b @ (factor if transpose else factor.T)
        >>> A = lp.SparseLinearOperator.from_dense(jnp.array([[2.0, 1.0], [0.0, 4.0]]))
        >>> print(jax.jit(lambda b: lp.solve(A, b, Dense()))(jnp.array([4.0, 8.0])).round(3))
        [1. 2.]
    """

    #: Whether the library lets other Python threads run while it works. Then the matrices of a batch
    #: are worked on by several threads at once.
    releases_gil: ClassVar[bool] = False
    #: Whether a factorization that succeeds is stable (backward), so that `fallback` is asked for what is
    #: refused, and residuals need not be looked at.
    stable: ClassVar[bool] = False
    #: Whether a factor or an analysis holds on to the values that it was made from, or to views of them:
    #: then they are copied first.
    keeps_values: ClassVar[bool] = True
    #: Whether operators that are not square are taken.
    rectangular: ClassVar[bool] = False

    def __getattribute__(self, name: str) -> Any:
        # Equinox makes a pytree of each bound method when it is looked up, at 40 µs a time
        # [measured, 2-core CPU]: much of what a callback would cost. What is private is called there only.
        found = object.__getattribute__(self, name)
        plain = name in _ON_THE_HOST or name[0] == "_" or not isinstance(found, types.MethodType)
        return found if plain else super().__getattribute__(name)

    # ---- For subclasses (on the host) ------------------------------------------------------------

    @abc.abstractmethod
    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        """The factor of the matrix with these `values` `(nnz,)`: an object of any kind.

        The values are finite and the caller's to keep; CSR arrays are `values`, `pattern.indices` and
        `pattern.indptr`.
        """

    @abc.abstractmethod
    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> Any:
        """Solutions `(k, columns)` for right-hand sides `b` `(k, rows)`, in C order, of A or of Aᵀ.

        Instead of an array, a `lp.host.Solved(x, result, steps)` may say how it went.
        `b` is finite and must not be written to.
        """

    def nbytes(self, factor: Any) -> int:
        """About how many bytes the factor holds, for the registry's budget."""
        return 1 << 20

    def separates_analysis(self) -> bool:
        """Whether there is a symbolic phase: `analyze`, used by `factorize_with`."""
        return False

    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        """What depends on the pattern (ordering, elimination tree): made once for all its matrices.

        `values` are those of the first of them, for libraries that look at sizes too.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override `analyze`.")

    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        """As `factorize`, with what `analyze` returned (which must not be changed)."""
        return self.factorize(pattern, values)

    def analysis_nbytes(self, pattern: SparsityPattern, analysis: Any) -> int:
        """About how many bytes the analysis holds, for the registry's budget."""
        return 16 * (pattern.nnz + pattern.shape[0])

    def runs_in_threads(self) -> bool:
        """Whether several threads may work with this solver at once, and gain by it."""
        return self.releases_gil

    def fallback(self) -> AbstractHostSolver | None:
        """Whom to ask where this library refuses a matrix, or where its residual is bad."""
        return None

    def logdet(self, factor: Any) -> Any:
        """`(sign, log|det|)` from the factor; the sign is a phase if A is complex.

        **Raises** `NotImplementedError` if the library does not show it: then `determinant_fallback`
        is asked, which factorizes once more.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override `logdet`.")

    def has_logdet(self) -> bool:
        """Whether `logdet` is there: if not, it is not worth a factorization of this library."""
        return type(self).logdet is not AbstractHostSolver.logdet

    def determinant_fallback(self) -> AbstractHostSolver | None:
        """Whom to ask for a determinant that this library does not show: SuperLU."""
        from .superlu import GENERAL  # builds on this class

        return GENERAL

    # ---- For subclasses (when a program is traced) -----------------------------------------------

    def specialize(self, operator: AbstractLinearOperator) -> AbstractHostSolver:
        """This solver with the settings that fit an operator's promises; or raise a `ValueError`."""
        return self

    # ---- The contract of every solver ------------------------------------------------------------

    def init(self, operator: AbstractLinearOperator, options: Options) -> _HostState:
        del options
        if not self.rectangular:
            require_square(operator, type(self).__name__)
        values, pattern = packed_parts(operator)
        task = task_of(self.specialize(operator), pattern)
        handle = primitives.factorize(values, task)
        flags = _Flags(task, transposed=False, conjugated=False)
        return values, handle, pack_structures(operator), Static(flags)

    def compute(
        self, state: _HostState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        del options
        values, handle, structures, static = state
        task, transposed, conjugated = static.value
        b = ravel_vector(vector, structures)
        b = jnp.conj(b) if conjugated else b  # conj(A)x = b is A conj(x) = conj(b)
        x, code, steps = primitives.solve(values, handle, b[None], task, transposed)
        x = jnp.conj(x[0]) if conjugated else x[0]
        stats = {"num_steps": steps[0]}
        return unravel_solution(x, structures), result_of_code(code[0]), stats

    def transpose(self, state: _HostState, options: Options) -> tuple[_HostState, Options]:
        values, handle, structures, static = state
        flags = static.value._replace(transposed=not static.value.transposed)
        return (values, handle, transpose_packed_structures(structures), Static(flags)), options

    def conj(self, state: _HostState, options: Options) -> tuple[_HostState, Options]:
        values, handle, structures, static = state
        if not jnp.iscomplexobj(values):
            return state, options
        flags = static.value._replace(conjugated=not static.value.conjugated)
        return (values, handle, structures, Static(flags)), options

    def slogdet(self, state: _HostState) -> tuple[Array, Array]:
        values, handle, _, static = state
        sign, log = primitives.slogdet(values, handle, static.value.task)
        return jnp.conj(sign) if static.value.conjugated else sign, log

    def assume_full_rank(self) -> bool:
        return True

    def implementation(self) -> Implementation:
        """Which library, in which version."""
        library = versions(type(self).__name__)
        return Implementation(f"on the host, by {library}; called back from any device")


class AbstractSymbolicSolver(AbstractHostSolver):
    """A host solver with a symbolic phase: `analyze` once for a pattern, `factorize_with` for values.

    **Required**: `analyze(pattern, values)`, `factorize_with(analysis, pattern, values)` and
    `solve(factor, b, transpose=)`.
    """

    def separates_analysis(self) -> bool:
        return True

    @abc.abstractmethod
    def analyze(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        """See `AbstractHostSolver.analyze`."""

    @abc.abstractmethod
    def factorize_with(self, analysis: Any, pattern: SparsityPattern, values: np.ndarray) -> Any:
        """See `AbstractHostSolver.factorize_with`."""

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        return self.factorize_with(self.analyze(pattern, values), pattern, values)
