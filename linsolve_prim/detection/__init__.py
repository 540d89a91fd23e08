"""Any function as a matrix: its sparsity is found from its jaxpr, its entries by few products."""

from .detect import clear as clear, reset_stats as reset_stats, stats as stats
from .linear_function import LinearFunction as LinearFunction, linear_function as linear_function
from .materialise import materialise_sparse as materialise_sparse
