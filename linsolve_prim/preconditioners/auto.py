"""`Auto`: a preconditioner that is chosen by what is known of the operator."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..host.available import has_module
from ..operators import AbstractLinearOperator, DiagonalLinearOperator, is_diagonal
from ..sparse.held import is_matrix_free
from ..sparse.operator import sparse_of
from .amg import AMG
from .base import AbstractPreconditioner
from .ic import IC
from .ilu import ILU
from .jacobi import Jacobi
from .parts import is_definite, require_square

#: From here on multigrid's set-up pays for itself: the iterations with IC(0) grow with the square root
#: of the unknowns on a plane grid, 77 on 64², where multigrid takes 10 on any.
LARGE = 10_000


class Choice(NamedTuple):
    """A preconditioner or None, and why."""

    preconditioner: AbstractPreconditioner | None
    reason: str


class Auto(AbstractPreconditioner):
    """The preconditioner that fits, by structure alone, so that it is the same for traced values:

    | operator | preconditioner |
    |---|---|
    | sparse, tagged definite, from 10 000 unknowns on, PyAMG installed | `AMG` |
    | sparse, tagged definite, with a symmetric pattern | `IC` |
    | sparse, nothing promised | `ILU`; `Jacobi(absolute=True)` for methods that need a definite one |
    | held as arrays otherwise | `Jacobi` |
    | known by its products only | none |

    On accelerators `IC` and `ILU` solve with triangles by four Jacobi sweeps. `lp.explain` says what
    was chosen and why.

    **Raises** nothing: where nothing fits there is no preconditioner.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.csr_array([[2.0, 1.0], [1.0, 3.0]])
        >>> A = lp.SparseLinearOperator.from_scipy(S, lp.positive_semidefinite_tag)
        >>> "preconditioner: IC" in lp.explain(A, jnp.ones(2), preconditioner="auto")
        True
    """

    def choose(self, operator: AbstractLinearOperator, definite: bool = False) -> Choice:
        """For an operator; `definite` says that the method needs a definite preconditioner."""
        if operator.in_size() != operator.out_size():
            return Choice(None, "the operator is not square")
        sparse = sparse_of(operator)
        if is_diagonal(operator):
            return Choice(Jacobi(), "the operator is diagonal")
        if sparse is None:
            return _choose_other(operator, definite)
        platform, size = jax.default_backend(), operator.in_size()
        solves = "exact" if platform == "cpu" else 4
        if is_definite(operator) and size >= LARGE and has_module("pyamg"):
            return Choice(AMG(), f"sparse, tagged definite, and large ({size} unknowns)")
        if is_definite(operator) and sparse.pattern.is_symmetric():
            hint = ""
            if size >= LARGE:
                hint = ". (With `pip install 'linsolve-prim[amg]'` it would be AMG)"
            return Choice(IC(solves=solves), f"sparse and tagged definite{hint}")
        if definite:
            return _absolute("sparse, and")
        return Choice(ILU(solves=solves), "sparse, and nothing more is promised of it")

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        require_square(operator, "Auto")
        chosen = self.choose(operator).preconditioner
        if chosen is not None:
            return chosen.init(operator)
        ones = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), operator.in_structure())
        return DiagonalLinearOperator(ones)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        chosen = self.choose(operator).preconditioner
        return chosen is not None and chosen.keeps_definite(operator)


def _absolute(held: str) -> Choice:
    reason = "not tagged definite, while the method needs a definite preconditioner"
    return Choice(Jacobi(absolute=True), f"{held} {reason}")


def _choose_other(operator: AbstractLinearOperator, definite: bool) -> Choice:
    if is_matrix_free(operator):
        return Choice(None, "the operator is known by its products only")
    if definite and not is_definite(operator):
        return _absolute("held as arrays, and")
    return Choice(Jacobi(), "held as arrays without a sparse pattern: its diagonal costs nothing")
