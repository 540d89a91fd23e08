"""The primitive: `linear_solve_p`, its rules, and `bind`, through which every solve passes."""

from . import register as _register  # noqa: F401  (registers the rules)
from .call import ADJOINT as ADJOINT, FORWARD as FORWARD, TANGENT as TANGENT, SolveCall as SolveCall
from .definition import bind as bind, linear_solve_p as linear_solve_p
from .failure import (
    Failure as Failure,
    Inputs as Inputs,
    failures as failures,
    raise_if_failed as raise_if_failed,
    raise_inside as raise_inside,
)
