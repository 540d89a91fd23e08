"""`SparseLinearOperator`: forms, products, derivatives (rows S0-34, S3-01, S3-03, S3-04, S3-17)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import sparse_matrices
from jax.experimental import sparse as jsparse
from sparse_matrices import COMPLEX, MATRICES, REAL, TOL, X64, banded, close, uneven, vector

import linsolve_prim as lp
from linsolve_prim import SparseLinearOperator, SparsityPattern, StructureError
from linsolve_prim.sparse import layouts
from linsolve_prim.testing import check_operator

RNG = sparse_matrices.RNG  # (it is seeded anew for each test)


@pytest.fixture(params=list(MATRICES))
def scipy_matrix(request):
    return MATRICES[request.param]


def test_products(scipy_matrix):
    """S3-01, S3-17: all layouts, forward and transposed, one vector and many, against SciPy."""
    a = SparseLinearOperator.from_scipy(scipy_matrix)
    m, n = a.pattern.shape
    dense = scipy_matrix.toarray()
    x, y = vector(3, n, dtype=dense.dtype), vector(3, m, dtype=dense.dtype)

    @jax.jit
    def products(a, x, y):
        to_x = jax.linear_transpose(a.mv, x[0])(y[0])[0]
        to_values = jax.vjp(lambda v: SparseLinearOperator(v, a.pattern).mm(x.T), a.values)[1]
        return a.mv(x[0]), a.T.mv(y[0]), to_x, a.mm(x.T), jax.vmap(a.mv)(x), to_values(y.T)[0]

    ax, aty, to_x, amm, amv, to_values = products(a, x, y)
    tol = 50 * TOL if dense.dtype in (REAL, COMPLEX) else 1e-4
    close(ax, dense @ x[0], tol)
    close(aty, dense.T @ y[0], tol)
    close(to_x, dense.T @ y[0], tol)
    close(amm, dense @ x.T, tol)
    close(amv, x @ dense.T, tol)
    close(to_values, (y.T @ x)[a.pattern.rows, a.pattern.indices], tol)
    assert ax.dtype == aty.dtype == to_values.dtype == dense.dtype


def test_the_layouts_are_both_met():
    """S3-17: the matrices above have diagonals, one group of rows, two, several, and long rows."""
    kinds = {}
    for name, scipy_matrix in MATRICES.items():
        pattern = SparsityPattern.from_scipy(scipy_matrix)
        if not layouts.is_dia(pattern):
            ell = layouts.layout_ell.make(pattern, False)
            kinds[name] = "one" if ell.rows is None else "many" if ell.long is None else "long"
            kinds[name] = kinds[name] if ell.longer is None else "two"
        else:
            kinds[name] = "dia"
    assert {"dia", "one", "two", "many", "long"} <= set(kinds.values()), kinds


@pytest.mark.parametrize("name", ["square", "band, wide"])
def test_laws(name):
    """S0-34: every law of `AbstractLinearOperator`."""
    check_operator(SparseLinearOperator.from_scipy(MATRICES[name]))


def test_forms_there_and_back(scipy_matrix):
    """S3-03: SciPy, BCOO, BCSR, CSR, CSC, triplets, dense."""
    a = SparseLinearOperator.from_scipy(scipy_matrix)
    csc, coo = scipy_matrix.tocsc(), scipy_matrix.tocoo()
    order = RNG.permutation(coo.nnz)
    shape = scipy_matrix.shape
    others = [
        SparseLinearOperator.from_scipy(a.to_scipy()),
        SparseLinearOperator.from_bcoo(a.to_bcoo()),
        SparseLinearOperator.from_bcsr(a.to_bcsr()),
        SparseLinearOperator.from_csr(
            scipy_matrix.indptr, scipy_matrix.indices, scipy_matrix.data, shape
        ),
        SparseLinearOperator.from_csc(csc.indptr, csc.indices, csc.data, shape),
        SparseLinearOperator.from_coo(coo.row[order], coo.col[order], coo.data[order], shape),
        SparseLinearOperator.from_dense(scipy_matrix.toarray()),
    ]
    for other in others:
        assert other.pattern == a.pattern
        assert other.values.dtype == scipy_matrix.dtype
        np.testing.assert_array_equal(other.values, a.values)
    np.testing.assert_array_equal(a.to_scipy().toarray(), scipy_matrix.toarray())
    np.testing.assert_array_equal(a.as_matrix(), scipy_matrix.toarray())
    np.testing.assert_array_equal(lp.diagonal(a), scipy_matrix.toarray().diagonal())
    assert a.in_structure() == jax.ShapeDtypeStruct(shape[1:], scipy_matrix.dtype)
    assert a.out_structure() == jax.ShapeDtypeStruct(shape[:1], scipy_matrix.dtype)


def test_padding_and_integers():
    """S3-03: padded BCOO and BCSR, and integer values."""
    dense = np.array([[0, 2, 0], [1, 0, 3]])
    bcoo = jsparse.BCOO.fromdense(jnp.asarray(dense, REAL), nse=6)
    a = SparseLinearOperator.from_bcoo(bcoo)
    assert a.pattern.nnz == 3
    np.testing.assert_array_equal(a.as_matrix(), dense)
    bcsr = jsparse.BCSR.fromdense(jnp.asarray(dense, REAL), nse=6)
    np.testing.assert_array_equal(SparseLinearOperator.from_bcsr(bcsr).as_matrix(), dense)
    integers = SparseLinearOperator.from_dense(dense)
    assert integers.values.dtype == REAL
    np.testing.assert_array_equal(integers.as_matrix(), dense)


def test_repeated_triplets_are_summed_and_each_has_a_gradient():
    """S3-04."""
    rows, cols = np.array([1, 0, 1, 1]), np.array([2, 0, 0, 2])
    values, x = vector(4), vector(3)

    def build(values):
        return SparseLinearOperator.from_coo(rows, cols, values, (2, 3))

    close(build(values).as_matrix(), sp.coo_array((values, (rows, cols)), (2, 3)).toarray())
    weights = jnp.asarray([2.0, 3.0], REAL)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(weights * build(v).mv(x))))(values)
    close(gradient, weights[rows] * x[cols])


@pytest.mark.parametrize("kind", ["bcoo", "bcsr"])
def test_the_gradient_of_a_jax_sparse_matrix_is_one(kind):
    """S3-03, S3-04: same type, same indices."""
    a = SparseLinearOperator.from_scipy(MATRICES["square"])
    read = getattr(SparseLinearOperator, f"from_{kind}")
    given, x = getattr(a, f"to_{kind}")(), vector(6)
    gradient = jax.grad(lambda s: jnp.sum(read(s).mv(x) ** 2), allow_int=True)(given)
    assert type(gradient) is type(given)
    assert gradient.shape == given.shape
    close(gradient.data, 2 * (a.mv(x)[a.pattern.rows] * x[a.pattern.indices]))

    # only the values are traced
    @jax.jit
    def product(data):
        with_data = (data, given.indices) if kind == "bcoo" else (data, given.indices, given.indptr)
        return read(type(given)(with_data, shape=given.shape)).mv(x)

    close(product(given.data), a.mv(x))
    with pytest.raises(StructureError, match=r"must be known when tracing.*outside of"):
        jax.jit(lambda s: read(s).mv(x))(given)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA for CPU")
def test_a_product_is_computed_once_for_all_its_uses():
    """XLA would compute a sum of products for each use of it: in CG for ⟨p, Ap⟩ and for the residual."""
    n = 50
    op = SparseLinearOperator.from_scipy(
        sp.diags_array([np.ones(n - 1), np.full(n, 4.0), np.ones(n - 1)], offsets=[-1, 0, 1])
    )

    def use(values, x):
        y = SparseLinearOperator(values, op.pattern).mv(x)
        return jnp.vdot(x, y), x - 0.1 * y

    text = jax.jit(use).lower(op.values, jnp.ones(n)).compile().as_text()
    products = [line for line in text.splitlines() if " multiply(" in line and "(_mv)/" in line]
    assert len(products) == 3


def test_structure_is_proved_by_the_pattern():
    """S3-01: no tags needed; and tags are transposed."""
    of = lambda name: SparseLinearOperator.from_scipy(MATRICES[name])
    diagonal, tridiagonal = of("diagonal"), of("tridiagonal")
    assert all(f(diagonal) for f in (lp.is_diagonal, lp.is_symmetric, lp.is_lower_triangular))
    assert lp.is_tridiagonal(tridiagonal)
    assert not lp.is_diagonal(tridiagonal)
    assert not lp.is_symmetric(tridiagonal)
    upper = of("one sided")
    assert lp.is_upper_triangular(upper)
    assert lp.is_lower_triangular(upper.T)
    assert not lp.is_upper_triangular(of("wide"))
    for band, offset in zip(lp.tridiagonal(tridiagonal), (0, -1, 1)):
        close(band, MATRICES["tridiagonal"].toarray().diagonal(offset))
    tagged = SparseLinearOperator(upper.values, upper.pattern, lp.unit_diagonal_tag)
    assert lp.has_unit_diagonal(tagged.T)
    both = sp.csr_array(MATRICES["square"] + MATRICES["square"].T)
    symmetric = SparseLinearOperator.from_scipy(both, lp.symmetric_tag)
    assert symmetric.T is symmetric
    assert lp.materialise(symmetric) is symmetric
    assert lp.linearise(symmetric) is symmetric


def test_solves_with_it():
    """S3-01: an iterative solve, and its gradient by the values."""
    pattern = SparsityPattern.from_scipy(banded(12, 12, [-4, -1, 0, 1, 4]))
    values = jnp.where(pattern.rows == pattern.indices, 6.0, vector(pattern.nnz)).astype(REAL)
    b = vector(12)
    solver = lp.GMRES(rtol=1e-12 if X64 else 1e-6)

    def solve(values):
        return lp.linear_solve(SparseLinearOperator(values, pattern), b, solver).value

    def reference(values):
        a = jnp.zeros((12, 12), REAL).at[pattern.rows, pattern.indices].set(values)
        return jnp.linalg.solve(a, b)

    close(solve(values), reference(values), 1e-8 if X64 else 1e-3)
    ours, theirs = (
        jax.jit(jax.grad(lambda v, f=f: jnp.sum(jnp.sin(f(v)))))(values) for f in (solve, reference)
    )
    close(ours, theirs, 1e-8 if X64 else 1e-3)


def test_nothing_is_read_where_there_is_no_entry():
    """S0-34: infinities in the vector meet only the entries in their column."""
    for scipy_matrix in (banded(9, 9, [-3, 0, 3]), uneven(30)):
        a = SparseLinearOperator.from_scipy(scipy_matrix)
        x = jnp.ones(a.in_size(), REAL).at[0].set(jnp.inf)
        touched = np.zeros(a.out_size(), bool)
        touched[a.pattern.rows[a.pattern.indices == 0]] = True
        np.testing.assert_array_equal(~np.isfinite(a.mv(x)), touched)


def test_bad_input():
    """S0-34: argument, rule, value, remedy."""
    a = SparseLinearOperator.from_scipy(MATRICES["wide"])
    with pytest.raises(StructureError, match=r"values: must have shape .* one for each entry.*got"):
        SparseLinearOperator(jnp.ones(3, REAL), a.pattern)
    with pytest.raises(TypeError, match=r"pattern: must be a `SparsityPattern`; got ndarray"):
        SparseLinearOperator(jnp.ones(3, REAL), np.eye(3))
    with pytest.raises(StructureError, match="tagged symmetric or definite"):
        SparseLinearOperator(a.values, a.pattern, lp.symmetric_tag)
    with pytest.raises(StructureError, match="vector: must have the operator's input structure"):
        a.mv(jnp.ones(4, REAL))
    with pytest.raises(StructureError, match=r"matrix: must have shape \(9, k\).*got \(4, 2\)"):
        a.mm(jnp.ones((4, 2), REAL))
    with pytest.raises(StructureError, match=r"values: must have shape \(2,\), one for each index"):
        SparseLinearOperator.from_coo([0, 1], [0, 1], jnp.ones(3, REAL), (2, 2))
    with pytest.raises(StructureError, match=r"data: must have shape \(2,\)"):
        SparseLinearOperator.from_csr([0, 1, 2], [0, 1], jnp.ones(3, REAL), (2, 2))
    with pytest.raises(StructureError, match="values: must be concrete to become a SciPy matrix"):
        jax.jit(lambda a: a.to_scipy())(a)
    with pytest.raises(TypeError, match=r"must be a `jax.experimental.sparse.BCOO`; got BCSR"):
        SparseLinearOperator.from_bcoo(a.to_bcsr())
    data, indices = np.ones((2, 1), REAL), np.zeros((2, 1, 2), np.int32)
    batched = jsparse.BCOO((data, indices), shape=(2, 3, 3))
    with pytest.raises(StructureError, match="two sparse axes and no others; got n_batch = 1"):
        SparseLinearOperator.from_bcoo(batched)
    blocks = jsparse.BCOO((data, indices[:, 0]), shape=(3, 3, 1))
    with pytest.raises(StructureError, match=r"n_dense = 1.*jax.vmap"):
        SparseLinearOperator.from_bcoo(blocks)
