"""`ILU`: incomplete LU factorization, on the device or on the host."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from .._static import stop_gradient
from ..operators import AbstractLinearOperator
from ..sparse.substitution import Triangle
from .base import AbstractPreconditioner
from .fill import factors_of
from .host import IncompleteLU, host_inverse
from .ic import DENSE_SIZE, IC, check_settings
from .incomplete import lu_sweeps, sweep_count, triangles
from .parts import as_inverse_of, is_definite, sparse_form
from .triangles import Solves, TriangularInverse


class ILU(AbstractPreconditioner):
    """Incomplete LU: M⁻¹ = LU ≈ A, for sparse operators of any kind.

    On the pattern of A, with `fill` levels more, by a fixed-point iteration on all entries at once
    (`incomplete.py`); applied by substitutions, level after level. For operators tagged definite (whose
    pattern is symmetric) it is `IC`, so that `CG` takes it too.

    - `fill`: levels of fill: ILU(0) keeps the pattern of A.
    - `sweeps`: of the fixed-point iteration; None stands for 5, "exact" for as many as there are
      links in the longest chain of entries.
    - `solves`: "exact", or a number of Jacobi sweeps with each triangle, which suits accelerators.
    - `shift`: the diagonal is made larger by this part of it, where factors come out unstable.
    - `device`: "host" takes SuperLU's incomplete factorization instead, which chooses fill by size:
      `drop_tol` (default 1e-3) and `fill_factor` (default 10) are its settings. It pivots, so it is
      stronger on hard matrices; but it is not symmetric, and each application is a callback (see
      `Host`). With `SciPyIterative` a solve is one callback.

    Pivots that vanish are replaced, so that M is always made; how good it is then the solve tells.

    (Chow and Patel, "Fine-grained parallel incomplete LU factorization", 2015, doi:10.1137/140968896; on
    the host Li and Shao, 2011, doi:10.1145/1916461.1916467.)

    **Raises** `WrongTypeError` for an operator that is not sparse.

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.diags_array([-1.0, 3.0, -1.5], offsets=[-1, 0, 1], shape=(5, 5)).tocsr()
        >>> A = lp.SparseLinearOperator.from_scipy(S)
        >>> solver = lp.GMRES(rtol=1e-4, preconditioner=lp.preconditioners.ILU())
        >>> solution = lp.linear_solve(A, A.mv(jnp.ones(5)), solver)
        >>> print(solution.value.round(3), solution.stats["num_steps"] <= 2)
        [1. 1. 1. 1. 1.] True
    """

    fill: int = 0
    sweeps: int | str | None = None
    solves: Solves = "exact"
    shift: float = 0.0
    device: str = eqx.field(default="device", kw_only=True)
    drop_tol: float | None = eqx.field(default=None, kw_only=True)
    fill_factor: float | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self) -> None:
        check_settings(self.fill, self.sweeps, self.solves, "ILU")
        on_device = (self.fill, self.sweeps, self.solves, self.shift) != (0, None, "exact", 0.0)
        on_host = self.drop_tol is not None or self.fill_factor is not None
        if self.device not in ("device", "host"):
            raise ValueError(f"device: must be 'device' or 'host'; got {self.device!r}.")
        if on_device if self.device == "host" else on_host:
            wrong = ("fill, sweeps, solves and shift", "device")
            wrong = wrong if self.device == "host" else ("drop_tol and fill_factor", "host")
            raise ValueError(
                f"{wrong[0]}: are settings of `ILU(device={wrong[1]!r})`; got them with "
                f"device={self.device!r}. Leave them out, or change the device."
            )

    def host_maker(self) -> IncompleteLU:
        """The factorization on the host, for solvers there. **Raises** `ValueError` if it is not there."""
        if self.device != "host":
            raise ValueError(
                "preconditioner: a solver on the host takes `ILU(device='host')`; got an ILU on the "
                "device. Say `device='host'`, or use `GMRES` or `BiCGStab`."
            )
        return IncompleteLU(self.drop_tol, self.fill_factor)

    def init(self, operator: AbstractLinearOperator) -> AbstractLinearOperator:
        if self.device == "host":
            return host_inverse(operator, self.host_maker(), "ILU")
        operator = stop_gradient(operator)
        a = sparse_form(operator, "ILU", DENSE_SIZE)
        if is_definite(operator) and a.pattern.is_symmetric():
            return IC(self.fill, self.sweeps, self.solves, self.shift).init(operator)
        count = sweep_count(self.sweeps, a.pattern, self.fill)
        shift = jnp.asarray(self.shift, a.values.real.dtype)
        w = lu_sweeps(a.values, a.pattern, self.fill, count, shift)
        filled = factors_of(a.pattern, self.fill).pattern
        lower, below, upper, above = triangles(w, filled)
        left = TriangularInverse.make(lower, Triangle(below, True, True), self.solves)
        right = TriangularInverse.make(upper, Triangle(above, False, False), self.solves)
        return as_inverse_of(right @ left, operator)

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        if self.device == "host" or not is_definite(operator):
            return False
        return sparse_form(operator, "ILU", DENSE_SIZE).pattern.is_symmetric()
