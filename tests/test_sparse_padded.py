"""Matrices for products alone, whose arrays are operands: in tables of rows, and packed ahead."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from krylov_tools import COMPLEX, REAL, X64

import linsolve_prim as lp
from linsolve_prim.operators import conj
from linsolve_prim.sparse import padded
from linsolve_prim.sparse.packed_operator import PackedOperator, with_products_ahead
from linsolve_prim.sparse.padded import PaddedOperator, slots_of

TOLERANCE = 1e-12 if X64 else 1e-4


def uneven(m, n, longest, dtype, seed=0):
    """Rows of 0 to 5 entries, and one in nine that is as long as said."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 6, m)
    lengths[::9] = longest
    columns = [np.sort(rng.choice(n, k, replace=False)) for k in lengths]
    values = rng.standard_normal(lengths.sum()) + 1j * rng.standard_normal(lengths.sum())
    values = values if np.issubdtype(dtype, np.complexfloating) else values.real
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    indices = np.concatenate(columns).astype(np.int32)
    return sp.csr_matrix((values.astype(dtype), indices, indptr), (m, n))


#: Whether tables are small, what a tail costs, the longest row: so that each form of a product is met.
FORMS = {
    "small": (1 << 16, 1 << 15, 11),
    "small with a tail": (1 << 16, 0, 11),
    "written out": (0, 1 << 15, 11),
    "written out with a tail": (0, 0, 11),
    "a loop": (0, 1 << 15, 45),
    "a tail that is a loop": (0, 0, 77),
}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def form(request, monkeypatch):
    small, tail, longest = request.param
    monkeypatch.setattr(padded, "_SMALL", small)
    monkeypatch.setattr(padded, "_TAIL", tail)
    return longest


def test_products_of_padded_rows(form):
    dtype = COMPLEX if form == 11 else REAL
    matrix = uneven(70, 90, form, dtype)
    operator = PaddedOperator.of_scipy(matrix)
    other = PaddedOperator.of_scipy(matrix, PaddedOperator.of_scipy(matrix.T.tocsr()))
    x, y = (np.random.default_rng(n).standard_normal(n).astype(dtype) for n in (90, 70))

    @jax.jit
    def parts(a, other, x, y):
        turned = a.transpose().mv(y), other.transpose().mv(y)
        return a.mv(x), *turned, conj(a).mv(x), a.row_norms()

    norms = np.asarray(abs(matrix).sum(axis=1)).ravel()
    want = matrix @ x, matrix.T @ y, matrix.T @ y, matrix.conj() @ x, norms
    for got, ref in zip(parts(operator, other, x, y), want):
        np.testing.assert_allclose(got, ref, atol=40 * TOLERANCE)
    assert operator.in_structure().shape == (90,)
    assert operator.out_structure().shape == (70,)


def test_values_that_are_traced_and_batched(form):
    matrix = uneven(70, 90, form, REAL)
    slots = jax.tree.map(jnp.asarray, slots_of(matrix.indptr, matrix.indices))
    x = np.random.default_rng(1).standard_normal(90).astype(REAL)
    product = jax.jit(lambda values: PaddedOperator.make(slots, values, 90).mv(jnp.asarray(x)))
    np.testing.assert_allclose(product(matrix.data), matrix @ x, atol=40 * TOLERANCE)
    batch = jax.vmap(product)(jnp.stack([matrix.data, -2 * matrix.data]))
    np.testing.assert_allclose(batch[1], -2 * (matrix @ x), atol=80 * TOLERANCE)


BANDS = sp.diags_array([-1.0, 4.0, -2.0], offsets=[-3, 0, 1], shape=(40, 40)).tocsr()
KINDS = {"diagonals": BANDS, "rows": uneven(40, 40, 11, np.float64)}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_operators_are_those_that_they_were_made_of(kind):
    dtype = COMPLEX if kind == "rows" else REAL
    matrix = (KINDS[kind] * (1 + 0.5j if dtype == COMPLEX else 1)).astype(dtype)
    sparse = lp.SparseLinearOperator.from_scipy(matrix)
    x = np.random.default_rng(1).standard_normal(40).astype(dtype)

    @jax.jit
    def products(values, x):
        own = with_products_ahead(lp.SparseLinearOperator(values, sparse.pattern))
        assert isinstance(own, PackedOperator)
        turned = own.transpose()
        return own.mv(x), turned.mv(x), conj(own).mv(x), conj(own).transpose().mv(x)

    want = matrix @ x, matrix.T @ x, matrix.conj() @ x, matrix.conj().T @ x
    for got, ref in zip(products(sparse.values, x), want):
        np.testing.assert_allclose(got, ref, atol=40 * TOLERANCE)
    batch = jax.vmap(products, in_axes=(0, None))(jnp.stack([sparse.values, 3 * sparse.values]), x)
    np.testing.assert_allclose(batch[0][1], 3 * want[0], atol=100 * TOLERANCE)
    outside = PackedOperator.of(sparse)
    np.testing.assert_allclose(outside.mv(jnp.asarray(x)), want[0], atol=40 * TOLERANCE)
    rows = jax.jit(jax.vmap(outside.mv))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(rows[1], 2 * want[0], atol=80 * TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_packed_operators_by_values_and_vector(kind):
    sparse = lp.SparseLinearOperator.from_scipy(KINDS[kind].astype(REAL))
    x = jnp.asarray(np.random.default_rng(1).standard_normal(40).astype(REAL))

    def loss(make):
        own = lambda values: make(lp.SparseLinearOperator(values, sparse.pattern))
        return lambda values, x: jnp.sum(jnp.sin(own(values).mv(x)))

    got, want = (
        jax.jit(jax.grad(loss(make), (0, 1)))(sparse.values, x)
        for make in (with_products_ahead, lambda operator: operator)
    )
    for mine, ref in zip(got, want):
        np.testing.assert_allclose(mine, ref, atol=40 * TOLERANCE)


def test_a_symmetric_packed_operator_is_its_transpose():
    matrix = sp.diags_array([-1.0, 4.0, -1.0], offsets=[-1, 0, 1], shape=(9, 9)).tocsr()
    operator = lp.SparseLinearOperator.from_scipy(matrix, lp.symmetric_tag)
    packed = PackedOperator.of(operator)
    assert lp.is_symmetric(packed)
    assert packed.transpose() is packed


def test_a_krylov_solve_packs_its_matrix_once():
    """And not for each product that is written."""
    from preconditioner_problems import poisson

    operator = lp.SparseLinearOperator.from_scipy(
        poisson(20).astype(REAL), lp.positive_semidefinite_tag
    )
    solve = lambda operator, b: lp.linear_solve(operator, b, lp.CG(), throw=False).value
    text = jax.jit(solve).lower(operator, jnp.ones(400, REAL)).as_text()
    assert len(re.findall(r"call @_pack\w*\(", text)) == 1
