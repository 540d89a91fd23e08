"""Differentiable linear solves in JAX: one primitive, every matrix, every solver, every transformation.

    import linsolve_prim as lp

    x = lp.solve(A, b)                                  # array, function, operator
    solution = lp.linear_solve(lp.MatrixLinearOperator(A), b, lp.LU())

The names stand here by rooms, as in the reference (`docs/reference/`).
"""

# isort: off
from importlib.metadata import PackageNotFoundError as _NotFound, version as _version

# ---- Solving -------------------------------------------------------------------------------------
from .simple import solve as solve
from .api import linear_solve as linear_solve, invert as invert
from .least_squares import lstsq as lstsq
from .entry import solve_entry as solve_entry
from .factorization import (
    factorize as factorize,
    update as update,
    Factorization as Factorization,
)
from .explain import explain as explain
from .catalogue import list_solvers as list_solvers
from .auto import AutoLinearSolver as AutoLinearSolver
from .results import (
    RESULTS as RESULTS,
    REASONS as REASONS,
    Solution as Solution,
)

# ---- What went wrong -----------------------------------------------------------------------------
from .errors import (
    LinearSolveError as LinearSolveError,
    ConvergenceError as ConvergenceError,
    NotConverged as NotConverged,
    Diverged as Diverged,
    SingularMatrixError as SingularMatrixError,
    IncompatibleRHS as IncompatibleRHS,
    NonFiniteInputError as NonFiniteInputError,
    HostLibraryError as HostLibraryError,
    StructureError as StructureError,
    NonlinearFunctionError as NonlinearFunctionError,
    PrecisionWarning as PrecisionWarning,
)

# ---- What went on --------------------------------------------------------------------------------
from .tracing import SolveTape as SolveTape, original_errors as original_errors

# ---- Operators: what A is ------------------------------------------------------------------------
from .operators import (
    AbstractLinearOperator as AbstractLinearOperator,
    MatrixLinearOperator as MatrixLinearOperator,
    DiagonalLinearOperator as DiagonalLinearOperator,
    TridiagonalLinearOperator as TridiagonalLinearOperator,
    IdentityLinearOperator as IdentityLinearOperator,
    PyTreeLinearOperator as PyTreeLinearOperator,
    FunctionLinearOperator as FunctionLinearOperator,
    JacobianLinearOperator as JacobianLinearOperator,
    TaggedLinearOperator as TaggedLinearOperator,
    TangentLinearOperator as TangentLinearOperator,
    AddLinearOperator as AddLinearOperator,
    ComposedLinearOperator as ComposedLinearOperator,
    ConjLinearOperator as ConjLinearOperator,
    DivLinearOperator as DivLinearOperator,
    MulLinearOperator as MulLinearOperator,
    NegLinearOperator as NegLinearOperator,
)

# ---- Functions of operators ----------------------------------------------------------------------
from .operators import (
    conj as conj,
    diagonal as diagonal,
    tridiagonal as tridiagonal,
    linearise as linearise,
    materialise as materialise,
    has_unit_diagonal as has_unit_diagonal,
    is_diagonal as is_diagonal,
    is_lower_triangular as is_lower_triangular,
    is_negative_semidefinite as is_negative_semidefinite,
    is_positive_semidefinite as is_positive_semidefinite,
    is_symmetric as is_symmetric,
    is_tridiagonal as is_tridiagonal,
    is_upper_triangular as is_upper_triangular,
)

# ---- Promises about operators --------------------------------------------------------------------
from .operators import (
    diagonal_tag as diagonal_tag,
    lower_triangular_tag as lower_triangular_tag,
    negative_semidefinite_tag as negative_semidefinite_tag,
    positive_semidefinite_tag as positive_semidefinite_tag,
    symmetric_tag as symmetric_tag,
    tridiagonal_tag as tridiagonal_tag,
    unit_diagonal_tag as unit_diagonal_tag,
    upper_triangular_tag as upper_triangular_tag,
    transpose_tags as transpose_tags,
    transpose_tags_rules as transpose_tags_rules,
)

# ---- Sparse matrices, and functions as such ------------------------------------------------------
from .sparse import (
    SparsityPattern as SparsityPattern,
    SparseLinearOperator as SparseLinearOperator,
    TripletLinearOperator as TripletLinearOperator,
    block_diag as block_diag,
    block_diag_split as block_diag_split,
    stack as stack,
    vstack as vstack,
    hstack as hstack,
    sparse_eye as sparse_eye,
    spmm as spmm,
    sparse_logsumexp as sparse_logsumexp,
    sparse_bidir_logsumexp as sparse_bidir_logsumexp,
    PairwiseEncoder as PairwiseEncoder,
    symmetrize as symmetrize,
    tril as tril,
    triu as triu,
)
from .detection import linear_function as linear_function, materialise_sparse as materialise_sparse

# ---- Determinants --------------------------------------------------------------------------------
from .determinants import (
    slogdet as slogdet,
    logdet as logdet,
    stochastic_logdet as stochastic_logdet,
    trace as trace,
    SLogDet as SLogDet,
    LogDetEstimate as LogDetEstimate,
)

# ---- Direct solvers, on any device ---------------------------------------------------------------
from .solvers import (
    AbstractLinearSolver as AbstractLinearSolver,
    LU as LU,
    Cholesky as Cholesky,
    QR as QR,
    SVD as SVD,
    Triangular as Triangular,
    Tridiagonal as Tridiagonal,
    Diagonal as Diagonal,
    Normal as Normal,
    IterativeRefinement as IterativeRefinement,
)

# ---- Krylov methods, and iterations without inner products ---------------------------------------
from .solvers import (
    CG as CG,
    CGAdaptive as CGAdaptive,
    FCG as FCG,
    MINRES as MINRES,
    MINRESQLP as MINRESQLP,
    SYMMLQ as SYMMLQ,
    GMRES as GMRES,
    FGMRES as FGMRES,
    LGMRES as LGMRES,
    GCROT as GCROT,
    RecycledSpace as RecycledSpace,
    BiCG as BiCG,
    BiCGStab as BiCGStab,
    CGS as CGS,
    QMR as QMR,
    TFQMR as TFQMR,
    IDR as IDR,
    LSMR as LSMR,
    LSQR as LSQR,
    CGLS as CGLS,
    CRAIG as CRAIG,
    NormalCG as NormalCG,
    Chebyshev as Chebyshev,
    Richardson as Richardson,
    NullSpace as NullSpace,
)

# ---- Solvers of libraries on the host ------------------------------------------------------------
from .solvers import (
    AbstractHostSolver as AbstractHostSolver,
    HostSolver as HostSolver,
    SuperLU as SuperLU,
    Banded as Banded,
    RSLab as RSLab,
    CHOLMOD as CHOLMOD,
    UMFPACK as UMFPACK,
    KLU as KLU,
    PARDISO as PARDISO,
    PyAMG as PyAMG,
    SciPyIterative as SciPyIterative,
    SpSolveTriangular as SpSolveTriangular,
)

# ---- Derivatives ---------------------------------------------------------------------------------
from .adjoint import (
    ImplicitAdjoint as ImplicitAdjoint,
    UnrolledAdjoint as UnrolledAdjoint,
    OneStepAdjoint as OneStepAdjoint,
    StochasticAdjoint as StochasticAdjoint,
)
from .learn import gradient as gradient, graph as graph

# ---- Nonlinear equations and minimisation --------------------------------------------------------
from .nonlinear import (
    root_solve as root_solve,
    solve_nonlinear as solve_nonlinear,
    fixed_point as fixed_point,
    minimize as minimize,
)

# ---- Rooms of their own --------------------------------------------------------------------------
from . import (
    detection as detection,
    diagnostics as diagnostics,
    distributions as distributions,
    host as host,
    internal as internal,
    interop as interop,
    learn as learn,
    nonlinear as nonlinear,
    preconditioners as preconditioners,
    testing as testing,
)

try:
    __version__ = _version("linsolve-prim")
except _NotFound:  # run from a source tree that is not installed
    __version__ = "0.0.0"
