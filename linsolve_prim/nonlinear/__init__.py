"""Nonlinear equations and minimisation, with derivatives by linear solves."""

from .anderson import Anderson as Anderson
from .descent import GradientDescent as GradientDescent
from .minimise import minimize as minimize
from .newton import Newton as Newton
from .newton import newton_krylov as newton_krylov
from .roots import fixed_point as fixed_point
from .roots import root_solve as root_solve
from .roots import solve_nonlinear as solve_nonlinear
