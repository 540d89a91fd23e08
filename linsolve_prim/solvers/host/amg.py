"""Algebraic multigrid of PyAMG, as a solver."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from ...host.available import require
from ...host.matrices import csr_of
from ...host.tasks import Solved
from ...operators import (
    AbstractLinearOperator,
    is_positive_semidefinite,
    is_symmetric,
)
from ...sparse.pattern import SparsityPattern
from .base import AbstractHostSolver
from .iterative import BothWays, rtol_of, scaled, times_power, tolerance

_METHODS = ("smoothed_aggregation", "ruge_stuben", "rootnode", "air")


class _Scaled(NamedTuple):
    """A and its transpose, each divided by 2**shift, with their hierarchies."""

    both: BothWays
    shift: int


class PyAMG(AbstractHostSolver):
    """A Krylov method preconditioned by algebraic multigrid (Bell, Olson, Schroder 2022, JOSS 7(72)).

    For elliptic problems: the work grows with the number of unknowns alone.

    - `method`: "smoothed_aggregation", "ruge_stuben", "rootnode" or "air".
    - `rtol`, `atol`, `max_steps`: success is ‖b − Ax‖ ≤ max(rtol·‖b‖, atol), on the true residual.
    - `cycle`: "V", "W" or "F".
    - `accel`: the Krylov method; by default "cg" for operators tagged positive definite, else "gmres".

    **Raises** `ImportError`, with the remedy, if `pyamg` is not installed.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(50, 50)).tocsr()
        >>> A = lp.SparseLinearOperator.from_scipy(A, lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, A.mv(jnp.ones(50)), lp.PyAMG(rtol=1e-5))
        >>> print(solution.value[:3].round(2))
        [1. 1. 1.]
    """

    method: str = "smoothed_aggregation"
    rtol: float | None = None
    atol: float = 0.0
    max_steps: int = 200
    cycle: str = "V"
    accel: str | None = None
    symmetry: str | None = None
    releases_gil: ClassVar[bool] = True

    def __check_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"method: must be one of {', '.join(_METHODS)}; got {self.method!r}.")
        require("PyAMG", "pyamg")

    def specialize(self, operator: AbstractLinearOperator) -> PyAMG:
        definite = is_positive_semidefinite(operator)
        real = not jnp.issubdtype(operator.in_structure().dtype, jnp.complexfloating)
        hermitian = definite or (real and is_symmetric(operator))
        accel = self.accel or ("cg" if definite else "gmres")
        symmetry = self.symmetry or ("hermitian" if hermitian else "nonsymmetric")
        own = (self.method, self.rtol, self.atol, self.max_steps, self.cycle)
        return PyAMG(*own, accel, symmetry)

    def tolerance(self, rhs_norm: Any) -> Any:
        return tolerance(self.rtol, self.atol, rhs_norm)

    def hierarchy(self, matrix: sp.csr_matrix) -> Any:
        pyamg = require("PyAMG", "pyamg")
        make = getattr(pyamg, f"{self.method}_solver")
        if self.method in ("ruge_stuben", "air"):
            return make(matrix)
        return make(matrix, symmetry=self.symmetry)

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        # sizes of about one, so that no product over- or underflows; powers of two round nothing
        size = np.abs(values).max(initial=0)
        shift = int(np.frexp(size)[1]) if size > 0 else 0
        return _Scaled(
            BothWays(csr_of(pattern, times_power(values, -shift)), self.hierarchy), shift
        )

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> Solved:
        both, shift = factor
        matrix, hierarchy = both.get(transpose and self.symmetry != "hermitian")
        conjugate = transpose and self.symmetry == "hermitian" and np.iscomplexobj(b)
        x, results, steps = np.zeros_like(b), [], []
        for i, rhs in enumerate(b.conj() if conjugate else b):
            residuals, good = [0.0], True
            rhs, size = scaled(rhs)
            if size > 0:
                norm, residuals = float(np.linalg.norm(rhs)), []
                bound = max(rtol_of(self.rtol, b.dtype) * norm, self.atol / size)
                with np.errstate(all="ignore"):
                    y = hierarchy.solve(
                        rhs, tol=0.5 * bound / norm, maxiter=min(self.max_steps, len(rhs)),
                        cycle=self.cycle, accel=self.accel, residuals=residuals,
                    )  # fmt: skip
                    good = bool(np.linalg.norm(rhs - matrix @ y) <= 1.001 * bound)
                    x[i] = times_power(size * y, -shift)
            results.append("successful" if good else "max_steps_reached")
            steps.append(max(0, len(residuals) - 1))
        return Solved(x.conj() if conjugate else x, results, np.array(steps))

    def nbytes(self, factor: Any) -> int:
        return 6 * factor.both.matrix.data.nbytes
