"""PyTorch: tensors and arrays without copies, and our solves in `torch.autograd`.

The functions `sparse_generic_solve`, `sparse_triangular_solve` and `sparse_generic_lstsq` have the
signatures of those of torchsparsegradutils, and can take their place:

    from linsolve_prim.interop.torch import sparse_generic_solve

Gradients by a sparse tensor are sparse, on its pattern and in its layout, of any order. The transposed
system of a gradient is solved as such by default, whatever `solve` is.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from .._static import hashable, unhashable
from ..errors import PrecisionWarning, StructureError, WrongTypeError
from ..least_squares import lstsq as _lstsq
from ..simple import solve as _solve
from ..solvers import Triangular
from ..solvers.base import AbstractLinearSolver
from .torch_autograd import apply, as_torch as as_torch
from .torch_bridge import to_jax as to_jax, to_torch as to_torch, torch
from .torch_by_functions import (
    Functions,
    LstsqFunctions,
    lstsq_by_functions,
    solve_by_functions,
    transposed,
)
from .torch_sparse import Layout, Placed, sparse_to_jax as sparse_to_jax, values_of

Solver = AbstractLinearSolver[Any]


def solve(A: torch.Tensor, B: torch.Tensor, solver: Any = None, *, adjoint: Any = None) -> Any:
    """`linsolve_prim.solve` of tensors: dense A `(..., N, N)` or sparse (COO, CSR), with gradients.

    - `B`, `solver`, `adjoint`: as for `linsolve_prim.solve`.

    **Raises** as that does, and `TypeError` for what is no tensor.

        >>> import linsolve_prim as lp
        >>> import torch
        >>> A = torch.tensor([[2.0, 0.0], [0.0, 4.0]], requires_grad=True)
        >>> x = lp.interop.torch.solve(A, torch.tensor([4.0, 4.0]))
        >>> x.sum().backward()
        >>> x.tolist(), A.grad.tolist()
        ([2.0, 1.0], [[-1.0, -0.5], [-0.5, -0.25]])
    """
    _tensors(A, B)
    fn = _Solve(None, hashable(solver), hashable(adjoint))
    if A.layout == torch.strided:
        return apply(fn, A, B)
    layout = Layout(A)
    fn = dataclasses.replace(fn, matrix=Placed(*layout.slots()))
    return apply(fn, values_of(A, layout), B)


@dataclasses.dataclass(frozen=True)
class _Solve:
    """A solve as a function of arrays: with equal settings it is one program."""

    matrix: Placed | None
    solver: Any
    adjoint: Any
    function: Callable[..., Any] = _solve

    def __call__(self, values: Array, b: Array) -> Array:
        operator = values if self.matrix is None else self.matrix(values)
        solver, adjoint = unhashable(self.solver), unhashable(self.adjoint)
        return self.function(operator, b, solver, adjoint=adjoint)


# ---- In the place of torchsparsegradutils --------------------------------------------------------


def sparse_generic_solve(
    A: torch.Tensor,
    B: torch.Tensor,
    solve: Solver | Callable[..., torch.Tensor] | None = None,
    transpose_solve: Solver | Callable[..., torch.Tensor] | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """The solution X of AX = B for a sparse A.

    **Arguments**

    - `A`: `(n, n)`, COO (coalesced or not) or CSR, real or complex.
    - `B`: `(n,)` or `(n, k)`, dense.
    - `solve`: one of our solvers, or a function `solve(A, B, **kwargs)` of tensors. By default
      `linsolve_prim.solve`'s choice, which is right for every nonsingular A (theirs is MINRES, for
      symmetric ones).
    - `transpose_solve`: one of our solvers; or a function that solves AᵀY = G, given A and G. By default
      `solve`, with Aᵀ (theirs is called with A).
    - `kwargs`: for functions.

    Functions need not be differentiable. Between our own solvers, value and gradient share one
    factorization.

    **Raises** `ValueError` if A and B are no tensors or their shapes do not fit, `TypeError` for layouts
    that are not taken and for `kwargs` without a function; our exceptions if our solver fails. Warns of
    different dtypes (`PrecisionWarning`, a `UserWarning`) and promotes.

        >>> import linsolve_prim as lp
        >>> import torch
        >>> A = torch.tensor([[2.0, 0.0], [0.0, 4.0]]).to_sparse_coo()
        >>> lp.interop.torch.sparse_generic_solve(A, torch.tensor([4.0, 4.0])).tolist()
        [2.0, 1.0]
    """
    _check_system(A, B)
    if A.shape[0] != A.shape[1]:
        raise StructureError(
            f"A: must be square; got shape {tuple(A.shape)}. For least squares there is "
            "`sparse_generic_lstsq`."
        )
    layout = Layout(A)
    values, B = _promoted(values_of(A, layout), B)
    if _ours(solve) and _ours(transpose_solve):
        _no_settings(kwargs)
        matrix = Placed(*layout.slots())
        return apply(_Solve(matrix, hashable(solve), hashable(transpose_solve)), values, B)
    forward = _as_function(solve)
    backward = None if transpose_solve is None else _transposing(transpose_solve)
    if backward is None and solve is None:
        backward = _transposing(None)
    return solve_by_functions(Functions(layout, forward, backward, kwargs), values, B)


def sparse_triangular_solve(
    A: torch.Tensor,
    B: torch.Tensor,
    upper: bool = True,
    unitriangular: bool = False,
    transpose: bool = False,
) -> torch.Tensor:
    """The solution X of AX = B, or of AᵀX = B, for a sparse triangular A, by substitution in JAX.

    **Arguments**

    - `A`: `(m, m)` or a batch `(b, m, m)`, COO or CSR; all matrices of a batch are solved with at once.
    - `B`: `(m, k)` or `(b, m, k)`, dense.
    - `upper`: whether A is upper triangular (else lower); entries in the other triangle are refused.
    - `unitriangular`: A has ones on its diagonal, which are not stored.
    - `transpose`: solve with Aᵀ.

    **Raises** `ValueError` for what does not fit, also for a diagonal that is stored against
    `unitriangular` (theirs: in the backward pass only); `SingularMatrixError` for a zero on the diagonal.

        >>> import linsolve_prim as lp
        >>> import torch
        >>> A = torch.tensor([[2.0, 0.0], [1.0, 4.0]]).to_sparse_coo()
        >>> lp.interop.torch.sparse_triangular_solve(A, torch.tensor([[4.0], [6.0]]), upper=False).tolist()
        [[2.0], [1.0]]
    """
    _tensors(A, B, StructureError)
    if A.layout not in (torch.sparse_coo, torch.sparse_csr) or B.layout != torch.strided:
        raise WrongTypeError(
            f"A, B: must be sparse (COO or CSR) and dense; got layouts {A.layout} and {B.layout}."
        )
    fits = A.dim() == B.dim() and A.dim() in (2, 3) and A.shape[:-2] == B.shape[:-2]
    if not fits or A.shape[-2] != A.shape[-1] or A.shape[-1] != B.shape[-2]:
        raise StructureError(
            "A, B: must have shapes (m, m) and (m, k), or (b, m, m) and (b, m, k); got "
            f"{tuple(A.shape)} and {tuple(B.shape)}."
        )
    layout = Layout(A)
    values, rhs = _promoted(values_of(A, layout), B)
    fn = _Substitute(Placed(*layout.slots()), not upper, unitriangular, transpose)
    return apply(fn, values, rhs.reshape(-1, B.shape[-1])).reshape(B.shape)


@dataclasses.dataclass(frozen=True)
class _Substitute:
    matrix: Placed
    lower: bool
    unit: bool
    transpose: bool

    def __call__(self, values: Array, b: Array) -> Array:
        operator, lower = self.matrix(values), self.lower
        if self.transpose:
            operator, lower = operator.T, not lower
        return _solve(operator, b, Triangular(lower=lower, unit_diagonal=self.unit))


def sparse_generic_lstsq(
    A: torch.Tensor,
    B: torch.Tensor,
    lstsq: Solver | Callable[..., torch.Tensor] | None = None,
    transpose_lstsq: Solver | Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """The X that minimises ‖AX − B‖₂ for a sparse A (of several the one of minimum norm).

    **Arguments**

    - `A`: `(m, n)`, COO (coalesced or not) or CSR. With functions it must be tall and of full rank for
      gradients; with our solvers any shape and rank is differentiated, to any order.
    - `B`: `(m,)` or `(m, k)`, dense.
    - `lstsq`: one of our solvers for least squares, or a function `lstsq(A, B)` of tensors. By default
      `linsolve_prim.lstsq`'s choice.
    - `transpose_lstsq`: one of our solvers; or a function, of A and G, that gives (Aᴴ)†G.

    **Raises** as `sparse_generic_solve` does, and `ValueError` if a gradient by functions meets a wide A.

        >>> import linsolve_prim as lp
        >>> import torch
        >>> A = torch.tensor([[1.0], [1.0]]).to_sparse_coo()
        >>> x = lp.interop.torch.sparse_generic_lstsq(A, torch.tensor([1.0, 3.0]))
        >>> [round(number, 3) for number in x.tolist()]
        [2.0]
    """
    _check_system(A, B)
    layout = Layout(A)
    values, B = _promoted(values_of(A, layout), B)
    if _ours(lstsq) and _ours(transpose_lstsq):
        fn = _Solve(
            Placed(*layout.slots()), hashable(lstsq), hashable(transpose_lstsq), function=_lstsq
        )
        return apply(fn, values, B)
    forward = lstsq if callable(lstsq) and not _ours(lstsq) else _of_tensors(_lstsq, lstsq)
    backward = transpose_lstsq
    if backward is None or isinstance(backward, AbstractLinearSolver):
        own = _of_tensors(_lstsq, backward)
        backward = lambda A, G: own(transposed(A), G.conj()).conj()  # (Aᴴ)† = conj((Aᵀ)†)
    return lstsq_by_functions(LstsqFunctions(layout, forward, backward), values, B)


# ---- Arguments -----------------------------------------------------------------------------------


def _ours(solver: Any) -> bool:
    return solver is None or isinstance(solver, AbstractLinearSolver)


def _of_tensors(function: Callable[..., Any], solver: Any) -> Callable[..., torch.Tensor]:
    """Our `solve` or `lstsq` as a function of a sparse and a dense tensor, for one value."""

    def run(A: torch.Tensor, B: torch.Tensor, **_: Any) -> torch.Tensor:
        with torch.no_grad():
            layout = Layout(A)
            fn = _Solve(Placed(*layout.slots()), hashable(solver), None, function=function)
            return apply(fn, values_of(A, layout), B)

    return run


def _as_function(solver: Any) -> Callable[..., torch.Tensor]:
    return _of_tensors(_solve, solver) if _ours(solver) else solver


def _transposing(solver: Any) -> Callable[..., torch.Tensor]:
    """A function that solves with Aᵀ, given A: users' functions do so themselves."""
    if not _ours(solver):
        return solver
    own = _of_tensors(_solve, solver)
    return lambda A, B, **_: own(transposed(A), B)


def _tensors(A: Any, B: Any, error: type[Exception] = WrongTypeError) -> None:
    for name, x in (("A", A), ("B", B)):
        if not isinstance(x, torch.Tensor):
            raise error(f"{name}: must be a `torch.Tensor`; got {type(x).__name__}.")


def _check_system(A: Any, B: Any) -> None:
    _tensors(A, B, StructureError)
    if A.layout not in (torch.sparse_coo, torch.sparse_csr):
        raise WrongTypeError(
            f"A: must be of layout COO or CSR; got the unsupported sparse layout {A.layout}. Convert "
            "it by `to_sparse_csr()`."
        )
    if B.layout != torch.strided:
        raise WrongTypeError(f"B: must be a dense (strided) tensor; got layout {B.layout}.")
    if A.dim() != 2:
        raise StructureError(f"A: must be a 2D tensor; got shape {tuple(A.shape)}.")
    if B.dim() not in (1, 2) or B.shape[0] != A.shape[0]:
        raise StructureError(
            f"B: must have shape ({A.shape[0]},) or ({A.shape[0]}, k) for A of shape "
            f"{tuple(A.shape)}; got {tuple(B.shape)}."
        )


def _promoted(values: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in their common dtype."""
    if values.device != B.device:
        raise StructureError(
            f"A, B: must be on one device; got {values.device} and {B.device}. Move one of them."
        )
    dtype = torch.promote_types(values.dtype, B.dtype)
    if values.dtype != B.dtype:
        warnings.warn(
            f"A and B have different dtypes, {values.dtype} and {B.dtype}: both are promoted to "
            f"{dtype}. Cast one of them to silence this.",
            PrecisionWarning,
            stacklevel=3,
        )
    return values.to(dtype), B.to(dtype)


def _no_settings(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise WrongTypeError(
            f"{', '.join(kwargs)}: keyword arguments are passed to `solve` and `transpose_solve` where "
            "these are functions; settings of our solvers are given when they are made, as "
            "`solve=lp.CG(rtol=1e-8)`."
        )


__all__ = [
    "as_torch",
    "solve",
    "sparse_generic_lstsq",
    "sparse_generic_solve",
    "sparse_to_jax",
    "sparse_triangular_solve",
    "to_jax",
    "to_torch",
]
