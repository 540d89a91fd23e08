"""Solvers of libraries on the host: one short final class each, over `AbstractHostSolver`."""

from .amg import PyAMG as PyAMG
from .banded import Banded as Banded
from .base import AbstractHostSolver as AbstractHostSolver
from .cholmod import CHOLMOD as CHOLMOD
from .generic import HostSolver as HostSolver
from .klu import KLU as KLU
from .pardiso import PARDISO as PARDISO
from .rslab import RSLab as RSLab
from .scipy_iterative import SciPyIterative as SciPyIterative
from .superlu import SuperLU as SuperLU
from .triangular import SpSolveTriangular as SpSolveTriangular
from .umfpack import UMFPACK as UMFPACK
