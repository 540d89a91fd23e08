"""Algebraic multigrid: set up on the host, applied on the device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from .._static import is_concrete
from ..errors import StructureError, WrongTypeError
from ..host.available import require
from ..host.matrices import csr_of
from ..operators import AbstractLinearOperator
from ..operators.functions import promises_hermitian
from ..sparse.layouts import is_dia
from ..sparse.operator import SparseLinearOperator
from ..sparse.packed_operator import PackedOperator
from ..sparse.pattern import SparsityPattern
from . import amg_setup as setup, amg_spectrum as spectrum
from .base import AbstractPreconditioner
from .galerkin import AMGHierarchy, held, refreshable
from .multigrid import Level, MultigridOperator, multigrid
from .parts import is_definite, require_sparse
from .smoothers import Smoother

CYCLES = ("V", "W", "F")


class AMG(AbstractPreconditioner):
    """One cycle of algebraic multigrid, for elliptic problems: iterations hardly grow with n.

    PyAMG (Bell, Olson, Schroder, Southworth, 2023, JOSS 8(87), doi:10.21105/joss.05495) finds the
    hierarchy on the host; it is applied on the device, as sparse products: in `jit`, `scan` and
    `vmap`, on any device, without a callback.

    - `method`: "smoothed_aggregation", "ruge_stuben" or "root_node".
    - `near_nullspace`: `(n, k)`, vectors that A nearly annihilates (rigid body modes in elasticity);
      the default is the constant. Not for "ruge_stuben".
    - `block_size`: unknowns per node, which are aggregated together.
    - `smoother`, `degree`: "chebyshev" or "l1_jacobi", and products per smoothing: see `Smoother`.
    - `cycle`: "V", "W" or "F" (which is not symmetric, and so not for CG).
    - `max_levels`, `max_coarse`: at most so many levels; down to that many unknowns, whose inverse is
      held as a matrix.
    - `settings`: further arguments of PyAMG's set-up (`strength`, `aggregate`, `smooth`, …).

    **Rebuilt, refreshed, kept**: with `preconditioner=AMG()` PyAMG is called for each solve; under
    `jit` of a function of A's values it cannot be, and the hierarchy is that of the graph of A, for
    which only the pattern counts. With `AMG().prepare(A)` aggregates and interpolation are those of A,
    and coarse operators are Galerkin products of the values that are met, computed on the device.
    With `AMG().init(A)` it is an operator that stays.

    **Raises** `ImportError`, with the remedy, if `pyamg` is not installed; `WrongTypeError` for an
    operator that is not sparse, or is complex where the method is "ruge_stuben".

        >>> import jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp
        >>> S = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(500, 500)).tocsr()
        >>> A = lp.SparseLinearOperator.from_scipy(S, lp.positive_semidefinite_tag)
        >>> b = A.mv(jnp.ones(500))
        >>> steps = lambda m: int(lp.linear_solve(A, b, lp.CG(rtol=1e-4, preconditioner=m)).stats["num_steps"])
        >>> steps(lp.preconditioners.AMG()) < 20 < steps(None)
        True
    """

    method: str = "smoothed_aggregation"
    near_nullspace: Any = dataclasses.field(default=None, kw_only=True)
    block_size: int = dataclasses.field(default=1, kw_only=True)
    smoother: str = dataclasses.field(default="chebyshev", kw_only=True)
    degree: int = dataclasses.field(default=2, kw_only=True)
    cycle: str = dataclasses.field(default="V", kw_only=True)
    max_levels: int = dataclasses.field(default=20, kw_only=True)
    max_coarse: int = dataclasses.field(default=300, kw_only=True)
    settings: Any = dataclasses.field(default=None, kw_only=True)

    def __check_init__(self) -> None:
        if self.method not in setup.METHODS:
            raise ValueError(
                f"method: must be one of {', '.join(setup.METHODS)}; got {self.method!r}."
            )
        if self.cycle not in CYCLES:
            raise ValueError(f"cycle: must be one of {', '.join(CYCLES)}; got {self.cycle!r}.")
        Smoother(self.smoother, self.degree)
        if self.near_nullspace is not None and self.method == "ruge_stuben":
            raise ValueError(
                "near_nullspace: is for 'smoothed_aggregation' and 'root_node'; 'ruge_stuben' "
                "interpolates by entries alone. Leave it out, or choose another method."
            )
        require("PyAMG", "pyamg")

    @property
    def needs_values(self) -> bool:
        return True

    def keeps_definite(self, operator: AbstractLinearOperator) -> bool:
        return self.cycle != "F" and is_definite(operator)

    def init(self, operator: AbstractLinearOperator) -> MultigridOperator:
        found = self._taken(operator)
        if not is_concrete(found) or not setup.is_finite(found.values):
            # NaN goes through the products of the graph's hierarchy, and the solve tells of it
            return self._of_graph(found.pattern, operator).init(operator)
        matrix = csr_of(found.pattern, np.asarray(found.values))
        hermitian = promises_hermitian(operator) or setup.is_hermitian(matrix)
        try:
            *finer, last = self._build(matrix, hermitian)
        except (ArithmeticError, IndexError, TypeError, ValueError):
            usable = False  # zeros, say; settings that PyAMG refuses are refused below again
        else:
            usable = setup.is_finite(last.matrix.data)
        if not usable:
            return self._of_graph(found.pattern, operator).init(operator)
        # products by diagonals are faster, and once for a matrix packed
        own = PackedOperator.of(found) if is_dia(found.pattern) else None
        levels = self._levels(finer, hermitian, own)
        coarsest = jnp.asarray(setup.inverse_of(last.matrix, hermitian))
        smoother = Smoother(self.smoother, self.degree)
        shape = matrix.shape[:1]
        return multigrid(levels, coarsest, smoother, self.cycle, operator, hermitian, shape)

    def _taken(self, operator: AbstractLinearOperator) -> SparseLinearOperator:
        found = require_sparse(operator, "AMG")
        if self.method == "ruge_stuben" and jnp.iscomplexobj(found.values):
            raise WrongTypeError(
                "operator: must be real for method 'ruge_stuben', which PyAMG has for real matrices "
                f"only; got {found.values.dtype}. Use 'smoothed_aggregation', or "
                "`AMG('ruge_stuben').prepare` with a real matrix of the same pattern."
            )
        return found

    def prepare(self, operator: AbstractLinearOperator) -> AMGHierarchy:
        """Aggregates and interpolation of A; coarse operators follow the values that are met.

        **Raises** `StructureError` if A's values are traced, and `ValueError` if one is not finite.
        """
        found = self._taken(operator)
        if not is_concrete(found):
            raise StructureError(
                "operator: must have values that are not traced, since PyAMG looks at them; got "
                "traced ones. Prepare outside of `jit`, with values that are typical."
            )
        if not setup.is_finite(found.values):
            raise ValueError(
                "operator: must have finite values, since PyAMG looks at them; got NaN or infinity. "
                "Look upstream, or prepare with values that are typical."
            )
        matrix = csr_of(found.pattern, np.asarray(found.values))
        hermitian = promises_hermitian(operator) or setup.is_hermitian(matrix)
        return self._prepared(matrix, found.pattern, hermitian)

    def _of_graph(self, pattern: SparsityPattern, operator: AbstractLinearOperator) -> AMGHierarchy:
        """The hierarchy of the graph of a matrix, whose values are not known."""
        dtype = np.dtype(operator.in_structure().dtype)
        hermitian = promises_hermitian(operator)

        def make() -> AMGHierarchy:
            with jax.ensure_compile_time_eval():
                return self._prepared(setup.graph_laplacian(pattern, dtype), pattern, hermitian)

        if self.near_nullspace is not None or self.settings is not None:
            return make()
        return pattern.cached(("amg", repr(self), str(dtype), hermitian), make)

    def _prepared(
        self, matrix: sp.csr_matrix, pattern: SparsityPattern, hermitian: bool
    ) -> AMGHierarchy:
        levels = self._build(matrix, hermitian)
        smoother = Smoother(self.smoother, self.degree)
        return refreshable(levels, pattern, hermitian, smoother, self.cycle)

    def _build(self, matrix: sp.csr_matrix, hermitian: bool) -> list[setup.HostLevel]:
        settings: dict[str, Any] = {
            "max_levels": self.max_levels,
            "max_coarse": self.max_coarse,
            "symmetry": "hermitian" if hermitian else "nonsymmetric",
            "block_size": self.block_size,
            **(self.settings or {}),
        }
        if self.near_nullspace is not None:
            settings["B"] = self.near_nullspace
        return setup.build(matrix, self.method, settings)

    def _levels(
        self, levels: list[setup.HostLevel], hermitian: bool, own: AbstractLinearOperator | None
    ) -> list[Level]:
        """On the device; `own` is the finest operator, if it is there already."""
        scale = spectrum.diagonal_scale if self.smoother == "chebyshev" else spectrum.l1_scale
        both = not hermitian  # else the cycle is its own transpose, up to conjugation
        tasks: list[Callable[[], Any]] = []
        for level in levels:
            tasks += [functools.partial(held, matrix, both) for matrix in level]
            tasks.append(functools.partial(scale, level.matrix))
        if own is not None and tasks:
            tasks[0] = lambda: None
        made = jax.device_put(setup.on_threads(tasks, levels[0].matrix.nnz if levels else 0))
        parts = [made[k : k + 4] for k in range(0, len(made), 4)]
        return [
            Level(own if own is not None and k == 0 else operator, scale, p, r)
            for k, (operator, p, r, scale) in enumerate(parts)
        ]
