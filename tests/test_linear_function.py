"""`linear_function`: solved through its matrix, traced once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp
from linsolve_prim.errors import NonlinearFunctionError, WrongTypeError

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
TOL = 1e-8 if jax.config.jax_enable_x64 else 1e-3
B = jnp.asarray(np.random.default_rng(0).normal(size=30), REAL)
C = jnp.asarray(np.random.default_rng(1).random(30) + 3, REAL)


def make():
    """A decorated function, and a list that grows by one each time that Python runs it."""
    runs = []

    @lp.linear_function
    def f(x, c, sign=-1):
        """Three diagonals."""
        runs.append(None)
        return c * x + sign * jnp.roll(x, 1) - jnp.roll(x, -1) + 2

    return f, runs


def dense(c, b):
    f, _ = make()
    matrix = jax.jacfwd(lambda x: f(x, c))(jnp.zeros_like(b))
    return jnp.linalg.solve(matrix, b - f(jnp.zeros_like(b), c))


def test_traced_once_in_ten_solves():
    """S0-19: one trace and one detection for ten solves with other coefficients."""
    f, runs = make()
    lp.detection.clear()
    lp.detection.reset_stats()
    for k in range(10):
        x = lp.solve(f, B, args=(C + k,))
        np.testing.assert_allclose(x, dense(C + k, B), rtol=TOL, atol=TOL)
    assert len(runs) == 1
    stats = lp.detection.stats()
    assert stats["traces"] == 1
    assert stats["detections"] == 1


def test_traced_once_inside_jit():
    """S0-19: nested in `jax.jit`, also where that is traced again."""
    f, runs = make()
    solve = jax.jit(lambda b, c: lp.solve(f, b, args=(c,)))
    for k in range(10):
        np.testing.assert_allclose(solve(B, C + k), dense(C + k, B), rtol=TOL, atol=TOL)
    jax.jit(lambda c: lp.solve(f, 2 * B, args=(c,)))(C)
    jax.vmap(lambda c: lp.solve(f, B, args=(c,)))(jnp.stack([C, C + 1]))
    jax.grad(lambda c: lp.solve(f, B, args=(c,)).sum())(C)
    assert len(runs) == 1


def test_signatures():
    """S0-19: another structure, or another static argument, is another trace."""
    f, runs = make()
    f.matrix(B, C)
    f.matrix(B[:5], C[:5])
    assert len(runs) == 2
    A = f.matrix(B, C, sign=0)
    assert len(runs) == 3
    assert A.pattern.nnz == 60  # sign = 0 is static, so the entries are known to be zero
    f.matrix(B + 1, 2 * C, sign=0)
    f.matrix(jax.ShapeDtypeStruct((30,), REAL), C)
    assert len(runs) == 3


def test_callable_as_before():
    """S0-19: name, documentation and value are those of the function."""
    f, _ = make()
    assert f.__name__ == "f"
    assert f.__doc__ == "Three diagonals."
    assert "f" in repr(f)
    np.testing.assert_allclose(f(B, C), C * B - jnp.roll(B, 1) - jnp.roll(B, -1) + 2, rtol=TOL)
    np.testing.assert_allclose(jax.jit(f)(B, c=C), f(B, C), rtol=TOL)


def test_matrix_and_bias():
    """S0-19, S0-20."""
    f, _ = make()
    A, bias = f.matrix_and_bias(B, C)
    np.testing.assert_allclose(A.mv(B) + bias, f(B, C), rtol=TOL)
    np.testing.assert_array_equal(bias, np.full(30, 2))
    B_, bias_ = lp.materialise_sparse(f, B, args=(C,))
    assert B_.pattern == A.pattern
    np.testing.assert_array_equal(B_.values, A.values)
    np.testing.assert_array_equal(bias, bias_)


def test_affine_example():
    """S0-20: f(x) = x·(2, 1) + (10, 20), b = (2, 3) has the solution (−4, −17)."""
    f = lp.linear_function(lambda x: x * jnp.array([2, 1], REAL) + jnp.array([10, 20], REAL))
    b = jnp.array([2, 3], REAL)
    np.testing.assert_allclose(lp.solve(f, b), [-4, -17])
    np.testing.assert_allclose(lp.solve(lambda x: f(x), b), [-4, -17])
    assert "Diagonal" in lp.explain(f, b)
    assert "it is a `linear_function`" in lp.explain(f, b)


@pytest.mark.parametrize("solver", [lp.GMRES(rtol=TOL / 100), lp.SuperLU(), lp.LU()])
def test_any_solver_takes_the_matrix(solver):
    """S0-19: the operator of the solve is the matrix, whatever solves it."""
    f, runs = make()
    assert "SparseLinearOperator" in lp.explain(lambda x: f(x, C), B, lp.SuperLU())
    runs.clear()
    x = lp.solve(f, B, solver, args=(C,), x0=jnp.zeros_like(B))
    np.testing.assert_allclose(x, dense(C, B), rtol=1e3 * TOL, atol=1e3 * TOL)
    assert len(runs) == 1  # no products with the function afterwards


def test_preconditioner_and_pytrees():
    """The preconditioner sees what the function returns, not the raveled vector."""
    f = lp.linear_function(
        lambda x: {"a": 4 * x["a"] - x["b"], "b": 3 * x["b"] + jnp.roll(x["a"], 1)}
    )
    b = {"a": B[:4], "b": B[4:8]}
    m = lambda r: {"a": r["a"] / 4, "b": r["b"] / 3}
    x = lp.solve(f, b, lp.GMRES(rtol=1e-10 if REAL == np.float64 else 1e-5), preconditioner=m)
    jax.tree.map(lambda y, z: np.testing.assert_allclose(y, z, atol=TOL), f(x), b)
    jax.tree.map(lambda y, z: np.testing.assert_allclose(y, z, atol=TOL), f(lp.solve(f, b)), b)


def test_dense_functions():
    """A full matrix is solved as one."""
    f = lp.linear_function(lambda x: jnp.cumsum(x) + jnp.flip(jnp.cumsum(jnp.flip(x))) + x)
    assert "MatrixLinearOperator" in lp.explain(f, B)
    np.testing.assert_allclose(f(lp.solve(f, B)), B, atol=TOL)


def test_least_squares():
    f = lp.linear_function(lambda x: jnp.concatenate([2 * x, x - 1]))
    b = jnp.concatenate([B, B])
    matrix = np.vstack([2 * np.eye(30), np.eye(30)])
    expected = np.linalg.lstsq(matrix, np.append(B, B + 1), None)[0]
    np.testing.assert_allclose(lp.lstsq(f, b, x0=B), expected, rtol=TOL, atol=TOL)


def test_gradients():
    """S0-33: by the arguments of the function, and −A⁻ᵀg by what is added."""
    f, _ = make()
    loss = lambda c, b: jnp.sum(jnp.sin(lp.solve(f, b, args=(c,))))
    want = lambda c, b: jnp.sum(jnp.sin(dense(c, b)))
    for wrap in (lambda g: g, jax.jit):
        found = wrap(jax.grad(loss, (0, 1)))(C, B)
        for one, two in zip(found, jax.grad(want, (0, 1))(C, B)):
            np.testing.assert_allclose(one, two, rtol=TOL, atol=TOL)


def test_what_it_closes_over_may_be_traced():
    """A trace with tracers in it is not kept: they do not leak."""

    def solve(c):
        f = lp.linear_function(lambda x: c * x - jnp.roll(x, 1))
        return lp.solve(f, B) + lp.solve(f, 2 * B)

    expected = 3 * jnp.linalg.solve(jnp.diag(C) - jnp.roll(jnp.eye(30, dtype=REAL), 1, 0), B)
    np.testing.assert_allclose(jax.jit(solve)(C), expected, rtol=TOL, atol=TOL)
    held = {}

    @lp.linear_function
    def g(x):
        return held["c"] * x

    @jax.jit
    def inner(c):
        held["c"] = c
        return lp.solve(g, B)

    np.testing.assert_allclose(inner(C), B / C, rtol=TOL)
    held["c"] = 2 * C
    np.testing.assert_allclose(lp.solve(g, B), B / (2 * C), rtol=TOL)


def test_bad_functions():
    """S0-21."""
    with pytest.raises(NonlinearFunctionError, match="integer_pow"):
        lp.solve(lp.linear_function(lambda x: x**2), B)
    with pytest.raises(WrongTypeError, match="fn: must be a function"):
        lp.linear_function(3)
