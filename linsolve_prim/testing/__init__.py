"""The laws of operators and solvers as functions: run them over your own classes in your own tests.

    from linsolve_prim import testing

    def test_my_operator():
        testing.check_operator(MyOperator(...))

    def test_my_solver():
        testing.check_solver(MySolver(), lp.MatrixLinearOperator(matrix))

Each raises an `AssertionError` that names the law that is broken and by how much.
"""

from .operator_laws import check_operator as check_operator
from .random import random_like as random_like, structured_direction as structured_direction
from .random_sparse import (
    random_sparse as random_sparse,
    random_sparse_spd as random_sparse_spd,
    random_sparse_triangular as random_sparse_triangular,
)
from .solver_laws import check_solver as check_solver
