"""Closure conversion: captured arrays are leaves, and equal code is equal."""

import gc
import tracemalloc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linsolve_prim import operators as ops
from linsolve_prim.errors import StructureError
from linsolve_prim.operators.closure import ClosedFunction, close

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
VECTOR = jax.ShapeDtypeStruct((3,), REAL)
X = jnp.arange(1.0, 4.0, dtype=REAL)


def static_part(closed):
    return jax.tree.structure(closed)


def make_scaling(w, scale=2.0):
    """A fresh lambda of the same code each time, with a jitted function and a loop inside."""
    inner = jax.jit(lambda z: z * w + jnp.roll(z, 1))

    def fn(x):
        y = jax.lax.fori_loop(0, 3, lambda i, c: jnp.roll(c, 1) * w / scale, inner(x))
        return {"y": jnp.where(X > 1, y, 0)}

    return fn


def test_equal_code_is_equal():
    """S0-52: two traces of one code are equal and hash alike, whatever arrays they captured."""
    one, two = close(make_scaling(3 * X), VECTOR), close(make_scaling(2 * X), VECTOR)
    assert one.program == two.program
    assert hash(one.program) == hash(two.program)
    assert static_part(one) == static_part(two)
    assert hash(static_part(one)) == hash(static_part(two))
    assert "equations" in repr(one.program)
    assert one.program != "something else"


def test_different_code_differs():
    """What means something else is unequal: literals, parameters, order, shapes, inner code."""
    base = close(lambda x: 2 * x, VECTOR)
    others = [
        lambda x: 3 * x,
        lambda x: 2 + x,
        lambda x: -2.0 * x,
        lambda x: x * 2,
        lambda x: 2 * jnp.roll(x, 1),
        lambda x: jax.lax.scan(lambda c, _: (2 * c, None), x, None, length=2)[0],
        lambda x: jax.lax.scan(lambda c, _: (3 * c, None), x, None, length=2)[0],
        lambda x: jax.lax.scan(lambda c, _: (2 * c, None), x, None, length=3)[0],
        lambda x: jax.jit(lambda y: 2 * y)(x),
        lambda x: jax.jit(lambda y: y * 2)(x),
    ]
    programs = [base.program, *(close(fn, VECTOR).program for fn in others)]
    assert len(set(programs)) == len(programs)
    assert close(lambda x: 2 * x, jax.ShapeDtypeStruct((4,), REAL)).program != base.program
    zero, negative = (close(lambda x, z=z: x * z, VECTOR).program for z in (0.0, -0.0))
    assert zero != negative


def test_custom_rules_are_never_confused():
    """Two functions that differ in their derivative alone are different."""

    def make(slope):
        @jax.custom_jvp
        def f(x):
            return 2 * x

        f.defjvp(lambda p, t: (2 * p[0], slope * t[0]))
        return close(lambda x: f(x), VECTOR)

    one, two = make(2.0), make(5.0)
    assert one.program != two.program
    assert one.program == one.program
    np.testing.assert_allclose(jax.jvp(two, (X,), (X,))[1], 5 * X)
    once = jax.jit(jax.nn.relu)
    assert close(lambda x: once(x), VECTOR).program == close(lambda x: once(x), VECTOR).program


def test_one_compilation_for_many_lambdas():
    """S0-52: fresh lambdas of one code compile once, and memory does not grow."""
    traces = []

    @jax.jit
    def product(operator, x):
        traces.append(1)
        return operator.mv(x)

    def call(i):
        w = X * i
        operator = ops.FunctionLinearOperator(lambda x: w * x, VECTOR)
        return product(operator, X)

    call(1)
    np.testing.assert_allclose(call(3), 3 * X * X)
    tracemalloc.start()
    for i in range(60):  # fill what caches have a size
        call(i)
    gc.collect()
    early = tracemalloc.get_traced_memory()[0]
    for i in range(100):
        call(i)
    gc.collect()
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(traces) == 1
    assert product._cache_size() == 1
    assert late - early < 200_000  # 2 kB a call: a jaxpr that is kept takes more


def test_static_argument():
    """The program alone is a valid static argument."""
    traces = []

    def run(program, *arrays):
        traces.append(1)
        return program(*arrays)

    run = jax.jit(run, static_argnums=0)
    for scale in (1.0, 2.0, 3.0):
        w = X * scale
        closed = close(lambda x, w=w: x * w, VECTOR)
        (out,) = run(closed.program, *closed.consts, X)
        np.testing.assert_allclose(out, scale * X * X)
    assert len(traces) == 1


def test_captured_arrays_are_leaves():
    """Of the closure, of an inner jitted function, of a module; scalars and integers too."""
    net = eqx.nn.Linear(3, 3, key=jax.random.key(0))
    scalar, index = jnp.asarray(2.0, REAL), jnp.array([2, 0, 1])

    def fn(x):
        return jax.jit(lambda y: y * scalar)(x)[index] + jax.jit(lambda y: X * y)(x)

    closed = close(fn, VECTOR)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(closed)) == [(), (3,), (3,)]
    np.testing.assert_allclose(closed(X), fn(X))
    gradient = eqx.filter_grad(lambda c: c(X).sum())(closed)
    for leaf, g in zip(closed.consts, gradient.consts):
        if leaf.shape == ():
            np.testing.assert_allclose(g, X.sum())
        elif eqx.is_inexact_array(leaf):
            np.testing.assert_allclose(g, X)
    module = close(net, jax.ShapeDtypeStruct((3,), net.weight.dtype))
    assert {leaf.shape for leaf in jax.tree.leaves(module)} == {(3, 3), (3,)}


def test_outer_tracers():
    """What is captured may be traced: by `grad`, `jvp`, `vmap`, `jit`, and all of them at once."""

    def loss(w):
        return close(make_scaling(w), VECTOR)(X)["y"].sum()

    direct = lambda w: make_scaling(w)(X)["y"].sum()
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), jax.grad(direct)(X), rtol=1e-5)
    one, two = (jax.jvp(f, (X,), (X,)) for f in (loss, direct))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    batch = jnp.stack([X, 2 * X])
    both = jax.vmap(jax.grad(loss))(batch), jax.vmap(jax.grad(direct))(batch)
    np.testing.assert_allclose(*both, rtol=1e-5)

    def returned(w):
        return close(lambda x: w * x, VECTOR)

    closed = jax.jit(returned)(X)  # leaves a jitted function, and is called outside
    assert isinstance(closed, ClosedFunction)
    np.testing.assert_allclose(closed(X), X * X)
    stacked = jax.vmap(returned)(batch)
    np.testing.assert_allclose(jax.vmap(lambda c: c(X))(stacked), batch * X)


def test_pytree_and_static_arguments():
    """B-13: arguments are any pytrees; what is no array in them is compiled in."""
    args = {"power": 2, "w": X, "f": jnp.sin}
    fn = lambda x, args: args["f"](x["a"]) * args["w"] ** args["power"]
    closed = close(fn, {"a": VECTOR}, args)
    np.testing.assert_allclose(closed({"a": X}, args), fn({"a": X}, args))
    with pytest.raises(StructureError, match=r"'power': 3.*Cast or reshape"):
        closed({"a": X}, {**args, "power": 3})
    assert close(closed, {"a": VECTOR}, args) is closed


def test_wrong_arguments():
    """The error names both structures."""
    closed = close(lambda x: 2 * x, VECTOR)
    with pytest.raises(StructureError, match=rf"structure {REAL}\[3\] was called with {REAL}\[4\]"):
        closed(jnp.ones(4, REAL))
    with pytest.raises(StructureError, match=r"was called with int32\[3\]"):
        closed(jnp.ones(3, jnp.int32))
    with pytest.raises(StructureError, match=r"was called with \{'a': float"):
        closed({"a": X})


def test_results_are_strongly_typed():
    closed = close(lambda x: (jnp.asarray(1.0) * 2, 3.0, np.float32(1)), VECTOR)
    assert not any(out.weak_type for out in closed(X))
    assert [s.dtype for s in closed.out_structure()] == [REAL, REAL, np.float32]


def test_shard_map():
    """Captured arrays and arguments may vary over a mesh axis, each on its own."""
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec, everywhere = jax.sharding.PartitionSpec("i"), jax.sharding.PartitionSpec()

    def both(w, x):
        structure = jax.ShapeDtypeStruct(x.shape, x.dtype)
        one = ops.FunctionLinearOperator(lambda v: jnp.roll(w * v, 1) + 2.0 * v, structure)
        two = ops.JacobianLinearOperator(lambda v, a: jnp.sin(w * v) * a, x, jnp.ones((), REAL))
        products = [op.mv(x) + op.T.mv(x) for op in (one, two, ops.linearise(two))]
        return products[0] + products[1] + products[2]

    both = jax.jit(both)
    for w_spec, x_spec in ((spec, spec), (everywhere, spec)):
        specs = (w_spec, x_spec)
        mapped = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=specs, out_specs=spec))
        np.testing.assert_allclose(mapped(X, X), both(X, X), rtol=1e-5)
        one, two = (jax.jit(jax.grad(lambda w, f=f: f(w, X).sum()))(X) for f in (mapped, both))
        np.testing.assert_allclose(one, two, rtol=1e-5)
