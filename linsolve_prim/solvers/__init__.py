"""Solvers: how a system is solved. One file each."""

from .base import AbstractLinearSolver as AbstractLinearSolver
from .cholesky import Cholesky as Cholesky
from .diagonal import Diagonal as Diagonal
from .host import CHOLMOD as CHOLMOD
from .host import KLU as KLU
from .host import PARDISO as PARDISO
from .host import UMFPACK as UMFPACK
from .host import AbstractHostSolver as AbstractHostSolver
from .host import HostSolver as HostSolver
from .host import PyAMG as PyAMG
from .host import RSLab as RSLab
from .host import SciPyIterative as SciPyIterative
from .host import SpSolveTriangular as SpSolveTriangular
from .host import SuperLU as SuperLU
from .krylov import CG as CG
from .krylov import GMRES as GMRES
from .krylov import LSMR as LSMR
from .krylov import BiCGStab as BiCGStab
from .krylov import NullSpace as NullSpace
from .lu import LU as LU
from .normal import Normal as Normal
from .normal import NormalCG as NormalCG
from .qr import QR as QR
from .svd import SVD as SVD
from .triangular import Triangular as Triangular
from .tridiagonal import Tridiagonal as Tridiagonal
