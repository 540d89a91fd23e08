"""Preconditioners of SciPy's kind on the host, made once for a matrix and kept with it.

`SciPyIterative` hands them to SciPy's methods; `preconditioners.Host` and `ILU(device="host")` apply
them in a callback of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from .available import require

#: By name, or a function from a `csr_matrix` to a SciPy `LinearOperator` that approximates A⁻¹; or
#: what has a `host_maker()` that returns one of these.
HostPreconditioner = Any

NAMES = ("jacobi", "ilu", "amg")

#: Entries below are dropped, of a real matrix and of a complex one as a real one: with 1e-3 that takes
#: twice the iterations of SuperLU's complex factors (8 for 4, 10 for 5), with 1e-4 5 and 7, for 10 % more
#: memory. [measured on 30² unknowns]
_DROP_TOL = (1e-3, 1e-4)

#: Parts of the largest entry that are added to the diagonal, one after the other, where SuperLU meets a
#: zero pivot.
_SHIFTS = (0.0, 1e-6, 1e-3, 1e-1)


def check(preconditioner: HostPreconditioner) -> None:
    """Refuse what is no preconditioner, when the solver is made."""
    if isinstance(preconditioner, str) and preconditioner not in NAMES:
        raise ValueError(
            f"preconditioner: must be None, a function or one of {', '.join(NAMES)}; got "
            f"{preconditioner!r}."
        )
    taken = isinstance(preconditioner, str) or callable(preconditioner)
    if not (preconditioner is None or taken or hasattr(preconditioner, "host_maker")):
        raise TypeError(
            "preconditioner: must be None, a name, or a function from a scipy.sparse.csr_matrix to "
            f"a LinearOperator; got {type(preconditioner).__name__}."
        )
    if preconditioner == "amg":
        require("PyAMG", "pyamg")


def make(preconditioner: HostPreconditioner, matrix: sp.csr_matrix) -> Any:
    """The preconditioner of a matrix, as a `LinearOperator` or None."""
    if hasattr(preconditioner, "host_maker"):
        preconditioner = preconditioner.host_maker()
    if preconditioner is None:
        return None
    if callable(preconditioner):
        return preconditioner(matrix)
    if preconditioner == "jacobi":
        diagonal = matrix.diagonal()
        return sp.diags_array(1 / np.where(diagonal == 0, 1, diagonal))
    if preconditioner == "ilu":
        return incomplete_lu(matrix)
    pyamg = require("PyAMG", "pyamg")
    symmetry = "hermitian" if abs(matrix - matrix.conj().T).max() == 0 else "nonsymmetric"
    return pyamg.smoothed_aggregation_solver(matrix, symmetry=symmetry).aspreconditioner()


def incomplete_lu(
    matrix: sp.csr_matrix, drop_tol: float | None = None, fill_factor: float | None = None
) -> spla.LinearOperator:
    """SuperLU's incomplete factorization (Li, Shao 2011, doi:10.1145/1916461.1916467).

    Complex matrices are factorized as real ones of twice the size: the routines for complex numbers end
    the process (by `exit`) where they would divide by a pivot of zero.
    """
    # COLAMD, the default, ruins incomplete factors: 157 iterations instead of 6 on
    # convection-diffusion, 300² unknowns
    is_complex = np.iscomplexobj(matrix.data)
    if drop_tol is None:
        drop_tol = _DROP_TOL[is_complex]
    settings = {"drop_tol": drop_tol, "fill_factor": fill_factor}
    real = _as_real(matrix) if is_complex else matrix
    ilu = _factor(real.tocsc(), permc_spec="MMD_AT_PLUS_A", **settings)
    forward, adjoint = ilu.solve, lambda x: ilu.solve(x, "T")
    if is_complex:
        forward, adjoint = _on_parts(forward), _on_parts(adjoint)
    return spla.LinearOperator(
        matrix.shape, forward, adjoint, forward, dtype=matrix.dtype, rmatmat=adjoint
    )


def _as_real(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Of (Re x₁, Im x₁, Re x₂, …): each entry a is the block [[Re a, −Im a], [Im a, Re a]]."""
    re, im = matrix.data.real, matrix.data.imag
    blocks = np.stack([re, -im, im, re], axis=-1).reshape(-1, 2, 2)
    m, n = matrix.shape
    return sp.bsr_matrix((blocks, matrix.indices, matrix.indptr), (2 * m, 2 * n)).tocsr()


def _on_parts(solve: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Of complex vectors `(n,)` or `(n, k)`, by a function of their parts one after the other.

    What incomplete factors drop is not the same of both parts, so that i·x need not give i times what x
    gives. Of the function's two parts, of which one commutes with i, this is that one, ½(f(x) − i·f(ix)).
    """

    def applied(x: np.ndarray) -> np.ndarray:
        both = np.concatenate([x.reshape(len(x), -1), 1j * x.reshape(len(x), -1)], axis=1)
        parts = np.stack([both.real, both.imag], axis=1)
        out = solve(parts.reshape(-1, both.shape[1])).reshape(parts.shape)
        straight, turned = np.split(out[:, 0] + 1j * out[:, 1], 2, axis=1)
        return (0.5 * (straight - 1j * turned)).reshape(x.shape)

    return applied


def _factor(matrix: sp.csc_matrix, **settings: Any) -> Any:
    size = np.abs(matrix.data).max(initial=0)
    for shift in _SHIFTS:
        moved = matrix
        if shift:
            moved = (matrix + shift * size * sp.identity(matrix.shape[0], matrix.dtype)).tocsc()
        try:
            return spla.spilu(moved.astype(matrix.dtype), **settings)
        except RuntimeError as error:
            if "singular" not in str(error):
                raise
            last = error
    raise last


class BothWays:
    """A matrix with what `make` prepares for it; and, made when asked for, its transpose with that."""

    def __init__(self, matrix: sp.csr_matrix, make: Callable[[sp.csr_matrix], Any]):
        self.matrix, self._make, self._lock = matrix, make, threading.Lock()
        self._made: dict[bool, tuple[sp.csr_matrix, Any]] = {}
        self.get(False)

    def get(self, transpose: bool) -> tuple[sp.csr_matrix, Any]:
        with self._lock:
            if transpose not in self._made:
                matrix = self.matrix.T.tocsr() if transpose else self.matrix
                self._made[transpose] = matrix, self._make(matrix)
            return self._made[transpose]
