"""Every operator against its dense matrix, and the laws that `AbstractLinearOperator` states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import operator_table
import pytest
from operator_table import (
    CASES,
    COMPLEX,
    NAMES,
    REAL,
    TOL,
    ThirdParty,
    array,
    close_to,
    random_like,
    struct,
)

from linsolve_prim import operators as ops
from linsolve_prim._tree import ravel, unravel
from linsolve_prim._types import structure_equal, structure_of
from linsolve_prim.errors import StructureError

RNG = operator_table.RNG  # (it is seeded anew for each test)


#: Their rules know whether numbers are real; of others the complex case holds the real one.
BOTH = (
    "matrix",
    "function",
    "jacobian",
    "jacobian_fwd",
    "jacobian_bwd",
    "pytree",
    "sparse",
    "negative",
)


def each_case():
    """All cases, of which the real ones that say nothing more are left to the slow tests."""
    for name, dtype in CASES:
        marks = [] if dtype == COMPLEX or name in BOTH else [pytest.mark.slow]
        yield pytest.param((name, dtype), marks=marks, id=f"{name}-{dtype}")


@pytest.fixture(params=each_case())
def operator(request):
    return CASES[request.param]


def dense(operator):
    """The matrix column by column, from eager products alone."""
    structure = operator.in_structure()
    eye = np.eye(operator.in_size())
    dtype = ravel(operator.mv(random_like(structure))).dtype
    in_dtype = ravel(random_like(structure)).dtype
    columns = [ravel(operator.mv(unravel(jnp.asarray(e, in_dtype), structure))) for e in eye]
    return np.stack([np.asarray(c, dtype) for c in columns], axis=1)


def test_laws(operator):
    """S0-15, B-13: linearity, transposition, conjugation, entries and structures."""
    matrix = dense(operator)
    x, y = random_like(operator.in_structure()), random_like(operator.out_structure())
    assert matrix.shape == (operator.out_size(), operator.in_size())
    close_to(operator.as_matrix(), matrix)
    product = operator.mv(x)
    assert structure_equal(product, operator.out_structure())
    assert structure_of(product) == operator.out_structure()
    close_to(ravel(product), matrix @ ravel(x))

    transposed = operator.T
    assert structure_equal(transposed.in_structure(), operator.out_structure())
    assert structure_equal(transposed.out_structure(), operator.in_structure())
    assert structure_equal(transposed.mv(y), x)
    close_to(ravel(transposed.mv(y)), matrix.T @ ravel(y))
    close_to(transposed.as_matrix(), matrix.T)
    close_to(transposed.T.as_matrix(), matrix)

    conjugate = ops.conj(operator)
    close_to(ravel(conjugate.mv(x)), matrix.conj() @ ravel(x))
    close_to(conjugate.as_matrix(), matrix.conj())
    close_to(ops.conj(transposed).as_matrix(), matrix.conj().T)
    close_to(conjugate.T.as_matrix(), matrix.conj().T)
    close_to(ops.conj(conjugate).as_matrix(), matrix)


def test_entries(operator):
    """S2-06: `linearise`, `materialise`, `diagonal` and `tridiagonal` agree with the matrix."""
    matrix = operator.as_matrix()
    close_to(ops.linearise(operator).as_matrix(), matrix)
    held = ops.materialise(operator)
    close_to(held.as_matrix(), matrix)
    assert structure_equal(held.in_structure(), operator.in_structure())
    assert structure_equal(held.out_structure(), operator.out_structure())
    x = random_like(operator.in_structure())
    close_to(held.mv(x), operator.mv(x))
    size = min(matrix.shape)
    diagonal = ops.diagonal(operator)
    close_to(diagonal, np.diagonal(matrix))
    assert diagonal.dtype == matrix.dtype
    for band, offset in zip(ops.tridiagonal(operator), (0, -1, 1)):
        close_to(band, np.diagonal(matrix[:size, :size], offset))
        assert band.dtype == matrix.dtype


def test_transformations(operator):
    """The operator is a pytree: `jit`, `vmap` and derivatives in all its inexact arrays."""
    x = random_like(operator.in_structure())
    arrays, rest = eqx.partition(operator, eqx.is_inexact_array)
    mv = lambda arrays, x: ravel(eqx.combine(arrays, rest).mv(x))
    close_to(jax.jit(mv)(arrays, x), ravel(operator.mv(x)))
    twice = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), x)
    products = jax.vmap(mv, in_axes=(None, 0))(arrays, twice)
    close_to(products[1], 2 * ravel(operator.mv(x)), 10 * TOL)
    tangents = jax.tree.map(jnp.ones_like, arrays)
    if jax.tree.leaves(arrays):
        derivative = jax.jvp(lambda a: mv(a, x), (arrays,), (tangents,))[1]
        tangent = ops.TangentLinearOperator(operator, tangents)
        close_to(ravel(tangent.mv(x)), derivative, 10 * TOL)
        y = random_like(operator.out_structure())
        pair = lambda a: jnp.vdot(ravel(y).conj(), mv(a, x))
        pair_t = lambda a: jnp.vdot(ravel(x).conj(), ravel(eqx.combine(a, rest).T.mv(y)))
        one, two = (jax.jvp(f, (arrays,), (tangents,))[1] for f in (pair, pair_t))
        close_to(one, two, 100 * TOL)


def test_gradient_reaches_captured_arrays():
    """S0-15: a function operator is differentiable in what its function closes over."""
    x = array(3)

    def loss(w):
        return ops.FunctionLinearOperator(lambda v: w * v, struct(3)).mv(x).sum()

    close_to(jax.grad(loss)(array(3)), x)
    close_to(jax.jit(jax.grad(loss))(array(3)), x)
    w = array(3)
    operator = ops.FunctionLinearOperator(lambda v: w * v, struct(3))
    gradient = jax.grad(lambda op: op.mv(x).sum())(operator)
    close_to(jax.tree.leaves(gradient), [x])


class Net(eqx.Module):
    weight: jax.Array

    def __call__(self, x, args=None):
        return jnp.tanh(self.weight * x)


def test_jacobian_of_a_module():
    """The arrays inside a callable module are leaves of the operator."""
    net, x = Net(array(3)), array(3)

    def trace(net):
        return jnp.trace(ops.JacobianLinearOperator(net, x).as_matrix())

    expected = lambda net: jnp.sum(net.weight / jnp.cosh(net.weight * x) ** 2)
    close_to(jax.grad(trace)(net).weight, jax.grad(expected)(net).weight, 10 * TOL)


def test_backward_jacobian_of_custom_vjp():
    """`jac="bwd"` needs no forward mode."""

    @jax.custom_vjp
    def f(x):
        return x**3

    f.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))
    x, v = array(3), array(3)
    operator = ops.JacobianLinearOperator(lambda x, _: f(x)[:2], x, jac="bwd")
    close_to(operator.mv(v), (3 * x**2 * v)[:2])
    close_to(operator.as_matrix(), np.diag(3 * x**2)[:2])
    close_to(ops.linearise(operator).mv(v), operator.mv(v))
    close_to(operator.T.mv(v[:2]), (3 * x**2 * jnp.array([1, 1, 0], REAL) * v))
    diagonal = ops.JacobianLinearOperator(lambda x, _: f(x), x, None, ops.diagonal_tag, "bwd")
    close_to(diagonal.mv(v), 3 * x**2 * v)


def test_transpose_through_custom_vjp_and_stop_gradient():
    """S0-21: functions that `jax.linear_transpose` refuses are transposed all the same."""

    @jax.custom_vjp
    def f(x):
        return 2 * x

    f.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    w, v = array(2, 3), array(2)
    one = ops.FunctionLinearOperator(lambda x: w @ f(x), struct(3))
    close_to(one.T.mv(v), 2 * w.T @ v)
    two = ops.FunctionLinearOperator(lambda x: w @ jax.lax.stop_gradient(x), struct(3))
    close_to(two.T.mv(v), w.T @ v)


def test_promotion():
    """Integers become the default float; NumPy is accepted; weak types are dropped."""
    default = np.dtype(REAL)
    assert ops.MatrixLinearOperator(np.eye(2, dtype=int)).in_structure().dtype == default
    assert ops.MatrixLinearOperator(jnp.eye(2, dtype=bool)).as_matrix().dtype == default
    assert ops.DiagonalLinearOperator([1, 2.0]).in_structure() == [struct(), struct()]
    tri = ops.TridiagonalLinearOperator(np.arange(3), np.arange(2), np.ones(2))
    assert tri.in_structure() == struct(3)
    identity = ops.IdentityLinearOperator(struct(2, dtype=np.int32))
    assert identity.in_structure() == struct(2)
    weak = ops.FunctionLinearOperator(lambda x: [jnp.asarray(1.0), x], struct(2))
    assert weak.out_structure() == [struct(), struct(2)]
    assert not weak.mv(array(2))[0].weak_type
    counting = ops.FunctionLinearOperator(lambda x: jnp.zeros(2, int), struct(2))
    assert counting.out_structure() == struct(2)
    low = ops.MatrixLinearOperator(np.eye(2, dtype=np.float16))
    assert low.mv(jnp.ones(2, jnp.float16)).dtype == jnp.float16
    close_to(ops.MatrixLinearOperator(np.ones((2, 2), REAL)).mv(array(2) * 0 + 1), np.full(2, 2))


@pytest.mark.parametrize("dtype", [jnp.float16, COMPLEX])
def test_entries_keep_the_dtype(dtype):
    """Diagonals of operators without stored entries have the operator's dtype, not the default."""
    structure = struct(3, dtype=dtype)
    for operator in (
        ops.IdentityLinearOperator(structure),
        ops.DiagonalLinearOperator(jnp.ones(3, dtype)),
    ):
        assert {band.dtype for band in ops.tridiagonal(operator)} == {jnp.dtype(dtype)}
        assert ops.diagonal(operator).dtype == dtype


@jax.numpy_dtype_promotion("standard")
def test_mixed_precision_leaves():
    """B-13: every leaf keeps its own dtype."""
    half, full = struct(2, dtype=jnp.float16), struct(3)
    fn = lambda x: (x[1][:2].astype(jnp.float16), jnp.concatenate([x[0].astype(REAL), x[1][:1]]))
    operator = ops.FunctionLinearOperator(fn, (half, full))
    held = ops.materialise(operator)
    assert isinstance(held, ops.PyTreeLinearOperator)
    for op in (held, held.T, operator.T, held.T.T):
        assert set(jax.tree.leaves(op.in_structure())) == {half, full}
    x = random_like((half, full))
    assert structure_equal(held.mv(x), operator.mv(x))
    close_to(held.mv(x), operator.mv(x), 1e-4)
    close_to(held.T.as_matrix(), operator.as_matrix().T, 1e-4)


def test_structures_in_double_precision_are_those_of_arrays():
    """A structure of `float` means what an array of `float` is: float32 where x64 is off."""
    real, complex_ = (jax.ShapeDtypeStruct((3,), dtype) for dtype in (float, complex))
    for operator, like in (
        (ops.FunctionLinearOperator(lambda x: 2 * x, real), jnp.ones(3)),
        (ops.FunctionLinearOperator(lambda x: 2 * x, np.ones(3)), jnp.ones(3)),
        (ops.IdentityLinearOperator(complex_), jnp.ones(3, complex)),
        (ops.PyTreeLinearOperator(jnp.eye(3), real), jnp.ones(3)),
    ):
        assert operator.in_structure() == operator.out_structure()
        assert operator.in_structure().dtype == like.dtype


@jax.numpy_dtype_promotion("standard")
def test_complex_output_of_real_input():
    operator = ops.FunctionLinearOperator(lambda x: x.astype(COMPLEX) * 2j, struct(3))
    held = ops.materialise(operator)
    assert held.in_structure() == struct(3)
    assert held.out_structure() == struct(3, dtype=COMPLEX)
    x = array(3)
    close_to(held.mv(x), 2j * x)


def test_empty_and_tiny():
    """0×0, 1×1 and scalars."""
    for size in (0, 1):
        for operator in (
            ops.MatrixLinearOperator(jnp.ones((size, size))),
            ops.DiagonalLinearOperator(jnp.ones(size)),
            ops.TridiagonalLinearOperator(jnp.ones(size), jnp.ones(0), jnp.ones(0)),
            ops.IdentityLinearOperator(struct(size)),
            ops.FunctionLinearOperator(lambda x: x, struct(size)),
        ):
            assert operator.as_matrix().shape == (size, size)
            assert [band.shape for band in ops.tridiagonal(operator)] == [(size,), (0,), (0,)]
            assert operator.mv(jnp.ones(size)).shape == (size,)
            assert ops.materialise(operator).as_matrix().shape == (size, size)
    scalar = ops.FunctionLinearOperator(lambda x: 3 * x, struct())
    assert ops.is_diagonal(scalar)
    close_to(ops.diagonal(scalar), np.array([3.0]))
    close_to(ops.materialise(scalar).mv(jnp.asarray(2.0)), np.asarray(6.0))


def test_third_party_in_the_algebra():
    """S2-04: an operator with only the four required methods works in every combination."""
    a, b = ThirdParty(array(3, 2)), ThirdParty(array(3, 2))
    m, n = a.as_matrix(), b.as_matrix()
    close_to((a + b).as_matrix(), m + n)
    close_to((a - 2 * b).T.as_matrix(), (m - 2 * n).T)
    close_to((a @ b.T).as_matrix(), m @ n.T)
    x = random_like(a.in_structure())
    close_to(a @ x, a.mv(x))
    assert isinstance(ops.materialise(a), ops.PyTreeLinearOperator)
    assert isinstance(ops.conj(ThirdParty(array(3, 2, dtype=COMPLEX))), ops.ConjLinearOperator)
    close_to(ops.TaggedLinearOperator(a, "mine").as_matrix(), m)


def test_precision():
    """Products of float32 matrices are not rounded to less (B: accelerators' fast modes)."""
    operator = ops.MatrixLinearOperator(jnp.ones((2, 2), jnp.float32))
    assert "HIGHEST" in str(jax.make_jaxpr(operator.mv)(jnp.ones(2, jnp.float32)))


def test_cheap_matrix_operator():
    """Nothing is computed or traced when a matrix becomes an operator."""
    matrix = array(3, 3)
    operator = ops.MatrixLinearOperator(matrix)
    assert operator.as_matrix() is matrix
    assert operator.matrix is matrix
    assert ops.conj(operator) is operator
    assert ops.materialise(operator) is operator
    with pytest.raises(AttributeError):
        operator.matrix = matrix


# ---- Errors --------------------------------------------------------------------------------------


def test_errors_of_construction():
    ones = jnp.ones
    with pytest.raises(StructureError, match=r"matrix: must have two axes.*got shape \(3,\)"):
        ops.MatrixLinearOperator(ones(3))
    with pytest.raises(StructureError, match=r"tagged symmetric or definite.*Drop the tag"):
        ops.MatrixLinearOperator(ones((2, 3)), ops.symmetric_tag)
    with pytest.raises(StructureError, match=r"lower_diagonal: must have shape \(2,\).*\(3,\)"):
        ops.TridiagonalLinearOperator(ones(3), ones(3), ones(2))
    with pytest.raises(StructureError, match=r"upper_diagonal: must have shape \(2,\)"):
        ops.TridiagonalLinearOperator(ones(3), ones(2), ones(3))
    with pytest.raises(StructureError, match=r"diagonal: must have shape \(n,\)"):
        ops.TridiagonalLinearOperator(ones((3, 3)), ones(2), ones(2))
    with pytest.raises(ValueError, match="jac: must be 'fwd', 'bwd' or None; got 'sideways'"):
        ops.JacobianLinearOperator(lambda x, _: x, ones(2), jac="sideways")
    with pytest.raises(TypeError, match="tangent: must have the type of `primal`"):
        ops.TangentLinearOperator(
            ops.DiagonalLinearOperator(ones(2)), ops.MatrixLinearOperator(ones((2, 2)))
        )


def test_errors_of_pytree_operators():
    block = jnp.ones((2, 3))
    with pytest.raises(StructureError, match="first axes of each block must be the shape"):
        ops.PyTreeLinearOperator(block, struct(3))
    with pytest.raises(StructureError, match="pytree: must begin with the tree of"):
        ops.PyTreeLinearOperator([block], {"a": struct(2)})
    with pytest.raises(StructureError, match="all its rows must have one input structure"):
        ops.PyTreeLinearOperator([block, block[:, :2]], [struct(2), struct(2)])
    with pytest.raises(StructureError, match="output_structure: must have at least one leaf"):
        ops.PyTreeLinearOperator(None, None)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_vectors_are_refused(name):
    if name.startswith("third") or name == "conj":
        pytest.skip("not our `mv`")
    operator = CASES[name, REAL]
    wrong = jax.tree.map(lambda s: jnp.ones((*s.shape, 2), s.dtype), operator.in_structure())
    with pytest.raises(StructureError, match="vector: must have the operator's input structure"):
        operator.mv(wrong)


def test_errors_of_the_algebra():
    """Messages name the argument, the value, the rule and the remedy."""
    a, b = ops.MatrixLinearOperator(jnp.ones((2, 3))), ops.MatrixLinearOperator(jnp.ones((2, 2)))
    with pytest.raises(StructureError, match="Two added operators must have equal input"):
        a + b
    with pytest.raises(StructureError, match="Two added operators must have equal output"):
        b + ops.MatrixLinearOperator(jnp.ones((3, 2)))
    with pytest.raises(StructureError, match=r"Two composed.*inner structures; got float.*\[3\]"):
        a @ b
    with pytest.raises(StructureError, match=r"scalar: is complex .* Make the operator complex"):
        a * 1j
    with pytest.raises(ValueError, match="multiplied by a scalar"):
        a * jnp.ones(2)
    with pytest.raises(StructureError, match="scalar: must have shape"):
        ops.DivLinearOperator(a, jnp.ones(2))
    with pytest.raises(ValueError, match="needs an AbstractLinearOperator on both sides"):
        a + jnp.ones((2, 3))
    with pytest.raises(StructureError, match="`operator @ other` takes"):
        a @ jnp.ones(2)
