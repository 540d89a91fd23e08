"""Sparse tensors (COO and CSR, one matrix or a batch) as values on a pattern, with gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array

from .._static import FrozenArray
from ..errors import WrongTypeError
from ..sparse.operator import SparseLinearOperator
from ..sparse.pattern import SparsityPattern
from ..sparse.values import place
from .torch_bridge import to_jax, torch


class Layout:
    """Where a sparse tensor has its entries: all but its values, which are `values_of` it.

    A COO tensor is coalesced. `rows` and `cols` are those of the block-diagonal matrix of a batch.
    """

    def __init__(self, tensor: torch.Tensor):
        self.layout, self.shape = tensor.layout, tensor.shape
        with torch.no_grad():
            if tensor.layout == torch.sparse_coo:
                self.indices = tensor.detach().coalesce().indices()
                *batch, rows, cols = self.indices
            elif tensor.layout == torch.sparse_csr:
                pointers, cols = tensor.crow_indices(), tensor.col_indices()
                self.indices = pointers, cols
                lengths = (pointers[..., 1:] - pointers[..., :-1]).reshape(-1)
                places = torch.arange(lengths.numel(), device=tensor.device)
                rows = torch.repeat_interleave(places, lengths)
                batch, cols = [], cols.reshape(-1)
                if tensor.dim() == 3:
                    batch = [rows // tensor.shape[1]]
                    rows = rows % tensor.shape[1]
            else:
                raise WrongTypeError(
                    f"A: must be sparse, of layout COO or CSR; got the unsupported sparse layout "
                    f"{tensor.layout}. Convert it by `to_sparse_csr()`."
                )
            m, n = tensor.shape[-2:]
            if batch:
                rows, cols = batch[0] * m + rows, batch[0] * n + cols
        self.rows, self.cols = rows, cols

    @property
    def count(self) -> int:
        """How many matrices there are."""
        return self.shape[0] if len(self.shape) == 3 else 1

    def tensor(self, values: torch.Tensor) -> torch.Tensor:
        """The sparse tensor with these values, `(nnz,)`."""
        if self.layout == torch.sparse_coo:
            return torch.sparse_coo_tensor(
                self.indices, values, self.shape, is_coalesced=True, check_invariants=False
            )
        pointers, cols = self.indices
        return torch.sparse_csr_tensor(
            pointers, cols, values.reshape(cols.shape), self.shape, check_invariants=False
        )

    def slots(self) -> tuple[SparsityPattern, FrozenArray | None]:
        """The pattern of the (block-diagonal) matrix, and where each value goes, if not in order."""
        rows, cols = self.rows.cpu().numpy(), self.cols.cpu().numpy()
        shape = self.count * self.shape[-2], self.count * self.shape[-1]
        pattern, slots = SparsityPattern.from_coo(rows, cols, shape)
        in_order = np.array_equal(slots, np.arange(pattern.nnz))
        return pattern, None if in_order else FrozenArray(slots)


@dataclasses.dataclass(frozen=True)
class Placed:
    """The operator of values in a tensor's own order: hashable, so that programs are compiled once."""

    pattern: SparsityPattern
    slots: FrozenArray | None

    def __call__(self, values: Array) -> SparseLinearOperator:
        if self.slots is not None:
            values = place(values, self.slots.array, self.pattern, "values")
        return SparseLinearOperator(values, self.pattern)


def values_of(tensor: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The values of a sparse tensor, `(nnz,)`, whose gradient is a sparse tensor of its layout."""
    return _Values.apply(tensor, layout)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, layout: Layout) -> torch.Tensor:
        ctx.layout = layout
        if layout.layout == torch.sparse_coo:
            tensor = tensor.coalesce()
        return tensor.values().reshape(-1).clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return ctx.layout.tensor(grad), None


def sparse_to_jax(tensor: torch.Tensor) -> SparseLinearOperator:
    """A sparse COO or CSR tensor `(m, n)` as a `SparseLinearOperator`; repeated entries are summed.

    Of a batch `(b, m, n)` the block-diagonal operator.

    **Raises** `TypeError` for other layouts, `ValueError` for 64-bit values while `jax_enable_x64` is off.

        >>> import linsolve_prim as lp
        >>> import torch
        >>> A = torch.tensor([[2.0, 0.0], [1.0, 4.0]]).to_sparse_coo()
        >>> print(lp.interop.torch.sparse_to_jax(A).as_matrix())
        [[2. 0.]
         [1. 4.]]
    """
    layout = Layout(tensor)
    with torch.no_grad():
        values = values_of(tensor.detach(), layout)
    return Placed(*layout.slots())(to_jax(values))
