"""Nonlinear equations and minimisation, with derivatives by linear solves."""

from .anderson import Anderson as Anderson
from .descent import GradientDescent as GradientDescent
from .minimise import minimize as minimize
from .newton import Newton as Newton, newton_krylov as newton_krylov
from .roots import (
    fixed_point as fixed_point,
    root_solve as root_solve,
    solve_nonlinear as solve_nonlinear,
)
