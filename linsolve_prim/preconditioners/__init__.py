"""Preconditioners: operators that approximate A⁻¹, made from A."""

from .amg import AMG as AMG
from .base import AbstractPreconditioner as AbstractPreconditioner
from .block_jacobi import BlockJacobi as BlockJacobi
from .galerkin import AMGHierarchy as AMGHierarchy
from .ic import IC as IC
from .ilu import ILU as ILU
from .jacobi import Jacobi as Jacobi
from .low_rank import LowRankPlusDiagonal as LowRankPlusDiagonal
from .ssor import SSOR as SSOR
from .ssor import GaussSeidel as GaussSeidel
