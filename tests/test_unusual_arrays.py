"""Arrays as they come from elsewhere: half precision, another machine's byte order, no entries at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64

import linsolve_prim as lp

TRIDIAGONAL = np.array([[4.0, 1.0, 0.0], [2.0, 5.0, 1.0], [0.0, 1.0, 3.0]])
DEFINITE = np.array([[4.0, 1.0, 0.5], [1.0, 5.0, 1.0], [0.5, 1.0, 3.0]])
LOWER = np.tril(TRIDIAGONAL)
SOLVERS = {
    "LU": (TRIDIAGONAL, lp.LU(), ()),
    "QR": (TRIDIAGONAL, lp.QR(), ()),
    "QR wide": (TRIDIAGONAL[:2], lp.QR(), ()),
    "SVD": (TRIDIAGONAL[:, :2], lp.SVD(), ()),
    "Cholesky": (DEFINITE, lp.Cholesky(), lp.positive_semidefinite_tag),
    "Tridiagonal": (TRIDIAGONAL, lp.Tridiagonal(), lp.tridiagonal_tag),
    "Triangular": (LOWER, lp.Triangular(), lp.lower_triangular_tag),
}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", SOLVERS)
def test_lapack_takes_half_precision_in_single(name, dtype):
    """Solution, gradient and transpose come back in the dtype of the input."""
    matrix, solver, tags = SOLVERS[name]
    matrix, b = jnp.asarray(matrix, dtype), jnp.arange(1.0, len(matrix) + 1).astype(dtype)

    def x(matrix, b):
        return lp.linear_solve(lp.MatrixLinearOperator(matrix, tags), b, solver).value

    value, pull = jax.vjp(x, matrix, b)
    dmatrix, db = pull(jnp.ones_like(value))
    assert value.dtype == dmatrix.dtype == db.dtype == dtype
    inverse = np.linalg.pinv(np.asarray(matrix, float))
    loose = {"rtol": 0.05, "atol": 0.05}
    np.testing.assert_allclose(np.asarray(value, float), inverse @ np.asarray(b, float), **loose)
    np.testing.assert_allclose(np.asarray(db, float), inverse.sum(axis=0), **loose)
    with pytest.raises(lp.SingularMatrixError):
        lp.solve(jnp.ones((2, 2), dtype), jnp.array([1, 2], dtype))


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_byte_order_of_another_machine(order):
    real = np.dtype(order + ("f8" if X64 else "f4"))
    matrix, b = TRIDIAGONAL.astype(real), np.arange(1, 4).astype(order + "i4")
    want = np.linalg.solve(TRIDIAGONAL, np.arange(1.0, 4.0))
    for rhs in (b, b.astype(real)):
        np.testing.assert_allclose(lp.solve(matrix, rhs), want, rtol=1e-5)
    tree = lp.solve(lambda x: jax.tree.map(lambda leaf: 2.0 * leaf, x), {"a": b.astype(real)})
    np.testing.assert_allclose(tree["a"], np.arange(1, 4) / 2)


def test_least_squares_with_no_unknowns_or_no_equations():
    assert lp.lstsq(np.zeros((3, 0)), np.ones(3)).shape == (0,)
    np.testing.assert_array_equal(lp.lstsq(np.zeros((0, 3)), np.zeros(0)), np.zeros(3))
    nothing = lp.MatrixLinearOperator(jnp.zeros((3, 0)))
    solution = lp.linear_solve(nothing, jnp.ones(3), lp.SVD(), throw=False)
    assert solution.result == lp.RESULTS.successful


def _never_read(x):
    return jnp.stack([2 * x[0], jnp.zeros_like(x[1])])


ONE_COLUMN = jax.ShapeDtypeStruct((2,), jnp.zeros(()).dtype)
UNREAD = {
    "no entry": (lp.SparseLinearOperator.from_dense(jnp.zeros((2, 2))), [0.0, 0.0]),
    "an empty column": (
        lp.SparseLinearOperator.from_dense(jnp.diag(jnp.array([2.0, 0.0]))),
        [2, 0],
    ),
    "a function": (lp.FunctionLinearOperator(_never_read, ONE_COLUMN, lp.diagonal_tag), [2.0, 0.0]),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_nan_that_no_product_reads_is_no_solution_B_03(name):
    """0/0, in a column in which A has no entry: b − Ax vanishes all the same."""
    operator, b = UNREAD[name]
    b, solver = jnp.asarray(b, float), lp.Diagonal(well_posed=True)
    solve = lambda b: lp.linear_solve(operator, b, solver, throw=False)
    singular = lambda code: jnp.all(code == lp.RESULTS.singular)
    assert singular(solve(b).result)
    assert singular(jax.jit(jax.vmap(lambda b: solve(b).result))(jnp.stack([b, b])))
    with pytest.raises(Exception, match="SingularMatrixError"):
        jax.jit(lambda b: lp.linear_solve(operator, b, solver).value)(b)
    least = lp.linear_solve(operator, b, lp.Diagonal()).value  # the pseudo-inverse has a zero there
    np.testing.assert_allclose(least, b / 2)
