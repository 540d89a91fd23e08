"""Solvers: how a system is solved. One file each."""

from .base import AbstractLinearSolver as AbstractLinearSolver
from .cholesky import Cholesky as Cholesky
from .diagonal import Diagonal as Diagonal
from .host import (
    CHOLMOD as CHOLMOD,
    KLU as KLU,
    PARDISO as PARDISO,
    UMFPACK as UMFPACK,
    AbstractHostSolver as AbstractHostSolver,
    Banded as Banded,
    HostSolver as HostSolver,
    PyAMG as PyAMG,
    RSLab as RSLab,
    SciPyIterative as SciPyIterative,
    SpSolveTriangular as SpSolveTriangular,
    SuperLU as SuperLU,
)
from .krylov import (
    CG as CG,
    CGLS as CGLS,
    CGS as CGS,
    CRAIG as CRAIG,
    FCG as FCG,
    FGMRES as FGMRES,
    GCROT as GCROT,
    GMRES as GMRES,
    IDR as IDR,
    LGMRES as LGMRES,
    LSMR as LSMR,
    LSQR as LSQR,
    MINRES as MINRES,
    MINRESQLP as MINRESQLP,
    QMR as QMR,
    SYMMLQ as SYMMLQ,
    TFQMR as TFQMR,
    BiCG as BiCG,
    BiCGStab as BiCGStab,
    CGAdaptive as CGAdaptive,
    Chebyshev as Chebyshev,
    IterativeRefinement as IterativeRefinement,
    NullSpace as NullSpace,
    RecycledSpace as RecycledSpace,
    Richardson as Richardson,
)
from .lu import LU as LU
from .normal import Normal as Normal, NormalCG as NormalCG
from .qr import QR as QR
from .svd import SVD as SVD
from .triangular import Triangular as Triangular
from .tridiagonal import Tridiagonal as Tridiagonal
