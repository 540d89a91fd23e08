"""Solvers: how a system is solved. One file each."""

from .base import AbstractLinearSolver as AbstractLinearSolver
from .cholesky import Cholesky as Cholesky
from .diagonal import Diagonal as Diagonal
from .krylov import CG as CG
from .krylov import GMRES as GMRES
from .krylov import LSMR as LSMR
from .krylov import BiCGStab as BiCGStab
from .lu import LU as LU
from .normal import Normal as Normal
from .normal import NormalCG as NormalCG
from .qr import QR as QR
from .svd import SVD as SVD
from .triangular import Triangular as Triangular
from .tridiagonal import Tridiagonal as Tridiagonal
