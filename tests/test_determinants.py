"""Determinants, traces and diagonals of every operator class, with derivatives (row B-16)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from determinant_operators import (
    COMPLEX,
    OPERATORS,
    PSD,
    REAL,
    TOL,
    X64,
    N,
    numbers,
    sparse,
)

import linsolve_prim as lp


def split(operator):
    import equinox as eqx

    return eqx.partition(operator, eqx.is_inexact_array)


def of_dense(arrays, rest, part):
    """A real function of the determinant of the dense matrix."""
    import equinox as eqx

    sign, log = jnp.linalg.slogdet(eqx.combine(arrays, rest).as_matrix())
    return part(sign, log)


def of_ours(arrays, rest, part):
    import equinox as eqx

    return part(*lp.slogdet(eqx.combine(arrays, rest)))


def part(sign, log):
    """Phase and size in one number, for derivatives."""
    return log + 0.3 * jnp.angle(sign) if jnp.iscomplexobj(sign) else log


#: Those whose rule knows signs; of others the complex case holds the real one.
SIGNED = [
    "matrix",
    "odd permutation",
    "negative definite",
    "2·I",
    "negative",
    "sparse",
    "tridiagonal",
]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, COMPLEX) for name in OPERATORS] + [(name, REAL) for name in SIGNED],
    ids=str,
)
def test_every_operator_has_its_determinant_trace_and_diagonal(name, dtype):
    """B-16: 2·I₅ has log det 3.466, and an odd permutation the sign −1."""
    operator = OPERATORS[name](dtype)
    dense = np.asarray(operator.as_matrix())
    (sign, log), diagonal, trace = jax.jit(lambda a: (lp.slogdet(a), lp.diagonal(a), lp.trace(a)))(
        operator
    )
    want_sign, want_log = np.linalg.slogdet(dense)
    assert sign.dtype == dtype
    assert log.dtype == REAL
    np.testing.assert_allclose(sign, want_sign, atol=TOL)
    np.testing.assert_allclose(log, want_log, atol=10 * TOL)
    np.testing.assert_allclose(diagonal, np.diagonal(dense), atol=TOL)
    np.testing.assert_allclose(trace, np.trace(dense), atol=10 * TOL)
    if name == "2·I":
        assert float(log) == pytest.approx(5 * np.log(2))


MORE = "matrix|negative definite|low rank|sparse lower|triplets|product|pytree|function".split("|")


@pytest.mark.skipif(not X64, reason="derivatives are compared in double precision")
@pytest.mark.parametrize(
    "name",
    ["tridiagonal", "sparse tagged"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in OPERATORS if name in MORE],
)
def test_derivatives_to_second_order_under_jit(name):
    """d log det A = tr(A⁻¹dA), on the arrays that A has; complex where the operator can be."""
    dtype = REAL if name in ("triplets", "negative definite") else COMPLEX
    arrays, rest = split(OPERATORS[name](dtype))
    leaves, treedef = jax.tree.flatten(arrays)
    argnums = tuple(range(len(leaves)))

    def both_orders(of):
        first = jax.grad(lambda *x: of(treedef.unflatten(x), rest, part), argnums)
        return jax.jit(lambda *x: (first(*x), jax.grad(_sine(first), argnums)(*x)))(*leaves)

    for g, w in zip(jax.tree.leaves(both_orders(of_ours)), jax.tree.leaves(both_orders(of_dense))):
        np.testing.assert_allclose(g, w, rtol=1e-7, atol=1e-7)


def _sine(gradient):
    """A scalar that depends on the whole gradient."""
    return lambda *x: sum(jnp.sum(jnp.sin(g.real) + g.imag**2) for g in gradient(*x))


@pytest.mark.skipif(not X64, reason="derivatives are compared in double precision")
def test_batches_and_forward_mode():
    op = sparse(tags=PSD)
    values = jnp.stack([op.values, 2 * op.values, op.values**2 + 1])
    one = lambda v: lp.logdet(lp.SparseLinearOperator(v, op.pattern, PSD))
    dense = lambda v: jnp.linalg.slogdet(lp.SparseLinearOperator(v, op.pattern).as_matrix())[1]
    for transform in (jax.vmap, lambda f: jax.vmap(jax.grad(f)), lambda f: jax.vmap(jax.jacfwd(f))):
        got, want = jax.jit(transform(one))(values), transform(dense)(values)
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


def test_batches_of_arrays_are_those_of_numpy():
    a = numbers(2, 3, N, N)
    sign, log = lp.slogdet(a)
    want = np.linalg.slogdet(np.asarray(a))
    np.testing.assert_allclose(sign, want[0])
    np.testing.assert_allclose(log, want[1], rtol=10 * TOL)


SOLVERS = {
    "LU": lp.LU(),
    "Cholesky": lp.Cholesky(),
    "QR": lp.QR(),
    "SVD": lp.SVD(),
    "SuperLU": lp.SuperLU(),
    "Banded": lp.Banded(),
    "functions": lp.HostSolver(
        factorize=lambda a: np.linalg.eigvalsh(a.toarray()),
        solve=lambda *_: None,
        logdet=lambda values: np.sum(np.log(values)),
    ),
}


@pytest.mark.parametrize("name", [*SOLVERS, "KLU", "RSLab", "CHOLMOD", "UMFPACK", "PARDISO"])
def test_factorizations_show_their_determinant(name):
    if name not in SOLVERS:
        try:
            solver = getattr(lp, name)()
        except ImportError:
            pytest.skip(f"{name} is not installed")
    else:
        solver = SOLVERS[name]
    op = sparse(tags=PSD, n=9)
    want = np.linalg.slogdet(op.as_matrix())[1]
    np.testing.assert_allclose(lp.logdet(op, solver), want, rtol=10 * TOL)
    np.testing.assert_allclose(lp.logdet(lp.factorize(op, solver)), want, rtol=10 * TOL)
    if name not in ("Cholesky", "CHOLMOD", "functions"):
        for dtype in (REAL, COMPLEX):  # pivoting, signs and phases
            op = sparse(dtype, n=9)
            sign, log = lp.slogdet(lp.conj(op), solver)
            want = np.linalg.slogdet(np.asarray(op.as_matrix()).conj())
            np.testing.assert_allclose(sign, want[0], atol=10 * TOL)
            np.testing.assert_allclose(log, want[1], rtol=10 * TOL)


def test_one_factorization_for_value_and_gradient():
    lp.host.registry.clear()
    op = sparse(n=40, seed=3)
    loss = lambda v: lp.slogdet(lp.SparseLinearOperator(v, op.pattern))[1]
    before = lp.host.registry.stats()["factorizations"]
    jax.jit(jax.value_and_grad(loss))(op.values)
    assert lp.host.registry.stats()["factorizations"] == before + 1


def test_singular_matrices_and_negative_determinants():
    for solver in (None, lp.SuperLU(), lp.QR()):
        found = lp.slogdet(lp.MatrixLinearOperator(jnp.diag(jnp.asarray([1.0, 0.0, 2.0]))), solver)
        assert (float(found.sign), float(found.logabsdet)) == (0.0, -np.inf)
    assert np.isnan(lp.logdet(-jnp.eye(3)))
    np.testing.assert_allclose(lp.logdet(-jnp.eye(3, dtype=COMPLEX)), 1j * np.pi, rtol=1e-6)
    pattern = sparse().pattern
    zero = lambda v: lp.slogdet(lp.SparseLinearOperator(v, pattern)).logabsdet
    with pytest.raises(lp.SingularMatrixError):  # it has a value, but no derivative
        jax.grad(zero)(jnp.zeros(pattern.nnz))
    nan = lp.SparseLinearOperator.from_dense(np.diag([1.0, np.nan]) + np.eye(2)[::-1])
    assert np.isnan(lp.slogdet(nan).logabsdet)


def test_a_long_tridiagonal_neither_over_nor_underflows():
    n = 3000
    bands = jnp.full(n, 1e3), jnp.full(n - 1, -1e3), jnp.full(n - 1, 1e-2)
    a = sp.diags_array([np.asarray(x) for x in bands], offsets=[0, -1, 1]).tocsc()
    want = np.sum(np.log(np.abs(spla.splu(a.astype(float)).U.diagonal())))
    found = lp.logdet(lp.TridiagonalLinearOperator(*bands))
    np.testing.assert_allclose(found, want, rtol=1e-9 if X64 else 1e-4)


@pytest.mark.skipif(not X64, reason="derivatives are compared in double precision")
def test_shards_have_their_own_determinants():
    """Under `shard_map` with its checks on, where loops must keep the types of their carries."""
    op = sparse(tags=PSD)

    def one(v):
        a = lp.SparseLinearOperator(v, op.pattern, PSD)
        bands = v[:N] + 6, v[1:N], v[2 : N + 1]
        estimate = lp.stochastic_logdet(a, jax.random.key(0), num_samples=4).value
        return lp.logdet(a) + lp.logdet(lp.TridiagonalLinearOperator(*bands)) + estimate

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("i",))
    spec = jax.sharding.PartitionSpec("i")
    many = lambda v: jax.vmap(one)(v)
    sharded = jax.shard_map(many, mesh=mesh, in_specs=spec, out_specs=spec)
    values = jnp.stack([op.values, 2 * op.values])
    slopes = [jax.jit(jax.grad(lambda v: jnp.sum(f(v))))(values) for f in (many, sharded)]
    np.testing.assert_allclose(*slopes, rtol=1e-9)


def test_messages():
    with pytest.raises(lp.StructureError, match=r"A: must be square.*got a 2×3 operator"):
        lp.slogdet(lp.MatrixLinearOperator(jnp.ones((2, 3))))
    with pytest.raises(lp.StructureError, match=r"A: must be square to have a trace"):
        lp.trace(jnp.ones((2, 3)))
    with pytest.raises(lp.StructureError, match=r"A: must have shape \(..., N, N\); got \(3,\)"):
        lp.slogdet(jnp.ones(3))
    with pytest.raises(NotImplementedError, match=r"GMRES has no factorization"):
        lp.slogdet(jnp.eye(3), lp.GMRES())
    with pytest.raises(TypeError, match=r"solver: must be an AbstractLinearSolver or None"):
        lp.slogdet(jnp.eye(3), "LU")
    with pytest.raises(TypeError, match=r"A: must be an operator.*got function"):
        lp.slogdet(lambda x: x)
    large = lp.FunctionLinearOperator(lambda x: x, jax.ShapeDtypeStruct((5000,), REAL))
    with pytest.raises(lp.StructureError, match=r"5000 unknowns.*stochastic_logdet"):
        lp.slogdet(large)
    with pytest.raises(ValueError, match=r"A: must be tagged positive definite"):
        lp.stochastic_logdet(jnp.eye(3), jax.random.key(0))
    tagged = lp.MatrixLinearOperator(jnp.eye(3), PSD)
    with pytest.raises(ValueError, match=r"num_samples: must be at least 1; got 0"):
        lp.stochastic_logdet(tagged, jax.random.key(0), num_samples=0)
