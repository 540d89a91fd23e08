"""`LU`'s own parts: permutations from swaps, and the test of pivots, single and in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64

import linsolve_prim as lp
from linsolve_prim._second_look import sums
from linsolve_prim.results import SINGULAR, SUCCESSFUL
from linsolve_prim.solvers.lu import _clear, _first_look, _second_look, _second_look_on_host

#: Both sides of the borders between forms of the permutation stay in the default set.
SIZES = [1, 12, 13, 41]
SIZES += [pytest.param(n, marks=pytest.mark.slow) for n in (2, 7, 8, 9, 32, 33, 64, 100)]
TOL = 1e-8 if X64 else 2e-2


def _system(n, batch=()):
    rng = np.random.default_rng(n)
    a = rng.normal(size=(*batch, n, n))
    x = rng.normal(size=(*batch, n))
    b = (a @ x[..., None])[..., 0]
    return jnp.asarray(a, float), jnp.asarray(b, float), x


def _solve(a, b):
    return lp.linear_solve(lp.MatrixLinearOperator(a), b, lp.LU(), throw=False)


@pytest.mark.parametrize("n", SIZES)
def test_rows_are_permuted_as_lapack_did(n):
    a, b, x = _system(n)
    np.testing.assert_allclose(_solve(a, b).value, x, rtol=TOL, atol=TOL)
    a, b, x = _system(n, (3,))
    np.testing.assert_allclose(jax.jit(jax.vmap(_solve))(a, b).value, x, rtol=TOL, atol=TOL)
    transposed = jax.vmap(lambda a, b: _solve(a.T, b).value)(a, b)
    again = jax.vmap(lambda a, b: jax.linear_transpose(lambda v: _solve(a, v).value, b)(b)[0])(a, b)
    np.testing.assert_allclose(again, transposed, rtol=TOL, atol=TOL)


@pytest.mark.parametrize("n", [3, 40])
def test_a_singular_matrix_is_told_and_a_badly_scaled_one_is_not(n):
    """Also if b is in the range, so that the residual vanishes; each lane for itself."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(n, n))
    deficient = rng.normal(size=(n, n - 1)) @ rng.normal(size=(n - 1, n))
    scale = 10.0 ** np.linspace(-12, 12, n)
    lanes = jnp.asarray(np.stack([whole, deficient, scale[:, None] * whole * scale]), float)
    b = jnp.asarray(np.stack([lanes[0].sum(1), lanes[1].sum(1), lanes[2].sum(1)]), float)
    want = [True, False, True]
    single = [bool(_solve(a, v).result == lp.RESULTS.successful) for a, v in zip(lanes, b)]
    batched = jax.jit(jax.vmap(_solve))(lanes, b).result == lp.RESULTS.successful
    assert single == want
    assert batched.tolist() == want


def _matrices(n):
    """Healthy, badly scaled, with a small pivot that is none too small, singular, with a NaN."""
    rng = np.random.default_rng(n)
    whole = rng.normal(size=(n, n)) + 3 * np.eye(n)
    decades = 12 if X64 else 6
    scale = 10.0 ** np.linspace(-decades, decades, n)
    tiny = np.diag(np.where(np.arange(n) == n // 2, 1e-6 if X64 else 1e-4, 1.0)) ** 2 @ whole
    deficient = whole.copy()
    deficient[:, 0] = deficient[:, 1:].sum(1)
    lost = whole.copy()
    lost[0, n - 1] = np.nan
    return {
        "whole": (whole, True),
        "scaled": (scale[:, None] * whole, True),
        "tiny": (tiny, True),
        "deficient": (deficient, False),
        "zero row": (np.diag(np.arange(n) > 0) @ whole, False),
        "nan": (lost, False),
    }


@pytest.mark.parametrize("n", [3, 40])
def test_the_second_look_on_the_host_sees_what_that_on_the_device_sees(n):
    """Of the factors and of their transpose, which is how they may lie in memory."""
    doubts = {}
    for name, (a, fine) in _matrices(n).items():
        lu = jax.lax.linalg.lu(jnp.asarray(a, float).T)[0]
        doubts[name] = not _clear(*sums(_first_look(lu)))
        codes = [_second_look(lu), _second_look(jnp.stack([lu, lu]))]
        codes += [_second_look_on_host(np.asarray(x)) for x in (lu, lu.T)]
        want = SUCCESSFUL if fine else SINGULAR
        assert all(np.all(np.asarray(code) == want) for code in codes), name
    assert doubts == {name: name != "whole" for name in doubts}


@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize("name", ["whole", "scaled", "tiny", "deficient"])
def test_a_compiled_solve_looks_twice_before_it_raises(n, name):
    """Of b in the range: the residual says nothing. Forwards, transposed and for cotangents."""
    a, fine = _matrices(n)[name]
    a = jnp.asarray(a, float)
    x = jnp.ones(n)
    forward = jax.jit(lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a), b, lp.LU()).value)
    backward = jax.jit(lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a).T, b, lp.LU()).value)
    cotangent = jax.jit(lambda a, b: jax.linear_transpose(lambda v: forward(a, v), b)(b)[0])
    for solve, matrix in ((forward, a), (backward, a.T), (cotangent, a.T)):
        b = matrix @ x
        if fine:
            got = np.asarray(solve(a, b))
            np.testing.assert_allclose(matrix @ got, b, rtol=TOL, atol=TOL * np.linalg.norm(b))
            eager = lp.linear_solve(lp.MatrixLinearOperator(matrix), b, lp.LU())
            assert bool(eager.result == lp.RESULTS.successful)
        else:
            with pytest.raises(Exception, match=r"SingularMatrixError(.|\n)*\(singular\)"):
                jax.block_until_ready(solve(a, b))


def test_a_transposed_matrix_multiplies_and_turns_back():
    a, b, _ = _system(5)
    operator = lp.MatrixLinearOperator(a)
    np.testing.assert_allclose(operator.T.mv(b), a.T @ b, rtol=1e-5)
    np.testing.assert_allclose(lp.conj(operator.T).mv(b), a.T @ b, rtol=1e-5)
    assert jax.tree.structure(operator.T.T) == jax.tree.structure(operator)
