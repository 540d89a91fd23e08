"""Sparse matrices: the pattern is static, the values are dynamic."""

from .algebra import block_diag as block_diag, symmetrize as symmetrize, tril as tril, triu as triu
from .operator import SparseLinearOperator as SparseLinearOperator
from .pattern import SparsityPattern as SparsityPattern
from .triplets import TripletLinearOperator as TripletLinearOperator
