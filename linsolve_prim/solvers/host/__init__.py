"""Solvers of libraries on the host."""

from .base import AbstractHostSolver
from .superlu import SuperLU

__all__ = ["AbstractHostSolver", "SuperLU"]
