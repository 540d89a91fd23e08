"""Sparse matrices: the pattern is static, the values are dynamic."""

from .operator import SparseLinearOperator as SparseLinearOperator
from .pattern import SparsityPattern as SparsityPattern
