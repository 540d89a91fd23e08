"""Linear operators: what A is."""

from . import algebra_rules as _algebra_rules  # noqa: F401  (registers the rules)
from .algebra import (
    AddLinearOperator as AddLinearOperator,
)
from .algebra import (
    ComposedLinearOperator as ComposedLinearOperator,
)
from .algebra import (
    DivLinearOperator as DivLinearOperator,
)
from .algebra import (
    MulLinearOperator as MulLinearOperator,
)
from .algebra import (
    NegLinearOperator as NegLinearOperator,
)
from .base import AbstractLinearOperator as AbstractLinearOperator
from .closure import ClosedFunction as ClosedFunction
from .closure import close as close
from .conjugate import ConjLinearOperator as ConjLinearOperator
from .diagonal import DiagonalLinearOperator as DiagonalLinearOperator
from .function import FunctionLinearOperator as FunctionLinearOperator
from .identity import IdentityLinearOperator as IdentityLinearOperator
from .jacobian import JacobianLinearOperator as JacobianLinearOperator
from .linearity import check_linear as check_linear
from .linearity import split_affine as split_affine
from .matrix import MatrixLinearOperator as MatrixLinearOperator
from .pytree import PyTreeLinearOperator as PyTreeLinearOperator
from .tagged import TaggedLinearOperator as TaggedLinearOperator
from .tags import (
    diagonal_tag as diagonal_tag,
)
from .tags import (
    lower_triangular_tag as lower_triangular_tag,
)
from .tags import (
    negative_semidefinite_tag as negative_semidefinite_tag,
)
from .tags import (
    positive_semidefinite_tag as positive_semidefinite_tag,
)
from .tags import (
    symmetric_tag as symmetric_tag,
)
from .tags import (
    transpose_tags as transpose_tags,
)
from .tags import (
    transpose_tags_rules as transpose_tags_rules,
)
from .tags import (
    tridiagonal_tag as tridiagonal_tag,
)
from .tags import (
    unit_diagonal_tag as unit_diagonal_tag,
)
from .tags import (
    upper_triangular_tag as upper_triangular_tag,
)
from .tangent import TangentLinearOperator as TangentLinearOperator
from .tridiagonal import TridiagonalLinearOperator as TridiagonalLinearOperator

# Last, because importing a submodule binds its name here: `diagonal` must be the function.
# isort: split
from .functions import (
    conj as conj,
)
from .functions import (
    diagonal as diagonal,
)
from .functions import (
    has_unit_diagonal as has_unit_diagonal,
)
from .functions import (
    is_diagonal as is_diagonal,
)
from .functions import (
    is_lower_triangular as is_lower_triangular,
)
from .functions import (
    is_negative_semidefinite as is_negative_semidefinite,
)
from .functions import (
    is_positive_semidefinite as is_positive_semidefinite,
)
from .functions import (
    is_symmetric as is_symmetric,
)
from .functions import (
    is_tridiagonal as is_tridiagonal,
)
from .functions import (
    is_upper_triangular as is_upper_triangular,
)
from .functions import (
    linearise as linearise,
)
from .functions import (
    materialise as materialise,
)
from .functions import (
    tridiagonal as tridiagonal,
)
