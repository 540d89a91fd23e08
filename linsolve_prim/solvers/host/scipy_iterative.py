"""Every iterative method of `scipy.sparse.linalg`, by name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from ..._tree import tree_dtype
from ...host import preconditioning
from ...host.matrices import csr_of
from ...host.preconditioning import HostPreconditioner
from ...host.tasks import Solved
from ...operators import AbstractLinearOperator
from ...preconditioners.amg import AMG
from ...preconditioners.auto import Auto
from ...preconditioners.base import AbstractPreconditioner
from ...preconditioners.host import Host, maker_of
from ...preconditioners.ilu import ILU
from ...preconditioners.jacobi import Jacobi
from ...sparse.pattern import SparsityPattern
from .base import AbstractHostSolver
from .iterative import BothWays, rtol_of, scaled, tolerance

_SQUARE = (
    "cg", "cgs", "bicg", "bicgstab", "gmres", "lgmres", "qmr", "minres", "gcrotmk", "tfqmr",
)  # fmt: skip
_LEAST_SQUARES = ("lsqr", "lsmr")
NAMES = _SQUARE + _LEAST_SQUARES
_ATTEMPTS = 4


@functools.cache
def _arguments(name: str) -> frozenset[str]:
    """What a method takes."""
    return frozenset(inspect.signature(getattr(spla, name)).parameters)


class SciPyIterative(AbstractHostSolver):
    """An iterative method of `scipy.sparse.linalg`: cg, cgs, bicg, bicgstab, gmres, lgmres, qmr, minres,
    gcrotmk, tfqmr, lsqr or lsmr.

    - `name`: which.
    - `rtol`, `atol`: success is ‖b − Ax‖ ≤ max(rtol·‖b‖, atol), on the true residual, whatever the
      method itself says. By default 10⁻¹⁰ in double and 10⁻⁵ in single precision.
    - `max_steps`: by default SciPy's own.
    - `preconditioner`: "jacobi", "ilu" (SciPy's incomplete LU), "amg" (PyAMG), a function from a
      `csr_matrix` to a `LinearOperator`, or `preconditioners.Host` or `ILU(device="host")`. Made
      once for a matrix; the transposed system has its own. `lsqr` and `lsmr` take none.
    - `settings`: further arguments of the method, as pairs: `(("restart", 50),)`.

    All right-hand sides of a solve share one callback. Conditions on the operator are the method's
    (cg: definite, minres: symmetric) and are not checked; a wrong one ends in a truthful result.

    **Raises** `ValueError` for a method that SciPy does not have, or a preconditioner that it does not take.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> A = sp.csr_array([[2.0, 1.0], [0.0, 4.0]])
        >>> print(lp.solve(A, jnp.array([4.0, 8.0]), lp.SciPyIterative("gmres", rtol=1e-5)).round(3))
        [1. 2.]
    """

    name: str
    rtol: float | None = None
    atol: float = 0.0
    max_steps: int | None = None
    preconditioner: HostPreconditioner = None
    settings: tuple[tuple[str, Any], ...] = ()
    rectangular: ClassVar[bool] = True

    def __check_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"name: must be one of {', '.join(NAMES)}; got {self.name!r}.")
        preconditioning.check(self.preconditioner)
        if self.name in _LEAST_SQUARES and self.preconditioner is not None:
            raise ValueError(
                f"preconditioner: `{self.name}` takes none; got {self.preconditioner!r}."
            )
        taken = _arguments(self.name)
        for key, _ in self.settings:
            if key not in taken:
                raise ValueError(f"settings: `{self.name}` has no argument {key!r}.")

    def init(self, operator: Any, options: Any) -> Any:
        if self.name in _SQUARE and operator.in_size() != operator.out_size():
            raise ValueError(
                f"operator: `{self.name}` solves square systems only; got a "
                f"{operator.out_size()}×{operator.in_size()} operator. Use 'lsqr' or 'lsmr'."
            )
        complex_dtype = jnp.issubdtype(tree_dtype(operator.out_structure()), jnp.complexfloating)
        if self.name == "minres" and complex_dtype:
            raise ValueError(
                "operator: SciPy's `minres` takes real operators only; got a complex one. Use 'cg' "
                "(definite), 'gmres' or 'lgmres'."
            )
        given = options.get("preconditioner")
        if given is not None:
            return self._preconditioned_by(given).init(operator, {})
        return super().init(operator, options)

    def suited(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> AbstractPreconditioner | None:
        """The same on the host, where there is one."""
        if isinstance(preconditioner, Auto):
            return ILU(device="host")
        if isinstance(preconditioner, ILU) and preconditioner.device != "host":
            return ILU(device="host")
        name = {Jacobi: "jacobi", AMG: "amg"}.get(type(preconditioner))
        return preconditioner if name is None else Host(name)

    def _preconditioned_by(self, given: Any) -> SciPyIterative:
        """This solver with a preconditioner that was given to the solve."""
        maker = maker_of(given)
        if maker is None:
            raise ValueError(
                "preconditioner: SciPy's methods take what is made on the host: `preconditioners.Host`, "
                f"`ILU(device='host')` or a name ('ilu', 'jacobi', 'amg'); got {type(given).__name__}. "
                "Or use a method of this package, such as `GMRES()`."
            )
        return dataclasses.replace(self, preconditioner=maker)

    def tolerance(self, rhs_norm: Any) -> Any:
        return tolerance(self.rtol, self.atol, rhs_norm)

    def factorize(self, pattern: SparsityPattern, values: np.ndarray) -> Any:
        prepare = functools.partial(preconditioning.make, self.preconditioner)
        return BothWays(csr_of(pattern, values), prepare)

    def solve(self, factor: Any, b: np.ndarray, *, transpose: bool) -> Solved:
        matrix, preconditioner = factor.get(transpose)
        x = np.zeros((len(b), matrix.shape[1]), b.dtype)
        results, steps = [], []
        for i, rhs in enumerate(b):
            rhs, size = scaled(rhs)
            y, result, count = self._one(matrix, rhs, size, preconditioner)
            with np.errstate(over="ignore"):
                x[i] = size * y
            results.append(result)
            steps.append(count)
        return Solved(x, results, np.array(steps))

    def _one(
        self, matrix: Any, b: np.ndarray, size: float, preconditioner: Any
    ) -> tuple[Any, str, int]:
        """The solution for b = rhs/size; `atol` is meant for that of rhs."""
        if size == 0:
            return np.zeros(matrix.shape[1], b.dtype), "successful", 0
        norm, rtol = float(np.linalg.norm(b)), rtol_of(self.rtol, b.dtype)
        atol = self.atol / size
        bound, asked, steps = max(rtol * norm, atol), 0.5 * max(rtol, atol / norm), 0
        x = np.zeros(matrix.shape[1], b.dtype)
        run = _least_squares if self.name in _LEAST_SQUARES else _krylov
        for _ in range(_ATTEMPTS):
            with np.errstate(all="ignore"):
                x, info, more = run(self, matrix, b, x, asked, preconditioner)
                residual = np.linalg.norm(b - matrix @ x)
            steps += more
            if residual <= bound:
                return x, "successful", steps
            if info != 0 or not np.isfinite(residual):
                break
            asked *= 0.1  # it stopped by a looser rule of its own
        if self.name in _LEAST_SQUARES:
            return x, "successful", steps  # it need not vanish: whether it is least is judged later
        return x, "max_steps_reached" if info > 0 else "breakdown", steps

    def nbytes(self, factor: Any) -> int:
        matrix = factor.matrix
        own = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
        return own if self.preconditioner in (None, "jacobi") else 8 * own


def _krylov(
    solver: SciPyIterative,
    matrix: Any,
    b: np.ndarray,
    x0: np.ndarray,
    rtol: float,
    preconditioner: Any,
) -> tuple[np.ndarray, int, int]:
    """The common interface of most methods."""
    method = getattr(spla, solver.name)
    taken = _arguments(solver.name)
    count = 0

    def callback(*_: Any) -> None:
        nonlocal count
        count += 1

    settings: dict[str, Any] = {"x0": x0, "rtol": rtol, "callback": callback}
    if "atol" in taken:
        settings["atol"] = 0.0
    if "callback_type" in taken:
        settings["callback_type"] = "pr_norm"
    if solver.max_steps is not None:
        restart = dict(solver.settings).get("restart", 20)
        per_step = restart if solver.name == "gmres" else 1  # gmres counts cycles
        settings["maxiter"] = max(1, -(-solver.max_steps // per_step))
    if preconditioner is not None:
        key = "M1" if "M1" in taken else "M"
        settings[key] = spla.aslinearoperator(preconditioner)
        if key == "M1":  # qmr: split as M1 alone
            settings["M2"] = spla.aslinearoperator(sp.identity(matrix.shape[0], matrix.dtype))
    x, info = method(matrix, b, **settings, **dict(solver.settings))
    return x, int(info), count


def _least_squares(
    solver: SciPyIterative,
    matrix: Any,
    b: np.ndarray,
    x0: np.ndarray,
    rtol: float,
    preconditioner: Any,
) -> tuple[np.ndarray, int, int]:
    """That of `lsqr` and `lsmr`, which differ in the name of one argument."""
    limit = "iter_lim" if solver.name == "lsqr" else "maxiter"
    settings = {"x0": x0, "atol": rtol, "btol": rtol, "conlim": 0, limit: solver.max_steps}
    x, _, steps, *_ = getattr(spla, solver.name)(matrix, b, **settings, **dict(solver.settings))
    return x, 0, int(steps)
