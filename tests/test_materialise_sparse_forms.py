"""`materialise_sparse`: what goes in and what comes out."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from linear_functions import COMPLEX, GRID, LINE, REAL, RNG, TOL, N, W, dense, rolled

import linsolve_prim as lp
from linsolve_prim.errors import NonlinearFunctionError, StructureError, WrongTypeError

# ---- Structures ------------------------------------------------------------------------------------


def test_pytrees():
    """S0-18: pytrees in and out, raveled leaf by leaf."""
    like = {"u": jax.ShapeDtypeStruct((N, N), REAL), "p": jax.ShapeDtypeStruct((3,), REAL)}

    def f(x):
        return (rolled(x["u"])[:2] + x["p"][0], {"q": 2 * x["p"], "r": x["u"].sum()})

    A, offset = lp.materialise_sparse(f, like)
    expected, bias = dense(f, like)
    np.testing.assert_allclose(A.as_matrix(), expected, atol=TOL)
    assert offset.shape == bias.shape
    x = jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), REAL), like)
    np.testing.assert_allclose(A.mv(ravel_pytree(x)[0]), ravel_pytree(f(x))[0], atol=100 * TOL)


@pytest.mark.parametrize("like", [jnp.arange(4), np.arange(4), [1, 2, 3, 4], 3])
def test_integers_stand_for_floats(like):
    """S0-09: integer x is promoted to the default float."""
    A, _ = lp.materialise_sparse(lambda x: jax.tree.map(lambda y: y * 2, x), like)
    n = len(np.atleast_1d(like))
    assert A.values.dtype == REAL
    np.testing.assert_array_equal(A.as_matrix(), 2 * np.eye(n))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float16"])
def test_dtype_is_kept(dtype):
    A, offset = lp.materialise_sparse(
        lambda x: (jnp.roll(x, 1) + 1).astype(dtype), jax.ShapeDtypeStruct((4,), dtype)
    )
    assert A.values.dtype == offset.dtype == dtype


def test_complex_coefficients_and_unknowns():
    f = lambda x: (1 + 2j) * x + jnp.roll(x, 1) + 3j
    like = jax.ShapeDtypeStruct((N,), COMPLEX)
    A, offset = lp.materialise_sparse(f, like)
    np.testing.assert_allclose(A.as_matrix(), dense(f, like)[0], atol=TOL)
    np.testing.assert_allclose(offset, np.full(N, 3j))


@pytest.mark.parametrize("f", [jnp.conj, jnp.real, lambda x: x.imag + jnp.zeros(N, REAL)])
def test_linear_over_the_real_numbers_only_is_no_complex_matrix(f):
    """S0-21: conj(x) has no matrix, unless x is real."""
    with pytest.raises(NonlinearFunctionError, match=r"complex numbers.*`(conj|real|imag)`"):
        lp.materialise_sparse(f, jax.ShapeDtypeStruct((N,), COMPLEX))
    if f is jnp.conj:
        A, _ = lp.materialise_sparse(lambda x: jnp.conj(x.astype(COMPLEX) * 1j), LINE)
        np.testing.assert_array_equal(A.as_matrix(), -1j * np.eye(N))


@pytest.mark.parametrize(
    ("f", "primitive"),
    [(lambda x: x**2, "integer_pow"), (jnp.sin, "sin"), (jax.nn.relu, "max")],
)
def test_nonlinear_functions_are_refused(f, primitive):
    """S0-21: the error names the primitive."""
    with pytest.raises(NonlinearFunctionError, match=primitive):
        lp.materialise_sparse(f, LINE)


def test_affine_offset():
    """S0-20: f(x) = x·(2, 1) + (10, 20)."""
    f = lambda x: x * jnp.array([2, 1], REAL) + jnp.array([10, 20], REAL)
    A, offset = lp.materialise_sparse(f, jnp.zeros(2, REAL))
    np.testing.assert_array_equal(A.as_matrix(), np.diag([2, 1]))
    np.testing.assert_array_equal(offset, [10, 20])
    np.testing.assert_allclose(lp.solve(A, jnp.array([2, 3], REAL) - offset), [-4, -17])


@pytest.mark.parametrize(
    "operator",
    [
        lp.FunctionLinearOperator(rolled, GRID, lp.symmetric_tag),
        lp.JacobianLinearOperator(lambda x, _: jnp.sin(x) * jnp.roll(x, 1), W),
        lp.MatrixLinearOperator(jnp.asarray(np.tril(np.ones((3, 3))), REAL)),
        lp.DiagonalLinearOperator(W) @ lp.FunctionLinearOperator(jnp.cumsum, LINE),
        lp.SparseLinearOperator.from_dense(np.tril(np.ones((3, 3), REAL))),
        lp.TridiagonalLinearOperator(W, W[1:], W[1:]),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_operators(operator):
    """S0-18: any operator; its promises are kept, and it needs no `x_like`."""
    A, offset = lp.materialise_sparse(operator)
    np.testing.assert_allclose(A.as_matrix(), operator.as_matrix(), atol=TOL)
    assert lp.is_symmetric(A) >= lp.is_symmetric(operator)
    np.testing.assert_array_equal(offset, np.zeros(operator.out_size()))


def test_tags():
    A, _ = lp.materialise_sparse(rolled, GRID, tags=lp.negative_semidefinite_tag)
    assert lp.is_negative_semidefinite(A)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"x_like.*got None"):
        lp.materialise_sparse(rolled)
    with pytest.raises(WrongTypeError, match=r"A: must be a function.*got ndarray"):
        lp.materialise_sparse(np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match="args"):
        lp.materialise_sparse(lp.DiagonalLinearOperator(W), args=(1,))


# ---- Dense ---------------------------------------------------------------------------------------


def test_dense_functions_say_so(caplog):
    """S0-18: a full pattern, and a message, where nothing is sparse."""
    matrix = jnp.asarray(RNG.normal(size=(N, N)), REAL)
    for f in (lambda x: matrix @ x, lambda x: jnp.fft.fft(x).astype(COMPLEX)):
        lp.detection.clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "linsolve_prim"):
            A, _ = lp.materialise_sparse(f, LINE)
        assert "dense" in caplog.text
        assert A.pattern.nnz == N * N
        np.testing.assert_allclose(A.as_matrix(), dense(f, LINE)[0], atol=TOL)


def test_what_is_too_large_to_be_dense_is_refused():
    """The error names the primitive at which the pattern became too large."""
    like = jax.ShapeDtypeStruct((20_000,), REAL)
    with pytest.raises(
        StructureError, match=r"primitive `fft`.*20000×20000.*FunctionLinearOperator"
    ):
        lp.materialise_sparse(lambda x: jnp.fft.ifft(jnp.fft.fft(x)).real, like)


# ---- Primitives without a batch ------------------------------------------------------------------

ROWS = jnp.asarray(RNG.normal(size=(7, 3)), REAL)
MATRICES = jnp.asarray(RNG.normal(size=(3, 3, 2)), REAL)
SIZES = jnp.asarray([2, 1, 3])  # (the last row is in no group)


@pytest.mark.parametrize(
    ("f", "x", "nnz"),
    [
        (lambda x: lax.ragged_dot(x, MATRICES, SIZES), ROWS, 6 * 3 * 2),
        (lambda x: lax.ragged_dot(x, MATRICES.at[0].set(0), SIZES), ROWS, 4 * 3 * 2),
        (lambda w: lax.ragged_dot(ROWS, w, SIZES), MATRICES, 6 * 3 * 2),
    ],
    ids=["rows", "zeros", "matrices"],
)
def test_ragged_dot(f, x, nnz):
    """S0-18: JAX has no rule to batch it, so its products are made one by one."""
    A, _ = lp.materialise_sparse(f, x)
    columns = [f(e.reshape(x.shape)).ravel() for e in jnp.eye(x.size, dtype=REAL)]
    np.testing.assert_allclose(A.as_matrix(), np.stack(columns, 1), atol=1e-6)
    assert A.pattern.nnz == nnz


def test_ragged_dot_with_traced_groups():
    """S0-18: what is not known is not guessed."""
    of = lambda s: lp.materialise_sparse(lambda x: lax.ragged_dot(x, MATRICES, s), ROWS)[0]
    A = jax.jit(of)(SIZES)
    assert A.pattern.nnz == 7 * 2 * 7 * 3
    np.testing.assert_allclose(A.as_matrix(), of(SIZES).as_matrix(), atol=1e-6)
