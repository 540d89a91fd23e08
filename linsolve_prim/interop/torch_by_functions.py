"""Solves by users' functions of tensors, which are not differentiated: gradients by more solves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..errors import StructureError
from .torch_bridge import torch
from .torch_sparse import Layout


def transposed(A: torch.Tensor) -> torch.Tensor:
    """Aᵀ in the layout of A."""
    if A.layout == torch.sparse_csr:
        return A.transpose(0, 1).to_sparse_csr()  # what `transpose` gives is CSC
    return A.transpose(0, 1).coalesce()


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
    """The functions that solve AX = B, and AᵀX = B given A (if None, the first is given Aᵀ)."""

    layout: Layout
    solve: Callable[..., torch.Tensor]
    transpose_solve: Callable[..., torch.Tensor] | None
    kwargs: dict[str, Any]

    def __call__(self, values: torch.Tensor, B: torch.Tensor, flipped: bool) -> torch.Tensor:
        A = self.layout.tensor(values)
        if not flipped:
            X = self.solve(A, B, **self.kwargs)
        elif self.transpose_solve is None:
            X = self.solve(transposed(A), B, **self.kwargs)
        else:
            X = self.transpose_solve(A, B, **self.kwargs)
        return X.to(B.dtype).reshape(B.shape)


def solve_by_functions(functions: Functions, values: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """X as a function of A's values and of B, which can be differentiated any number of times."""
    return _Solve.apply(functions, False, values, B)


class _Solve(torch.autograd.Function):
    """X = T⁻¹B for T = A, or T = Aᵀ if flipped. With Y = T⁻ᴴG, gradients are Y by B, −YXᴴ by T."""

    @staticmethod
    def forward(
        ctx: Any, functions: Functions, flipped: bool, values: torch.Tensor, B: torch.Tensor
    ) -> torch.Tensor:
        ctx.functions, ctx.flipped = functions, flipped
        X = functions(values.detach(), B.detach(), flipped)
        ctx.save_for_backward(values, X)
        return X

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        values, X = ctx.saved_tensors
        Y = _Solve.apply(ctx.functions, not ctx.flipped, values, grad.conj().resolve_conj()).conj()
        rows, cols = ctx.functions.layout.rows, ctx.functions.layout.cols
        if ctx.flipped:
            rows, cols = cols, rows
        return None, None, -_entries(Y, X, rows, cols), Y.resolve_conj()


def _entries(
    Y: torch.Tensor, X: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor
) -> torch.Tensor:
    """(YXᴴ) at (rows, cols)."""
    products = Y[rows] * X.conj()[cols]
    return (products if products.dim() == 1 else products.sum(1)).resolve_conj()


@dataclasses.dataclass(frozen=True, eq=False)
class LstsqFunctions:
    """The functions that give A†B, and (Aᴴ)†G given A."""

    layout: Layout
    lstsq: Callable[..., torch.Tensor]
    transpose_lstsq: Callable[..., torch.Tensor]


def lstsq_by_functions(
    functions: LstsqFunctions, values: torch.Tensor, B: torch.Tensor
) -> torch.Tensor:
    """X = A†B as a function of A's values and of B, which can be differentiated once."""
    return _Lstsq.apply(functions, values, B)


class _Lstsq(torch.autograd.Function):
    """With Y = (Aᴴ)†G and full column rank, gradients are Y by B, −YXᴴ + (B − AX)(A†Y)ᴴ by A.

    (Golub & Pereyra 1973, SIAM J. Numer. Anal. 10(2), equation 4.12.)
    """

    @staticmethod
    def forward(
        ctx: Any, functions: LstsqFunctions, values: torch.Tensor, B: torch.Tensor
    ) -> torch.Tensor:
        A = functions.layout.tensor(values.detach())
        X = functions.lstsq(A, B.detach())
        X = X.to(B.dtype).reshape(A.shape[1], *B.shape[1:])
        ctx.functions = functions
        ctx.save_for_backward(values, B, X)
        return X

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        values, B, X = ctx.saved_tensors
        functions, layout = ctx.functions, ctx.functions.layout
        m, n = layout.shape
        if n > m:
            raise StructureError(
                f"A: must be tall and of full rank to be differentiated with functions; got shape "
                f"{(m, n)}. With `lstsq=None` or one of our solvers any shape is."
            )
        A = layout.tensor(values)
        Y = functions.transpose_lstsq(A, grad).to(B.dtype).reshape(B.shape)
        residual = B - (A @ X)
        Z = functions.lstsq(A, Y).to(B.dtype).reshape(X.shape)
        rows, cols = layout.rows, layout.cols
        return None, _entries(residual, Z, rows, cols) - _entries(Y, X, rows, cols), Y
