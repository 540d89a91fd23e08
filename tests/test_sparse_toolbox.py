"""Batches, stacks, logsumexp, neighbours, random matrices and normals of sparse matrices (row S3-24)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import linsolve_prim as lp
from linsolve_prim.testing import random_sparse, random_sparse_spd, random_sparse_triangular

X64 = jax.config.jax_enable_x64
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
TOL = 1e-10 if X64 else 1e-4


def close(got, want, tol=TOL):
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol)


def dense(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), REAL)


def of(values, operator):
    return lp.SparseLinearOperator(values, operator.pattern)


# ---- Products ------------------------------------------------------------------------------------


def test_products_of_one_pattern_of_many_and_of_many_vectors():
    a, b = random_sparse((4, 6), 9), dense(3, 6, 2)
    close(lp.spmm(a, b), np.asarray(a.as_matrix()) @ b)  # one matrix, many right-hand sides
    close(lp.spmm(a.to_scipy(), b[0]), np.asarray(a.as_matrix()) @ b[0])
    values = jnp.stack([a.values, 2 * a.values, a.values**2])
    batch = jax.vmap(lambda v: of(v, a))(values)
    wide = jax.vmap(lambda a: a.as_matrix())(batch)
    close(lp.spmm(batch, b), wide @ b)
    loss = lambda v, b: jnp.sum(jnp.sin(lp.spmm(jax.vmap(lambda v: of(v, a))(v), b)))
    want = jax.grad(lambda m, b: jnp.sum(jnp.sin(m @ b)), (0, 1))(wide, b)
    got = jax.jit(jax.grad(loss, (0, 1)))(values, b)
    close(got[0], want[0][:, a.pattern.rows, a.pattern.indices])
    close(got[1], want[1])


def test_products_of_matrices_with_patterns_of_their_own():
    several = [random_sparse((3, 4), 5), random_sparse((3, 4), 7, seed=1)]
    b = dense(2, 4, 3)
    out = lp.spmm(several, b)
    assert out.shape == (2, 3, 3)
    close(out, jnp.stack([a.as_matrix() @ x for a, x in zip(several, b)]))
    several.append(random_sparse((2, 5), 4, seed=2))
    parts = [*b, dense(5, 3)]
    for got, a, x in zip(lp.spmm(several, parts), several, parts):
        close(got, a.as_matrix() @ x)


def test_stacks_blocks_and_identities():
    a, b = random_sparse((3, 4), 5), random_sparse((3, 4), 7, seed=1)
    m, n = a.as_matrix(), b.as_matrix()
    close(jax.vmap(lambda x: x.as_matrix())(lp.stack([a, b])), jnp.stack([m, n]))
    close(lp.vstack([a, b]).as_matrix(), jnp.concatenate([m, n]))
    close(lp.hstack([a, b]).as_matrix(), jnp.concatenate([m, n], axis=1))
    close(lp.sparse_eye(3).as_matrix(), np.eye(3))
    whole = lp.block_diag(a, b.T, lp.sparse_eye(2))
    for got, want in zip(lp.block_diag_split(whole, (3, 4), (4, 3), (2, 2)), (m, n.T, np.eye(2))):
        close(got.as_matrix(), want)
    gradient = jax.grad(
        lambda v: jnp.sum(lp.block_diag_split(of(v, whole), (3, 4), (6, 5))[1].values ** 2)
    )
    close(gradient(whole.values), jnp.where(whole.pattern.rows >= 3, 2 * whole.values, 0))


# ---- logsumexp -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("zeros", [True, False])
def test_logsumexp(axis, zeros):
    """As of the dense matrix: with rows that are empty, full, or hold large numbers."""
    given = np.array([[1000.0, -5, 0], [0, 0, 0], [-1000, 0, 0], [1, 2, 3]], REAL)
    a = lp.SparseLinearOperator.from_dense(given)

    def want(v):
        fill = 0.0 if zeros else -jnp.inf
        full = jnp.full(given.shape, fill).at[a.pattern.rows, a.pattern.indices].set(v)
        return jax.scipy.special.logsumexp(full, axis=axis, keepdims=True)

    got = lambda v: lp.sparse_logsumexp(of(v, a), axis, keepdims=True, include_zeros=zeros)
    close(got(a.values), want(a.values))
    finite = lambda f: lambda v: jnp.sum(jnp.where(jnp.isfinite(f(v)), f(v), 0) * 0.5)
    slope = jax.jit(jax.grad(finite(got)))(a.values)
    assert np.all(np.isfinite(slope))
    if zeros or axis is None or axis == 0:  # elsewhere the dense one is 0/0 in the empty row
        close(slope, jax.grad(finite(want))(a.values))
    columns, rows = lp.sparse_bidir_logsumexp(a, include_zeros=zeros)
    close(columns, lp.sparse_logsumexp(a, 0, include_zeros=zeros))
    close(rows, lp.sparse_logsumexp(a, -1, include_zeros=zeros))


# ---- Neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "upper"), [("indep", None), ("inter", None), ("intra", True), ("inter", False)]
)
def test_neighbours(relation, upper):
    """values[k] at p is the entry (p, p − offsets[k]), in two channels on a grid of three axes."""
    shape = (2, 2, 3, 2)
    encoder = lp.PairwiseEncoder(1.5, shape, True, upper, relation)
    values = dense(len(encoder.offsets), *shape)
    want = np.zeros((24, 24), REAL)
    for k, offset in enumerate(encoder.offsets):
        for p in np.ndindex(shape):
            q = np.subtract(p, offset)
            if np.all(q >= 0) and np.all(q < shape):
                i, j = np.ravel_multi_index(p, shape), np.ravel_multi_index(tuple(q), shape)
                want[i, j] = values[(k, *p)]
    close(encoder(values).as_matrix(), want)
    assert encoder.offsets[0] == (0, 0, 0, 0)
    if upper is not None:
        assert (lp.is_upper_triangular if upper else lp.is_lower_triangular)(encoder(values))
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(encoder(v).values ** 2)))(values)
    assert int(jnp.sum(gradient != 0)) == encoder.pattern.nnz
    close(jax.vmap(encoder)(jnp.stack([values, 2 * values])).values[1], 2 * encoder(values).values)


# ---- Random matrices -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_random_matrices_are_what_they_say(dtype):
    a = random_sparse((7, 5), 12, dtype=dtype)
    assert (a.pattern.nnz, a.values.dtype) == (12, dtype)
    assert np.linalg.cond(random_sparse((30, 20), 100, well_conditioned=True).as_matrix()) < 10
    for lower, strict in ((True, False), (False, False), (True, True), (False, True)):
        a = random_sparse_triangular(20, 60, lower=lower, strict=strict, dtype=dtype)
        matrix = np.asarray(a.as_matrix())
        keep = np.tril if lower else np.triu
        np.testing.assert_array_equal(matrix, keep(matrix, (-1 if lower else 1) * strict))
        assert a.pattern.nnz == 60
        assert np.linalg.cond(matrix + strict * np.eye(20)) < 20
    spd = random_sparse_spd(20, 60, dtype=dtype)
    matrix = np.asarray(spd.as_matrix())
    np.testing.assert_array_equal(matrix, matrix.conj().T)
    assert np.linalg.eigvalsh(matrix).min() > 0.2
    assert lp.is_positive_semidefinite(spd)
    assert random_sparse((10**5, 10**5), 10**4, well_conditioned=False).pattern.nnz == 10**4


# ---- Normal distributions ------------------------------------------------------------------------


def normals(n=6):
    tril = random_sparse_triangular(n, 12)
    strict = random_sparse_triangular(n, 9, strict=True, seed=1)
    d = jnp.abs(dense(n, seed=2)) + 0.5
    l, unit = np.asarray(tril.as_matrix()), np.asarray(strict.as_matrix()) + np.eye(n)
    llt, ldlt = l @ l.T, unit @ np.diag(d) @ unit.T
    loc = dense(n, seed=3)
    make = lp.distributions.SparseMVN
    return loc, {
        "LLᵀ": (make(loc, scale_tril=tril), llt),
        "LDLᵀ": (make(loc, d, scale_tril=strict), ldlt),
        "precision LLᵀ": (make(loc, precision_tril=tril), np.linalg.inv(llt)),
        "precision LDLᵀ": (make(loc, d, precision_tril=strict), np.linalg.inv(ldlt)),
        "precision": (make(loc, precision=random_sparse_spd(n, 12)), None),
    }


@pytest.mark.parametrize("name", ["LLᵀ", "LDLᵀ", "precision LLᵀ", "precision LDLᵀ", "precision"])
def test_normal_distributions(name):
    loc, cases = normals()
    mvn, covariance = cases[name]
    if covariance is None:
        covariance = np.linalg.inv(mvn.precision.as_matrix())
    x = dense(6, seed=4)
    want = scipy.stats.multivariate_normal(np.asarray(loc), covariance)
    value, gradient = jax.jit(jax.value_and_grad(lambda m, x: m.log_prob(x), argnums=1))(mvn, x)
    close(value, want.logpdf(np.asarray(x)), 10 * TOL)
    close(gradient, -np.linalg.solve(covariance, x - loc), 10 * TOL)
    close(mvn.entropy(), want.entropy(), 10 * TOL)
    if name == "precision":
        with pytest.raises(NotImplementedError, match=r"rsample: needs a factor"):
            mvn.rsample(jax.random.key(0))
        return
    root = jax.jacfwd(mvn.transform)(jnp.zeros(6, REAL))  # x = μ + Rε, and RRᵀ is the covariance
    close(root @ root.T, covariance, 10 * TOL)
    assert mvn.sample(jax.random.key(0), (2, 3)).shape == (2, 3, 6)


@pytest.mark.skipif(not X64, reason="derivatives are compared in double precision")
@pytest.mark.parametrize("form", ["scale_tril", "precision_tril"])
def test_densities_and_samples_are_differentiated_by_the_factor(form):
    tril, x, noise = random_sparse_triangular(6, 12), dense(6, seed=4), dense(6, seed=5)

    def mine(v):
        mvn = lp.distributions.SparseMVN(jnp.zeros(6), **{form: of(v, tril)})
        return mvn.log_prob(x) + jnp.sum(jnp.sin(mvn.transform(noise)))

    def want(v):
        l = of(v, tril).as_matrix()
        root = l if form == "scale_tril" else jnp.linalg.inv(l).T
        density = jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(6), root @ root.T)
        return density + jnp.sum(jnp.sin(root @ noise))

    close(jax.grad(mine)(tril.values), jax.grad(want)(tril.values), 1e-8)


# ---- Messages ------------------------------------------------------------------------------------


def test_messages():
    a, make = random_sparse((3, 4), 5), lp.distributions.SparseMVN
    with pytest.raises(ValueError, match=r"B: must have shape \(4,\) with one more.*got \(3, 2\)"):
        lp.spmm(a, dense(3, 2))
    with pytest.raises(ValueError, match=r"B: must be one for each A, 2; got 1"):
        lp.spmm([a, a], dense(1, 4, 2))
    with pytest.raises(ValueError, match=r"B\[1\]: must have shape \(4, k\)"):
        lp.spmm([a, a], [dense(4, 2), dense(3, 2)])
    with pytest.raises(ValueError, match=r"operators: must be at least one, and have one shape"):
        lp.stack([a, a.T])
    with pytest.raises(
        ValueError, match=r"operators: must be at least one, and have one number of"
    ):
        lp.vstack([a, a.T])
    with pytest.raises(TypeError, match=r"operators\[0\]: must be a SparseLinearOperator"):
        lp.stack([jnp.eye(3)])
    with pytest.raises(ValueError, match=r"shapes: must add up to that of the operator, \(3, 4\)"):
        lp.block_diag_split(a, (1, 1))
    with pytest.raises(ValueError, match=r"operator: has \d entries outside of the blocks"):
        lp.block_diag_split(a, (1, 4), (2, 0))
    with pytest.raises(ValueError, match=r"axis: must be 0, 1, \(0, 1\) or None; got 2"):
        lp.sparse_logsumexp(a, 2)
    with pytest.raises(ValueError, match=r"A: must be real; got complex"):
        lp.sparse_logsumexp(random_sparse((2, 2), 2, dtype=COMPLEX))
    with pytest.raises(ValueError, match=r"radius: must be at least 1"):
        lp.PairwiseEncoder(0.5, (1, 3))
    with pytest.raises(ValueError, match=r"volume_shape: must be \(C, \*axes\)"):
        lp.PairwiseEncoder(1, (3,))
    with pytest.raises(
        ValueError, match=r"channel_voxel_relation: must be 'indep', 'intra' or 'inter'"
    ):
        lp.PairwiseEncoder(1, (2, 3), channel_voxel_relation="all")
    with pytest.raises(
        ValueError, match=r"channel_voxel_relation: must be 'indep' where there is one"
    ):
        lp.PairwiseEncoder(1, (1, 3), channel_voxel_relation="intra")
    with pytest.raises(ValueError, match=r"values: must have shape \(2, 1, 3\).*jax.vmap"):
        lp.PairwiseEncoder(1, (1, 3))(dense(1, 3))
    with pytest.raises(ValueError, match=r"nnz: must be from 0 to 4 for shape \(2, 2\); got 5"):
        random_sparse((2, 2), 5)
    with pytest.raises(ValueError, match=r"exactly one must be given; got 0"):
        make(dense(3))
    with pytest.raises(ValueError, match=r"must be lower triangular and square; got a 3×4 matrix"):
        make(dense(3), scale_tril=a)
    with pytest.raises(ValueError, match=r"must be strictly lower triangular, since `diagonal`"):
        make(dense(3), jnp.ones(3), scale_tril=lp.sparse_eye(3))
    with pytest.raises(ValueError, match=r"loc: must have shape \(3,\)"):
        make(dense(4), scale_tril=lp.sparse_eye(3))
    with pytest.raises(ValueError, match=r"precision: must be tagged"):
        make(dense(3), precision=lp.sparse_eye(3))
