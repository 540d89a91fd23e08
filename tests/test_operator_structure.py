"""What is known of an operator's structure, how it spreads, and that it is used."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linsolve_prim import operators as ops

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
COMPLEX = np.dtype("complex128" if jax.config.jax_enable_x64 else "complex64")
PREDICATES = (
    ops.is_symmetric,
    ops.is_diagonal,
    ops.is_tridiagonal,
    ops.has_unit_diagonal,
    ops.is_lower_triangular,
    ops.is_upper_triangular,
    ops.is_positive_semidefinite,
    ops.is_negative_semidefinite,
)
NAMES = ("sym", "diag", "tri", "unit", "lower", "upper", "psd", "nsd")


def flags(operator):
    return {name for name, predicate in zip(NAMES, PREDICATES) if predicate(operator)}


def matrix(tags=(), n=3, dtype=REAL):
    return ops.MatrixLinearOperator(jnp.ones((n, n), dtype), tags)


DIAGONAL = {"sym", "diag", "tri", "lower", "upper"}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ((), set()),
        (ops.symmetric_tag, {"sym"}),
        (ops.diagonal_tag, DIAGONAL),
        (ops.tridiagonal_tag, {"tri"}),
        (ops.unit_diagonal_tag, {"unit"}),
        (ops.lower_triangular_tag, {"lower"}),
        (ops.upper_triangular_tag, {"upper"}),
        (ops.positive_semidefinite_tag, {"sym", "psd"}),
        (ops.negative_semidefinite_tag, {"sym", "nsd"}),
        ([ops.symmetric_tag, ops.tridiagonal_tag], {"sym", "tri"}),
    ],
)
def test_tags(tag, expected):
    """S2-05: the same tags mean the same for every operator that takes them."""
    x = jax.ShapeDtypeStruct((3,), REAL)
    for operator in (
        matrix(tag),
        ops.PyTreeLinearOperator(jnp.ones((3, 3), REAL), x, tag),
        ops.FunctionLinearOperator(lambda v: v, x, tag),
        ops.JacobianLinearOperator(lambda v, _: v, jnp.ones(3, REAL), tags=tag),
        ops.TaggedLinearOperator(matrix(), tag),
    ):
        assert flags(operator) == expected, type(operator)


def test_structures_by_type():
    tri = ops.TridiagonalLinearOperator(jnp.ones(3), jnp.ones(2), jnp.ones(2))
    identity = ops.IdentityLinearOperator(jax.ShapeDtypeStruct((3,), REAL))
    cut = ops.IdentityLinearOperator(identity.in_structure(), jax.ShapeDtypeStruct((2,), REAL))
    assert flags(ops.DiagonalLinearOperator(jnp.ones(3))) == DIAGONAL
    assert flags(tri) == {"tri"}
    assert flags(identity) == DIAGONAL | {"unit", "psd"}
    assert flags(cut) == (DIAGONAL | {"unit"}) - {"sym"}
    assert ops.is_diagonal(matrix(n=1))
    assert not ops.is_symmetric(matrix(ops.positive_semidefinite_tag, dtype=COMPLEX))
    assert not identity.tags


def test_sum_and_product():
    """S2-05: what sums and products inherit."""
    sym, low, up = (
        matrix(t) for t in (ops.symmetric_tag, ops.lower_triangular_tag, ops.upper_triangular_tag)
    )
    psd, unit = matrix(ops.positive_semidefinite_tag), matrix(ops.unit_diagonal_tag)
    diag = ops.DiagonalLinearOperator(jnp.ones(3, REAL))
    tri = ops.TridiagonalLinearOperator(*(jnp.ones(k, REAL) for k in (3, 2, 2)))
    unit_low = matrix([ops.unit_diagonal_tag, ops.lower_triangular_tag])
    assert flags(sym + sym) == {"sym"}
    assert flags(psd + psd) == {"sym", "psd"}
    assert flags(unit + unit) == set()
    assert flags(diag + diag) == DIAGONAL
    assert flags(diag + low) == {"lower"}
    assert flags(sym @ sym) == set()
    assert flags(psd @ psd) == set()
    assert flags(diag @ diag) == DIAGONAL
    assert flags(low @ low) == {"lower"}
    assert flags(up @ diag) == {"upper"}
    assert flags(tri @ diag) == flags(diag @ tri) == {"tri"}
    assert flags(tri @ tri) == set()
    assert flags(unit_low @ unit_low) == {"lower", "unit"}
    assert flags(unit @ unit) == set()


def test_rectangular_identities_compose():
    """Cutting and padding is diagonal but not symmetric, whatever the outer sizes."""
    three, two = (jax.ShapeDtypeStruct((k,), REAL) for k in (3, 2))
    cut = ops.IdentityLinearOperator(three, two)
    assert not ops.is_symmetric(cut + cut)
    for operator in (cut.T @ cut, cut @ cut.T):
        np.testing.assert_allclose(ops.diagonal(operator), np.diag(operator.as_matrix()))
    assert ops.has_unit_diagonal(cut @ ops.IdentityLinearOperator(three)) is False
    assert not ops.has_unit_diagonal(cut.T @ cut)
    np.testing.assert_allclose((cut.T @ cut).mv(jnp.ones(3, REAL)), [1, 1, 0])


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.asarray(2.0)])
def test_definiteness_and_the_sign_of_a_scalar(number):
    psd, nsd = matrix(ops.positive_semidefinite_tag), matrix(ops.negative_semidefinite_tag)
    for same in (number * psd, psd * number, psd / number, -nsd, -number * nsd):
        assert flags(same) == flags(ops.conj(same)) == flags(same.T) == {"sym", "psd"}
        assert flags(ops.linearise(same)) == {"sym", "psd"}
    for opposite in (-psd, psd * -number, psd / -number, number * nsd):
        assert flags(opposite) == {"sym", "nsd"}
    assert flags(psd * 0.0) == {"sym", "psd", "nsd"}
    assert flags(psd / 0.0) == {"sym"}
    assert flags(psd * np.nan) == {"sym"}
    assert flags(psd * jnp.asarray(2.0)) == {"sym"}
    assert jax.eval_shape(lambda s: s * psd, 2.0).sign is None
    assert flags(matrix(ops.unit_diagonal_tag) * 1.0) == set()


def test_scalars_are_differentiable_and_complex():
    """Complex scalars are conjugated; Python scalars become arrays."""
    a = matrix(dtype=COMPLEX)
    for op in (a * (2 + 1j), a / (2 + 1j), (2 + 1j) * a):
        np.testing.assert_allclose(ops.conj(op).as_matrix(), op.as_matrix().conj(), rtol=1e-6)
        np.testing.assert_allclose(ops.diagonal(op), np.diag(op.as_matrix()), rtol=1e-6)
    x = jnp.ones(3, REAL)
    gradient = jax.grad(lambda s: (s * matrix()).mv(x).sum())(1.5)
    np.testing.assert_allclose(gradient, 9.0)
    assert eqx.is_array((2.0 * a).scalar)
    assert (2.0 * matrix(dtype=jnp.float16)).mv(jnp.ones(3, jnp.float16)).dtype == jnp.float16


def test_tangents_keep_sparsity_only():
    primal = matrix([ops.diagonal_tag, ops.unit_diagonal_tag, ops.positive_semidefinite_tag])
    tangent = ops.TangentLinearOperator(primal, primal)
    assert flags(tangent) == DIAGONAL
    nothing = ops.TangentLinearOperator(primal, jax.tree.map(lambda _: None, primal))
    np.testing.assert_array_equal(nothing.mv(jnp.ones(3, REAL)), np.zeros(3))
    np.testing.assert_array_equal(nothing.as_matrix(), np.zeros((3, 3)))
    np.testing.assert_array_equal(ops.diagonal(nothing), np.zeros(3))


def test_conj_inherits():
    for tag in (ops.positive_semidefinite_tag, ops.lower_triangular_tag, ops.unit_diagonal_tag):
        structure = jax.ShapeDtypeStruct((3,), COMPLEX)
        operator = ops.FunctionLinearOperator(lambda v: v, structure, tag)
        assert flags(ops.conj(operator)) == flags(operator) == flags(ops.conj(operator.T).T)
        assert ops.conj(ops.conj(operator)) is operator


def test_symmetric_operators_are_their_own_transpose():
    operators = [matrix(ops.symmetric_tag), 2 * matrix(ops.symmetric_tag)]
    operators += [-matrix(ops.symmetric_tag), matrix(ops.symmetric_tag) + matrix(ops.symmetric_tag)]
    structure = jax.ShapeDtypeStruct((3,), REAL)
    operators += [
        ops.PyTreeLinearOperator(jnp.ones((3, 3), REAL), structure, ops.symmetric_tag),
        ops.FunctionLinearOperator(lambda v: v, structure, ops.symmetric_tag),
        ops.JacobianLinearOperator(lambda v, _: v, jnp.ones(3, REAL), tags=ops.symmetric_tag),
        ops.TaggedLinearOperator(matrix(), ops.symmetric_tag),
        ops.DiagonalLinearOperator(jnp.ones(3)),
        ops.IdentityLinearOperator(structure),
    ]
    for operator in operators:
        assert operator.T is operator


def test_transposed_tags():
    """S2-05: lower becomes upper; rules for tags of one's own can be added."""
    low = matrix([ops.lower_triangular_tag, ops.unit_diagonal_tag])
    assert flags(low.T) == {"upper", "unit"}
    assert flags(ops.TaggedLinearOperator(matrix(), ops.lower_triangular_tag).T) == {"upper"}
    mine = object()
    assert mine not in matrix([mine]).T.tags
    ops.transpose_tags_rules.append(lambda tags: mine if mine in tags else None)
    try:
        assert mine in matrix([mine]).T.tags
    finally:
        ops.transpose_tags_rules.pop()
    assert ops.transpose_tags(frozenset([ops.symmetric_tag, mine])) == {ops.symmetric_tag, mine}
    assert matrix("mine").tags == {"mine"}


# ---- Structure is used ---------------------------------------------------------------------------


def test_tagged_matrices_read_only_their_entries():
    """Products of a (tri)diagonal matrix never see what lies off its diagonals."""
    dirty = jnp.arange(1.0, 17).reshape(4, 4)
    clean = {
        ops.diagonal_tag: np.diag(np.diag(dirty)),
        ops.tridiagonal_tag: np.triu(np.tril(dirty, 1), -1),
    }
    x = jnp.arange(4.0)
    structure = jax.ShapeDtypeStruct((4,), dirty.dtype)
    for tag, expected in clean.items():
        for operator in (
            ops.MatrixLinearOperator(dirty, tag),
            ops.PyTreeLinearOperator(dirty, structure, tag),
        ):
            np.testing.assert_allclose(operator.mv(x), expected @ x)
            np.testing.assert_allclose(operator.T.mv(x), expected.T @ x)
            np.testing.assert_allclose(ops.materialise(operator).as_matrix(), expected)
    blocks = {"a": {"a": dirty[:2, :2], "b": dirty[:2, 2:]}, "b": {"a": dirty[2:, :2]}}
    blocks["b"]["b"] = dirty[2:, 2:]
    halves = {"a": jax.ShapeDtypeStruct((2,), dirty.dtype)} | {
        "b": jax.ShapeDtypeStruct((2,), dirty.dtype)
    }
    tree = ops.PyTreeLinearOperator(blocks, halves, ops.diagonal_tag)
    np.testing.assert_allclose(ops.diagonal(tree), np.diag(dirty))
    np.testing.assert_allclose(tree.mv({"a": x[:2], "b": x[2:]})["b"], np.diag(dirty)[2:] * x[2:])


def counting(fn):
    """`fn`, and a list that grows with each of its evaluations (one entry per lane of a vmap)."""
    calls = []

    def counted(x):
        note = lambda a: calls.append(1) or np.asarray(a)
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return fn(x) + 0 * jax.pure_callback(note, shape, x, vmap_method="sequential")

    return counted, calls


class Matrixfree(ops.AbstractLinearOperator):
    array: jax.Array
    tags: frozenset = eqx.field(static=True)
    calls: list = eqx.field(static=True)

    def mv(self, vector):
        fn, calls = counting(lambda v: self.array @ v)
        out = fn(vector)
        jax.block_until_ready(out)
        self.calls.extend(calls)
        return out

    def transpose(self):
        return Matrixfree(self.array.T, ops.transpose_tags(self.tags), self.calls)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.array.shape[1:], self.array.dtype)

    def out_structure(self):
        return jax.ShapeDtypeStruct(self.array.shape[:1], self.array.dtype)


@pytest.mark.parametrize(("tag", "products"), [(ops.diagonal_tag, 1), (ops.tridiagonal_tag, 3)])
def test_structured_operators_need_few_products(tag, products):
    """S2-06: one product for a diagonal operator, three for a tridiagonal one."""
    n = 7
    dense = np.diag(np.arange(1.0, n + 1))
    if tag is ops.tridiagonal_tag:
        dense = dense + np.diag(np.arange(2.0, n + 1), 1) - np.diag(np.arange(3.0, n + 2), -1)
    operator = Matrixfree(jnp.asarray(dense), frozenset([tag]), [])
    held = ops.materialise(operator)
    assert 1 <= len(operator.calls) <= products
    expected = {
        ops.diagonal_tag: ops.DiagonalLinearOperator,
        ops.tridiagonal_tag: ops.TridiagonalLinearOperator,
    }[tag]
    assert isinstance(held, expected)
    np.testing.assert_allclose(held.as_matrix(), dense)
    full = Matrixfree(jnp.asarray(dense), frozenset(), [])
    held = ops.materialise(full)
    assert isinstance(held, ops.MatrixLinearOperator)
    np.testing.assert_allclose(held.as_matrix(), dense)


def test_tridiagonal_pytree():
    """B-13: three products are enough for pytrees too."""
    n = 6
    dense = (
        np.diag(np.arange(1.0, n + 1)) + np.diag(np.ones(n - 1), 1) - np.diag(np.ones(n - 1), -1)
    )
    dense = jnp.asarray(dense)

    def fn(x):
        y = dense @ jnp.concatenate([x["a"].ravel(), x["b"]])
        return {"a": y[:4].reshape(2, 2), "b": y[4:]}

    structure = {
        "a": jax.ShapeDtypeStruct((2, 2), dense.dtype),
        "b": jax.ShapeDtypeStruct((2,), dense.dtype),
    }
    operator = ops.FunctionLinearOperator(fn, structure, ops.tridiagonal_tag)
    for band, offset in zip(ops.tridiagonal(operator), (0, -1, 1)):
        np.testing.assert_allclose(band, np.diagonal(dense, offset))
    assert isinstance(ops.materialise(operator), ops.PyTreeLinearOperator)
    assert ops.is_tridiagonal(ops.materialise(operator))
    wide = ops.FunctionLinearOperator(
        lambda x: x, jax.ShapeDtypeStruct((2, 3), REAL), ops.tridiagonal_tag
    )
    assert isinstance(ops.materialise(wide), ops.PyTreeLinearOperator)


def test_materialise_keeps_promises():
    """S2-06: definiteness survives, also where the type cannot say it."""
    structure = jax.ShapeDtypeStruct((3,), REAL)
    tags = [ops.diagonal_tag, ops.positive_semidefinite_tag]
    held = ops.materialise(ops.FunctionLinearOperator(lambda v: 2 * v, structure, tags))
    assert flags(held) == DIAGONAL | {"psd"}
    tags = ops.positive_semidefinite_tag
    held = ops.materialise(ops.FunctionLinearOperator(lambda v: 2 * v, structure, tags))
    assert isinstance(held, ops.MatrixLinearOperator)
    assert flags(held) == {"sym", "psd"}
    tagged = ops.TaggedLinearOperator(ops.FunctionLinearOperator(lambda v: 2 * v, structure), tags)
    assert flags(ops.materialise(tagged)) == flags(ops.linearise(tagged)) == {"sym", "psd"}
    diagonal = ops.TaggedLinearOperator(matrix(), ops.diagonal_tag)
    assert isinstance(ops.materialise(diagonal), ops.DiagonalLinearOperator)


def test_register_predicate():
    """S2-05: predicates are open to operators of one's own."""

    class Mine(Matrixfree):
        pass

    ops.is_symmetric.register(Mine, lambda operator: True)
    operator = Mine(jnp.ones((2, 2)), frozenset(), [])
    assert ops.is_symmetric(operator)
    assert ops.is_symmetric(operator + operator)
    assert ops.is_symmetric(ops.materialise(operator))
    with pytest.raises(ValueError, match="tagged symmetric or definite"):
        Mine(jnp.ones((2, 3)), frozenset(), [])
