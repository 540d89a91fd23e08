"""Helpers for those who write solvers: norms, and pytrees as long vectors."""

from .._norms import (
    max_norm as max_norm,
    rms_norm as rms_norm,
    sum_squares as sum_squares,
    two_norm as two_norm,
)
from .._tree import tree_dot as tree_dot
from .._types import (
    complex_to_real_dtype as complex_to_real_dtype,
    default_floating_dtype as default_floating_dtype,
)
from ..primitive import linear_solve_p as linear_solve_p
from ..solvers.structures import (
    PackedStructures as PackedStructures,
    pack_structures as pack_structures,
    ravel_vector as ravel_vector,
    transpose_packed_structures as transpose_packed_structures,
    unravel_solution as unravel_solution,
)
