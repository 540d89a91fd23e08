"""Preconditioners: operators that approximate A⁻¹, made from A."""

from .amg import AMG as AMG
from .auto import Auto as Auto
from .base import AbstractPreconditioner as AbstractPreconditioner
from .block_jacobi import BlockJacobi as BlockJacobi
from .coarse_grid import CoarseGrid as CoarseGrid
from .compose import Compose as Compose, Custom as Custom
from .field_split import FieldSplit as FieldSplit
from .galerkin import AMGHierarchy as AMGHierarchy
from .geometric import GeometricMultigrid as GeometricMultigrid
from .host import Host as Host
from .ic import IC as IC
from .ilu import ILU as ILU
from .jacobi import Jacobi as Jacobi
from .low_precision import LowPrecision as LowPrecision
from .low_rank import LowRankPlusDiagonal as LowRankPlusDiagonal
from .names import NAMES as NAMES, by_name as by_name
from .nystrom import Nystrom as Nystrom, PivotedCholesky as PivotedCholesky
from .polynomial import Chebyshev as Chebyshev, Neumann as Neumann
from .schwarz import Schwarz as Schwarz
from .spai import SPAI as SPAI
from .ssor import SSOR as SSOR, GaussSeidel as GaussSeidel
