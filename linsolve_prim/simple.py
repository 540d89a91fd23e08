"""`solve`, the simple interface: whatever describes a system goes in, the solution comes out."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._dlpack import owned
from ._tree import ravel, tree_dtype, unravel
from ._types import Options, common_dtype, inexact_asarray, is_array, structure_of, structure_str
from .api import linear_solve
from .auto import AutoLinearSolver
from .errors import PrecisionWarning, StructureError, WrongTypeError
from .functions import flattened, function_system
from .operators import AbstractLinearOperator, FunctionLinearOperator, MatrixLinearOperator
from .preconditioners.base import AbstractPreconditioner
from .preconditioners.names import as_preconditioner
from .solvers.base import AbstractLinearSolver
from .solvers.host.generic import by_calling
from .sparse.operator import SparseLinearOperator
from .sparse.triplets import TripletLinearOperator, from_any, is_sparse


def solve(
    A: Any,
    b: PyTree[Any],
    solver: AbstractLinearSolver[Any] | Callable[[Any, Any], Any] | None = None,
    *,
    x0: PyTree[Any] = None,
    preconditioner: Any = None,
    adjoint: Any = None,
    throw: bool = True,
    suppress: Any = (),
    name: str | None = None,
    args: tuple[Any, ...] = (),
) -> PyTree[Array]:
    """The solution x of Ax = b.

    **Arguments**

    - `A`: an array `(..., N, N)` of NumPy or JAX (or anything with `__dlpack__`); a `BCOO` or `BCSR`
      or `scipy.sparse` matrix; an `AbstractLinearOperator`; or a Python function of x (and `args`)
      that is linear or affine in x: for f(x) = Ax + c, `Ax = b − c` is solved.
    - `b`: for arrays `(..., N)` if `b.ndim == A.ndim - 1` or `b.ndim == 1` (vectors), else
      `(..., N, K)` (K right-hand sides); leading dimensions broadcast as in `jnp.linalg.solve`. For
      sparse A `(N,)` or `(N, K)`. For operators and functions a pytree of their output structure.
    - `solver`: default `AutoLinearSolver(well_posed=True)`. Any function of a `scipy.sparse` matrix and
      a NumPy vector will do as well; it is called on the host, and with Aᵀ for gradients.
    - `x0`: an initial guess with the shape of the solution (Krylov methods use it). For functions it
      also says what x looks like, if that is not what `b` looks like.
    - `preconditioner`: approximates A⁻¹: an operator, a matrix or a linear function; or one of
      `preconditioners`, which makes that, by an object or by name ("auto", "ilu", "amg", …). Where no
      solver is given it makes the default iterative: `CG` for definite operators, else `GMRES`.
    - `adjoint`, `throw`, `suppress`, `name`: as for `linear_solve`, which also returns statistics.
    - `args`: further arguments of the function `A(x, *args)`.

    Integers are promoted to the default float; a difference in precision is promoted with a
    `PrecisionWarning`.

    **Raises** `StructureError`, `NonlinearFunctionError`, `ValueError` or `TypeError` for input that
    does not fit, at trace time; a `LinearSolveError` for failure, as `linear_solve` does.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A, b = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([4.0, 7.0])
        >>> print(lp.solve(A, b).round(3), jax.grad(lambda b: lp.solve(A, b)[0])(5 * b).round(1))
        [1. 2.] [ 0.6 -0.2]
        >>> print(lp.solve(lambda x: 4 * x - 2, jnp.array([2.0, 6.0])))  # affine: 4x = b + 2
        [1. 2.]
    """
    solver = as_solver(solver)
    settings: dict[str, Any] = {"adjoint": adjoint, "throw": throw, "suppress": suppress}

    def one(operator: AbstractLinearOperator, rhs: PyTree[Array], options: Options) -> Any:
        return linear_solve(operator, rhs, solver, options=options, name=name, **settings).value

    return dispatch(A, b, x0, preconditioner, args, one, solver)


#: The solution of one system, given operator, right-hand side and options.
One: TypeAlias = Callable[[AbstractLinearOperator, PyTree[Array], Options], PyTree[Array]]


def dispatch(
    A: Any,
    b: Any,
    x0: Any,
    preconditioner: Any,
    args: tuple[Any, ...],
    one: One,
    solver: Any = None,
) -> PyTree[Array]:
    """Make operators and right-hand sides of what describes systems, and solve each by `one`.

    `solver` says whether a function had better be a matrix; with None it is known by its products.
    """
    A, x0 = owned(A, "A"), jax.tree.map(lambda x: owned(x, "x0"), x0)
    b = b if is_array(b) else jax.tree.map(lambda x: owned(x, "b"), b)
    if isinstance(A, (SparseLinearOperator, TripletLinearOperator)):
        _no_args(args)
        return _solve_sparse(A, b, x0, preconditioner, one)
    if isinstance(A, AbstractLinearOperator):
        _no_args(args)
        operator, rhs = A, _cast_tree(b, A.out_structure(), "b")
    elif is_sparse(A):
        _no_args(args)
        return _solve_sparse(from_any(A), b, x0, preconditioner, one)
    elif is_matrix(A):
        _no_args(args)
        return _solve_matrix(A, b, x0, preconditioner, one)
    elif callable(A):
        return _solve_function(A, b, x0, preconditioner, args, one, solver)
    else:
        raise TypeError(
            "A: must be an array, a sparse matrix, an AbstractLinearOperator or a function; got "
            f"{type(A).__name__}."
        )
    return _solve_one(operator, rhs, x0, preconditioner, one)


def as_solver(solver: Any) -> AbstractLinearSolver[Any]:
    """The default for None, and a function `f(A, b)` as a host solver."""
    if solver is None:
        return AutoLinearSolver(well_posed=True)
    if isinstance(solver, (AbstractLinearSolver, type)) or not callable(solver):
        return solver  # `linear_solve` refuses what is none
    return by_calling(solver)


def _solve_one(
    operator: AbstractLinearOperator, rhs: PyTree[Any], x0: Any, preconditioner: Any, one: One
) -> PyTree[Array]:
    options = {}
    if x0 is not None:
        structure = operator.in_structure()
        options["y0"] = _cast_tree(x0, structure, "x0")
    if preconditioner is not None:
        takes, gives = operator.out_structure(), operator.in_structure()
        made = as_preconditioner(preconditioner, takes, gives)
        options["preconditioner"] = as_operator(made, takes, "preconditioner")
    return one(operator, rhs, options)


def _no_args(args: tuple[Any, ...]) -> None:
    if args:
        raise ValueError("args: are only taken when `A` is a function; drop them.")


def as_operator(
    A: Any, structure: Any, argument: str = "A"
) -> AbstractLinearOperator | AbstractPreconditioner:
    """A matrix, function (of the given input structure) or operator as an operator.

    What makes a preconditioner from the operator stays what it is.
    """
    if isinstance(A, (AbstractLinearOperator, AbstractPreconditioner)):
        return A
    if is_sparse(A):
        return from_any(A)
    if is_matrix(A):
        return MatrixLinearOperator(as_array(A, argument))
    if callable(A) and structure is not None:
        return FunctionLinearOperator(A, structure)
    if callable(A):
        raise WrongTypeError(
            f"{argument}: must be an operator or a matrix, since nothing else says what a function "
            "takes; got a function. Pass `FunctionLinearOperator(function, structure)`."
        )
    raise WrongTypeError(
        f"{argument}: must be an AbstractLinearOperator, a matrix or a linear function; got "
        f"{type(A).__name__}."
    )


# ---- matrices ------------------------------------------------------------------------------------


def is_matrix(A: Any) -> bool:
    """Whether `A` is an array, or can be made one."""
    return is_array(A) or hasattr(A, "todense") or hasattr(A, "__dlpack__") or isinstance(A, list)


def as_array(x: Any, argument: str) -> Array:
    """Any kind of dense matrix or vector as an inexact JAX array."""
    if hasattr(x, "todense"):  # sparse
        x = x.todense()
    elif isinstance(x, list):
        x = np.asarray(x)
    x = owned(x, argument)
    if isinstance(x, np.ndarray) and x.dtype == object:
        raise TypeError(f"{argument}: must hold numbers; got an array of dtype object.")
    return inexact_asarray(x)


def promote(a: Array, b: Array) -> tuple[Array, Array]:
    """Both in their common dtype; a `PrecisionWarning` if that raises the precision of one."""
    dtype = common_dtype(a.dtype, b.dtype)
    if jnp.finfo(a.dtype).dtype != jnp.finfo(b.dtype).dtype:
        _warn_of_precision(a.dtype, b.dtype, dtype)
    return a.astype(dtype), b.astype(dtype)


def _solve_matrix(A: Any, b: Any, x0: Any, preconditioner: Any, solve_one: One) -> Array:
    matrix, rhs = as_array(A, "A"), _vector_array(b)
    if _is_integer(A) and not _is_integer(b):  # integers have no precision of their own
        matrix = matrix.astype(rhs.dtype)
    elif _is_integer(b) and not _is_integer(A):
        rhs = rhs.astype(matrix.dtype)
    matrix, rhs = promote(matrix, rhs)
    vectors, batch = _check_shapes(matrix, rhs)
    guess = None
    if x0 is not None:
        guess = jnp.asarray(x0, rhs.dtype)
        want = (*batch, matrix.shape[-1], *(() if vectors else rhs.shape[-1:]))
        if guess.shape != want:
            raise StructureError(
                f"x0: must have the shape of the solution, {want}; got {guess.shape}."
            )

    def one(matrix: Array, rhs: Array, guess: Array | None) -> Array:
        return _solve_one(MatrixLinearOperator(matrix), rhs, guess, preconditioner, solve_one)

    if not vectors:
        guess_axis = None if guess is None else 1
        one = jax.vmap(one, in_axes=(None, 1, guess_axis), out_axes=1)
    pad = lambda x, own: x.reshape((1,) * (len(batch) + own - x.ndim) + x.shape)
    return _over_batch(one, batch, pad(matrix, 2), pad(rhs, 1 if vectors else 2), guess)


def _check_shapes(matrix: Array, rhs: Array) -> tuple[bool, tuple[int, ...]]:
    """Whether b holds vectors (else matrices), and the common leading dimensions."""
    if matrix.ndim < 2:
        raise StructureError(
            f"A: must have at least two dimensions, (..., N, N); got shape {matrix.shape}."
        )
    if rhs.ndim < 1:
        raise StructureError("b: must have at least one dimension, (..., N); got a scalar.")
    vectors = rhs.ndim == 1 or rhs.ndim == matrix.ndim - 1
    if vectors and rhs.ndim > 1 and rhs.shape[-1] != matrix.shape[-2] == rhs.shape[-2]:
        vectors = False  # can only be meant as matrices that are shared along a dimension
    tail = 1 if vectors else 2
    if rhs.shape[-tail] != matrix.shape[-2]:
        form = "(..., N)" if vectors else "(..., N, K)"
        raise StructureError(
            f"b: must have shape {form} with N = {matrix.shape[-2]}, the number of rows of A "
            f"{matrix.shape}; got {rhs.shape}. (b is taken as vectors if b.ndim is 1 or A.ndim - 1, "
            "else as matrices of right-hand sides.)"
        )
    batches = matrix.shape[:-2], rhs.shape[:-tail]
    try:
        return vectors, np.broadcast_shapes(*batches)
    except ValueError:
        raise StructureError(
            f"A and b: their leading dimensions must broadcast; got {batches[0]} of A "
            f"{matrix.shape} and {batches[1]} of b {rhs.shape}."
        ) from None


def _over_batch(
    fn: Callable[..., Array], batch: tuple[int, ...], matrix: Array, rhs: Array, guess: Any
) -> Array:
    """Map `fn` over the leading dimensions; one that an operand lacks is shared, never copied."""
    if not batch:
        return fn(matrix, rhs, guess)
    size = batch[0]
    operands = [x if x is None or x.shape[0] == size else x[0] for x in (matrix, rhs, guess)]
    axes = [0 if y is x and y is not None else None for x, y in zip((matrix, rhs, guess), operands)]
    inner = functools.partial(_over_batch, fn, batch[1:])
    return jax.vmap(inner, in_axes=tuple(axes))(*operands)


def _vector_array(b: Any) -> Array:
    if not (is_matrix(b) or isinstance(b, (tuple, int, float, complex))) or isinstance(b, dict):
        raise TypeError(
            f"b: must be an array when A is a matrix; got {type(b).__name__}. For pytrees pass an "
            "operator or a function as A."
        )
    return as_array(list(b) if isinstance(b, tuple) else b, "b")


def _is_integer(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return not jnp.issubdtype(np.asarray(x).dtype, np.inexact)
    return not jnp.issubdtype(jnp.dtype(dtype), jnp.inexact)


# ---- sparse matrices -----------------------------------------------------------------------------


def _solve_sparse(
    operator: AbstractLinearOperator, b: Any, x0: Any, preconditioner: Any, solve_one: One
) -> Array:
    """For b of shape `(n,)` or `(n, k)`."""
    rhs, (rows, columns) = _vector_array(b), (operator.out_size(), operator.in_size())
    if rhs.ndim not in (1, 2) or rhs.shape[0] != rows:
        raise StructureError(
            f"b: must have shape ({rows},) or ({rows}, k) for a sparse A of shape "
            f"({rows}, {columns}); got {rhs.shape}."
        )
    dtype = tree_dtype(operator.out_structure())
    if _is_integer(b):
        rhs = rhs.astype(dtype)
    if common_dtype(rhs.dtype, dtype) != dtype:  # b is complex, or more precise
        common = common_dtype(rhs.dtype, dtype)
        if jnp.finfo(rhs.dtype).dtype != jnp.finfo(dtype).dtype:
            _warn_of_precision(dtype, rhs.dtype, common)
        operator = jax.tree.map(lambda x: _promoted(x, common), operator)
        dtype = common
    elif jnp.finfo(rhs.dtype).dtype != jnp.finfo(dtype).dtype:
        _warn_of_precision(dtype, rhs.dtype, dtype)
    rhs = rhs.astype(dtype)
    guess = None if x0 is None else jnp.asarray(x0, dtype)
    if guess is not None and guess.shape != (columns, *rhs.shape[1:]):
        raise StructureError(
            f"x0: must have the shape of the solution, {(columns, *rhs.shape[1:])}; got "
            f"{guess.shape}."
        )
    one = lambda rhs, guess: _solve_one(operator, rhs, guess, preconditioner, solve_one)
    if rhs.ndim == 1:
        return one(rhs, guess)
    return jax.vmap(one, in_axes=(1, None if guess is None else 1), out_axes=1)(rhs, guess)


def _promoted(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def _warn_of_precision(a: Any, b: Any, common: Any) -> None:
    warnings.warn(
        f"A has dtype {a} and b has dtype {b}: both are promoted to {common}. Cast one of them to "
        "silence this.",
        PrecisionWarning,
        stacklevel=6,
    )


# ---- operators and functions ---------------------------------------------------------------------


def _cast_tree(x: PyTree[Any], structure: PyTree, argument: str) -> PyTree[Array]:
    """A pytree in the dtypes of a structure of the same shapes."""
    own = jax.tree.map(jnp.shape, x)
    want = jax.tree.map(lambda s: s.shape, structure)
    if own != want or jax.tree.structure(x) != jax.tree.structure(structure):
        raise StructureError(
            f"{argument}: must have structure {structure_str(structure)}; got "
            f"{structure_str(structure_of(x))}."
        )
    return jax.tree.map(lambda a, s: _cast(a, s.dtype, argument), x, structure)


def _cast(x: Any, dtype: Any, argument: str) -> Array:
    if _is_integer(x):
        return jnp.asarray(x, dtype)
    x = inexact_asarray(x)
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise StructureError(
            f"{argument}: is complex ({x.dtype}), but the operator is real ({dtype}). Make the "
            "operator complex."
        )
    if jnp.finfo(x.dtype).dtype != jnp.finfo(dtype).dtype and argument != "x0":
        warnings.warn(
            f"{argument} has dtype {x.dtype} and the operator {dtype}: {argument} is cast to the "
            "operator's precision. Cast one of them to silence this.",
            PrecisionWarning,
            stacklevel=6,
        )
    return x.astype(dtype)


def _solve_function(
    f: Callable[..., Any],
    b: Any,
    x0: Any,
    preconditioner: Any,
    args: tuple[Any, ...],
    one: One,
    solver: Any,
) -> PyTree[Array]:
    system = function_system(f, b, x0, args, solver, preconditioner is not None)
    if system.structure is None:
        return _solve_one(system.operator, system.rhs, x0, preconditioner, one)
    if x0 is not None:
        x0 = ravel(_cast_tree(x0, system.structure, "x0"), system.structure)
    if callable(preconditioner) or isinstance(preconditioner, AbstractLinearOperator):
        out = structure_of(jax.tree.map(inexact_asarray, b))
        made = as_operator(as_preconditioner(preconditioner, out, out), out, "preconditioner")
        preconditioner = flattened(made) if isinstance(made, AbstractLinearOperator) else made
    value = _solve_one(system.operator, system.rhs, x0, preconditioner, one)
    return unravel(value, system.structure)
