"""Sums, products and parts of sparse operators: sparse, right, differentiable (rows S2-23, S3-04)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import linsolve_prim as lp
from linsolve_prim import SparseLinearOperator, SparsityPattern, StructureError
from linsolve_prim.testing import check_operator

X64 = jax.config.jax_enable_x64
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
TOL = 1e-12 if X64 else 2e-5
RNG = np.random.default_rng(5)


def operator(m, n, dtype=REAL, tags=()):
    mask = RNG.random((m, n)) < 0.4
    values = RNG.normal(size=(m, n))
    if dtype == COMPLEX:
        values = values + 1j * RNG.normal(size=(m, n))
    return SparseLinearOperator.from_dense((mask * values).astype(dtype), tags=tags)


def dense(a):
    return a.to_scipy().toarray()


INDEX = np.array([3, 1, 1, -1])
CASES = {
    "sum": (lambda a, b, c: a + b, lambda a, b, c: a + b),
    "same pattern": (lambda a, b, c: a + 2.0 * a, lambda a, b, c: 3 * a),
    "difference": (lambda a, b, c: a - b, lambda a, b, c: a - b),
    "negative": (lambda a, b, c: -a, lambda a, b, c: -a),
    "multiple": (lambda a, b, c: a * 2.5, lambda a, b, c: 2.5 * a),
    "left multiple": (lambda a, b, c: -2 * a, lambda a, b, c: -2 * a),
    "quotient": (lambda a, b, c: a / 4.0, lambda a, b, c: a / 4),
    "product": (lambda a, b, c: a @ c, lambda a, b, c: a @ c),
    "gram": (lambda a, b, c: a.T @ b, lambda a, b, c: a.T @ b),
    "cube": (lambda a, b, c: a @ c @ b[:4], lambda a, b, c: a @ c @ b[:4]),
    "tril": (lambda a, b, c: lp.tril(a), lambda a, b, c: jnp.tril(a)),
    "tril 1": (lambda a, b, c: lp.tril(a, 1), lambda a, b, c: jnp.tril(a, 1)),
    "triu": (lambda a, b, c: lp.triu(a, -1), lambda a, b, c: jnp.triu(a, -1)),
    "blocks": (lambda a, b, c: lp.block_diag(a, c, b), lambda *x: _blocks(*x)),
    "slice": (lambda a, b, c: a[1:4, 2:6], lambda a, b, c: a[1:4, 2:6]),
    "rows": (lambda a, b, c: a[::-2], lambda a, b, c: a[::-2]),
    "columns": (lambda a, b, c: a[:, 1:9], lambda a, b, c: a[:, 1:9]),
    "indices": (lambda a, b, c: a[INDEX, INDEX], lambda a, b, c: a[INDEX][:, INDEX]),
    "empty": (lambda a, b, c: a[3:3], lambda a, b, c: a[3:3]),
}


def _blocks(a, b, c):
    return jax.scipy.linalg.block_diag(a, c, b)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_against_dense(name, dtype):
    """S2-23: the result is sparse, and keeps every law."""
    sparse, reference = CASES[name]
    operands = operator(5, 7, dtype), operator(5, 7, dtype), operator(7, 4, dtype)
    result = sparse(*operands)
    assert isinstance(result, SparseLinearOperator)
    np.testing.assert_allclose(
        dense(result), reference(*(dense(a) for a in operands)), atol=20 * TOL
    )
    if name == "product" and dtype == COMPLEX:
        check_operator(result)


def test_gradients():
    """S3-04: first and second derivatives of all cases by the values of every operand."""
    operands = operator(5, 7), operator(5, 7), operator(7, 4)
    patterns = [a.pattern for a in operands]
    weights = {name: jnp.asarray(RNG.normal(size=(30, 30)), REAL) for name in CASES}

    def term(name, matrix):
        return jnp.sum(jnp.sin(weights[name][: matrix.shape[0], : matrix.shape[1]] * matrix))

    def ours(values):
        ops = [SparseLinearOperator(v, p) for v, p in zip(values, patterns)]
        return sum(term(name, sparse(*ops).as_matrix()) for name, (sparse, _) in CASES.items())

    def reference(values):
        zeros = [jnp.zeros(p.shape, REAL) for p in patterns]
        ops = [z.at[p.rows, p.indices].set(v) for z, v, p in zip(zeros, values, patterns)]
        return sum(term(name, dense(*ops)) for name, (_, dense) in CASES.items())

    values = [a.values for a in operands]
    direction = [jnp.cos(v) for v in values]

    def derivatives(f):
        gradient, second = jax.jvp(jax.grad(f), (values,), (direction,))
        return [f(values), *gradient, *second]

    both = jax.jit(lambda: (derivatives(ours), derivatives(reference)))()
    for x, y in zip(*both):
        np.testing.assert_allclose(x, y, rtol=1e3 * TOL, atol=1e3 * TOL)


def test_gradients_of_algebra_live_on_the_pattern():
    """S3-04: no dense cotangent; the gradient is an operator of the same type."""
    a, b = operator(5, 6), operator(6, 5)
    x = jnp.ones(5, REAL)
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(((a @ b) + 2.0 * (a @ b)).mv(x) ** 2)))(a)
    assert isinstance(gradient, SparseLinearOperator)
    assert gradient.pattern == a.pattern
    want = jax.grad(lambda m: jnp.sum((3 * (m @ b.as_matrix()) @ x) ** 2))(a.as_matrix())
    np.testing.assert_allclose(
        gradient.values, want[a.pattern.rows, a.pattern.indices], rtol=1e3 * TOL, atol=1e3 * TOL
    )


def test_with_diagonal_operators():
    """S2-23: sums and products with a diagonal stay sparse."""
    a = operator(5, 5)
    d = lp.DiagonalLinearOperator(jnp.arange(1.0, 6.0, dtype=REAL))
    eye = lp.IdentityLinearOperator(a.in_structure())
    for result, want in (
        (a + d, dense(a) + np.diag(np.arange(1.0, 6.0))),
        (a - eye, dense(a) - np.eye(5)),
        (a @ d, dense(a) * np.arange(1.0, 6.0)),
        (a @ eye, dense(a)),
        (d + a, dense(a) + np.diag(np.arange(1.0, 6.0))),
        (d - a, np.diag(np.arange(1.0, 6.0)) - dense(a)),
        (d @ a, np.arange(1.0, 6.0)[:, None] * dense(a)),
        (eye @ a, dense(a)),
        (2.0 * eye - a, 2 * np.eye(5) - dense(a)),
        (a + eye / 4, dense(a) + np.eye(5) / 4),
        (a @ (-eye), -dense(a)),
        ((d @ d + eye) + a, np.diag(np.arange(1.0, 6.0) ** 2 + 1) + dense(a)),
        (lp.TaggedLinearOperator(eye, lp.symmetric_tag) + a, np.eye(5) + dense(a)),
        (lp.block_diag(a, d), scipy.linalg.block_diag(dense(a), np.diag(np.arange(1.0, 6.0)))),
    ):
        assert isinstance(result, SparseLinearOperator)
        np.testing.assert_allclose(dense(result), want, atol=10 * TOL)
    assert (a @ d).pattern is a.pattern


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_gradients_with_a_diagonal_on_the_left(dtype):
    """S3-04: by the diagonal, by a scalar before the identity, and by the values; on the pattern."""
    a = operator(5, 5, dtype)
    rows, columns = a.pattern.rows, a.pattern.indices
    w = jnp.asarray(RNG.normal(size=(5, 5)), REAL)

    def ours(values, d, s):
        A, D = SparseLinearOperator(values, a.pattern), lp.DiagonalLinearOperator(d)
        eye = lp.IdentityLinearOperator(A.in_structure())
        out = (D + A) @ (s * eye - A) + D @ A
        assert isinstance(out, SparseLinearOperator)
        return jnp.sum(w * jnp.abs(out.as_matrix()) ** 2)

    def reference(values, d, s):
        A, D = jnp.zeros((5, 5), dtype).at[rows, columns].set(values), jnp.diag(d)
        out = (D + A) @ (s * jnp.eye(5, dtype=dtype) - A) + D @ A
        return jnp.sum(w * jnp.abs(out) ** 2)

    args = a.values, jnp.arange(1, 6, dtype=dtype), jnp.asarray(0.7, dtype)
    for x, y in zip(*(jax.jit(jax.grad(f, (0, 1, 2)))(*args) for f in (ours, reference))):
        np.testing.assert_allclose(x, y, rtol=1e3 * TOL, atol=1e3 * TOL)


def test_what_is_no_diagonal_on_vectors_stays_lazy():
    """A rectangular identity; a function, of which it would take products to know the diagonal."""
    a = operator(4, 4)
    shape = lambda n: jax.ShapeDtypeStruct((n,), REAL)
    cut = lp.IdentityLinearOperator(shape(4), shape(3))
    assert isinstance(cut @ a, lp.ComposedLinearOperator)
    np.testing.assert_allclose((cut @ a).as_matrix(), dense(a)[:3], atol=TOL)
    function = lp.FunctionLinearOperator(lambda x: 2 * x, shape(4), lp.diagonal_tag)
    assert isinstance(function + a, lp.AddLinearOperator)
    with pytest.raises(StructureError, match="must have equal input structures"):
        _ = lp.IdentityLinearOperator(shape(5)) + a
    with pytest.raises(StructureError, match="must have equal inner structures"):
        _ = lp.IdentityLinearOperator(shape(5)) @ a


def test_promises_with_a_diagonal_on_the_left():
    """S2-08: a positive multiple of the identity before a definite matrix keeps it definite."""
    base = operator(4, 4)
    gram = base.T @ base
    psd = SparseLinearOperator(gram.values, gram.pattern, lp.positive_semidefinite_tag)
    eye = lp.IdentityLinearOperator(psd.in_structure())
    assert lp.is_positive_semidefinite(2.0 * eye + psd)
    assert not lp.is_positive_semidefinite(eye - psd)
    assert lp.is_lower_triangular(eye + lp.tril(base))


def test_with_other_operators():
    """S2-23: what is not sparse gives the lazy operators of every other pair."""
    a = operator(4, 4)
    matrix = lp.MatrixLinearOperator(jnp.ones((4, 4), REAL))
    assert isinstance(a + matrix, lp.AddLinearOperator)
    assert isinstance(a - matrix, lp.AddLinearOperator)
    assert isinstance(a @ matrix, lp.ComposedLinearOperator)
    np.testing.assert_allclose((a + matrix).as_matrix(), dense(a) + 1, atol=TOL)
    np.testing.assert_allclose(a @ jnp.ones(4, REAL), dense(a).sum(1), atol=10 * TOL)
    with pytest.raises(StructureError, match="must have equal input structures"):
        _ = a + operator(4, 5)
    with pytest.raises(StructureError, match="must have equal inner structures"):
        _ = a @ operator(5, 4)
    with pytest.raises(ValueError, match="needs an AbstractLinearOperator on both sides"):
        _ = a + 1.0
    with pytest.raises(ValueError, match="multiplied by a scalar"):
        _ = a * jnp.ones(4, REAL)
    with pytest.raises(StructureError, match="is complex"):
        _ = a * 1j


def test_tags():
    """S2-08: promises spread as they do for lazy operators."""
    base = operator(4, 4)
    psd = SparseLinearOperator(
        (base.T @ base).values, (base.T @ base).pattern, lp.positive_semidefinite_tag
    )
    for a in (
        psd + psd,
        2.0 * psd,
        psd / 3.0,
        -(-1.0 * psd),
        psd[1:3, 1:3],
        lp.block_diag(psd, psd),
    ):
        assert lp.is_positive_semidefinite(a)
        assert lp.is_symmetric(a)
        assert np.linalg.eigvalsh(dense(a)).min() > -1e3 * TOL
    assert lp.is_negative_semidefinite(-psd)
    assert not lp.is_positive_semidefinite(psd - psd)
    assert not lp.is_symmetric(psd[1:3, 0:2])
    assert lp.is_lower_triangular(lp.tril(base))
    assert lp.is_upper_triangular(lp.triu(base))
    assert lp.is_diagonal(lp.triu(lp.tril(base)))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_symmetrize(dtype):
    """S2-08: the Hermitian part, sparse or not."""
    a = operator(5, 5, dtype)
    want = (dense(a) + dense(a).conj().T) / 2
    result = lp.symmetrize(a)
    assert isinstance(result, SparseLinearOperator)
    np.testing.assert_allclose(dense(result), want, atol=10 * TOL)
    assert lp.is_symmetric(result) == (dtype == REAL)
    other = lp.symmetrize(lp.MatrixLinearOperator(a.as_matrix()))
    np.testing.assert_allclose(other.as_matrix(), want, atol=10 * TOL)
    assert lp.is_symmetric(other) == (dtype == REAL)
    with pytest.raises(StructureError, match="operator: must be square"):
        lp.symmetrize(operator(3, 4))


def test_symbolic_products_are_cached():
    """S2-23: one symbolic product for each pair of patterns, by content."""
    a, b = operator(6, 6), operator(6, 6)
    again = SparseLinearOperator(
        2.0 * b.values, SparsityPattern.from_csr(b.pattern.indptr, b.pattern.indices, (6, 6))
    )
    assert (a @ b).pattern is (a @ again).pattern
    traced = jax.jit(lambda a, b: (a @ b + a.T).values)(a, b)
    np.testing.assert_allclose(traced, (a @ b + a.T).values, atol=10 * TOL)


def test_cancelled_entries_stay():
    """S2-23: a pattern does not depend on values."""
    a = operator(4, 4)
    assert (a - a).pattern == a.pattern
    np.testing.assert_array_equal((a - a).values, 0)


def test_bad_parts():
    """S0-34: which index is wrong, and how to write what was meant."""
    a = operator(4, 5)
    with pytest.raises(StructureError, match=r"rows: must be a slice.*A\[i : i \+ 1"):
        a[1, 2]
    with pytest.raises(StructureError, match=r"columns: must lie in \[-5, 5\); got 7"):
        a[:, np.array([0, 7])]
    with pytest.raises(StructureError, match="rows: must be known when tracing"):
        jax.jit(lambda i: a[i].values)(jnp.arange(2))
    with pytest.raises(TypeError, match="rows: must hold integers"):
        a[np.array([0.5])]
    mask = np.array([True, False, True, False])
    np.testing.assert_array_equal(dense(a[mask]), dense(a)[mask])
    with pytest.raises(TypeError, match=r"operator: must be a SparseLinearOperator"):
        lp.tril(lp.MatrixLinearOperator(jnp.ones((2, 2), REAL)))
    with pytest.raises(StructureError, match="operators: must be at least one"):
        lp.block_diag()
    with pytest.raises(StructureError, match="operators: must have one dtype"):
        lp.block_diag(a, operator(2, 2, COMPLEX))
