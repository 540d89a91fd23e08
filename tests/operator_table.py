"""One operator of each kind, real and complex, for the tests of operators."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from linsolve_prim import operators as ops
from linsolve_prim.sparse import SparseLinearOperator

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
COMPLEX = np.dtype("complex128" if jax.config.jax_enable_x64 else "complex64")
TOL = 1e-12 if jax.config.jax_enable_x64 else 2e-5
RNG = np.random.default_rng(7)


def array(*shape, dtype=REAL):
    x = RNG.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * RNG.standard_normal(shape)
    return jnp.asarray(x, dtype)


def struct(*shape, dtype=REAL):
    return jax.ShapeDtypeStruct(shape, dtype)


def random_like(structure):
    return jax.tree.map(lambda s: array(*s.shape, dtype=s.dtype), structure)


def close_to(x, y, tol=TOL):
    x_leaves, x_def = jax.tree.flatten(x)
    y_leaves, y_def = jax.tree.flatten(y)
    assert x_def == y_def
    for a, b in zip(x_leaves, y_leaves):
        np.testing.assert_allclose(a, b, rtol=50 * tol, atol=50 * tol)


class ThirdParty(ops.AbstractLinearOperator):
    """Nothing but what a subclass must have."""

    array: jax.Array

    def mv(self, vector):
        return {"y": self.array @ vector[0] + vector[1].sum() * self.array[:, 0]}

    def transpose(self):
        matrix = jnp.concatenate([self.array, jnp.tile(self.array[:, :1], (1, 4))], axis=1)
        blocks = {"y": (matrix[:, : self.array.shape[1]], matrix[:, -4:].reshape(-1, 2, 2))}
        return ops.PyTreeLinearOperator(blocks, self.out_structure()).T

    def in_structure(self):
        return struct(self.array.shape[1], dtype=self.array.dtype), struct(
            2, 2, dtype=self.array.dtype
        )

    def out_structure(self):
        return {"y": struct(self.array.shape[0], dtype=self.array.dtype)}


def pytree_operator(dtype, tags=()):
    out = {"a": struct(2, dtype=dtype), "b": struct(2, 1, dtype=dtype)}
    blocks = {
        "a": [array(2, 3, dtype=dtype), array(2, 2, 2, dtype=dtype)],
        "b": [array(2, 1, 3, dtype=dtype), array(2, 1, 2, 2, dtype=dtype)],
    }
    return ops.PyTreeLinearOperator(blocks, out, tags)


def function_operator(dtype, tags=()):
    w = array(4, 3, dtype=dtype)
    fn = lambda x: (jnp.matmul(w, x["u"]), jnp.cumsum(x["v"]) + x["u"][0])
    return ops.FunctionLinearOperator(
        fn, {"u": struct(3, dtype=dtype), "v": struct(2, dtype=dtype)}, tags
    )


def jacobian_operator(dtype, jac=None, rows=3):
    w = array(rows, 4, dtype=dtype)

    def fn(x, args):
        return jnp.sin(w @ x * args["c"]) + x[0] ** 2

    args = {"c": array(dtype=dtype), "name": "static"}
    return ops.JacobianLinearOperator(fn, array(4, dtype=dtype), args, jac=jac)


def symmetric(n, dtype):
    matrix = array(n, n, dtype=dtype)
    return matrix + matrix.T


def make(dtype):
    square = array(3, 3, dtype=dtype)
    tri = ops.TridiagonalLinearOperator(*(array(k, dtype=dtype) for k in (4, 3, 3)))
    matrix = ops.MatrixLinearOperator(square)
    nested = {"p": struct(2, dtype=dtype), "q": struct(1, 2, dtype=dtype)}
    scalar = array(dtype=dtype)
    sparse = np.asarray(array(4, 4, dtype=dtype)) * np.tri(4, k=1)
    return {
        "matrix": matrix,
        "wide": ops.MatrixLinearOperator(array(2, 5, dtype=dtype)),
        "symmetric": ops.MatrixLinearOperator(symmetric(3, dtype), ops.symmetric_tag),
        "lower": ops.MatrixLinearOperator(jnp.tril(square), ops.lower_triangular_tag),
        "pytree": pytree_operator(dtype),
        "diagonal": ops.DiagonalLinearOperator(random_like(nested)),
        "tridiagonal": tri,
        "identity": ops.IdentityLinearOperator(nested),
        "reshaping": ops.IdentityLinearOperator(nested, struct(2, 2, dtype=dtype)),
        "padding": ops.IdentityLinearOperator(nested, struct(6, dtype=dtype)),
        "cutting": ops.IdentityLinearOperator(nested, struct(3, dtype=dtype)),
        "function": function_operator(dtype),
        "jacobian": jacobian_operator(dtype),
        "jacobian_fwd": jacobian_operator(dtype, "fwd"),
        "jacobian_bwd": jacobian_operator(dtype, "bwd", rows=5),
        "tagged": ops.TaggedLinearOperator(matrix + matrix.T, ops.symmetric_tag),
        "tangent": ops.TangentLinearOperator(matrix, ops.MatrixLinearOperator(square**2)),
        "tangent_function": _tangent(function_operator(dtype)),
        "sum": matrix + ops.MatrixLinearOperator(square**2),
        "product": pytree_operator(dtype) @ pytree_operator(dtype).T,
        "negative": -tri,
        "multiple": scalar * function_operator(dtype),
        "quotient": tri / scalar,
        "sparse": SparseLinearOperator.from_dense(sparse),
        "sparse_wide": SparseLinearOperator.from_dense(sparse[:2]),
        "conj": ops.conj(ThirdParty(array(3, 2, dtype=dtype))),
        "third_party": ThirdParty(array(3, 2, dtype=dtype)),
    }


def _tangent(primal):
    tangent = jax.tree.map(lambda x: x + 1 if eqx.is_inexact_array(x) else None, primal)
    return ops.TangentLinearOperator(primal, tangent)


NAMES = list(make(REAL))
CASES = {(name, dtype): op for dtype in (REAL, COMPLEX) for name, op in make(dtype).items()}
