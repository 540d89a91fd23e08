"""Patterns of functions with a `jax.shard_map` inside, on four devices (a process of its own: this file)."""

import json

import pytest
from processes import run_on_devices

#: Whose patterns hold what is true and nothing else.
TIGHT = (
    "local", "halo", "sum", "mean", "coefficients", "zeros", "replicated", "gather", "gather stacked",
    "axis index", "window of a copy", "two axes", "both axes as one", "scatter", "scatter untiled",
    "all to all", "all to all untiled", "jitted inside", "loop inside", "copied result", "sums of constants",
    "tuples", "one axis of two",
)  # fmt: skip

#: A collective inside of a loop or a branch mixes everything.
LOOSE = ("collective in a loop", "collective in a branch", "greatest of constants")


def functions():
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax
    from jax.sharding import PartitionSpec as P

    auto = jax.sharding.AxisType.Auto
    row = jax.make_mesh((4,), ("i",), axis_types=(auto,))
    grid = jax.make_mesh((2, 2), ("i", "j"), axis_types=(auto, auto))
    w = jnp.asarray(np.arange(1.0, 17.0), np.dtype(jnp.zeros(()).dtype))
    I = P("i")

    def on(fn, into=I, out=I, mesh=row, check=True, **more):
        return lambda *x: jax.shard_map(
            fn, mesh=mesh, in_specs=into, out_specs=out, check_vma=check, **more
        )(*x)

    def halo(x):
        left = lax.ppermute(x[-1:], "i", [(k, (k + 1) % 4) for k in range(4)])
        right = lax.ppermute(x[:1], "i", [(k + 1, k) for k in range(3)])  # and zero at the end
        p = jnp.concatenate([left, x, right])
        return p[2:] + p[:-2] - 2 * p[1:-1]

    def jitted(v):
        return v + jax.jit(lambda u: 2 * lax.psum(u, "i")[::-1] + lax.axis_index("i") * u)(v)

    def loop(v):
        return lax.fori_loop(0, 2, lambda k, c: jnp.roll(c, 1) + v, v)

    def moving(v):
        step = lambda c, _: (lax.ppermute(c, "i", [(k, (k + 1) % 4) for k in range(4)]), None)
        return lax.scan(step, v, None, length=2)[0]

    def branch(v):
        return lax.cond(w[0] > 0, lambda v: lax.ppermute(v, "i", [(0, 1)]), lambda v: v, v)

    degree = lambda v, w: v * lax.psum(w[0] - w[0], "i") + v[::-1] * lax.all_gather(w, "i").sum()
    return {
        "local": on(lambda v: 2 * v[::-1]),
        "halo": on(halo),
        "sum": on(lambda v: lax.psum(v, "i"), out=P()),
        "mean": on(lambda v: v - lax.pmean(v, "i")),
        "coefficients": lambda x: on(lambda v, w: v * w, (I, I))(x, w),
        "zeros": lambda x: on(lambda v, w: v + (w - 3) * v[::-1], (I, I))(x, w // 2),
        "replicated": lambda x: on(lambda v, w: v * w.sum(), (I, P()))(x, w),
        "gather": on(lambda v: lax.all_gather(v, "i", tiled=True)[:4] + v),
        "gather stacked": on(lambda v: lax.all_gather(v, "i")[0] + v),
        "axis index": on(lambda v: v * lax.axis_index("i")),
        "window of a copy": on(
            lambda v: lax.dynamic_slice(v, (lax.axis_index("i") * 4,), (4,)), P()
        ),
        "two axes": lambda x: on(
            lambda v: v[::-1] + lax.psum(v, "j"), P("i", "j"), P("i", "j"), grid
        )(x.reshape(4, 4)),
        "both axes as one": on(
            lambda v: lax.all_gather(v, ("i", "j"), tiled=True)[:4] + v,
            P(("i", "j")),
            P(("i", "j")),
            grid,
        ),
        "scatter": on(lambda v: lax.psum_scatter(v, "i", tiled=True), P(), check=False),
        "scatter untiled": lambda x: on(lambda v: lax.psum_scatter(v, "i"), P(), check=False)(
            x.reshape(4, 4)
        ),
        "all to all": on(lambda v: lax.all_to_all(v, "i", 0, 0, tiled=True)),
        "all to all untiled": lambda x: on(lambda v: lax.all_to_all(v, "i", 0, 1))(
            x.reshape(16, 1)
        ),
        "jitted inside": on(jitted),
        "loop inside": on(loop),
        "copied result": on(lambda v: lax.all_gather(v, "i", tiled=True), out=P(), check=False),
        "sums of constants": lambda x: on(degree, (I, I))(x, w),
        "tuples": lambda x: on(lambda v, w: (v, w, lax.psum(v, "i")), (I, I), (I, I, P()))(x, w),
        "one axis of two": on(
            lambda v: v + lax.ppermute(v, "j", [(0, 1), (1, 0)]),
            P("j"),
            P("j"),
            grid,
            axis_names={"j"},
        ),
        "collective in a loop": on(moving),
        "collective in a branch": on(branch),
        "greatest of constants": lambda x: on(
            lambda v, w: v * (w < lax.pmax(w.max(), "i")), (I, I)
        )(x, w),
    }


def main():
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.flatten_util import ravel_pytree

    import linsolve_prim as lp

    assert jax.device_count() == 4
    for name, f in functions().items():
        x = jnp.zeros(16)
        f = jax.jit(f)
        A, _ = lp.materialise_sparse(f, x)
        flat = lambda x, f=f: np.asarray(ravel_pytree(f(x))[0])
        columns = [flat(e) - flat(x) for e in jnp.eye(16)]
        expected = np.stack(columns, 1)
        error = float(np.abs(np.asarray(A.as_matrix()) - expected).max())
        entries = A.pattern.nnz, int(np.count_nonzero(expected))
        print(json.dumps({name: [error, *entries]}), flush=True)


@pytest.fixture(scope="module")
def outcomes():
    done = run_on_devices(__file__, count=4, JAX_NUMPY_DTYPE_PROMOTION="standard")
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return {k: v for line in lines for k, v in json.loads(line).items()}


@pytest.mark.parametrize("name", TIGHT + LOOSE)
def test_bodies_of_shard_map(outcomes, name):
    """S0-18, S1-07: entries are right, and where each device can be followed none is superfluous."""
    error, found, true = outcomes[name]
    assert error < 1e-5
    assert found == true if name in TIGHT else found >= true


if __name__ == "__main__":
    main()
