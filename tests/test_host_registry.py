"""The registry of factorizations: its budget, its order, its counters and its threads; handles; and what
rests on them: long loops, `shard_map`, both transports, pickled patterns (rows S2-16, S2-17, B-19)."""

import concurrent.futures
import gc
import json
import pickle
import resource
import threading
import traceback

import pytest
from processes import run_on_devices

STATS = {"factorizations", "analyses", "hits", "callbacks", "evicted", "bytes", "live"}


def _registry(budget=100):
    import linsolve_prim as lp

    return lp.host.Registry(budget)


def _put(registry, key, size=10):
    return registry.get(key, lambda: f"factor of {key}", lambda _: size)


def test_statistics_S2_17():
    registry = _registry()
    assert set(registry.stats()) >= STATS
    assert not any(registry.stats().values())
    assert _put(registry, "a") == "factor of a"
    assert _put(registry, "a") == "factor of a"
    registry.count("callbacks", 3)
    registry.get("analysis of a", lambda: 1, lambda _: 5, "analyses")
    stats = registry.stats()
    assert (stats["factorizations"], stats["analyses"], stats["hits"]) == (1, 1, 1)
    assert (stats["callbacks"], stats["bytes"], stats["live"]) == (3, 15, 2)
    registry.reset_stats()
    stats = registry.stats()
    assert (stats["factorizations"], stats["bytes"], stats["live"]) == (0, 15, 2)
    registry.clear()
    assert (registry.stats()["bytes"], registry.stats()["live"]) == (0, 0)
    assert "live=0" in repr(registry)


def test_least_recently_used_goes_first_S2_17():
    registry = _registry(budget=30)
    for key in "abc":
        _put(registry, key)
    assert registry.peek("a") == "factor of a"  # now b is the oldest
    _put(registry, "d")
    assert [registry.peek(key) is not None for key in "abcd"] == [True, False, True, True]
    assert registry.stats()["evicted"] == 1
    assert registry.stats()["bytes"] == 30


def test_the_newest_stays_even_if_it_is_too_large():
    registry = _registry(budget=5)
    _put(registry, "a")
    assert registry.peek("a") is not None
    _put(registry, "b")
    assert registry.peek("a") is None
    assert registry.stats()["live"] == 1


def test_budget_can_be_set_and_overridden():
    registry = _registry(budget=30)
    for key in "abc":
        _put(registry, key)
    with registry.override(budget=10) as same:
        assert same is registry
        assert registry.stats()["live"] == 1
    assert registry.budget == 30
    with pytest.raises(ZeroDivisionError), registry.override(budget=10):
        1 / 0  # noqa: B018
    assert registry.budget == 30
    registry.budget = 0
    assert registry.stats()["live"] == 1


@pytest.mark.parametrize("budget", [-1, 1.5, "1 GB", True])
def test_budgets_that_are_none(budget):
    registry = _registry()
    with pytest.raises(ValueError, match="budget: must be a number of bytes"):
        registry.budget = budget
    with pytest.raises(ValueError, match="budget: must be a number of bytes"):
        _registry(budget)
    assert registry.budget == 100


def test_the_default_budget_is_a_part_of_the_memory():
    assert 1 << 20 < _registry(None).budget < 1 << 44


def test_one_thread_makes_and_the_others_wait():
    registry, barrier, made = _registry(), threading.Barrier(6), []
    waiting = threading.Event()

    def make():
        waiting.wait(5)
        made.append(1)
        return object()

    def work(_):
        barrier.wait(5)
        return registry.get("a", make, lambda _: 1)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(work, i) for i in range(6)]
        while registry.stats()["joined"] < 5 and not all(f.done() for f in futures):
            pass
        waiting.set()
        values = {id(future.result(5)) for future in futures}
    assert len(values) == len(made) == 1
    stats = registry.stats()
    assert (stats["factorizations"], stats["joined"], stats["live"]) == (1, 5, 1)


def test_a_failing_maker_wakes_those_who_wait_and_leaves_nothing():
    registry, barrier = _registry(), threading.Barrier(3)

    def make():
        while registry.stats()["joined"] < 2:
            pass
        raise RuntimeError("no")

    def work(_):
        barrier.wait(5)
        with pytest.raises(RuntimeError, match="no"):
            registry.get("a", make, lambda _: 1)
        return True

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))
    assert registry.stats()["live"] == 0
    assert _put(registry, "a") == "factor of a"


def test_cleared_while_a_factor_is_made():
    registry = _registry()

    def make():
        registry.clear()
        return "made"

    assert registry.get("a", make, lambda _: 10) == "made"
    assert registry.stats()["bytes"] == 10


# ---- Handles ---------------------------------------------------------------------------------------


def test_handles_are_hashes_of_bytes_S2_16():
    import numpy as np

    from linsolve_prim.host.handles import WORDS, handle_of

    values = np.random.default_rng(0).normal(size=50)
    handle = handle_of(values)
    assert handle.shape == (WORDS,)
    assert handle.dtype == np.uint32
    assert np.array_equal(handle, handle_of(values.copy()))
    assert np.array_equal(handle_of(values[::2]), handle_of(values[::2].copy()))
    other = values.copy()
    other[7] = np.nextafter(other[7], 9)
    assert not np.array_equal(handle, handle_of(other))
    assert handle_of(values[:0]).shape == (WORDS,)


def test_handles_without_xxhash(monkeypatch):
    import numpy as np

    from linsolve_prim.host import handles

    monkeypatch.setattr(handles, "_fast", False)
    one, two = handles.handle_of(np.ones(3)), handles.handle_of(np.zeros(3))
    assert one.shape == (4,)
    assert not np.array_equal(one, two)


# ---- Solves ----------------------------------------------------------------------------------------


def _system(n=8):
    import host_table

    operator = host_table.operator_of(host_table.make_matrix("general", host_table.DTYPE, n))
    return operator.pattern, operator.values


def _many_solves(count, budget):
    """Solves with a new matrix each, in one compiled loop; returns the registry's statistics after."""
    import jax
    import jax.numpy as jnp

    import linsolve_prim as lp

    pattern, values = _system()
    b = jnp.ones(8, values.dtype)

    def step(i, x):
        a = lp.SparseLinearOperator(values * (1 + 1e-4 * (i % 1000 + x[0])), pattern)
        return lp.linear_solve(a, b, lp.SuperLU(), throw=False).value

    registry = lp.host.registry
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, count, step, x))
    with registry.override(budget=budget):
        registry.clear()
        registry.reset_stats()
        assert bool(jnp.all(jnp.isfinite(loop(b))))
        return registry.stats()


def test_many_solves_stay_within_the_budget_S2_17():
    budget = 100_000
    stats = _many_solves(2000, budget)
    assert stats["factorizations"] >= 1000
    assert stats["evicted"] > 500
    assert stats["bytes"] <= budget


@pytest.mark.slow
def test_memory_is_flat_S2_17():
    resident = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    _many_solves(5000, 1_000_000)
    gc.collect()
    before = resident()
    _many_solves(100_000, 1_000_000)
    gc.collect()
    assert resident() - before < 60_000


@pytest.mark.parametrize("name", ["callback", "buffer"])
def test_gradients_by_both_transports(name):
    import jax
    import jax.numpy as jnp
    import numpy as np

    import linsolve_prim as lp

    pattern, values = _system()
    b = jnp.arange(1.0, 9.0, dtype=values.dtype)

    def loss(values, b):
        a = lp.SparseLinearOperator(values, pattern)
        return jnp.sum(lp.linear_solve(a, b, lp.SuperLU()).value ** 2)

    with lp.host.transport(name):
        ct_values, ct_b = jax.jit(jax.grad(loss, (0, 1)))(values, b)
    a = np.asarray(lp.SparseLinearOperator(values, pattern).as_matrix())
    x = np.linalg.solve(a, b)
    z = np.linalg.solve(a.T, 2 * x)
    np.testing.assert_allclose(ct_b, z, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(
        ct_values, -z[pattern.rows] * x[pattern.indices], rtol=2e-3, atol=1e-4
    )


def test_unknown_transport():
    import linsolve_prim as lp

    with pytest.raises(ValueError, match="must be one of callback, buffer"), lp.host.transport("x"):
        pass


def test_patterns_are_pickled():
    """With them, whoever gets one in another process finds equal keys."""
    pattern, _ = _system()
    copy = pickle.loads(pickle.dumps(pattern))
    assert copy == pattern
    assert hash(copy) == hash(pattern)
    assert copy.digest == pattern.digest
    assert copy.T == pattern.T


# ---- On two devices: in a process of its own, which is this very file -------------------------------


def _on_two_devices():
    """Gradients by replicated and sharded operands, against dense LAPACK."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import PartitionSpec as P

    import linsolve_prim as lp

    pattern, values = _system(4)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    rng = np.random.default_rng(0)
    many = jnp.stack([values * (1 + 0.1 * i) for i in range(4)])
    bs = jnp.asarray(rng.normal(size=(4, 4)), values.dtype)
    dense = lambda v: jnp.zeros((4, 4), v.dtype).at[pattern.rows, pattern.indices].set(v)
    tol = 1e-8 if values.dtype == np.float64 else 1e-3

    def host(v, b, throw):
        a = lp.SparseLinearOperator(v, pattern)
        return lp.linear_solve(a, b, lp.SuperLU(), throw=throw).value

    for throw in (False, True):
        for v, b in ((values, bs), (many, bs[0]), (many, bs)):
            axes = (0 if v.ndim == 2 else None, 0 if b.ndim == 2 else None)
            specs = tuple(P() if axis is None else P("d") for axis in axes)
            lanes = jax.vmap(lambda v, b, throw=throw: host(v, b, throw), in_axes=axes)
            reference = jax.vmap(lambda v, b: jnp.linalg.solve(dense(v), b), in_axes=axes)
            local = lambda *args, lanes=lanes: jax.lax.psum(jnp.sum(jnp.sin(lanes(*args))), "d")
            sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
            ours = jax.jit(jax.value_and_grad(sharded, (0, 1)))(v, b)
            total = lambda *args, f=reference: jnp.sum(jnp.sin(f(*args)))
            theirs = jax.value_and_grad(total, (0, 1))(v, b)
            for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
                np.testing.assert_allclose(x, y, rtol=tol, atol=tol)


def test_shard_map_S1_07():
    done = run_on_devices(__file__)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-4000:]
    assert json.loads(lines[-1])["error"] is None, json.loads(lines[-1])["error"]


if __name__ == "__main__":
    try:
        _on_two_devices()
    except Exception:
        print(json.dumps({"error": traceback.format_exc()[-4000:]}), flush=True)
    else:
        print(json.dumps({"error": None}), flush=True)
