"""Between pytree-valued right-hand sides and the long vectors that matrix solvers work on."""

from __future__ import annotations

from typing import NewType

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import Static
from .._tree import ravel, unravel
from .._types import Structure, structure_equal, structure_of, structure_size, structure_str
from ..errors import StructureError
from ..operators import AbstractLinearOperator

PackedStructures = NewType("PackedStructures", Static)
"""The structures of an operator's output and input: a static part of a solver's state."""


def pack_structures(operator: AbstractLinearOperator) -> PackedStructures:
    """The output and input structures of an operator, as a static part of a state.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.DiagonalLinearOperator({"p": jnp.ones(2), "q": jnp.ones(())})
        >>> packed = lp.internal.pack_structures(A)
        >>> lp.internal.ravel_vector({"p": jnp.ones(2), "q": jnp.zeros(())}, packed).tolist()
        [1.0, 1.0, 0.0]
    """
    structures = structure_of((operator.out_structure(), operator.in_structure()))
    leaves, treedef = jax.tree.flatten(structures)
    return PackedStructures(Static((tuple(leaves), treedef)))


def unpack_structures(packed_structures: PackedStructures) -> tuple[Structure, Structure]:
    """`(out_structure, in_structure)`."""
    leaves, treedef = packed_structures.value
    return jax.tree.unflatten(treedef, leaves)


def transpose_packed_structures(packed_structures: PackedStructures) -> PackedStructures:
    """The structures of the transposed operator.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.IdentityLinearOperator(jnp.zeros(2), jnp.zeros(3))
        >>> turned = lp.internal.transpose_packed_structures(lp.internal.pack_structures(A))
        >>> turned == lp.internal.pack_structures(A.T)
        True
    """
    out_structure, in_structure = unpack_structures(packed_structures)
    leaves, treedef = jax.tree.flatten((in_structure, out_structure))
    return PackedStructures(Static((tuple(leaves), treedef)))


def ravel_vector(pytree: PyTree[Array], packed_structures: PackedStructures) -> Array:
    """A right-hand side of the output structure as one vector of shape `(out_size,)`.

    **Raises** `StructureError` for another structure.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.IdentityLinearOperator((jnp.ones(2), jnp.ones(())))
        >>> lp.internal.ravel_vector((jnp.ones(2), jnp.zeros(())), lp.internal.pack_structures(A)).tolist()
        [1.0, 1.0, 0.0]
    """
    out_structure, _ = unpack_structures(packed_structures)
    if not structure_equal(pytree, out_structure):
        raise StructureError(
            f"vector: has structure {structure_str(pytree)}, but the operator's output structure is "
            f"{structure_str(out_structure)}."
        )
    return ravel(pytree)


def unravel_solution(solution: Array, packed_structures: PackedStructures) -> PyTree[Array]:
    """A vector of shape `(in_size,)` as a pytree of the input structure.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.IdentityLinearOperator((jnp.ones(2), jnp.ones(())))
        >>> x = lp.internal.unravel_solution(jnp.arange(3.0), lp.internal.pack_structures(A))
        >>> [leaf.tolist() for leaf in x]
        [[0.0, 1.0], 2.0]
    """
    _, in_structure = unpack_structures(packed_structures)
    return unravel(solution, in_structure)


def factorizable(x: Array) -> Array:
    """An array as LAPACK can take it: of half precision (float16, bfloat16) in single precision.

    The solution goes back to half precision when it is unraveled.
    """
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits == 16 else x


def require_square_structures(packed_structures: PackedStructures, what: str) -> None:
    """Refuse the state of an operator whose matrix is not square."""
    rows, columns = map(structure_size, unpack_structures(packed_structures))
    if rows != columns:
        raise StructureError(
            f"operator: `{what}` is of square operators only; got a {rows}×{columns} operator."
        )


def require_square(operator: AbstractLinearOperator, solver: str) -> None:
    """Refuse an operator whose matrix is not square."""
    rows, columns = operator.out_size(), operator.in_size()
    if rows != columns:
        raise StructureError(
            f"operator: `{solver}` solves square systems only; got a {rows}×{columns} operator. For "
            "the least-squares or minimum-norm solution use "
            "`solver=AutoLinearSolver(well_posed=None)`, `QR()`, `SVD()` or `LSMR()`."
        )
