"""Functions as systems: by their products, or as sparse matrices where that is cheaper.

A function of more than 512 unknowns that is solved by default becomes a sparse matrix if its pattern
is found, has at most 64 entries for each unknown, and can be factorized without fill of another
order. Otherwise, and where an iterative method is asked for, it is known by its products (of which
`AutoLinearSolver` makes a dense matrix, or takes them one by one). Solvers of host libraries take
matrices, so they get the sparse one if there is one. On accelerators the default stays there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._tree import ravel, tree_dtype, tree_sub, unravel
from ._types import (
    Structure,
    check_args,
    common_dtype,
    inexact_asarray,
    structure_equal,
    structure_of,
    structure_size,
    structure_str,
)
from ._varying import varying_axes
from .auto import AutoLinearSolver
from .detection import LinearFunction
from .detection.affine import AffineFunction, fill, matrix_of, trace
from .detection.detect import detect
from .detection.rows import Limits
from .detection.values import count_products
from .errors import PrecisionWarning, StructureError, WrongTypeError
from .operators import AbstractLinearOperator, FunctionLinearOperator, MatrixLinearOperator
from .operators.linearity import split_affine
from .solvers import AbstractHostSolver
from .sparse.band import by_breadth, graph_of
from .sparse.operator import SparseLinearOperator
from .sparse.pattern import SparsityPattern

#: Up to so many unknowns a dense matrix is as cheap: with twice as many, a jitted solve of a 2-D
#: Laplacian takes 20 times longer with it [measured: benchmarks/materialise.py].
DENSE_SIZE = 512

#: A matrix with more entries for each unknown is no longer called sparse.
ENTRIES = 64

#: An ordering by breadth shows how wide the fronts of a factorization get: as the side of a grid in
#: two dimensions, and as its square in three. The work grows with the cube of that. At this width (a
#: 3-D grid of 39³) SuperLU takes tens of seconds, and beyond it an iteration is faster.
FRONT = 1536

#: Unknowns with so many times more entries than others have are taken out of that ordering.
_HUB = 10

#: Equations that are looked at, those in loops each time (about a tenth of a second), and entries that
#: are handled, for each unknown (2 seconds for 512²).
_STEPS, _WORK = 3000, 1024


class FunctionSystem(NamedTuple):
    """What `solve` makes of a function and b.

    If `structure` is not None, operator and right-hand side are flat, and that is what x looks like.
    """

    operator: AbstractLinearOperator
    rhs: PyTree[Array]
    structure: Structure | None
    reason: str  # why the operator is what it is


def function_system(
    f: Callable[..., Any],
    b: PyTree[Any],
    x0: PyTree[Any],
    args: tuple[Any, ...],
    solver: Any,
    preconditioned: bool = False,
) -> FunctionSystem:
    """The linear part of an affine function as an operator, and b less its offset.

    `solver` is the one that will be used, or None if a matrix is of no use to it.
    """
    check_args(args)
    affine, rhs = _traced(f, b, x0, args)
    if isinstance(f, LinearFunction):
        return _flat(*matrix_of(affine), affine, rhs, "it is a `linear_function`")
    asked = _wants_matrix(solver, affine.shape[1]) and not preconditioned
    if asked and _is_here([*affine.closed.consts, *jax.tree.leaves(rhs)]):
        affine = affine.check().numbers_captured()
        pattern, reason = _sparse_pattern(affine, isinstance(solver, AutoLinearSolver))
        if pattern is not None:
            return _flat(*fill(affine, pattern), affine, rhs, reason)
    else:
        reason = ""
    linear, offset = split_affine(affine.closed, affine.structure)
    operator = FunctionLinearOperator(linear, affine.structure)
    return FunctionSystem(operator, rhs if offset is None else tree_sub(rhs, offset), None, reason)


def _is_here(arrays: list[Any]) -> bool:
    """Whether no array is spread over devices: those stay there."""
    known = [x for x in arrays if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)]
    return not varying_axes(arrays) and all(len(x.sharding.device_set) == 1 for x in known)


def _wants_matrix(solver: Any, size: int) -> bool:
    if isinstance(solver, AutoLinearSolver):
        here = jax.default_backend() == "cpu"
        return here and solver.well_posed is not False and size > DENSE_SIZE
    return isinstance(solver, AbstractHostSolver)


def _sparse_pattern(affine: AffineFunction, by_choice: bool) -> tuple[SparsityPattern | None, str]:
    """A pattern that is worth to be used, and why; or None, and why not."""
    rows, columns = affine.shape
    if by_choice and rows != columns:
        return None, "it is not square"
    leaves = jax.tree.leaves((affine.structure, affine.closed.out_structure()))
    if len({leaf.dtype for leaf in leaves}) > 1:
        return None, "its arrays differ in dtype"
    size = max(rows, columns)
    work = max(_WORK * size, 1 << 24)
    limits = Limits(ENTRIES * size, ENTRIES * size, _STEPS, work)
    pattern, why = (found := detect(affine.closed, limits)).pattern, found.reason
    if pattern is None:
        return None, f"no sparse pattern was found: {why}"
    per_row = pattern.nnz / max(1, rows)
    if by_choice and (front := _front(pattern)) > FRONT:
        return None, (
            f"its matrix is sparse ({per_row:.1f} entries in a row), but fronts of about {front} "
            f"unknowns are more than {FRONT}: to factorize it would take longer than to iterate"
        )
    products = count_products(affine.closed, pattern)
    return pattern, f"its {pattern.nnz} entries follow from {products} products with it"


def _front(pattern: SparsityPattern) -> int:
    """The bandwidth in an order by breadth.

    Rows and columns with far more entries than others are left out of it, and added.
    """

    def make() -> int:
        degree = pattern.row_lengths + np.bincount(pattern.indices, minlength=pattern.shape[1])
        few = np.flatnonzero(degree <= _HUB * max(1, degree.mean()))
        graph = graph_of(pattern)[few][:, few]
        _, place = by_breadth(graph)
        graph = graph.tocoo()
        widths = np.abs(place[graph.row] - place[graph.col])
        return int(widths.max(initial=0)) + len(degree) - len(few)

    return pattern.cached("front", make)


def _flat(
    matrix: SparseLinearOperator,
    offset: Array,
    affine: AffineFunction,
    rhs: PyTree[Array],
    reason: str,
) -> FunctionSystem:
    """The system of a matrix; a full one is held as such."""
    shape, operator = matrix.pattern.shape, matrix
    flat = ravel(rhs, affine.closed.out_structure()).astype(matrix.values.dtype) - offset
    if matrix.pattern.nnz == shape[0] * shape[1] > 1:
        operator = MatrixLinearOperator(matrix.values.reshape(shape))
    return FunctionSystem(operator, flat, affine.structure, reason)


def flattened(operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """An operator between vectors: the leaves of what it takes and gives, one after the other."""
    into, out = operator.in_structure(), operator.out_structure()
    fn = lambda vector: ravel(operator.mv(unravel(vector, into)), out)
    flat = jax.ShapeDtypeStruct((structure_size(into),), tree_dtype(into))
    return FunctionLinearOperator(fn, flat, getattr(operator, "tags", ()))


def _traced(
    f: Callable[..., Any], b: PyTree[Any], x0: PyTree[Any], args: tuple[Any, ...]
) -> tuple[AffineFunction, PyTree[Array]]:
    """The function for x like x0 or b, and b in the dtype of what it returns."""
    rhs = jax.tree.map(inexact_asarray, b)
    like = structure_of(rhs if x0 is None else jax.tree.map(inexact_asarray, x0))
    affine = _trace(f, like, args)
    out = affine.closed.out_structure()
    shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
    if jax.tree.structure(out) != jax.tree.structure(rhs) or shapes(out) != shapes(rhs):
        raise StructureError(
            f"A: the function returns {structure_str(out)} for an argument of structure "
            f"{structure_str(like)}, but b has structure {structure_str(structure_of(rhs))}. They "
            "must be the same; pass `x0` to say what x looks like if it does not look like b."
        )
    if structure_equal(out, rhs):
        return affine, rhs
    # e.g. float64 or complex coefficients, and b is float32
    dtype = common_dtype(tree_dtype(out), tree_dtype(rhs))
    precision = lambda d: jnp.finfo(d).dtype
    if precision(tree_dtype(out)) != precision(tree_dtype(rhs)):
        warnings.warn(
            f"A returns {tree_dtype(out)} for b of dtype {tree_dtype(rhs)}: computing in {dtype}. "
            "Cast one of them to silence this.",
            PrecisionWarning,
            stacklevel=6,
        )
    rhs = jax.tree.map(lambda a: a.astype(dtype), rhs)
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, dtype), like)
    return _trace(f, like, args), rhs


def _trace(f: Callable[..., Any], like: Structure, args: tuple[Any, ...]) -> AffineFunction:
    try:
        return f.traced(like, *args) if isinstance(f, LinearFunction) else trace(f, like, *args)
    except jax.errors.TracerArrayConversionError as error:
        raise WrongTypeError(
            "A: must be a function of `jax.numpy`, since it is traced; this one calls NumPy or another "
            "library. Rewrite it, or pass it as `interop.scipy.from_scipy(scipy.sparse.linalg."
            "LinearOperator((m, n), matvec=A, rmatvec=...))`, which calls it on the host."
        ) from error
