"""Krylov loops inside `jax.shard_map`, with its type checks and strict dtypes, on two devices (S1-07)."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from krylov_problems import BY_NAME, METHODS, system, tags
from processes import run_on_devices

import linsolve_prim as lp

SLOW = pytest.mark.slow
STRICT = {"JAX_PLATFORMS": "cpu", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
OWN_MATRIX = {
    "cycles of CG": lp.CG(stabilise_every=2),
    "own GMRES": lp.GMRES(),
    "LSMR": lp.LSMR(),
    "Normal": lp.Normal(lp.CG()),
}


@pytest.mark.parametrize(
    "names",
    [
        ("CG", "MINRES", "FCG", "BiCGStab", "QMR", "IDR(4)", "Chebyshev", *OWN_MATRIX),
        pytest.param(tuple(m.name for m in METHODS), marks=SLOW),
    ],
    ids=["some", "all"],
)
def test_krylov_under_shard_map_S1_07(names):
    done = run_on_devices(__file__, *names, **STRICT)
    assert done.stdout.split("\n")[:-1] == list(names), done.stderr[-3000:]


def main(names):
    """Prints each name whose lanes have solved their systems: a shared matrix, or one for each device."""
    assert jax.device_count() == 2
    b = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.float32)
    for name in names:
        if name in OWN_MATRIX:
            solver, (a, _) = OWN_MATRIX[name], system("spd", 6, np.float32)
            matrices, promises = jnp.asarray(np.stack([a, 2 * a])), lp.positive_semidefinite_tag
        else:
            method = BY_NAME[name]
            solver, (a, _) = method(), system(method.kind, 6, np.float32)
            matrices, promises = jnp.asarray(np.stack([a, a])), tags(method)
        check(name, solver, promises, matrices, b, shared=name not in OWN_MATRIX)
        print(name, flush=True)


def check(name, solver, promises, matrices, b, shared):
    def f(a, b):
        operator = lp.MatrixLinearOperator(a if shared else a[0], promises)
        x, _, stats = solver.compute(solver.init(operator, {}), b[0], {})
        return x[None], stats["num_steps"][None]

    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(
        f, mesh=mesh, in_specs=(P() if shared else P("i"), P("i")), out_specs=(P("i"), P("i"))
    )
    x, steps = jax.jit(spread)(matrices[0] if shared else matrices, b)
    got = np.einsum("lij,lj->li", matrices, x)
    np.testing.assert_allclose(got, b, atol=2e-4, err_msg=name)
    assert np.all(np.asarray(steps) >= 1), name


if __name__ == "__main__":
    main(sys.argv[1:])
