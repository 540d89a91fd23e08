"""Solvers and preconditioners with parameters that are learned, and what one needs to learn them.

All of them are pytrees, which `optax` trains. See `docs/examples/learned_*.py` and `notebooks/`.
"""

from .compare import GradientTable as GradientTable, compare_gradients as compare_gradients
from .direction import DirectionSolver as DirectionSolver
from .gradient import gradient as gradient
from .graph import Graph as Graph, MessagePassing as MessagePassing, graph as graph
from .losses import condition_number_loss as condition_number_loss, residual_loss as residual_loss
from .preconditioner import LearnedPreconditioner as LearnedPreconditioner
from .programmes import (
    QPSolution as QPSolution,
    SaddlePointOperator as SaddlePointOperator,
    equality_qp as equality_qp,
)
from .unrolled_cg import UnrolledCG as UnrolledCG
