"""`LowRankPlusDiagonal`: inverse, determinant, derivatives; and what `CG` thinks of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from krylov_tools import COMPLEX, EPS, REAL, X64, normal

import linsolve_prim as lp
from linsolve_prim.preconditioners import LowRankPlusDiagonal
from linsolve_prim.testing import check_operator

N, R = 30, 4


def parts(dtype=REAL, seed=0):
    """d > 0, U and V."""
    d = np.random.default_rng(seed).uniform(1, 2, N).astype(np.finfo(dtype).dtype)
    U, V = (normal((N, R), dtype, seed + i) / 3 for i in (1, 2))
    return tuple(map(jnp.asarray, (d, U, V)))


FORMS = {
    "unsymmetric": lambda d, U, V: LowRankPlusDiagonal(d, U, V),
    "hermitian": lambda d, U, V: LowRankPlusDiagonal(d, U),
    "negative rank": lambda d, U, V: LowRankPlusDiagonal(d, U / 9, sign=-1),
    "definite": lambda d, U, V: LowRankPlusDiagonal.spd(d, U),
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
dtypes = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])


@forms
@dtypes
def test_laws_inverse_and_determinant_S1_12_S1_13(form, dtype):
    """S1-12: `.inv()` is the inverse of the dense matrix to 10⁻¹², and of the same kind; S1-13: logdet."""
    operator = form(*parts(dtype))
    inverse = operator.inv()
    check_operator(operator)
    check_operator(inverse)
    assert isinstance(inverse, LowRankPlusDiagonal)
    matrix, r = np.asarray(operator.as_matrix()), normal(N, dtype, 9)
    np.testing.assert_allclose(inverse @ r, np.linalg.solve(matrix, r), rtol=0, atol=4000 * EPS)
    np.testing.assert_allclose(operator.logdet(), np.linalg.slogdet(matrix)[1], rtol=100 * EPS)
    np.testing.assert_allclose(inverse.logdet(), -operator.logdet(), rtol=1000 * EPS)
    np.testing.assert_allclose(
        inverse.inv().as_matrix(), matrix, rtol=0, atol=4000 * EPS * np.abs(matrix).max()
    )


@forms
def test_derivatives_by_all_parts_S1_12(form):
    """Those of `.inv()` and `.logdet()` by d, U and V agree with dense ones."""
    r = jnp.asarray(normal(N, seed=9))
    mine = lambda p: jnp.sum(jnp.sin(form(*p).inv() @ r)) + form(*p).logdet()

    def dense(p):
        matrix = form(*p).as_matrix()
        return jnp.sum(jnp.sin(jnp.linalg.solve(matrix, r))) + jnp.linalg.slogdet(matrix)[1]

    free = lambda d, U, V: (d, U, V)
    p = free(*parts())
    tol = 1e-10 if X64 else 2e-3
    # (`spd` looks at d where it can: not while differentiating)
    for a, b in zip(jax.grad(mine)(p), jax.grad(dense)(p)):
        np.testing.assert_allclose(a, b, rtol=0, atol=tol)
    jvp = lambda f: jax.jvp(f, (p,), (jax.tree.map(jnp.cos, p),))[1]
    np.testing.assert_allclose(jvp(mine), jvp(dense), rtol=tol)


def _shapes(jaxpr):
    """(primitive, shapes of its outputs) of every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, [v.aval.shape for v in equation.outvars]
        for inner in jaxprs_in_params(equation.params):
            yield from _shapes(inner)


@forms
def test_only_small_factorizations_and_O_nr_memory_S1_13(form):
    """Nothing in the program of an inverse is larger than U, and what is factorized is r×r."""
    d, U, V = parts()
    r = jnp.ones(N, REAL)
    rows = list(_shapes(jax.make_jaxpr(lambda d, U, V: form(d, U, V).inv() @ r)(d, U, V).jaxpr))
    assert max(np.prod(shape) for _, shapes in rows for shape in shapes) <= N * R
    factored = [shapes[0] for name, shapes in rows if name in ("lu", "cholesky")]
    assert factored == [(R, R)]


def test_vmap_over_batches():
    batch = [jnp.stack(x) for x in zip(parts(seed=0), parts(seed=5))]
    r = jnp.asarray(normal(N, seed=9))
    got = jax.vmap(lambda d, U: LowRankPlusDiagonal.spd(d, U).inv() @ r)(*batch[:2])
    for i in range(2):
        want = LowRankPlusDiagonal.spd(batch[0][i], batch[1][i]).inv() @ r
        np.testing.assert_allclose(got[i], want, rtol=0, atol=100 * EPS)


def system():
    """A definite matrix that is diagonal but for a low rank and a little noise."""
    d, U, _ = parts()
    noise = normal((N, N), seed=4) * 0.003
    matrix = jnp.diag(d) + 40 * U @ U.T + noise @ noise.T
    return lp.MatrixLinearOperator(matrix, lp.positive_semidefinite_tag), jnp.asarray(normal(N))


def test_preconditions_cg_S1_14():
    """With the definite form CG takes a few steps, stops at ‖r‖ ≤ 10⁻⁶, and solves."""
    operator, b = system()
    d, U, _ = parts()
    preconditioner = LowRankPlusDiagonal.spd(d, U * 40**0.5).inv()
    solver = lp.CG(rtol=0.0, atol=1e-6 if X64 else 1e-3)
    plain = lp.linear_solve(operator, b, solver)
    sol = lp.linear_solve(operator, b, solver, options={"preconditioner": preconditioner})
    assert int(sol.stats["num_steps"]) <= 0.7 * int(plain.stats["num_steps"])
    residual = np.linalg.norm(b - operator.matrix @ sol.value)
    assert residual <= 1.01 * solver.atol
    by_solve = lp.solve(operator, b, solver, preconditioner=preconditioner)
    np.testing.assert_allclose(by_solve, sol.value, rtol=0, atol=1e-12 if X64 else 1e-5)


@pytest.mark.parametrize("shapes", [((3,), (4, 2)), ((3,), (3,))])
def test_refuses_shapes(shapes):
    with pytest.raises(lp.StructureError, match=r"U: must have shape \(n, r\)"):
        LowRankPlusDiagonal(*(np.ones(shape) for shape in shapes))


def test_refuses_what_is_not_definite():
    with pytest.raises(lp.StructureError, match=r"V: must have the shape of U, \(3, 2\); got"):
        LowRankPlusDiagonal(np.ones(3), np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(lp.StructureError, match="d: must be real in D \\+ UUᴴ"):
        LowRankPlusDiagonal(np.ones(3) * 1j, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"d: must be positive .* the least is -1"):
        LowRankPlusDiagonal.spd(np.array([1.0, -1.0]), np.ones((2, 1)))
