"""`SparseLinearOperator`: derivatives, batches, their memory, two devices (rows S3-04, S3-17, S1-07)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import sparse_matrices
from jax.test_util import check_grads
from processes import run_on_devices
from sparse_matrices import MATRICES, REAL, TOL, X64, close, uneven, vector

from linsolve_prim import SparseLinearOperator, SparsityPattern

RNG = sparse_matrices.RNG  # (it is seeded anew for each test)


@pytest.mark.skipif(not X64, reason="finite differences")
@pytest.mark.parametrize("name", ["tridiagonal", "wide"])
def test_derivatives(name):
    """S3-04: in values and vector, both modes, to second order; forward and transposed."""
    a = SparseLinearOperator.from_scipy(MATRICES[name])
    x = vector(a.in_size())

    @jax.jit
    def both(values, x):
        b = SparseLinearOperator(values, a.pattern)
        return b.T.mv(jnp.sin(b.mv(x)))

    check_grads(both, (a.values / 5, x), order=2, atol=1e-5, rtol=1e-5)


def test_vmap_nests_and_scan():
    """S3-04: batches of values, of vectors, of both; in `scan`; and their gradients."""
    pattern = SparsityPattern.from_scipy(MATRICES["square"])
    values, xs = vector(3, pattern.nnz), vector(2, 6)
    dense = np.zeros((3, 6, 6), REAL)
    dense[:, pattern.rows, pattern.indices] = values
    mv = lambda v, x: SparseLinearOperator(v, pattern).mv(x)
    over_x = jax.vmap(mv, (None, 0))
    nests = {
        "bij": lambda v, x: jax.vmap(over_x, (0, None))(v, x),
        "ib": lambda v, x: jax.vmap(jax.vmap(mv, (0, None)), (None, 0), out_axes=1)(v, x),
        "pairs": lambda v, x: jax.vmap(jax.vmap(mv), (None, 0))(v, x[:, None] + v[:, :6]),
    }
    table = np.einsum("bij,kj->bki", dense, xs)
    want = {
        "bij": table,
        "ib": table,
        "pairs": np.einsum("bij,kbj->kbi", dense, xs[:, None] + values[:, :6]),
    }
    for name, nest in nests.items():
        close(jax.jit(nest)(values, xs), want[name])

    def rollout(v, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(mv(v, x)), x.sum()), x, length=4)

    def reference(v, x):
        a = jnp.zeros((6, 6), REAL).at[pattern.rows, pattern.indices].set(v)
        return jax.lax.scan(lambda x, _: (jnp.tanh(a @ x), x.sum()), x, length=4)

    def gradient(f):
        loss = lambda v, x: jnp.sum(f(v, x)[0] ** 2) + jnp.sum(f(v, x)[1])
        return jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)))(values, xs[0])

    for ours, theirs in zip(gradient(rollout), gradient(reference)):
        close(ours, theirs, 1e3 * TOL)


def test_the_residual_of_a_gradient_is_the_vector():
    """S3-04: what is kept for the cotangent of the values is x, not x at each entry."""
    a = SparseLinearOperator.from_scipy(uneven(30))
    x = vector(30)
    _, vjp = jax.vjp(lambda v: SparseLinearOperator(v, a.pattern).mv(x), a.values)
    assert sum(leaf.size for leaf in jax.tree.leaves(vjp)) <= 2 * 30


def test_memory_of_gradients_is_linear_in_the_entries():
    """S3-17: 200 000 unknowns, eight right-hand sides: temporaries are a few times the values."""
    n, k = 200_000, 8
    pattern = SparsityPattern.from_scipy(sp.diags([1.0] * 3, [-1, 0, 1], (n, n)).tocsr())
    x = jax.ShapeDtypeStruct((n, k), REAL)

    def loss(values, x):
        return jnp.sum(jnp.sin(SparseLinearOperator(values, pattern).mm(x)))

    values = jax.ShapeDtypeStruct((pattern.nnz,), REAL)
    compiled = jax.jit(jax.grad(loss)).lower(values, x).compile()
    used = compiled.memory_analysis().temp_size_in_bytes
    assert used <= 4 * n * k * REAL.itemsize + 4 * pattern.nnz * REAL.itemsize


# ---- On two devices, in a process of its own -------------------------------------------------------


def test_shard_map_gradient():
    """S3-04, S1-07: replicated operands get the sum of their cotangents."""
    done = run_on_devices(__file__)
    assert done.returncode == 0, done.stderr[-4000:]


def main():
    from jax.sharding import PartitionSpec as P

    assert jax.device_count() == 2
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    energy = lambda y: jnp.sum(jnp.sin(y) ** 2)
    for name in ("tridiagonal", "uneven"):
        pattern = SparsityPattern.from_scipy(MATRICES[name])
        many = 10  # more right-hand sides than are unrolled
        for values_shape, x_shape in (((4,), ()), ((), (2 * many,))):
            values, x = vector(*values_shape, pattern.nnz), vector(*x_shape, pattern.shape[1])
            axes = (0 if values_shape else None, 0 if x_shape else None)
            product = lambda v, x: SparseLinearOperator(v, pattern).mv(x)
            lanes = jax.vmap(product, axes)
            specs = tuple(P("d") if axis == 0 else P() for axis in axes)
            total = jax.shard_map(
                lambda v, x: jax.lax.psum(energy(lanes(v, x)), "d"),
                mesh=mesh,
                in_specs=specs,
                out_specs=P(),
            )
            gradients = [
                jax.jit(jax.grad(f, (0, 1)))(values, x)
                for f in (total, lambda v, x: energy(lanes(v, x)))
            ]
            for ours, theirs in zip(*gradients):
                close(ours, theirs, 1e3 * TOL)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", X64)
    main()
