"""Calls to the host hand arrays over as they are, and do not hang where one core does everything."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linsolve_prim.host.direct import host_call


def twice(x, y):
    assert type(x) is np.ndarray
    return [2 * x, np.asarray(y, np.int32) + 1]


def call(x, y):
    return host_call(
        twice, [jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct((), jnp.int32)], x, y
    )


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_arrays_there_and_back(wrap):
    x, y = jnp.arange(5.0), jnp.asarray(3, jnp.int32)
    a, b = wrap(call)(x, y)
    np.testing.assert_array_equal(a, 2 * x)
    assert b == 4
    carry, _ = jax.jit(lambda x: jax.lax.scan(lambda x, _: (call(x, y)[0], None), x, length=3))(x)
    np.testing.assert_array_equal(carry, 8 * x)


def test_exceptions_arrive():
    def bad(x):
        raise KeyError("this one")

    f = jax.jit(lambda x: host_call(bad, [jax.ShapeDtypeStruct(x.shape, x.dtype)], x)[0])
    with pytest.raises(jax.errors.JaxRuntimeError, match="this one"):
        jax.block_until_ready(f(jnp.ones(3)))


def test_one_core_does_not_hang():
    """Large arguments of `jax.pure_callback` may wait there for a thread that never comes."""
    code = """
        import os, sys
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import jax, jax.numpy as jnp, numpy as np, scipy.sparse as sp
        import linsolve_prim as lp
        jax.config.update("jax_enable_x64", True)
        n = 90_000
        A = sp.csr_array(sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(n, n)))
        pattern, b = lp.SparsityPattern.from_scipy(A), jnp.ones(n)
        solve = jax.jit(lambda v, b: lp.linear_solve(
            lp.SparseLinearOperator(v, pattern), b, lp.SuperLU(), throw=False).value)
        for k in range(6):
            x = solve(jnp.asarray(A.data * (1 + 0.01 * k)), b)
        jax.block_until_ready(x)
        print("done")
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert out.stdout.strip() == "done", out.stderr
