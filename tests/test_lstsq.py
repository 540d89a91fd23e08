"""`lp.lstsq`: any input, shape and rank; its derivatives; damping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from krylov_tools import (
    COMPLEX,
    REAL,
    X64,
    assert_gradients,
    normal,
    quick_jit,
    with_spectrum,
)

import linsolve_prim as lp
from linsolve_prim import least_squares
from linsolve_prim.least_squares import default_solver

TOL = 1e-9 if X64 else 3e-3
SHAPES = {"tall": (7, 4), "wide": (4, 7), "square": (5, 5)}


def deficient(shape, dtype=REAL):
    return with_spectrum([3.0, 1.0], shape, dtype=dtype).astype(dtype)


def numpys(a, b):
    return np.linalg.lstsq(a, b, rcond=1e-5 if X64 else 1e-3)[0]


def quick(f, *args):
    return quick_jit(f)(*args)


def pinv(a, b):
    """(JAX's derivative of `pinv` is right at constant rank.)"""
    return jnp.linalg.pinv(a, rcond=1e-5 if X64 else 1e-3) @ b


def ridge(a, b, damp):
    ah = jnp.conj(a).T
    shift = jnp.asarray(damp**2).astype(a.dtype) * jnp.eye(a.shape[1], dtype=a.dtype)
    return jnp.linalg.solve(ah @ a + shift, ah @ b)


def sparse_problem(shape, dtype=REAL, seed=0):
    """A pattern of full rank, some values on it, and a right-hand side."""
    n = min(shape)
    matrix = sp.random(*shape, density=0.05, random_state=seed, format="coo")
    rows = np.concatenate([matrix.row, np.arange(n)])
    cols = np.concatenate([matrix.col, np.arange(n)])
    values = np.concatenate([normal(matrix.nnz, dtype, seed), 3 * np.ones(n, dtype)]).astype(dtype)
    operator = lp.SparseLinearOperator.from_scipy(sp.coo_matrix((values, (rows, cols)), shape))
    return operator, jnp.asarray(normal(shape[0], dtype, seed + 1))


# ---- solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_matrices(shape, dtype):
    """S3-21: of full rank and not, for a vector and for several."""
    b = normal((shape[0], 3), dtype, 1)
    for a in (normal(shape, dtype), deficient(shape, dtype)):
        both = quick(lambda a, b: (lp.lstsq(a, b[:, 0]), lp.lstsq(a, b)), a, b)
        np.testing.assert_allclose(both[0], numpys(a, b[:, 0]), atol=TOL)
        np.testing.assert_allclose(both[1], numpys(a, b), atol=TOL)


def test_batches():
    """Leading dimensions broadcast; a batch by `vmap` is the same."""
    a, b = normal((2, 3, 7, 4)), normal((3, 7), seed=1)
    want = np.stack([[numpys(a[i, j], b[j]) for j in range(3)] for i in range(2)])
    got = quick(lp.lstsq, a, np.broadcast_to(b, (2, 3, 7)))
    np.testing.assert_allclose(got, want, atol=TOL)
    mapped = quick(jax.vmap(jax.vmap(lp.lstsq), in_axes=(0, None)), a, b)
    np.testing.assert_allclose(mapped, want, atol=TOL)
    many = normal((3, 7, 2), seed=2)
    got = quick(lp.lstsq, a[0], many)
    np.testing.assert_allclose(got, [numpys(a[0, j], many[j]) for j in range(3)], atol=TOL)


def test_eager_and_other_kinds_of_input():
    """NumPy, lists, SciPy's sparse matrices, BCOO, operators: eager too."""
    a, b = np.arange(12.0).reshape(4, 3).astype(REAL) ** 2 % 7, normal(4)
    operator = lp.MatrixLinearOperator(jnp.asarray(a))
    want = numpys(a, b)
    np.testing.assert_allclose(lp.lstsq(a, b), want, atol=TOL)
    bcoo = jax.experimental.sparse.BCOO.fromdense(jnp.asarray(a))
    for kind in (a.tolist(), sp.csr_matrix(a), bcoo, operator):
        np.testing.assert_allclose(quick(lambda b, k=kind: lp.lstsq(k, b), b), want, atol=TOL)


def test_functions_and_pytrees():
    """x0 says what x looks like, where that is not like b."""
    m = jnp.asarray(normal((5, 3)))

    def f(x):
        return {"p": m @ x["u"] + x["v"], "q": x["u"][:2]}

    b = {"p": jnp.asarray(normal(5, seed=1)), "q": jnp.asarray(normal(2, seed=2))}
    x0 = {"u": jnp.zeros(3, REAL), "v": jnp.zeros((), REAL)}
    x = quick(lambda b: lp.lstsq(f, b, x0=x0), b)
    a = np.block([[m, np.ones((5, 1))], [np.eye(3)[:2], np.zeros((2, 1))]])
    want = numpys(a, np.concatenate([b["p"], b["q"]]))
    np.testing.assert_allclose(np.append(x["u"], x["v"]), want, atol=TOL)


@pytest.mark.parametrize("shape", [(300, 20), pytest.param((20, 300), marks=pytest.mark.slow)])
def test_sparse(shape):
    """S3-21: beyond 256 unknowns by LSMR, never dense."""
    operator, b = sparse_problem(shape)
    assert isinstance(default_solver(operator), lp.LSMR)
    a = np.asarray(operator.as_matrix())
    x, y = quick(lambda b: (lp.lstsq(operator, b), lp.lstsq(operator, b, damp=0.5)), b)
    np.testing.assert_allclose(x, numpys(a, b), atol=TOL if X64 else 0.02)
    np.testing.assert_allclose(y, ridge(a, b, 0.5), atol=TOL if X64 else 0.02)


def test_default_solver():
    small, _ = sparse_problem((30, 20))
    large = lp.FunctionLinearOperator(lambda x: x[:200], jax.ShapeDtypeStruct((300,), REAL))
    dense = lp.MatrixLinearOperator(jnp.zeros((300, 2), REAL))
    assert isinstance(default_solver(large), lp.LSMR)
    for operator in (small, dense, lp.DiagonalLinearOperator(jnp.ones(300, REAL))):
        assert default_solver(operator) == lp.AutoLinearSolver(well_posed=False)


@pytest.mark.parametrize(
    "solver", [lp.QR(), lp.LSQR(), lp.CGLS(), lp.Normal(lp.Cholesky())], ids=repr
)
def test_solvers(solver):
    """S3-10, S3-21: any solver that takes rectangular operators, damped too."""
    a, b = normal((7, 4)), normal(7, seed=1)
    both = quick(lambda b: (lp.lstsq(a, b, solver), lp.lstsq(a, b, solver, damp=0.3)), b)
    np.testing.assert_allclose(both[0], numpys(a, b), atol=TOL)
    np.testing.assert_allclose(both[1], ridge(a, b, 0.3), atol=TOL)


def test_ill_conditioned_and_float32():
    """Where normal equations would lose everything, and in single precision."""
    a = with_spectrum(np.geomspace(1, 1e-6 if X64 else 1e-2, 5), (9, 5)).astype(REAL)
    b = (a @ np.ones(5)).astype(REAL)
    np.testing.assert_allclose(quick(lp.lstsq, a, b), np.ones(5), atol=1e-7 if X64 else 1e-3)
    a, b = normal((9, 5), np.float32), normal(9, np.float32, 1)
    x = quick(lp.lstsq, a, b)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, np.linalg.lstsq(a, b)[0], atol=1e-5)


# ---- derivatives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients(shape):
    """S3-21: by A and b, with the terms that only rectangular matrices have."""
    a, b = jnp.asarray(normal(shape, COMPLEX)), jnp.asarray(normal(shape[0], COMPLEX, 1))
    assert_gradients(lp.lstsq, pinv, a, b, 100 * TOL)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)])
def test_gradients_where_rank_is_missing(shape):
    """S3-21: A = BC of rank 2, by B and C: against `pinv`, and by finite differences."""
    params = jnp.asarray(normal((shape[0], 2))), jnp.asarray(normal((2, shape[1]), seed=1))
    b = jnp.asarray(normal(shape[0], seed=2))
    mine = lambda p, b: lp.lstsq(p[0] @ p[1], b)
    assert_gradients(mine, lambda p, b: pinv(p[0] @ p[1], b), params, b, 1000 * TOL)
    if X64:
        loss = lambda p: jnp.sum(jnp.sin(mine(p, b)))
        direction = jax.tree.map(lambda q: jnp.asarray(normal(q.shape, seed=5)), params)
        at = quick_jit(lambda t: loss(jax.tree.map(lambda q, d: q + t * d, params, direction)))
        slope = quick_jit(jax.jvp, static_argnums=0)(loss, (params,), (direction,))[1]
        np.testing.assert_allclose(slope, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "damp"),
    [
        ((20, 8), 0.0),
        pytest.param((8, 20), 0.0, marks=pytest.mark.slow),
        pytest.param((8, 20), 0.4, marks=pytest.mark.slow),
    ],
)
def test_sparse_gradients(shape, damp, monkeypatch):
    """S3-21: on the pattern they are the dense ones; elsewhere there is nothing. By damp too."""
    monkeypatch.setattr(least_squares, "DENSE_SIZE", 4)
    operator, b = sparse_problem(shape)
    pattern = operator.pattern
    dense = lambda values: lp.SparseLinearOperator(values, pattern).as_matrix()

    def mine(params, b):
        values, damp = params
        operator = lp.SparseLinearOperator(values, pattern)
        return lp.lstsq(operator, b, damp=damp if is_damped else 0.0)

    def reference(params, b):
        values, damp = params
        return ridge(dense(values), b, damp) if is_damped else pinv(dense(values), b)

    is_damped = damp > 0
    params = operator.values, jnp.asarray(damp, REAL)
    assert_gradients(mine, reference, params, b, 1e4 * TOL if X64 else 0.05)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_damp_gradients(shape):
    """S3-21: by A, b and damp; damp = 0 in an array is the undamped solution."""
    a, b = jnp.asarray(normal(shape)), jnp.asarray(normal(shape[0], seed=1))
    mine = lambda p, b: lp.lstsq(p[0], b, damp=p[1])
    params = a, jnp.asarray(0.5, REAL)
    assert_gradients(mine, lambda p, b: ridge(p[0], b, p[1]), params, b, 100 * TOL)
    x = quick_jit(mine)((a, jnp.zeros((), REAL)), b)
    np.testing.assert_allclose(x, numpys(a, b), atol=TOL)


def test_second_order_and_batched_gradients():
    """jvp of grad through `vmap` of the solve, tall and deficient."""
    a, b = jnp.asarray(normal((5, 2))), jnp.asarray(normal((3, 5), seed=1))
    c, d = jnp.asarray(normal((2, 3), seed=2)), jnp.asarray(normal((5, 2), seed=3))

    def loss(solve, a):
        x = jax.vmap(lambda b: solve(a @ c, b))(b)
        return jnp.sum(jnp.cos(x))

    def second(solve, a, d):
        return jax.jvp(jax.grad(lambda a: loss(solve, a)), (a,), (d,))[1]

    got, want = (quick_jit(second, static_argnums=0)(f, a, d) for f in (lp.lstsq, pinv))
    np.testing.assert_allclose(got, want, atol=1e4 * TOL * np.abs(want).max())


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_input():
    """S3-10: messages as those of `solve`, and those of damp."""
    a, b = normal((4, 3)), normal(4)
    with pytest.raises(lp.StructureError, match=r"b: must have shape .* N = 4, the number of rows"):
        lp.lstsq(a, b[:3])
    with pytest.raises(ValueError, match=r"damp: must be a non-negative real number.*got -1"):
        lp.lstsq(a, b, damp=-1)
    with pytest.raises(TypeError, match="A: must be an array, a sparse matrix"):
        lp.lstsq(None, b)
    with pytest.raises(ValueError, match=r"LU.*4×3 operator"):
        lp.lstsq(a, b, lp.LU())
    with pytest.raises(lp.StructureError, match="pass `x0` to say what x looks like"):
        lp.lstsq(lambda x: x[:3], b)
    bad = np.where(a == a[0, 0], np.nan, a)
    with pytest.raises(lp.NonFiniteInputError):
        lp.lstsq(bad, b)
