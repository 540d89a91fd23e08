"""`solve`: what may stand for a system, and how its shapes are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental import sparse

import linsolve_prim as lp

DTYPE = jnp.result_type(float)
TOL = 1e-9 if DTYPE == jnp.float64 else 2e-4


def draw(*shape, seed=0, shift=0.0):
    x = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(x + shift * np.eye(shape[-1]) if shift else x, DTYPE)


def close(a, b, tol=TOL):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tol, atol=tol)


A30, B30 = draw(30, 30, shift=10.0), draw(30, seed=1)


KINDS = {
    "numpy": lambda a: np.asarray(a),
    "jax": jnp.asarray,
    "bcoo": lambda a: sparse.BCOO.fromdense(jnp.asarray(a)),
    "bcsr": lambda a: sparse.BCSR.fromdense(jnp.asarray(a)),
    "scipy.sparse": scipy.sparse.csr_array,
    "function": lambda a: lambda x: jnp.asarray(a) @ x,
    "operator": lambda a: lp.MatrixLinearOperator(jnp.asarray(a)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_a_system_agree(kind):
    """S0-01: one call solves dense, sparse and matrix-free systems alike."""
    x = lp.solve(KINDS[kind](A30), B30)
    assert isinstance(x, jax.Array)
    close(x, np.linalg.solve(A30, B30))


@pytest.mark.parametrize("kind", ["jax", "bcoo", "function", "operator"])
def test_gradients_of_all_kinds(kind):
    """S0-02: implicit gradients, whatever describes the system."""
    loss = lambda a, b: jnp.sum(jnp.sin(lp.solve(KINDS[kind](a) if kind != "bcoo" else a, b)))
    want = jax.grad(lambda a, b: jnp.sum(jnp.sin(jnp.linalg.solve(a, b))), (0, 1))(A30, B30)
    if kind == "bcoo":
        da, db = jax.grad(loss, (0, 1), allow_int=True)(KINDS["bcoo"](A30), jnp.asarray(B30))
        da = sparse.BCOO((da.data, KINDS["bcoo"](A30).indices), shape=A30.shape).todense()
    else:
        da, db = jax.grad(loss, (0, 1))(jnp.asarray(A30), jnp.asarray(B30))
    close(da, want[0])
    close(db, want[1])


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((2, 2), (2,)),
        ((2, 2), (2, 5)),
        ((3, 2, 2), (3, 2)),
        ((3, 2, 2), (3, 2, 5)),
        ((3, 2, 2), (2,)),
        ((2, 2), (3, 2, 5)),
        ((4, 1, 2, 2), (3, 2, 5)),
        ((1, 3, 2, 2), (4, 3, 2)),
        ((4, 3, 2, 2), (1, 3, 2, 1)),
        ((4, 3, 2, 2), (2, 5)),
        ((1, 2, 2), (1, 2)),
    ],
)
def test_shapes_broadcast(a_shape, b_shape):
    """S0-49: the shapes of jnp.linalg.solve, and vectors in a batch."""
    a, b = draw(*a_shape, shift=4.0), draw(*b_shape, seed=1)
    vectors = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape[-1] == 2 and b.shape[-2] != 2)
    want = np.linalg.solve(a, b[..., None])[..., 0] if vectors else np.linalg.solve(a, b)
    got = lp.solve(a, b)
    assert got.shape == want.shape
    close(got, want)
    close(jax.jit(lp.solve)(jnp.asarray(a), jnp.asarray(b)), want)


def test_jit_with_both_traced():
    """S0-29: inside jit, with matrix and right-hand side traced."""
    close(jax.jit(lp.solve)(jnp.asarray(A30), jnp.asarray(B30)), np.linalg.solve(A30, B30))


def test_integers_are_promoted():
    """S0-09: integers become the default float, and are never truncated."""
    x = lp.solve(np.array([[2, 0], [0, 4]]), np.array([1, 1]))
    assert x.dtype == DTYPE
    close(x, [0.5, 0.25])
    close(lp.solve([[2, 0], [0, 4]], [1, 1]), [0.5, 0.25])
    x32 = lp.solve(np.array([[2, 0], [0, 4]]), np.ones(2, np.float32))
    assert x32.dtype == jnp.float32
    close(lp.solve(lambda x: 2 * x, np.array([1, 3])), [0.5, 1.5])


def test_plain_arrays_and_pytrees_keep_their_form():
    """S0-05, S0-06, S0-22, B-13: the solution has the form of the input structure."""
    assert isinstance(lp.solve(A30, B30), jax.Array)
    b = {"u": jnp.asarray([2.0, 4.0], DTYPE), "p": jnp.asarray([[3.0]], DTYPE)}
    x = lp.solve(lambda v: {"u": 2 * v["u"] + v["p"][0, 0], "p": 3 * v["p"]}, b)
    assert set(x) == {"u", "p"}
    close(x["u"], [0.5, 1.5])
    close(x["p"], [[1.0]])


def test_input_and_output_structures_may_differ():
    """S0-05: x looks like x0, b like the function's value."""
    m = jnp.asarray(draw(5, 5, shift=5.0))
    f = lambda x: (m @ jnp.concatenate([x["u"], x["p"]]),)
    x0 = {"u": jnp.zeros(3, DTYPE), "p": jnp.zeros(2, DTYPE)}
    b = (jnp.asarray(draw(5, seed=2)),)
    x = lp.solve(f, b, x0=x0)
    assert x["u"].shape == (3,)
    keys = jnp.concatenate([x["p"], x["u"]])  # leaves are raveled in the order of sorted keys
    assert keys.shape == (5,)
    close(f(x)[0], b[0])


def test_function_example():
    """S0-15: x ↦ x·(2, 1)."""
    f = lambda x: x * jnp.asarray([2.0, 1.0], DTYPE)
    close(lp.solve(f, jnp.asarray([2.0, 3.0], DTYPE)), [1, 3])


def test_gradient_examples():
    """S0-32, S0-33: the two gradients of the tutorial, dense and matrix-free."""
    b = jnp.asarray([2.0, 3.0], DTYPE)
    c = jnp.asarray([1.0, 2.0], DTYPE)
    half = lambda x: 0.5 * jnp.sum(x**2)
    free = lambda c, b: half(lp.solve(lambda x: c * x, b))
    dense = lambda c, b: half(lp.solve(jnp.diag(c), b))
    d = jnp.asarray([2.0, 1.0], DTYPE)
    for loss in (free, dense):
        close(jax.grad(loss, 1)(d, b), [0.5, 3.0])
        close(jax.grad(loss)(c, jnp.ones(2, DTYPE)), [-1.0, -0.125])


def test_affine_functions_lose_their_offset():
    """S0-20: f(x) = Ax + c solves Ax = b − c, and c has its gradient −A⁻ᵀg."""
    scale, offset = jnp.asarray([2.0, 1.0], DTYPE), jnp.asarray([10.0, 20.0], DTYPE)
    b = jnp.asarray([2.0, 3.0], DTYPE)
    close(lp.solve(lambda x: x * scale + offset, b), [-4, -17])
    grad = jax.grad(lambda c: jnp.sum(lp.solve(lambda x: x * scale + c, b)))(offset)
    close(grad, [-0.5, -1.0])


@pytest.mark.parametrize(
    ("f", "primitive"),
    [
        (lambda x: x**2, "integer_pow|mul|square"),
        (jnp.sin, "sin"),
        (jax.nn.relu, "max"),
        (lambda x: x @ x * x, "dot_general"),
    ],
)
def test_nonlinear_functions_are_refused(f, primitive):
    """S0-21: at trace time, naming the primitive."""
    with pytest.raises(lp.NonlinearFunctionError, match=primitive):
        lp.solve(f, jnp.ones(3, DTYPE))


def test_linear_functions_are_accepted():
    """S0-21: a constant mask and a coefficient without gradient are linear."""
    mask = jnp.asarray([True, False, True])
    w = jnp.asarray([2.0, 3.0, 4.0], DTYPE)
    f = lambda x: jnp.where(mask, jax.lax.stop_gradient(w) * x, x)
    close(lp.solve(f, jnp.ones(3, DTYPE)), [0.5, 1.0, 0.25])


def test_arguments_of_the_function():
    """S0-17: `args` and closures are differentiated alike."""
    b, c = jnp.asarray([2.0, 3.0], DTYPE), jnp.asarray([4.0, 5.0], DTYPE)
    by_args = jax.grad(lambda c: jnp.sum(lp.solve(lambda x, c: c * x, b, args=(c,))))(c)
    by_closure = jax.grad(lambda c: jnp.sum(lp.solve(lambda x: c * x, b)))(c)
    close(by_args, by_closure)
    close(by_args, -b / c**2)


def test_nonsymmetric_matrix_free_gradient():
    """B-01: cotangents are solved with the transposed function."""
    a = jnp.asarray(draw(6, 6, shift=4.0))
    b = jnp.asarray(draw(6, seed=3))
    w = jnp.asarray(draw(6, seed=4))
    got = jax.grad(lambda b: w @ lp.solve(lambda x: a @ x, b))(b)
    close(got, np.linalg.solve(np.asarray(a).T, w))


def test_initial_guess():
    """S0-04: an exact guess takes no step."""
    a = jnp.asarray(draw(6, 6, shift=8.0))
    x = jnp.asarray(draw(6, seed=1))
    operator = lp.MatrixLinearOperator(a)
    guessed = lp.linear_solve(operator, a @ x, lp.GMRES(rtol=1e-5), options={"y0": x})
    assert int(guessed.stats["num_steps"]) == 0
    close(lp.solve(a, a @ x, lp.GMRES(rtol=1e-8), x0=x), x)
    assert int(lp.linear_solve(operator, a @ x, lp.GMRES()).stats["num_steps"]) > 0


def test_nonsymmetric_by_default():
    """S0-07: the default does not assume symmetry."""
    close(lp.solve([[0.0, 1.0], [-1.0, 0.0]], [2.0, 3.0]), [-3.0, 2.0])


@pytest.mark.parametrize("solver", [None, lp.GMRES(), lp.BiCGStab(), lp.LU()])
def test_symmetric_indefinite(solver):
    """S0-08: [3, 2], or a breakdown that is told; never NaN."""
    operator = lp.MatrixLinearOperator(jnp.asarray([[0.0, 1.0], [1.0, 0.0]], DTYPE))
    b = jnp.asarray([2.0, 3.0], DTYPE)
    solver = lp.AutoLinearSolver(well_posed=True) if solver is None else solver
    solution = lp.linear_solve(operator, b, solver, throw=False)
    assert bool(jnp.all(jnp.isfinite(solution.value)))
    if solution.result == lp.RESULTS.successful:
        close(solution.value, [3.0, 2.0])
    else:
        assert isinstance(solver, lp.BiCGStab)


def test_dlpack():
    """S0-03: anything with `__dlpack__` is taken."""

    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **kwargs):
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    close(lp.solve(Foreign(A30.copy()), B30), np.linalg.solve(A30, B30))


def test_preconditioner_kinds():
    a = jnp.asarray(draw(20, 20, shift=30.0))
    b = jnp.asarray(draw(20, seed=1))
    d = 1 / jnp.diag(a)
    for m in (lp.DiagonalLinearOperator(d), jnp.diag(d), lambda r: d * r):
        close(lp.solve(a, b, lp.GMRES(), preconditioner=m), np.linalg.solve(a, b), 1e-4)


def test_precision_is_promoted_with_a_warning():
    """S3-15: a difference of precision is told, and both are promoted."""
    if DTYPE == jnp.float32:
        pytest.skip("needs x64")
    a, b = np.eye(2, dtype=np.float32), np.ones(2, np.float64)
    rule = r"float32 and b has dtype float64.*promoted"
    with pytest.warns(lp.PrecisionWarning, match=rule), jax.numpy_dtype_promotion("standard"):
        x = lp.solve(a, b)
    assert x.dtype == jnp.float64


def test_solution_has_the_shape_of_b():
    """S3-12: a vector in, a vector out; a matrix in, a matrix out."""
    assert lp.solve(A30, B30).shape == (30,)
    assert lp.solve(A30, B30[:, None]).shape == (30, 1)


def test_explain_and_list():
    """S0-07: what is chosen, and why, in words."""
    assert "LU()" in lp.explain(jnp.eye(3), jnp.ones(3))
    tagged = lp.MatrixLinearOperator(jnp.eye(3), lp.positive_semidefinite_tag)
    assert "Cholesky()" in lp.explain(tagged)
    large = jnp.ones(10_000, DTYPE)
    assert "GMRES" in lp.explain(jnp.cumsum, large)
    assert "Diagonal" in lp.explain(lambda x: 2.0 * x, large)
    assert {"LU", "CG", "SVD"} <= {row.name for row in lp.list_solvers()}


def test_complex_and_real_meet_under_strict_promotion():
    """S3-15: what is promoted is promoted by `solve`, however arithmetic is set."""
    complex_ = (1j * np.ones((), DTYPE)).dtype
    real, b = np.array([[2.0, 0.5], [0.0, 4.0]], DTYPE), np.ones(2, DTYPE)
    a = (real + 1j * np.eye(2)).astype(complex_)
    x = np.linalg.solve(a, b)
    matrix = scipy.sparse.csr_array(a)
    with jax.numpy_dtype_promotion("strict"):
        found = [lp.solve(a, b), lp.solve(matrix, b), lp.factorize(matrix).solve(b)]
        found += [lp.solve(lambda v: jnp.asarray(a) @ v.astype(complex_), b, lp.GMRES(1e-5, 0.0))]
        np.testing.assert_allclose(lp.solve(real, x), np.linalg.solve(real, x), rtol=1e-5)
    for y in found:
        assert y.dtype == complex_
        np.testing.assert_allclose(y, x, rtol=1e-4)
