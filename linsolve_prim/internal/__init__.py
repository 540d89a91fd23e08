"""Helpers for those who write solvers: norms, and pytrees as long vectors."""

from .._norms import (
    max_norm as max_norm,
)
from .._norms import (
    rms_norm as rms_norm,
)
from .._norms import (
    sum_squares as sum_squares,
)
from .._norms import (
    two_norm as two_norm,
)
from .._tree import tree_dot as tree_dot
from .._types import (
    complex_to_real_dtype as complex_to_real_dtype,
)
from .._types import (
    default_floating_dtype as default_floating_dtype,
)
from ..primitive import linear_solve_p as linear_solve_p
from ..solvers.structures import (
    PackedStructures as PackedStructures,
)
from ..solvers.structures import (
    pack_structures as pack_structures,
)
from ..solvers.structures import (
    ravel_vector as ravel_vector,
)
from ..solvers.structures import (
    transpose_packed_structures as transpose_packed_structures,
)
from ..solvers.structures import (
    unravel_solution as unravel_solution,
)
