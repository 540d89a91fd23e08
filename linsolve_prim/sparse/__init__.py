"""Sparse matrices: the pattern is static, the values are dynamic."""

from .algebra import block_diag as block_diag, symmetrize as symmetrize, tril as tril, triu as triu
from .batches import (
    block_diag_split as block_diag_split,
    hstack as hstack,
    sparse_eye as sparse_eye,
    spmm as spmm,
    stack as stack,
    vstack as vstack,
)
from .logsumexp import (
    sparse_bidir_logsumexp as sparse_bidir_logsumexp,
    sparse_logsumexp as sparse_logsumexp,
)
from .neighbours import PairwiseEncoder as PairwiseEncoder
from .operator import SparseLinearOperator as SparseLinearOperator
from .pattern import SparsityPattern as SparsityPattern
from .triplets import TripletLinearOperator as TripletLinearOperator
