"""The table of gradient modes (row S1-22), and what of a gradient a promised symmetry lets one see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from conftest import X64
from learn_systems import GENERAL, SPD, B, N

import linsolve_prim as lp
from linsolve_prim.learn.admissible import Admissible

pytestmark = pytest.mark.skipif(not X64, reason="compares to many digits")
RNG = np.random.default_rng(1)
DENSE = lp.MatrixLinearOperator(SPD, lp.positive_semidefinite_tag)
COMPLEX = RNG.normal(size=(N, N)) + 1j * RNG.normal(size=(N, N))
GRID = scipy.sparse.diags([-1.0, -1.0, 4.0, -1.0, -1.0], [-5, -1, 0, 1, 5], (N, N)).tocsr()
SPARSE = lp.SparseLinearOperator.from_scipy(GRID, lp.positive_semidefinite_tag)


def test_compare_gradients_S1_22(capsys):
    table = lp.learn.compare_gradients(lambda x: jnp.sum(x**2), DENSE, B, num_samples=5)
    modes = [row.mode for row in table]
    assert modes == [
        "finite differences", "implicit", "unrolled", "truncated", "one-step", "stochastic",
    ]  # fmt: skip
    assert table["implicit"].error < 1e-6
    assert table["finite differences"].error < 1e-6
    assert table["unrolled"].error < 1e-2
    assert table["implicit"].error < table["truncated"].error < table["stochastic"].error
    assert table["one-step"].error > 1e-2
    assert all(row.seconds > 0 for row in table)
    assert table["unrolled"].memory > 2 * table["implicit"].memory
    assert repr(table) in capsys.readouterr().out
    with pytest.raises(KeyError, match="no mode is called"):
        table["exact"]


def hermitian():
    matrix = COMPLEX @ COMPLEX.conj().T / N + np.eye(N)
    return lp.MatrixLinearOperator(jnp.asarray(matrix), lp.positive_semidefinite_tag)


def scaled():
    """A function that captures a matrix: v ↦ w ∘ K(w ∘ v)."""
    w = jnp.linspace(1.0, 2.0, N)
    product = lambda v: w * (SPD @ (w * v))
    return lp.FunctionLinearOperator(product, w, lp.positive_semidefinite_tag)


def general():
    return lp.MatrixLinearOperator(GENERAL)


KINDS = {"sparse": lambda: SPARSE, "hermitian": hermitian, "function": scaled, "general": general}


@pytest.mark.parametrize(
    "kind",
    [
        "sparse",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("hermitian", "function", "general")),
    ],
)
def test_methods_for_symmetric_matrices_are_compared_where_they_mean_something_S1_22(kind, capsys):
    """Unrolled to its end, CG has LAPACK's gradient in all directions that keep A Hermitian."""
    operator = KINDS[kind]()
    b = B.astype(operator.in_structure().dtype)
    loss = lambda x: jnp.sum(jnp.abs(x) ** 2)
    solver, near = (None, 1e-6) if kind == "general" else (lp.CG(rtol=1e-13), 1e-10)
    table = lp.learn.compare_gradients(loss, operator, b, solver, show=False)
    assert capsys.readouterr().out == ""
    assert table["finite differences"].error < 1e-6
    assert table["implicit"].error < near
    assert table["unrolled"].error < near
    assert table["one-step"].error > 1e-2


def test_the_projection_is_the_symmetric_part():
    """Of dense matrices, real, Hermitian and complex symmetric; and of what is not tagged, nothing."""
    d = jnp.asarray(COMPLEX)
    cases = [
        (SPD, d.real, lp.symmetric_tag, lambda d: (d + d.T) / 2),
        (hermitian().matrix, d, lp.positive_semidefinite_tag, lambda d: (d + d.conj().T) / 2),
        (-hermitian().matrix, d, lp.negative_semidefinite_tag, lambda d: (d + d.conj().T) / 2),
        (jnp.asarray(COMPLEX + COMPLEX.T), d, lp.symmetric_tag, lambda d: (d + d.T) / 2),
        (jnp.asarray(COMPLEX), d, (), lambda d: d),
    ]
    for matrix, direction, tags, want in cases:
        build = lambda arrays, tags=tags: lp.MatrixLinearOperator(arrays[0], tags)
        admissible = Admissible(build, [matrix, B])
        got, untouched = admissible.direction([direction, B])
        np.testing.assert_allclose(got, want(direction), atol=1e-12)
        np.testing.assert_allclose(untouched, B)
        by_matrix = admissible.gradient([direction.conj(), B])[0]
        np.testing.assert_allclose(by_matrix, want(direction).conj(), atol=1e-12)


def test_the_projection_lives_on_the_pattern():
    """An entry without a partner is zero in every symmetric matrix, and stays so."""
    rows, columns = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 1, 2])
    values = jnp.array([2.0, 1.0, 0.0, 1.0, 3.0, 4.0])
    operator = lp.SparseLinearOperator.from_coo(rows, columns, values, (3, 3), lp.symmetric_tag)
    build = lambda arrays: lp.SparseLinearOperator(arrays[0], operator.pattern, operator.tags)
    got = Admissible(build, [operator.values]).direction([jnp.arange(1.0, 7.0)])[0]
    np.testing.assert_allclose(got, [1, 3, 0, 3, 5, 6], atol=1e-12)


def test_what_cannot_be_compared_says_so():
    compare = lambda loss, A=SPD, b=B, *rest: lp.learn.compare_gradients(loss, A, b, *rest)
    with pytest.raises(TypeError, match=r"solver: must be an iterative method.*got LU\(\)"):
        compare(jnp.sum, SPD, B, lp.LU())
    with pytest.raises(
        lp.StructureError, match=r"loss: must return one real number; got float64\[20\]"
    ):
        compare(lambda x: x)
    with pytest.raises(lp.StructureError, match=r"got complex128\[\]"):
        compare(lambda x: jnp.sum(x).astype(complex))
    with pytest.raises(TypeError, match=r"A, b: must be known values.*outside of `jax.jit`"):
        jax.jit(lambda b: compare(jnp.sum, SPD, b)["implicit"].error)(B)
