"""How the derivatives of a solve are found: the `adjoint=` argument.

| | derivative | for |
|---|---|---|
| `ImplicitAdjoint` | exact: tangents and cotangents by solves of their own | everything (the default) |
| `UnrolledAdjoint` | of k iterations | learned steps and preconditioners, on which the limit does not depend |
| `OneStepAdjoint` | approximate: M in the place of A⁻¹ | cheap gradients, where M is nearly the inverse |
| `StochasticAdjoint` | unbiased: a few rows of the matrix's cotangent | large dense matrices |
"""

from .implicit import ImplicitAdjoint as ImplicitAdjoint
from .modes import as_adjoint as as_adjoint
from .one_step import OneStepAdjoint as OneStepAdjoint, RichardsonSteps as RichardsonSteps
from .stochastic import StochasticAdjoint as StochasticAdjoint
from .unrolled import UnrolledAdjoint as UnrolledAdjoint, solve_unrolled as solve_unrolled
