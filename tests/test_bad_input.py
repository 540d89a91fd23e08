"""Bad input is refused at trace time, naming the argument, the value, the rule and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

DTYPE = jnp.result_type(float)
EYE = jnp.eye(3, dtype=DTYPE)
OP = lp.MatrixLinearOperator(EYE)
ONES = jnp.ones(3, DTYPE)

SOLVE = [
    # S3-13: A is no matrix, b is no vector, or their sizes differ
    (lambda: lp.solve(jnp.ones(3), jnp.ones(3)), lp.StructureError, r"A: .*two dim.*\(3,\)"),
    (lambda: lp.solve(EYE, jnp.ones(4, DTYPE)), lp.StructureError, r"b: .*N = 3.*got \(4,\)"),
    (lambda: lp.solve(EYE, jnp.ones((4, 2), DTYPE)), lp.StructureError, r"b: .*got \(4, 2\)"),
    (lambda: lp.solve(EYE, jnp.ones((), DTYPE)), lp.StructureError, "b: .*scalar"),
    (
        lambda: lp.solve(jnp.ones((2, 3, 3), DTYPE), jnp.ones((4, 3, 1), DTYPE)),
        lp.StructureError,
        r"leading dimensions must broadcast; got \(2,\).*\(4,\)",
    ),
    (
        lambda: lp.solve(jnp.ones((4, 3), DTYPE), jnp.ones(4, DTYPE)),
        lp.StructureError,
        r"square systems only; got a 4×3.*least-squares",
    ),
    # S3-14: what is neither a matrix, nor an operator, nor a function
    (lambda: lp.solve("A", ONES), TypeError, "A: must be an array.*got str"),
    (lambda: lp.solve(EYE, {"b": ONES}), TypeError, "b: must be an array.*got dict"),
    (lambda: lp.solve(EYE, ONES, args=(1,)), ValueError, "args: .*function"),
    (lambda: lp.solve(EYE, ONES, x0=jnp.ones(2)), lp.StructureError, r"x0: .*\(3,\); got \(2,\)"),
    (
        lambda: lp.solve(EYE, ONES, lp.GMRES(), preconditioner=3),
        TypeError,
        "preconditioner: must be .*got int",
    ),
    (
        lambda: lp.solve(np.array([[object()]]), np.ones(1)),
        TypeError,
        "A: must hold numbers",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), SOLVE)
def test_solve_refuses(call, error, match):
    """S3-13, S3-14."""
    with pytest.raises(error, match=match):
        call()


def test_function_of_another_shape_names_both_structures():
    """S0-16: before any iteration, and under jit too."""
    f = lambda x: x[:2]
    name = str(jnp.dtype(DTYPE))
    with pytest.raises(lp.StructureError, match=rf"{name}\[2\].*{name}\[3\]"):
        lp.solve(f, ONES)
    with pytest.raises(lp.StructureError, match=rf"{name}\[2\].*{name}\[3\]"):
        jax.jit(lambda b: lp.solve(f, b))(ONES)


def test_structures_do_not_broadcast_silently():
    """S0-22: a guess of another shape raises, instead of an outer product."""
    with pytest.raises(lp.StructureError, match="A: the function returns"):
        lp.solve(lambda x: 2 * x, ONES, x0=jnp.ones((2, 3), DTYPE))


LINEAR_SOLVE = [
    (lambda: lp.linear_solve(EYE, ONES), TypeError, "operator: .*an array .*MatrixLinearOperator"),
    (lambda: lp.linear_solve(OP, ONES, lp.LU), TypeError, r"solver: .*mean `LU\(\)`"),
    (lambda: lp.linear_solve(OP, ONES, "lu"), TypeError, "solver: .*'lu'"),
    (lambda: lp.linear_solve(OP, ONES, options=[1]), TypeError, "options: .*got list"),
    (lambda: lp.linear_solve(OP, ONES, adjoint=3), TypeError, "adjoint: .*got int"),
    (
        lambda: lp.linear_solve(OP, jnp.ones(4, DTYPE)),
        lp.StructureError,
        r"vector: .*\[3\]; got .*\[4\]",
    ),
    (
        lambda: lp.linear_solve(OP, jnp.ones((3, 2), DTYPE)),
        lp.StructureError,
        r"several right-hand sides use `jax.vmap`",
    ),
    (lambda: lp.linear_solve(OP, {"b": ONES}), lp.StructureError, "vector: .*'b'"),
    (
        lambda: lp.linear_solve(OP, ONES.astype(jnp.complex64)),
        lp.StructureError,
        "Only dtypes differ",
    ),
    (lambda: lp.linear_solve(OP, ONES, lp.Cholesky()), ValueError, "operator: .*Tag it"),
    (lambda: lp.linear_solve(OP, ONES, lp.CG()), ValueError, "definite"),
    (lambda: lp.linear_solve(OP, ONES, lp.Triangular()), ValueError, "operator: .*triangular"),
    (lambda: lp.linear_solve(OP, ONES, lp.Tridiagonal()), ValueError, "operator: .*tridiagonal"),
    (lambda: lp.linear_solve(OP, ONES, lp.Diagonal()), ValueError, "operator: .*diagonal"),
    (
        lambda: lp.linear_solve(OP, ONES, lp.AutoLinearSolver(well_posed="yes")),
        ValueError,
        "well_posed: .*'yes'",
    ),
    (lambda: lp.invert(EYE), TypeError, "operator: must be"),
    (lambda: lp.ImplicitAdjoint(solver=3), TypeError, "must be an AbstractLinearSolver"),
]


@pytest.mark.parametrize(("call", "error", "match"), LINEAR_SOLVE)
def test_linear_solve_refuses(call, error, match):
    with pytest.raises(error, match=match):
        call()


RECTANGULAR = lp.MatrixLinearOperator(jnp.ones((4, 3), DTYPE))


@pytest.mark.parametrize(
    "solver", [lp.LU(), lp.Cholesky(), lp.Triangular(), lp.Tridiagonal(), lp.Diagonal()]
)
def test_square_solvers_refuse_rectangles(solver):
    with pytest.raises(lp.StructureError, match=r"square systems only; got a 4×3"):
        lp.linear_solve(RECTANGULAR, jnp.ones(4, DTYPE), solver)


def test_structure_error_is_a_value_error():
    assert issubclass(lp.StructureError, ValueError)
    assert issubclass(lp.NonlinearFunctionError, ValueError)


def test_a_solver_that_returns_the_wrong_shape():
    class Wrong(lp.AbstractLinearSolver):
        def init(self, operator, options):
            return ()

        def compute(self, state, vector, options):
            return vector[:2], lp.RESULTS.successful, {}

        def assume_full_rank(self):
            return True

    with pytest.raises(lp.StructureError, match=r"Wrong.compute returned.*\[2\].*\[3\]"):
        lp.linear_solve(OP, ONES, Wrong())


def test_transposing_with_respect_to_the_operator_is_explained():
    with pytest.raises(NotImplementedError, match="linear in its right-hand side only"):
        jax.linear_transpose(
            lambda a: (
                lp.linear_solve(
                    lp.MatrixLinearOperator(a), ONES, lp.LU(), state=lp.LU().init(OP, {})
                ).value
            ),
            EYE,
        )(ONES)
