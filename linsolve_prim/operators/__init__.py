"""Linear operators: what A is."""

from . import algebra_rules as _algebra_rules  # noqa: F401  (registers the rules)
from .algebra import (
    AddLinearOperator as AddLinearOperator,
    ComposedLinearOperator as ComposedLinearOperator,
    DivLinearOperator as DivLinearOperator,
    MulLinearOperator as MulLinearOperator,
    NegLinearOperator as NegLinearOperator,
)
from .base import AbstractLinearOperator as AbstractLinearOperator
from .closure import ClosedFunction as ClosedFunction, close as close
from .conjugate import ConjLinearOperator as ConjLinearOperator
from .diagonal import DiagonalLinearOperator as DiagonalLinearOperator
from .function import FunctionLinearOperator as FunctionLinearOperator
from .identity import IdentityLinearOperator as IdentityLinearOperator
from .jacobian import JacobianLinearOperator as JacobianLinearOperator
from .linearity import check_linear as check_linear, split_affine as split_affine
from .matrix import MatrixLinearOperator as MatrixLinearOperator
from .pytree import PyTreeLinearOperator as PyTreeLinearOperator
from .tagged import TaggedLinearOperator as TaggedLinearOperator
from .tags import (
    diagonal_tag as diagonal_tag,
    lower_triangular_tag as lower_triangular_tag,
    negative_semidefinite_tag as negative_semidefinite_tag,
    positive_semidefinite_tag as positive_semidefinite_tag,
    symmetric_tag as symmetric_tag,
    transpose_tags as transpose_tags,
    transpose_tags_rules as transpose_tags_rules,
    tridiagonal_tag as tridiagonal_tag,
    unit_diagonal_tag as unit_diagonal_tag,
    upper_triangular_tag as upper_triangular_tag,
)
from .tangent import TangentLinearOperator as TangentLinearOperator
from .tridiagonal import TridiagonalLinearOperator as TridiagonalLinearOperator

# Last, because importing a submodule binds its name here: `diagonal` must be the function.
# isort: split
from .functions import (
    conj as conj,
    diagonal as diagonal,
    has_unit_diagonal as has_unit_diagonal,
    is_diagonal as is_diagonal,
    is_lower_triangular as is_lower_triangular,
    is_negative_semidefinite as is_negative_semidefinite,
    is_positive_semidefinite as is_positive_semidefinite,
    is_symmetric as is_symmetric,
    is_tridiagonal as is_tridiagonal,
    is_upper_triangular as is_upper_triangular,
    linearise as linearise,
    materialise as materialise,
    tridiagonal as tridiagonal,
)
