"""`materialise_sparse`: the matrix of any linear or affine function equals its dense Jacobian.

`test_materialise_oracle.py` compares patterns with those of `asdex`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from linear_functions import (
    FUNCTIONS,
    GRID,
    LINE,
    MASK,
    REAL,
    RNG,
    TIGHT,
    TOL,
    N,
    convolved,
    dense,
    five_points,
    rolled,
)

import linsolve_prim as lp


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_the_dense_jacobian(name):
    """S0-18, S4-07: M.as_matrix() is the Jacobian, for whatever a function is made of.

    Where the pattern is tight, no entry is zero: neither padding nor what a mask hides is stored.
    """
    f, structure = FUNCTIONS[name]
    A, offset = lp.materialise_sparse(f, structure)
    matrix, bias = dense(f, structure)
    assert isinstance(A, lp.SparseLinearOperator)
    assert A.pattern.shape == matrix.shape
    np.testing.assert_allclose(A.as_matrix(), matrix, atol=TOL)
    np.testing.assert_allclose(offset, bias, atol=TOL)
    if name in TIGHT:
        assert np.all(np.asarray(A.values) != 0)


@pytest.mark.parametrize("size", [3, 16])
@pytest.mark.parametrize("f", [five_points("constant"), convolved], ids=["pad", "conv"])
def test_five_points_have_5n_minus_4_roots_entries(f, size):
    """S0-18: nnz == 5n − 4√n, each diagonal entry once."""
    A, _ = lp.materialise_sparse(f, jnp.zeros((size, size), REAL))
    assert A.pattern.nnz == 5 * size**2 - 4 * size
    with_gradient, _ = lp.materialise_sparse(five_points("edge"), jnp.zeros((size, size), REAL))
    assert with_gradient.pattern == A.pattern


def test_masked_operator():
    """S4-07: f(x) = where(mask, 2·laplace(x), x) equals the masked dense matrix."""
    laplace = five_points("constant")
    f = lambda x: jnp.where(MASK, 2 * laplace(x), x)
    A, _ = lp.materialise_sparse(f, GRID)
    full = np.asarray(dense(laplace, GRID)[0])
    rows = MASK.ravel()[:, None]
    np.testing.assert_allclose(A.as_matrix(), np.where(rows, 2 * full, np.eye(N * N)))
    assert A.pattern.nnz == np.count_nonzero(np.where(rows, full, np.eye(N * N)))


def test_traced_masks_keep_both_sides():
    """A mask that is not known beforehand: the pattern is the union, the entries are right."""
    f = lambda x, mask: jnp.where(mask, 2 * rolled(x), x)
    of = lambda mask: lp.materialise_sparse(f, GRID, args=(mask,))[0]
    A = jax.jit(of)(jnp.asarray(MASK))
    np.testing.assert_allclose(A.as_matrix(), of(jnp.asarray(MASK)).as_matrix())
    assert A.pattern.nnz == 5 * N * N > of(jnp.asarray(MASK)).pattern.nnz


# ---- Unknown indices, control flow that is not known ----------------------------------------------

INDEX = jnp.asarray([3, 1, 1, 0])


@pytest.mark.parametrize(
    "f",
    [
        lambda x, i: x[i],
        lambda x, i: x.at[i].set(x[:4]),
        lambda x, i: x.at[i].add(2 * x[2:]),
        lambda x, i: lax.dynamic_slice(x, (i[0],), (2,)),
        lambda x, i: lax.dynamic_update_slice(x, x[:2], (i[0],)),
        lambda x, i: lax.dynamic_update_slice(jnp.zeros(N, REAL), x[:2], (i[0],)),
        lambda x, i: lax.dynamic_update_slice(x, jnp.ones(2, REAL), (i[0],)),
        lambda x, i: lax.cond(i[0] > 1, lambda x: x, lambda x: 2 * x[::-1], x),
        lambda x, i: lax.cond(i[0] > 1, lambda x: x, lambda x: jnp.zeros(N, REAL), x),
        lambda x, i: lax.fori_loop(0, i[0], lambda k, c: jnp.roll(c, 1), x),
        lambda x, i: lax.fori_loop(0, 3, lambda k, c: c.at[k].add(c[i[k]]), x),
        lambda x, i: lax.while_loop(
            lambda c: c[0] < i[0], lambda c: (c[0] + 1, c[1] + jnp.roll(c[1], 1)), (0, x)
        )[1],
        lambda x, i: jnp.roll(x, i[0]),
        lambda x, i: x * i[1].astype(REAL),
    ],
)
def test_what_is_traced_is_not_guessed(f):
    """S0-18: indices and conditions that are traced give a pattern that holds for all of them."""
    of = lambda i: lp.materialise_sparse(lambda x: f(x, i).astype(REAL), LINE)[0]
    traced = jax.jit(of)
    for i in (INDEX, INDEX[::-1] + 1):
        g = lambda x, i=i: f(x, i).astype(REAL)
        expected = dense(g, LINE)[0]
        np.testing.assert_allclose(of(i).as_matrix(), expected, atol=TOL)
        np.testing.assert_allclose(traced(i).as_matrix(), expected, atol=TOL)


# ---- Sizes ---------------------------------------------------------------------------------------


def laplace_3d(u):
    p = jnp.pad(u, 1)
    cut = lambda axis, at: lax.slice_in_dim(p, at, at + u.shape[axis], axis=axis)
    inner = (slice(1, -1),) * 3
    near = [
        cut(axis, at)[tuple(slice(None) if a == axis else i for a, i in enumerate(inner))]
        for axis in range(3)
        for at in (0, 2)
    ]
    return sum(near) - 6 * u


@pytest.mark.parametrize(
    ("f", "shape", "nnz"),
    [
        (five_points("constant"), (512, 512), 5 * 512**2 - 4 * 512),
        (five_points("wrap"), (512, 512), 5 * 512**2),
        (convolved, (512, 512), 5 * 512**2 - 4 * 512),
        (laplace_3d, (64, 64, 64), 7 * 64**3 - 6 * 64**2),
    ],
    ids=["pad", "periodic", "conv", "3d"],
)
def test_index_arithmetic_beyond_two_to_the_31(f, shape, nnz):
    """B-05: n² = 6.9·10¹⁰ > 2³¹, entries at the far end are right."""
    single = jax.ShapeDtypeStruct(shape, np.float32)
    A, _ = lp.materialise_sparse(lambda u: f(u).astype(np.float32), single)
    assert A.pattern.nnz == nnz
    x = jnp.asarray(RNG.normal(size=shape), np.float32)
    np.testing.assert_allclose(A.mv(x.ravel()), f(x).ravel(), rtol=1e-4, atol=1e-4)
