"""Solves inside of `jax.shard_map`, on two devices (row S1-07).

Devices are made when JAX starts, so the checks run in a process of their own: this very file, as a
script. Gradients of replicated operands are the point: without a `psum` they are silently wrong.
"""

import json
import os
import traceback

import pytest
from processes import run_on_devices

CHECKS = {}


def check(fn):
    CHECKS[fn.__name__] = fn
    return fn


def _solvers():
    import linsolve_prim as lp

    rtol = 1e-12 if _x64() else 1e-6
    return {"lu": lp.LU(), "cg": lp.CG(rtol=rtol)}


def _x64():
    return os.environ.get("JAX_ENABLE_X64", "1") != "0"


def _setting():
    """A mesh of two devices, definite matrices and right-hand sides."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    real = "float64" if _x64() else "float32"
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    m = rng.standard_normal((4, 3, 3))
    matrices = jnp.asarray(m @ m.transpose(0, 2, 1) + np.eye(3), real)
    return mesh, matrices, jnp.asarray(rng.standard_normal((4, 3)), real)


def _solve_lanes(solver, throw):
    """Of whatever has a leading axis: matrices, right-hand sides or both."""
    import jax

    import linsolve_prim as lp

    def one(matrix, b):
        operator = lp.MatrixLinearOperator(matrix, lp.positive_semidefinite_tag)
        return lp.linear_solve(operator, b, solver, throw=throw).value

    def lanes(matrices, b):
        axes = (0 if matrices.ndim == 3 else None, 0 if b.ndim == 2 else None)
        return jax.vmap(one, in_axes=axes)(matrices, b)

    return lanes


def _reference(matrices, b):
    import jax.numpy as jnp

    return jnp.linalg.solve(matrices, b[..., None])[..., 0]


def _equal(actual, desired):
    import jax
    import numpy as np

    tol = 1e-8 if _x64() else 1e-3
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(actual), jax.tree.leaves(desired)):
        scale = max(1.0, float(np.abs(np.asarray(d)).max()))
        np.testing.assert_allclose(a, d, rtol=0, atol=tol * scale)


def _cases():
    """Which operand is replicated and which is sharded; and the solver; and `throw`."""
    mesh, matrices, b = _setting()
    for name, solver in _solvers().items():
        for throw in (True, False):
            for which in ("matrix", "vector", "neither"):
                args = (
                    matrices[0] if which == "matrix" else matrices,
                    b[0] if which == "vector" else b,
                )
                yield (name, throw, which), mesh, _solve_lanes(solver, throw), args


def _specs(which):
    from jax.sharding import PartitionSpec as P

    return (P() if which == "matrix" else P("d"), P() if which == "vector" else P("d"))


@check
def forward_S1_07():
    import jax
    from jax.sharding import PartitionSpec as P

    for (_, _, which), mesh, lanes, args in _cases():
        sharded = jax.shard_map(lanes, mesh=mesh, in_specs=_specs(which), out_specs=P("d"))
        _equal(jax.jit(sharded)(*args), _reference(*args))


def _losses(mesh, lanes, which):
    """Σ sin(x)², summed over the mesh; and the same from dense linear algebra."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    energy = lambda x: jnp.sum(jnp.sin(x) ** 2)
    local = lambda *args: jax.lax.psum(energy(lanes(*args)), "d")
    sharded = jax.shard_map(local, mesh=mesh, in_specs=_specs(which), out_specs=P())
    return sharded, lambda *args: energy(_reference(*args))


@check
def gradients_of_replicated_and_sharded_operands_S1_07():
    import jax

    for (_, throw, which), mesh, lanes, args in _cases():
        if throw and which != "matrix":
            continue
        ours, reference = _losses(mesh, lanes, which)
        gradient = jax.jit(jax.grad(ours, argnums=(0, 1)))
        _equal(gradient(*args), jax.grad(reference, argnums=(0, 1))(*args))


@check
def gradient_inside_of_the_map_S1_07():
    """`jax.grad` within `shard_map`: JAX sums the cotangents of replicated operands there."""
    import jax
    import jax.numpy as jnp

    for (_, throw, which), mesh, lanes, args in _cases():
        if throw or which == "neither":
            continue
        local = lambda *args, lanes=lanes: jnp.sum(jnp.sin(lanes(*args)) ** 2)
        specs = _specs(which)
        gradient = jax.shard_map(
            jax.grad(local, argnums=(0, 1)), mesh=mesh, in_specs=specs, out_specs=specs
        )
        reference = lambda *args: jnp.sum(jnp.sin(_reference(*args)) ** 2)
        _equal(jax.jit(gradient)(*args), jax.grad(reference, argnums=(0, 1))(*args))


@check
def hessian_vector_products_S1_24():
    import jax

    for (_, throw, which), mesh, lanes, args in _cases():
        if throw or which != "matrix":
            continue
        losses = _losses(mesh, lanes, which)
        gradients = [jax.grad(f, argnums=(0, 1)) for f in losses]
        ours, reference = (jax.jit(lambda *a, g=g: jax.jvp(g, a, a)[1])(*args) for g in gradients)
        _equal(ours, reference)


@check
def sum_over_devices_inside_of_an_operator():
    """x ↦ Σ Aᵢᵀ(Aᵢx) + x, with the rows of A on different devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    import linsolve_prim as lp

    mesh, matrices, b = _setting()
    rows, rhs = matrices[:2].reshape(6, 3), b[0]
    for solver in _solvers().values():

        def solve(rows, rhs, solver=solver):
            product = lambda x: jax.lax.psum(rows.T @ (rows @ x), "d") + x
            structure = jax.ShapeDtypeStruct(rhs.shape, rhs.dtype)
            operator = lp.FunctionLinearOperator(product, structure, lp.positive_semidefinite_tag)
            x = lp.linear_solve(operator, rhs, solver, throw=False).value
            # equal everywhere; but its type says that it varies, as `rows` does
            return jax.lax.pmean(x, "d")

        sharded = jax.shard_map(solve, mesh=mesh, in_specs=(P("d"), P()), out_specs=P())
        dense = lambda a, v: jnp.linalg.solve(a.T @ a + jnp.eye(3, dtype=a.dtype), v)
        _equal(jax.jit(sharded)(rows, rhs), dense(rows, rhs))
        ours, reference = (
            jax.jit(jax.grad(lambda a, v, f=f: jnp.sum(f(a, v) ** 2), argnums=(0, 1)))(rows, rhs)
            for f in (sharded, dense)
        )
        _equal(ours, reference)


@check
def failure_on_one_device_is_raised():
    """Row B-04: a singular matrix in one shard only."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    mesh, matrices, b = _setting()
    broken = matrices.at[3].set(jnp.zeros_like(matrices[3]))
    lanes = _solve_lanes(_solvers()["lu"], throw=True)
    sharded = jax.shard_map(lanes, mesh=mesh, in_specs=(P("d"), P("d")), out_specs=P("d"))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="SingularMatrixError"):
        jax.block_until_ready(jax.jit(sharded)(broken, b))


@check
def gradients_by_learned_parameters_are_summed_S1_10_S1_15():
    """Shared coefficients and directions, a right-hand side for each lane."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    import linsolve_prim as lp

    mesh, matrices, b = _setting()
    operator = lp.MatrixLinearOperator(matrices[0], lp.positive_semidefinite_tag)
    weights = jnp.linspace(0.5, 1.5, 3, dtype=b.dtype)
    direction = lambda w, A, x, r, b: w * r + b
    for solver in (
        lp.learn.UnrolledCG(weights[:2], weights[1:] - 1, "jacobi"),
        lp.learn.DirectionSolver(direction, weights, steps=2),
    ):
        one = lambda solver, b: jnp.sum(lp.solve(operator, b, solver, throw=False) ** 2)
        whole = lambda solver, b, one=one: jnp.sum(jax.vmap(one, (None, 0))(solver, b))
        local = lambda solver, b, whole=whole: jax.lax.psum(whole(solver, b), "d")
        sharded = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())
        ours = jax.jit(jax.value_and_grad(sharded))(solver, b)
        _equal(jax.tree.leaves(ours), jax.tree.leaves(jax.value_and_grad(whole)(solver, b)))


@check
def one_system_on_each_device_S1_07():
    """Not batched, so that a solve that may raise takes its second look in the callback."""
    import jax
    from jax.sharding import PartitionSpec as P

    import linsolve_prim as lp

    mesh, matrices, b = _setting()

    def one(matrix, b):
        operator = lp.MatrixLinearOperator(matrix.reshape(3, 3))
        return lp.linear_solve(operator, b.reshape(3), lp.LU()).value[None]

    for matrix in (matrices[:2], matrices[0]):
        which = "matrix" if matrix.ndim == 2 else "neither"
        args = matrix, b[:2]
        sharded = jax.shard_map(one, mesh=mesh, in_specs=_specs(which), out_specs=P("d"))
        _equal(jax.jit(sharded)(*args), _reference(*args))
        ours, reference = _losses(mesh, one, which)
        _equal(jax.jit(jax.grad(ours, argnums=(0, 1)))(*args), jax.grad(reference, (0, 1))(*args))


NAMES = tuple(CHECKS)


@pytest.fixture(scope="module")
def outcomes():
    """What each check printed: None if it passed, else its traceback."""
    done = run_on_devices(__file__)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-4000:]
    return {k: v for line in lines for k, v in json.loads(line).items()}


@pytest.mark.parametrize("name", NAMES)
def test_shard_map_S1_07(outcomes, name):
    assert outcomes[name] is None, outcomes[name]


def main():
    import jax

    assert jax.device_count() == 2
    for name, fn in CHECKS.items():
        try:
            fn()
        except Exception:
            print(json.dumps({name: traceback.format_exc()[-4000:]}), flush=True)
        else:
            print(json.dumps({name: None}), flush=True)


if __name__ == "__main__":
    main()
