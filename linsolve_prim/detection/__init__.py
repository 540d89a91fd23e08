"""Any function as a matrix: its sparsity is found from its jaxpr, its entries by few products."""

from .detect import clear as clear
from .detect import reset_stats as reset_stats
from .detect import stats as stats
from .linear_function import LinearFunction as LinearFunction
from .linear_function import linear_function as linear_function
from .materialise import materialise_sparse as materialise_sparse
