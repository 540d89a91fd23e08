"""Differentiable linear solves in JAX: one primitive, every matrix, every solver, every transformation.

    import linsolve_prim as lp

    x = lp.solve(A, b)                                  # array, function, operator
    solution = lp.linear_solve(lp.MatrixLinearOperator(A), b, lp.LU())
"""

from importlib.metadata import PackageNotFoundError as _NotFound, version as _version

from . import internal as internal, testing as testing
from .adjoint import ImplicitAdjoint as ImplicitAdjoint
from .api import invert as invert, linear_solve as linear_solve
from .auto import AutoLinearSolver as AutoLinearSolver
from .errors import (
    ConvergenceError as ConvergenceError,
    Diverged as Diverged,
    LinearSolveError as LinearSolveError,
    NonFiniteInputError as NonFiniteInputError,
    NonlinearFunctionError as NonlinearFunctionError,
    NotConverged as NotConverged,
    PrecisionWarning as PrecisionWarning,
    SingularMatrixError as SingularMatrixError,
    StructureError as StructureError,
)
from .explain import explain as explain, list_solvers as list_solvers
from .operators import (
    AbstractLinearOperator as AbstractLinearOperator,
    AddLinearOperator as AddLinearOperator,
    ComposedLinearOperator as ComposedLinearOperator,
    ConjLinearOperator as ConjLinearOperator,
    DiagonalLinearOperator as DiagonalLinearOperator,
    DivLinearOperator as DivLinearOperator,
    FunctionLinearOperator as FunctionLinearOperator,
    IdentityLinearOperator as IdentityLinearOperator,
    JacobianLinearOperator as JacobianLinearOperator,
    MatrixLinearOperator as MatrixLinearOperator,
    MulLinearOperator as MulLinearOperator,
    NegLinearOperator as NegLinearOperator,
    PyTreeLinearOperator as PyTreeLinearOperator,
    TaggedLinearOperator as TaggedLinearOperator,
    TangentLinearOperator as TangentLinearOperator,
    TridiagonalLinearOperator as TridiagonalLinearOperator,
    conj as conj,
    diagonal as diagonal,
    diagonal_tag as diagonal_tag,
    has_unit_diagonal as has_unit_diagonal,
    is_diagonal as is_diagonal,
    is_lower_triangular as is_lower_triangular,
    is_negative_semidefinite as is_negative_semidefinite,
    is_positive_semidefinite as is_positive_semidefinite,
    is_symmetric as is_symmetric,
    is_tridiagonal as is_tridiagonal,
    is_upper_triangular as is_upper_triangular,
    linearise as linearise,
    lower_triangular_tag as lower_triangular_tag,
    materialise as materialise,
    negative_semidefinite_tag as negative_semidefinite_tag,
    positive_semidefinite_tag as positive_semidefinite_tag,
    symmetric_tag as symmetric_tag,
    transpose_tags as transpose_tags,
    transpose_tags_rules as transpose_tags_rules,
    tridiagonal as tridiagonal,
    tridiagonal_tag as tridiagonal_tag,
    unit_diagonal_tag as unit_diagonal_tag,
    upper_triangular_tag as upper_triangular_tag,
)
from .results import REASONS as REASONS, RESULTS as RESULTS, Solution as Solution
from .simple import solve as solve
from .solvers import (
    CG as CG,
    GMRES as GMRES,
    LSMR as LSMR,
    LU as LU,
    QR as QR,
    SVD as SVD,
    AbstractLinearSolver as AbstractLinearSolver,
    BiCGStab as BiCGStab,
    Cholesky as Cholesky,
    Diagonal as Diagonal,
    Normal as Normal,
    NormalCG as NormalCG,
    Triangular as Triangular,
    Tridiagonal as Tridiagonal,
)

try:
    __version__ = _version("linsolve-prim")
except _NotFound:  # run from a source tree that is not installed
    __version__ = "0.0.0"
