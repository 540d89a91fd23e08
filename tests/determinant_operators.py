"""Operators of every class, whose determinants the tests compare with dense ones."""

import jax
import jax.numpy as jnp
import numpy as np

import linsolve_prim as lp
from linsolve_prim.preconditioners import LowRankPlusDiagonal

X64 = jax.config.jax_enable_x64
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
TOL = 1e-10 if X64 else 2e-4
PSD, NSD = lp.positive_semidefinite_tag, lp.negative_semidefinite_tag
N = 5


def numbers(*shape, dtype=REAL, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    x = x + 1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else x
    return jnp.asarray(x, dtype)


def matrix(dtype=REAL, seed=0, n=N):
    return numbers(n, n, dtype=dtype, seed=seed)


def definite(dtype=REAL, seed=0, n=N):
    a = matrix(dtype, seed, n)
    return a @ a.conj().T + jnp.eye(n, dtype=dtype)


def sparse(dtype=REAL, seed=0, tags=(), n=N):
    a = np.array(definite(dtype, seed, n) if tags else matrix(dtype, seed, n))
    a[np.abs(np.subtract.outer(range(n), range(n))) == 2] = 0
    a = a + 6 * np.eye(n) if tags else a
    return lp.SparseLinearOperator.from_dense(a, tags=tags)


def rotation(dtype):
    return jnp.asarray(np.roll(np.eye(N - 1), 1, axis=0), dtype)  # an odd permutation


def tree(dtype):
    a = matrix(dtype)
    blocks = {"x": {"x": a[:2, :2], "y": a[:2, 2:]}, "y": {"x": a[2:, :2], "y": a[2:, 2:]}}
    out = {"x": jax.ShapeDtypeStruct((2,), dtype), "y": jax.ShapeDtypeStruct((3,), dtype)}
    return lp.PyTreeLinearOperator(blocks, out)


def function(dtype, n=N):
    a = matrix(dtype, n=n)
    fn = lambda x: jnp.matmul(a, x, precision="highest")
    return lp.FunctionLinearOperator(fn, jax.ShapeDtypeStruct((n,), dtype))


M = lambda a, *tags: lp.MatrixLinearOperator(a, tags)
OPERATORS = {
    "matrix": lambda d: M(matrix(d)),
    "odd permutation": lambda d: M(rotation(d)),
    "definite": lambda d: M(definite(d), PSD),
    "negative definite": lambda d: M(-definite(d), NSD),
    "lower": lambda d: M(jnp.tril(matrix(d)), lp.lower_triangular_tag),
    "upper": lambda d: M(jnp.triu(matrix(d)), lp.upper_triangular_tag),
    "unit": lambda d: M(
        jnp.tril(matrix(d), -1) + jnp.eye(N, dtype=d), lp.lower_triangular_tag, lp.unit_diagonal_tag
    ),
    "diagonal": lambda d: lp.DiagonalLinearOperator(numbers(N, dtype=d)),
    "tridiagonal": lambda d: lp.TridiagonalLinearOperator(
        numbers(N, dtype=d), numbers(N - 1, dtype=d, seed=1), numbers(N - 1, dtype=d, seed=2)
    ),
    "identity": lambda d: lp.IdentityLinearOperator(jax.ShapeDtypeStruct((N,), d)),
    "2·I": lambda d: 2 * lp.IdentityLinearOperator(jax.ShapeDtypeStruct((N,), d)),
    "negative": lambda d: -M(matrix(d)),
    "multiple": lambda d: M(matrix(d)) * -0.5,
    "quotient": lambda d: M(matrix(d)) / (-1.5 + 1j if d == COMPLEX else -1.5),
    "sum": lambda d: M(matrix(d)) + lp.DiagonalLinearOperator(numbers(N, dtype=d)),
    "product": lambda d: M(matrix(d)) @ M(matrix(d, 1)),
    "product of rectangles": lambda d: (
        M(numbers(N, 7, dtype=d)) @ M(numbers(7, N, dtype=d, seed=1))
    ),
    "conjugate": lambda d: lp.conj(function(d)),
    "tagged": lambda d: lp.TaggedLinearOperator(M(definite(d)), PSD),
    "pytree": tree,
    "function": function,
    "jacobian": lambda d: lp.JacobianLinearOperator(
        lambda x, a: jnp.sin(jnp.matmul(a, x, precision="highest")), numbers(N, dtype=d), matrix(d)
    ),
    "low rank": lambda d: LowRankPlusDiagonal(
        numbers(N, dtype=d), numbers(N, 2, dtype=d), numbers(N, 2, dtype=d, seed=1)
    ),
    "Hermitian low rank": lambda d: LowRankPlusDiagonal.spd(
        jnp.abs(numbers(N)) + 1, numbers(N, 2, dtype=d)
    ),
    "inverse low rank": lambda d: LowRankPlusDiagonal.spd(
        jnp.abs(numbers(N)) + 1, numbers(N, 2, dtype=d)
    ).inv(),
    "sparse": sparse,
    "sparse definite": lambda d: sparse(d, tags=PSD),
    "sparse tagged": lambda d: lp.TaggedLinearOperator(sparse(d, tags=PSD), PSD),
    "sparse lower": lambda d: lp.tril(sparse(d)),
    "sparse tridiagonal": lambda d: lp.tril(lp.triu(sparse(d), -1), 1),
    "triplets": lambda d: lp.TripletLinearOperator(
        jnp.concatenate([numbers(N * N, dtype=d), jnp.ones(1, d)]),
        [*np.repeat(range(N), N), N],
        [*np.tile(range(N), N), N],
        (N, N),
    ),
    "empty": lambda d: M(jnp.zeros((0, 0), d)),
}
