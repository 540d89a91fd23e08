"""`solve` with functions: through sparse matrices where that is cheaper, with all derivatives."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax import lax

import linsolve_prim as lp
from linsolve_prim.errors import NonlinearFunctionError, StructureError

X64 = jax.config.jax_enable_x64
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
TOL = 1e-8 if X64 else 2e-3
RNG = np.random.default_rng(0)
N = 5000  # unknowns: more than are made dense where there is no pattern
B = jnp.asarray(RNG.normal(size=N), REAL)
C = jnp.asarray(RNG.random(N) + 3, REAL)


def chain(x, c):
    """A matrix with three diagonals and c on the middle one, and an offset."""
    return c * x - jnp.roll(x, 1) - jnp.pad(x[1:], (0, 1)) + 1


def triplet(x, c):
    """The same without a corner: tridiagonal."""
    return c * x - jnp.pad(x[:-1], (1, 0)) - 0.5 * jnp.pad(x[1:], (0, 1))


def grid(u, c):
    p = jnp.pad(u, 1)
    near = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + 2 * p[1:-1, :-2]
    return (c + 5) * u - near


def reference(c, b):
    A, offset = lp.materialise_sparse(chain, B, args=(c,))
    return np.linalg.solve(np.asarray(A.as_matrix()), np.asarray(b) - np.asarray(offset))


def _many_steps(x):
    for _ in range(3001):
        x = x + B
    return x


# ---- The choice ------------------------------------------------------------------------------------


def test_large_functions_become_sparse_matrices():
    """S0-18: more than 512 unknowns and few entries: `explain` says so, and the solution is right."""
    f = lambda x: chain(x, C)
    text = lp.explain(f, B)
    assert "SparseLinearOperator, 5000×5000" in text
    assert "14999 entries (3.0 in a row)" in text
    assert "function: its 14999 entries follow from" in text
    np.testing.assert_allclose(lp.solve(f, B), reference(C, B), rtol=TOL, atol=TOL)


def test_small_functions_become_dense_matrices():
    """S0-18: up to 512 unknowns a dense factorization is as fast."""
    f = lambda x: triplet(x, C[: x.shape[0]])
    assert "FunctionLinearOperator" in lp.explain(f, B[:512])
    assert "LU()" in lp.explain(f, B[:512])
    assert "SparseLinearOperator" in lp.explain(f, B[:513])
    assert "LU()" in lp.explain(jnp.cumsum, B[:513])


def test_the_pattern_chooses_the_solver():
    assert "Tridiagonal" in lp.explain(lambda x: triplet(x, C), B)
    assert "Diagonal" in lp.explain(lambda x: C * x, B)


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (lambda x: jnp.cumsum(x), "primitive `cumsum`"),
        (lambda x: x + jnp.fft.ifft(jnp.fft.fft(x)).real, "primitive `fft`"),
        (lambda x: _many_steps(x), "operations had to be followed"),
        (
            lambda x: lax.fori_loop(0, 2000, lambda i, c: c + 0.1 * jnp.roll(c, 1), x),
            "`while`|`scan`|`add`",
        ),
    ],
    ids=["cumsum", "fft", "operations", "loop"],
)
def test_what_is_not_sparse_stays_matrix_free(f, why):
    """S0-18: what grows beyond 64 entries for each unknown is given up, and GMRES solves it."""
    text = lp.explain(f, B)
    assert "FunctionLinearOperator" in text
    assert "GMRES" in text
    assert "no sparse pattern was found" in text
    assert re.search(why, text)


def test_wide_fronts_stay_matrix_free():
    """Random neighbours fill the factors: it is iterated. One row with all is no reason for that."""
    one, two, three = (np.random.default_rng(k).permutation(N) for k in range(3))
    f = lambda x: 10 * x + x[one] + x[two] - x[three]
    text = lp.explain(f, B)
    assert "its matrix is sparse (4.0 entries in a row), but fronts of about" in text
    assert "GMRES" in text
    np.testing.assert_allclose(f(lp.solve(f, B)), B, atol=1e-3)
    bordered = lambda x: triplet(x, C) + x[0] + jnp.pad(x.sum()[None], (0, N - 1))
    assert "RSLab" in lp.explain(bordered, B) or "SuperLU" in lp.explain(bordered, B)
    np.testing.assert_allclose(bordered(lp.solve(bordered, B)), B, atol=TOL)


def test_an_iterative_solver_sees_the_function():
    """An explicit Krylov method, or a preconditioner, asks for products."""
    f = lambda x: triplet(x, C)
    assert "known by its products only" in lp.explain(f, B, lp.GMRES())
    lp.detection.reset_stats()
    x = lp.solve(f, B, lp.BiCGStab())
    y = lp.solve(f, B, preconditioner=lambda r: r / C)
    assert lp.detection.stats()["detections"] == lp.detection.stats()["hits"] == 0
    np.testing.assert_allclose(x, lp.solve(f, B), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(y, lp.solve(f, B), rtol=1e-3, atol=1e-3)


def test_host_solvers_get_the_sparse_matrix():
    """S0-18: SuperLU factorizes the sparse matrix, not a dense one, also of few unknowns."""
    c, b = C[:300], B[:300]
    lp.host.registry.clear()
    np.testing.assert_allclose(
        chain(lp.solve(lambda x: chain(x, c), b, lp.SuperLU()), c), b, atol=TOL
    )
    assert lp.host.registry.stats()["bytes"] < 8 * 300 * 300 / 4
    assert "899 entries" in lp.explain(lambda x: chain(x, c), b, lp.SuperLU())
    dense = lambda x: jnp.cumsum(x) + C[:6]
    np.testing.assert_allclose(dense(lp.solve(dense, B[:6], lp.SuperLU())), B[:6], atol=TOL)


def test_grids_and_pytrees():
    """The solution has the structure of x, whatever that is."""
    c = jnp.asarray(RNG.random((70, 70)), REAL)
    b = jnp.asarray(RNG.normal(size=(70, 70)), REAL)
    x = lp.solve(grid, b, args=(c,))
    np.testing.assert_allclose(grid(x, c), b, atol=TOL)

    def f(x):
        return {"u": grid(x["u"], c) + x["p"][0], "p": 2 * x["p"]}

    b = {"u": b, "p": jnp.ones(3, REAL)}
    assert "SparseLinearOperator" in lp.explain(f, b)
    x = lp.solve(f, b, x0=jax.tree.map(jnp.zeros_like, b))
    jax.tree.map(lambda y, z: np.testing.assert_allclose(y, z, atol=TOL), f(x), b)


def test_products_of_numpy_are_for_the_host_S4_06():
    """A function that is no JAX is refused with the way out, which has gradients as well."""
    numpy_product = lambda x: np.asarray(x) * np.array([2.0, 4.0])
    b = jnp.ones(2)
    with pytest.raises(TypeError, match=r"A: must be a function of `jax.numpy`.*from_scipy"):
        lp.solve(numpy_product, b)
    product = scipy.sparse.linalg.LinearOperator(
        (2, 2), matvec=numpy_product, rmatvec=numpy_product, dtype=b.dtype
    )
    solve = lambda b: lp.solve(lp.interop.scipy.from_scipy(product), b, lp.GMRES())
    np.testing.assert_allclose(solve(b), [0.5, 0.25], rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda b: solve(b).sum())(b), [0.5, 0.25], rtol=1e-5)


def test_further_arguments_come_in_a_tuple():
    with pytest.raises(
        TypeError, match=r"args: must be a tuple.*Write one alone as `args=\(value,\)`"
    ):
        lp.solve(lambda x, a: a * x, jnp.ones(2), args=jnp.ones(2))


def test_nonlinear_functions_are_refused():
    """S0-21: also on the way to a sparse matrix."""
    with pytest.raises(NonlinearFunctionError, match="integer_pow"):
        lp.solve(lambda x: x**2, B)


def test_structures_must_fit():
    """S0-16."""
    with pytest.raises(StructureError, match=r"returns .*\[4999\].*b has structure .*\[5000\]"):
        lp.solve(lambda x: x[1:], B)


def test_precision_is_promoted():
    """The function is traced again for x in the precision of its coefficients."""
    single = lambda x: 2 * x.astype(np.float32)
    rule = "A returns float32 for b of dtype float16"
    with pytest.warns(lp.PrecisionWarning, match=rule), jax.numpy_dtype_promotion("standard"):
        x = lp.solve(single, B.astype(np.float16))
    assert x.dtype == np.float32
    np.testing.assert_allclose(2 * x, B, atol=1e-2)


def test_functions_that_are_not_square():
    """Least squares by default sees the function; that of a host library gets the sparse matrix."""
    tall = lambda x: jnp.concatenate([2 * x, x - 1])
    b = jnp.concatenate([B, B + 1])
    expected = (2 * B + B + 2) / 5
    default = lp.solve(tall, b, lp.AutoLinearSolver(well_posed=None), x0=B)
    np.testing.assert_allclose(default, expected, rtol=1e-3, atol=1e-3)
    host = lp.solve(tall, b, lp.SciPyIterative("lsmr"), x0=B)
    np.testing.assert_allclose(host, expected, rtol=1e-3, atol=1e-3)


# ---- Detection is remembered -----------------------------------------------------------------------


def test_detected_once():
    """S0-18: ten solves with ten equal lambdas and other coefficients: one detection."""
    lp.detection.clear()
    lp.detection.reset_stats()
    for k in range(10):
        c = C + k
        x = lp.solve(lambda x, c=c: chain(x, c), B)
        np.testing.assert_allclose(chain(x, c), B, atol=TOL)
    stats = lp.detection.stats()
    assert stats["traces"] == stats["detections"] + stats["hits"] == 10
    assert stats["detections"] <= 1 + 4  # while it is looked at whether coefficients are zero
    lp.detection.reset_stats()
    solve = jax.jit(lambda c: lp.solve(chain, B, args=(c,)))
    for k in range(10):
        np.testing.assert_allclose(chain(solve(C + k), C + k), B, atol=TOL)
    assert lp.detection.stats() == {"traces": 1, "detections": 1, "hits": 0}


def test_known_zeros_are_looked_at_again_until_they_move():
    """A coefficient that is zero somewhere is no entry there; one that changes always is not asked."""
    lp.detection.clear()
    like = jnp.zeros(4, REAL)
    counts = []
    for k in range(8):
        c = jnp.asarray(np.arange(4) != k % 4, REAL)
        A, _ = lp.materialise_sparse(lambda x, c=c: c * x, like)
        np.testing.assert_array_equal(A.as_matrix(), np.diag(c))
        counts.append(A.pattern.nnz)
    assert counts[0] == 3
    lp.detection.reset_stats()
    for _ in range(8):
        c = jnp.asarray(RNG.normal(size=4), REAL)
        A, _ = lp.materialise_sparse(lambda x, c=c: c * x, like)
        np.testing.assert_array_equal(A.as_matrix(), np.diag(c))
    assert lp.detection.stats()["detections"] <= 1


# ---- Transformations, against the dense matrix -----------------------------------------------------

M = 70  # small, so that a dense reference is cheap; through the matrix by the solver that is asked for
SMALL_C, SMALL_B = C[:M], B[:M]


def through_sparse(c, b):
    return lp.solve(chain, b, lp.SuperLU(), args=(c,))


def through_dense(c, b):
    matrix = jax.jacfwd(lambda x: chain(x, c), holomorphic=b.dtype == COMPLEX)(jnp.zeros_like(b))
    return jnp.linalg.solve(matrix, b - chain(jnp.zeros_like(b), c))


def loss(solve):
    return lambda c, b: jnp.sum(jnp.sin(solve(c, b)))


def test_gradients():
    """S0-33, S0-20: by closed-over coefficients and by b, eager and jitted."""
    expected = jax.grad(loss(through_dense), (0, 1))(SMALL_C, SMALL_B)
    for wrap in (lambda f: f, jax.jit):
        found = wrap(jax.grad(loss(through_sparse), (0, 1)))(SMALL_C, SMALL_B)
        for one, two in zip(found, expected):
            np.testing.assert_allclose(one, two, rtol=TOL, atol=TOL)


def test_gradient_of_a_large_solve():
    """The default path: gradient by the coefficients, −A⁻ᵀg ⊙ x, against the dense one."""
    f = lambda c: jnp.sum(lp.solve(chain, B, args=(c,)) ** 2)
    x = lp.solve(chain, B, args=(C,))
    A, _ = lp.materialise_sparse(chain, B, args=(C,))
    adjoint = np.linalg.solve(np.asarray(A.as_matrix()).T, 2 * np.asarray(x))
    np.testing.assert_allclose(jax.grad(f)(C), -adjoint * x, rtol=10 * TOL, atol=10 * TOL)


def test_gradient_by_the_offset():
    """S0-20: by the offset it is −A⁻ᵀg."""
    f = lambda x, c: triplet(x, SMALL_C) + c
    g = jax.grad(lambda c: jnp.sum(lp.solve(f, SMALL_B, lp.SuperLU(), args=(c,)) * SMALL_B))(
        SMALL_C
    )
    A, _ = lp.materialise_sparse(triplet, SMALL_B, args=(SMALL_C,))
    expected = -np.linalg.solve(np.asarray(A.as_matrix()).T, SMALL_B)
    np.testing.assert_allclose(g, expected, rtol=TOL, atol=TOL)


def test_forward_mode_and_second_derivatives():
    directions = (jnp.cos(SMALL_C), jnp.sin(SMALL_B))
    one = jax.jvp(through_sparse, (SMALL_C, SMALL_B), directions)[1]
    two = jax.jvp(through_dense, (SMALL_C, SMALL_B), directions)[1]
    np.testing.assert_allclose(one, two, rtol=TOL, atol=TOL)
    hvp = lambda solve: jax.jvp(jax.grad(loss(solve)), (SMALL_C, SMALL_B), directions)[1]
    np.testing.assert_allclose(
        hvp(through_sparse), hvp(through_dense), rtol=10 * TOL, atol=10 * TOL
    )


def test_vmap_over_coefficients():
    """Entries are batched, the pattern is one."""
    cs = jnp.stack([SMALL_C, SMALL_C + 1, 2 * SMALL_C])
    lp.detection.clear()
    lp.detection.reset_stats()
    found = jax.vmap(through_sparse, (0, None))(cs, SMALL_B)
    assert lp.detection.stats()["detections"] == 1
    expected = jax.vmap(through_dense, (0, None))(cs, SMALL_B)
    np.testing.assert_allclose(found, expected, rtol=TOL, atol=TOL)
    grads = jax.vmap(jax.grad(loss(through_sparse)), (0, None))(cs, SMALL_B)
    want = jax.vmap(jax.grad(loss(through_dense)), (0, None))(cs, SMALL_B)
    np.testing.assert_allclose(grads, want, rtol=TOL, atol=TOL)


def test_closures_are_differentiated():
    """S0-17: the same derivative by `args` and by what is closed over."""
    closed = lambda c: jnp.sum(lp.solve(lambda x: chain(x, c), SMALL_B, lp.SuperLU()))
    given = lambda c: jnp.sum(lp.solve(chain, SMALL_B, lp.SuperLU(), args=(c,)))
    np.testing.assert_allclose(jax.grad(closed)(SMALL_C), jax.grad(given)(SMALL_C), rtol=TOL)


def test_zero_coefficients_are_entries_where_they_are_differentiated():
    """A tracer may be anything: the derivative by a coefficient that is zero now is not lost."""
    c = SMALL_C.at[3].set(0)
    one = jax.grad(loss(through_sparse))(c, SMALL_B)
    np.testing.assert_allclose(one, jax.grad(loss(through_dense))(c, SMALL_B), rtol=TOL, atol=TOL)


def test_complex_coefficients():
    c = SMALL_C.astype(COMPLEX) * np.asarray(1 + 1j, COMPLEX)
    b = SMALL_B.astype(COMPLEX)
    np.testing.assert_allclose(through_sparse(c, b), through_dense(c, b), rtol=TOL, atol=TOL)
    real = lambda solve: lambda c: jnp.sum(jnp.abs(solve(c, b)) ** 2)
    one, two = (jax.grad(real(solve))(c) for solve in (through_sparse, through_dense))
    np.testing.assert_allclose(one, two, rtol=TOL, atol=TOL)


def test_single_precision():
    c, b = SMALL_C.astype(np.float32), SMALL_B.astype(np.float32)
    x = through_sparse(c, b)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, through_dense(c, b), rtol=1e-4, atol=1e-4)


def test_nothing_is_logged_for_sparse_matrices(caplog):
    with caplog.at_level(logging.WARNING, "linsolve_prim"):
        lp.materialise_sparse(chain, SMALL_B, args=(SMALL_C,))
    assert not caplog.records
