"""The automatic choice of a solver, from what the operator promises."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from ._types import Options
from .host import pardiso
from .host.available import has_module
from .operators import (
    AbstractLinearOperator,
    is_diagonal,
    is_lower_triangular,
    is_negative_semidefinite,
    is_positive_semidefinite,
    is_tridiagonal,
    is_upper_triangular,
)
from .results import RESULTS
from .solvers import (
    CG,
    GMRES,
    LSMR,
    LU,
    PARDISO,
    QR,
    SVD,
    Banded,
    Cholesky,
    Diagonal,
    RSLab,
    SuperLU,
    Triangular,
    Tridiagonal,
)
from .solvers.base import AbstractLinearSolver
from .solvers.structures import require_square
from .sparse.band import may_be_narrow, narrow_band
from .sparse.held import is_matrix_free as is_matrix_free, is_sparse_operator as is_sparse_operator
from .sparse.operator import sparse_of

#: Up to this size an operator that is only known by its products is made dense (128 MiB in float64,
#: and n products); beyond, a Krylov method takes its products one at a time.
MATRIX_FREE_SIZE = 4096

#: Beyond this many unknowns the factors of a sparse matrix may not fit into memory.
DIRECT_SIZE = 2_000_000


#: Up to this distance of the entries from the diagonal, LAPACK's factorization of the band is faster than
#: those that look for fill [measured on strips and grids, against RSLab: 2.3 times on 50², 7 on
#: 20 × 2000, 1.3 (Cholesky) and 0.9 (LU) on 100²].
BAND_WIDTH = 96


class Choice(NamedTuple):
    """A solver, and why it was chosen."""

    solver: AbstractLinearSolver[Any]
    reason: str


class AutoLinearSolver(AbstractLinearSolver[Any]):
    """Chooses a solver by the operator's structure, tags and size.

    - `well_posed=True`: square operators of full rank, anything else is an error. Diagonal →
      `Diagonal`, tridiagonal → `Tridiagonal`, triangular → `Triangular`, definite → `Cholesky`, else
      `LU`. Matrix-free operators of more than 4096 unknowns: definite → `CG`, else `GMRES`.
      (`solve` makes a sparse matrix of a function of more than 512 unknowns before, if it can.)
      Sparse ones: `Diagonal`, `Tridiagonal` and `Triangular` where the pattern or a tag says so; else
      a factorization on the host, by `Banded` if some order brings all entries within 96 places of
      the diagonal, by `PARDISO` or else `RSLab` if it is installed, else `SuperLU`. On
      accelerators up to 4096 unknowns are made dense, and larger definite systems go to `CG`.
    - `well_posed=None`: the same, and rectangular operators of full rank → `QR`.
    - `well_posed=False`: any shape and rank, the pseudo-inverse solution: diagonal → `Diagonal`, else
      `SVD`; large and matrix-free → `LSMR`.

    It never picks a method whose assumptions the operator does not promise.

    **Raises** `StructureError` for an operator that is not square with `well_posed=True`, `ValueError`
    for another `well_posed`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> tall, b = lp.MatrixLinearOperator(jnp.array([[1.0], [1.0]])), jnp.array([1.0, 3.0])
        >>> print(lp.linear_solve(tall, b, lp.AutoLinearSolver(well_posed=None)).value.round(3))  # by QR
        [2.]
    """

    well_posed: bool | None = True

    def choose(self, operator: AbstractLinearOperator, preconditioned: bool = False) -> Choice:
        """The solver for this operator, and the reason in words.

        With a preconditioner it is an iterative one, for which that was given.
        """
        if self.well_posed not in (True, False, None):
            raise ValueError(f"well_posed: must be True, False or None; got {self.well_posed!r}.")
        rows, columns = operator.out_size(), operator.in_size()
        if self.well_posed is True:
            require_square(operator, "AutoLinearSolver(well_posed=True)")
        if preconditioned:
            return _choose_iterative(operator, any_rank=self.well_posed is False)
        sparse = is_sparse_operator(operator)
        large = max(rows, columns) > MATRIX_FREE_SIZE and (sparse or is_matrix_free(operator))
        if self.well_posed is False:
            return _choose_any_rank(operator, large)
        if rows != columns and large:
            return Choice(
                LSMR(),
                f"the operator is {rows}×{columns}, too large to be made dense: least squares",
            )
        if rows != columns:
            return Choice(
                QR(), f"the operator is {rows}×{columns}: least squares, full rank assumed"
            )
        if sparse:
            return _choose_sparse(operator, well_posed=self.well_posed is True)
        return _choose_square(operator, large, well_posed=self.well_posed is True)

    def select_solver(self, operator: AbstractLinearOperator) -> AbstractLinearSolver[Any]:
        """The solver that will be used for this operator."""
        return self.choose(operator).solver

    def start(
        self, operator: AbstractLinearOperator, options: Options
    ) -> tuple[AbstractLinearSolver[Any], Any]:
        return self.choose(operator, options.get("preconditioner") is not None).solver.start(
            operator, options
        )

    # Used through `linear_solve`, this solver steps back behind its choice (`start`). These methods
    # serve those who call a solver by hand, and solvers that wrap another.

    def init(self, operator: AbstractLinearOperator, options: Options) -> Any:
        return self.start(operator, options)

    def compute(
        self, state: Any, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        solver, inner = state
        return solver.compute(inner, vector, options)

    def transpose(self, state: Any, options: Options) -> tuple[Any, Options]:
        solver, inner = state
        inner, options = solver.transpose(inner, options)
        return (solver, inner), options

    def conj(self, state: Any, options: Options) -> tuple[Any, Options]:
        solver, inner = state
        inner, options = solver.conj(inner, options)
        return (solver, inner), options

    def assume_full_rank(self) -> bool:
        return self.well_posed is not False


def _choose_iterative(operator: AbstractLinearOperator, any_rank: bool) -> Choice:
    given = "a preconditioner is given"
    if any_rank or operator.out_size() != operator.in_size():
        return Choice(LSMR(), f"{given}, for least squares")
    if is_positive_semidefinite(operator) or is_negative_semidefinite(operator):
        return Choice(CG(), f"{given}, and the operator is definite")
    return Choice(GMRES(), f"{given}, and nothing more is promised of the operator")


def _choose_any_rank(operator: AbstractLinearOperator, large: bool) -> Choice:
    if is_diagonal(operator):
        return Choice(Diagonal(), "the operator is diagonal (entries of zero are left out)")
    if large:
        return Choice(
            LSMR(),
            f"any rank is allowed, and the operator is matrix-free with {operator.in_size()} "
            f"unknowns, more than {MATRIX_FREE_SIZE}: it is not made dense",
        )
    return Choice(SVD(), "any shape and rank is allowed (well_posed=False)")


def _choose_sparse(operator: AbstractLinearOperator, well_posed: bool) -> Choice:
    size = operator.in_size()
    definite = is_positive_semidefinite(operator)
    if is_diagonal(operator):
        return Choice(Diagonal(well_posed=well_posed), "the operator is diagonal")
    if is_tridiagonal(operator):
        return Choice(Tridiagonal(), "the operator is tridiagonal")
    sparse = sparse_of(operator)
    pattern = None if sparse is None else sparse.pattern  # None: not known when tracing
    if pattern is not None and (is_lower_triangular(operator) or is_upper_triangular(operator)):
        side = "lower" if is_lower_triangular(operator) else "upper"
        return Choice(Triangular(), f"sparse and {side} triangular: substitution on the device")
    platform = jax.default_backend()
    if platform != "cpu" and size <= MATRIX_FREE_SIZE:
        solver = Cholesky() if definite else LU()
        return Choice(solver, f"sparse, on {platform}, and small enough to be made dense ({size})")
    if platform != "cpu" and definite:
        return Choice(CG(), f"sparse, definite, and on {platform}, where it stays")
    if size > DIRECT_SIZE and definite:
        return Choice(
            CG(), f"sparse and definite, and too large to be factorized ({size} unknowns)"
        )
    if pattern is not None and may_be_narrow(pattern, BAND_WIDTH):
        width = narrow_band(pattern).width
        if width <= BAND_WIDTH:
            return Choice(
                Banded(),
                f"sparse, and all entries lie within {width} places of the diagonal, as given or "
                f"after a reordering: up to {BAND_WIDTH} a factorization of the band is fastest",
            )
    promised = "definite" if definite else "nothing more is promised of it"
    if pardiso.library() is not None:
        return Choice(
            PARDISO(),
            f"sparse, {promised}; PARDISO is the fastest factorization that is installed and free "
            "of copyleft. What it refuses, or does not solve well, goes to SuperLU",
        )
    if has_module("rslab"):
        return Choice(
            RSLab(),
            f"sparse, {promised}; RSLab is the fastest factorization that is installed and free "
            "of copyleft. What it refuses, or does not solve well, goes to SuperLU",
        )
    return Choice(
        SuperLU(),
        f"sparse, {promised}; SuperLU comes with SciPy. (With `pip install "
        "'linsolve-prim[rslab]'` RSLab would be taken, which is faster)",
    )


def _choose_square(operator: AbstractLinearOperator, large: bool, well_posed: bool) -> Choice:
    definite = is_positive_semidefinite(operator) or is_negative_semidefinite(operator)
    if is_diagonal(operator):
        return Choice(Diagonal(well_posed=well_posed), "the operator is diagonal")
    if is_tridiagonal(operator):
        return Choice(Tridiagonal(), "the operator is tridiagonal")
    if large:
        size = (
            f"the operator is matrix-free with {operator.in_size()} unknowns, more than "
            f"{MATRIX_FREE_SIZE}: it is not made dense"
        )
        if definite:
            return Choice(CG(), f"{size}; it is definite")
        return Choice(GMRES(), f"{size}; nothing more is promised of it")
    if is_lower_triangular(operator) or is_upper_triangular(operator):
        side = "lower" if is_lower_triangular(operator) else "upper"
        return Choice(Triangular(), f"the operator is {side} triangular")
    if definite:
        sign = "positive" if is_positive_semidefinite(operator) else "negative"
        return Choice(Cholesky(), f"the operator is tagged {sign} definite")
    return Choice(LU(), "the operator is square, and nothing more is promised of it")
