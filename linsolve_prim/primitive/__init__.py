"""The primitive: `linear_solve_p`, its rules, and `bind`, through which every solve passes."""

from . import register as _register  # noqa: F401  (registers the rules)
from .call import ADJOINT as ADJOINT
from .call import FORWARD as FORWARD
from .call import TANGENT as TANGENT
from .call import SolveCall as SolveCall
from .definition import bind as bind
from .definition import linear_solve_p as linear_solve_p
from .failure import (
    Failure as Failure,
)
from .failure import (
    Inputs as Inputs,
)
from .failure import (
    failures as failures,
)
from .failure import (
    raise_if_failed as raise_if_failed,
)
from .failure import (
    raise_inside as raise_inside,
)
