"""Preconditioners of SciPy's iterative methods, made once for a matrix and kept with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from ...host.available import require

#: By name, or a function from a `csr_matrix` to a SciPy `LinearOperator` that approximates A⁻¹.
HostPreconditioner = str | Callable[[Any], Any] | None

NAMES = ("jacobi", "ilu", "amg")


def check(preconditioner: HostPreconditioner) -> None:
    """Refuse what is no preconditioner, when the solver is made."""
    if isinstance(preconditioner, str) and preconditioner not in NAMES:
        raise ValueError(
            f"preconditioner: must be None, a function or one of {', '.join(NAMES)}; got "
            f"{preconditioner!r}."
        )
    if not (preconditioner is None or isinstance(preconditioner, str) or callable(preconditioner)):
        raise TypeError(
            "preconditioner: must be None, a name, or a function from a scipy.sparse.csr_matrix to "
            f"a LinearOperator; got {type(preconditioner).__name__}."
        )
    if preconditioner == "amg":
        require("PyAMG", "pyamg")


def make(preconditioner: HostPreconditioner, matrix: sp.csr_matrix) -> Any:
    """The preconditioner of a matrix, as a `LinearOperator` or None."""
    if preconditioner is None:
        return None
    if callable(preconditioner):
        return preconditioner(matrix)
    if preconditioner == "jacobi":
        diagonal = matrix.diagonal()
        return sp.diags_array(1 / np.where(diagonal == 0, 1, diagonal))
    if preconditioner == "ilu":
        # COLAMD, the default, ruins incomplete factors: 157 iterations instead of 6 on
        # convection-diffusion, 300² unknowns
        ilu = spla.spilu(matrix.tocsc(), drop_tol=1e-3, permc_spec="MMD_AT_PLUS_A")
        return spla.LinearOperator(
            matrix.shape, ilu.solve, rmatvec=lambda x: ilu.solve(x, "H"), dtype=matrix.dtype
        )
    pyamg = require("PyAMG", "pyamg")
    symmetry = "hermitian" if abs(matrix - matrix.conj().T).max() == 0 else "nonsymmetric"
    return pyamg.smoothed_aggregation_solver(matrix, symmetry=symmetry).aspreconditioner()
