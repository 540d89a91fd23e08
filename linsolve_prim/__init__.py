"""Differentiable linear solves in JAX: one primitive, every matrix, every solver, every transformation.

import linsolve_prim as lp

x = lp.solve(A, b)                                  # array, function, operator
solution = lp.linear_solve(lp.MatrixLinearOperator(A), b, lp.LU())
"""

from importlib.metadata import PackageNotFoundError as _NotFound
from importlib.metadata import version as _version

from . import detection as detection
from . import host as host
from . import internal as internal
from . import interop as interop
from . import learn as learn
from . import nonlinear as nonlinear
from . import preconditioners as preconditioners
from . import testing as testing
from .adjoint import (
    ImplicitAdjoint as ImplicitAdjoint,
)
from .adjoint import (
    OneStepAdjoint as OneStepAdjoint,
)
from .adjoint import (
    StochasticAdjoint as StochasticAdjoint,
)
from .adjoint import (
    UnrolledAdjoint as UnrolledAdjoint,
)
from .api import invert as invert
from .api import linear_solve as linear_solve
from .auto import AutoLinearSolver as AutoLinearSolver
from .catalogue import list_solvers as list_solvers
from .detection import linear_function as linear_function
from .detection import materialise_sparse as materialise_sparse
from .errors import (
    ConvergenceError as ConvergenceError,
)
from .errors import (
    Diverged as Diverged,
)
from .errors import (
    HostLibraryError as HostLibraryError,
)
from .errors import (
    IncompatibleRHS as IncompatibleRHS,
)
from .errors import (
    LinearSolveError as LinearSolveError,
)
from .errors import (
    NonFiniteInputError as NonFiniteInputError,
)
from .errors import (
    NonlinearFunctionError as NonlinearFunctionError,
)
from .errors import (
    NotConverged as NotConverged,
)
from .errors import (
    PrecisionWarning as PrecisionWarning,
)
from .errors import (
    SingularMatrixError as SingularMatrixError,
)
from .errors import (
    StructureError as StructureError,
)
from .explain import explain as explain
from .factorization import (
    Factorization as Factorization,
)
from .factorization import (
    factorize as factorize,
)
from .factorization import (
    update as update,
)
from .learn import (
    gradient as gradient,
)
from .learn import (
    graph as graph,
)
from .least_squares import lstsq as lstsq
from .nonlinear import (
    fixed_point as fixed_point,
)
from .nonlinear import (
    minimize as minimize,
)
from .nonlinear import (
    root_solve as root_solve,
)
from .nonlinear import (
    solve_nonlinear as solve_nonlinear,
)
from .operators import (
    AbstractLinearOperator as AbstractLinearOperator,
)
from .operators import (
    AddLinearOperator as AddLinearOperator,
)
from .operators import (
    ComposedLinearOperator as ComposedLinearOperator,
)
from .operators import (
    ConjLinearOperator as ConjLinearOperator,
)
from .operators import (
    DiagonalLinearOperator as DiagonalLinearOperator,
)
from .operators import (
    DivLinearOperator as DivLinearOperator,
)
from .operators import (
    FunctionLinearOperator as FunctionLinearOperator,
)
from .operators import (
    IdentityLinearOperator as IdentityLinearOperator,
)
from .operators import (
    JacobianLinearOperator as JacobianLinearOperator,
)
from .operators import (
    MatrixLinearOperator as MatrixLinearOperator,
)
from .operators import (
    MulLinearOperator as MulLinearOperator,
)
from .operators import (
    NegLinearOperator as NegLinearOperator,
)
from .operators import (
    PyTreeLinearOperator as PyTreeLinearOperator,
)
from .operators import (
    TaggedLinearOperator as TaggedLinearOperator,
)
from .operators import (
    TangentLinearOperator as TangentLinearOperator,
)
from .operators import (
    TridiagonalLinearOperator as TridiagonalLinearOperator,
)
from .operators import (
    conj as conj,
)
from .operators import (
    diagonal as diagonal,
)
from .operators import (
    diagonal_tag as diagonal_tag,
)
from .operators import (
    has_unit_diagonal as has_unit_diagonal,
)
from .operators import (
    is_diagonal as is_diagonal,
)
from .operators import (
    is_lower_triangular as is_lower_triangular,
)
from .operators import (
    is_negative_semidefinite as is_negative_semidefinite,
)
from .operators import (
    is_positive_semidefinite as is_positive_semidefinite,
)
from .operators import (
    is_symmetric as is_symmetric,
)
from .operators import (
    is_tridiagonal as is_tridiagonal,
)
from .operators import (
    is_upper_triangular as is_upper_triangular,
)
from .operators import (
    linearise as linearise,
)
from .operators import (
    lower_triangular_tag as lower_triangular_tag,
)
from .operators import (
    materialise as materialise,
)
from .operators import (
    negative_semidefinite_tag as negative_semidefinite_tag,
)
from .operators import (
    positive_semidefinite_tag as positive_semidefinite_tag,
)
from .operators import (
    symmetric_tag as symmetric_tag,
)
from .operators import (
    transpose_tags as transpose_tags,
)
from .operators import (
    transpose_tags_rules as transpose_tags_rules,
)
from .operators import (
    tridiagonal as tridiagonal,
)
from .operators import (
    tridiagonal_tag as tridiagonal_tag,
)
from .operators import (
    unit_diagonal_tag as unit_diagonal_tag,
)
from .operators import (
    upper_triangular_tag as upper_triangular_tag,
)
from .results import REASONS as REASONS
from .results import RESULTS as RESULTS
from .results import Solution as Solution
from .simple import solve as solve
from .solvers import (
    CG as CG,
)
from .solvers import (
    CGLS as CGLS,
)
from .solvers import (
    CGS as CGS,
)
from .solvers import (
    CHOLMOD as CHOLMOD,
)
from .solvers import (
    CRAIG as CRAIG,
)
from .solvers import (
    FCG as FCG,
)
from .solvers import (
    FGMRES as FGMRES,
)
from .solvers import (
    GCROT as GCROT,
)
from .solvers import (
    GMRES as GMRES,
)
from .solvers import (
    IDR as IDR,
)
from .solvers import (
    KLU as KLU,
)
from .solvers import (
    LGMRES as LGMRES,
)
from .solvers import (
    LSMR as LSMR,
)
from .solvers import (
    LSQR as LSQR,
)
from .solvers import (
    LU as LU,
)
from .solvers import (
    MINRES as MINRES,
)
from .solvers import (
    MINRESQLP as MINRESQLP,
)
from .solvers import (
    PARDISO as PARDISO,
)
from .solvers import (
    QMR as QMR,
)
from .solvers import (
    QR as QR,
)
from .solvers import (
    SVD as SVD,
)
from .solvers import (
    SYMMLQ as SYMMLQ,
)
from .solvers import (
    TFQMR as TFQMR,
)
from .solvers import (
    UMFPACK as UMFPACK,
)
from .solvers import (
    AbstractHostSolver as AbstractHostSolver,
)
from .solvers import (
    AbstractLinearSolver as AbstractLinearSolver,
)
from .solvers import (
    BiCG as BiCG,
)
from .solvers import (
    BiCGStab as BiCGStab,
)
from .solvers import (
    CGAdaptive as CGAdaptive,
)
from .solvers import (
    Chebyshev as Chebyshev,
)
from .solvers import (
    Cholesky as Cholesky,
)
from .solvers import (
    Diagonal as Diagonal,
)
from .solvers import (
    HostSolver as HostSolver,
)
from .solvers import (
    IterativeRefinement as IterativeRefinement,
)
from .solvers import (
    Normal as Normal,
)
from .solvers import (
    NormalCG as NormalCG,
)
from .solvers import (
    NullSpace as NullSpace,
)
from .solvers import (
    PyAMG as PyAMG,
)
from .solvers import (
    RecycledSpace as RecycledSpace,
)
from .solvers import (
    Richardson as Richardson,
)
from .solvers import (
    RSLab as RSLab,
)
from .solvers import (
    SciPyIterative as SciPyIterative,
)
from .solvers import (
    SpSolveTriangular as SpSolveTriangular,
)
from .solvers import (
    SuperLU as SuperLU,
)
from .solvers import (
    Triangular as Triangular,
)
from .solvers import (
    Tridiagonal as Tridiagonal,
)
from .sparse import (
    SparseLinearOperator as SparseLinearOperator,
)
from .sparse import (
    SparsityPattern as SparsityPattern,
)
from .sparse import (
    TripletLinearOperator as TripletLinearOperator,
)
from .sparse import (
    block_diag as block_diag,
)
from .sparse import (
    symmetrize as symmetrize,
)
from .sparse import (
    tril as tril,
)
from .sparse import (
    triu as triu,
)

try:
    __version__ = _version("linsolve-prim")
except _NotFound:  # run from a source tree that is not installed
    __version__ = "0.0.0"
from . import diagnostics as diagnostics
from .tracing import SolveTape as SolveTape
from .tracing import original_errors as original_errors
