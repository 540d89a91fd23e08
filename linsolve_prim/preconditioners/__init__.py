"""Preconditioners: operators that approximate A⁻¹, made from A."""

from .base import AbstractPreconditioner as AbstractPreconditioner
from .jacobi import Jacobi as Jacobi
from .low_rank import LowRankPlusDiagonal as LowRankPlusDiagonal
