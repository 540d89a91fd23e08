"""Lanes of a `vmap` that are solved in groups, one group after the other: the same results, less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import run_on_devices
from solver_table import X64

import linsolve_prim as lp
from linsolve_prim.primitive import groups

N, LANES = 12, 7
RTOL = 1e-9 if X64 else 1e-4
RNG = np.random.default_rng(0)
SPREAD = RNG.normal(size=(LANES, N, N)) * 0.1 + np.diag(np.linspace(1, 4, N))
MATRICES = jnp.asarray(SPREAD @ SPREAD.transpose(0, 2, 1))
# Lanes that end after one step, at once, and late.
BS = (
    jnp.asarray(RNG.normal(size=(LANES, N)))
    .at[1]
    .set(0)
    .at[2]
    .set(jnp.linalg.eigh(MATRICES[0])[1][:, 0])
)
SPD = lp.positive_semidefinite_tag


def in_groups_of(size, monkeypatch):
    monkeypatch.setattr(groups, "group_size", lambda lanes, *sizes: min(size, lanes))


def at_once(monkeypatch):
    in_groups_of(1 << 30, monkeypatch)


def solve(a, b, solver, **settings):
    return lp.linear_solve(lp.MatrixLinearOperator(a, SPD), b, solver, **settings)


def text(f, *args, platform="cpu"):
    """What a function is lowered to. (Of a new function each time: JAX remembers.)"""
    return (
        jax.jit(lambda *args: f(*args)).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    )


# ---- Which groups --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "lane_bytes", "shared_bytes", "size"),
    [
        (64, 1, 0, 64),  # all state stays in the cache
        (0, 1 << 30, 0, 1),
        (64, groups.GROUP_BYTES // 8, 0, 8),
        (9, groups.GROUP_BYTES // 8, 0, 5),  # 5 + 4 rather than 8 + 1
        (64, groups.GROUP_BYTES // 3, 0, 1),  # three lanes save little
        (64, 1 << 30, 1 << 20, 1),
        (64, 1 << 20, 1 << 24, 16),  # a dense matrix is streamed for each group
        (64, 1 << 20, 1 << 30, 64),
    ],
)
def test_size_of_groups(lanes, lane_bytes, shared_bytes, size):
    assert groups.group_size(lanes, lane_bytes, shared_bytes) == size


def laplace(x):
    """A matrix-free operator on 64² unknowns."""
    u = jnp.pad(x.reshape(64, 64), 1)
    return (
        4 * x.reshape(64, 64) - u[2:, 1:-1] - u[:-2, 1:-1] - u[1:-1, 2:] - u[1:-1, :-2]
    ).reshape(-1)


@pytest.mark.parametrize(("solver", "basis"), [(lp.GMRES(), "21x4096x"), (lp.CG(), "4096x")])
def test_large_lanes_go_one_by_one_on_cpu_alone(solver, basis):
    bs = jnp.ones((64, 4096), jnp.float32)
    operator = lp.FunctionLinearOperator(laplace, bs[0], SPD)
    f = jax.vmap(lambda b: lp.linear_solve(operator, b, solver, throw=False).value)
    carries = lambda text: [line for line in text.splitlines() if "stablehlo.while" in line]
    of_all = lambda text: [c for c in carries(text) if f"64x{basis}" in c]
    alone, whole = text(f, bs), text(f, bs, platform="tpu")
    assert f"tensor<{basis}" in alone
    assert f"64x{basis}" in whole
    # the loop over the groups carries the solutions of all; nothing inside of it does
    assert len(of_all(alone)) == (0 if "21x" in basis else 1)
    assert len(carries(alone)) == len(carries(whole)) + 1
    assert of_all(whole)


def test_small_lanes_and_direct_solvers_stay_one_batch(monkeypatch):
    b = jnp.ones((64, N), BS.dtype)
    f = lambda solver: jax.vmap(lambda b: solve(MATRICES[0], b, solver, throw=False).value)
    cg, lu = text(f(lp.CG()), b), text(f(lp.LU()), b)
    in_groups_of(1, monkeypatch)
    assert text(f(lp.CG()), b) != cg
    assert text(f(lp.LU()), b) == lu


def test_what_calls_the_host_or_has_a_name_stays_one_batch(monkeypatch):
    shown = jax.vmap(lambda b: solve(MATRICES[0], b, lp.CG(progress=3), throw=False).value)
    named = jax.vmap(lambda b: solve(MATRICES[0], b, lp.CG(), throw=False).value, axis_name="lanes")
    loops = lambda f: jax.jit(lambda b: f(b)).lower(BS).as_text().count("stablehlo.while")
    for f in (shown, named):
        at_once(monkeypatch)
        whole = loops(f)
        in_groups_of(1, monkeypatch)
        assert loops(f) == whole


def test_what_all_lanes_share_is_computed_once():
    closed = jax.make_jaxpr(lambda a, b: (jnp.sin(a) * b, jnp.cos(a), jnp.tan(b)))(1.0, 2.0)
    names = lambda f, *args: {str(e.primitive) for e in jax.make_jaxpr(f)(*args).eqns}
    assert names(groups._lane(closed, [1.0, None], [False, True], [0, 1]), 2.0) <= {"mul"}
    assert names(lambda a: groups._lane(closed, [a, None], [False, True], [0, 1])(2.0), 1.0) == {
        "sin",
        "cos",
        "mul",
    }


# ---- The same results ----------------------------------------------------------------------------

SOLVERS = {
    "CG": lp.CG(RTOL, history=True, preconditioner="jacobi"),
    "GMRES": lp.GMRES(RTOL, restart=5, history="x", max_steps=60),
    "BiCGStab": lp.BiCGStab(RTOL),
    "LSQR": lp.LSQR(RTOL),
    "GCROT": lp.GCROT(RTOL, m=4, k=2),
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", SOLVERS)
def test_lanes_do_what_single_solves_do_S3_18(name, size, monkeypatch):
    def f(a, b):
        solution = solve(a, b, SOLVERS[name], throw=False)
        return solution.value, solution.result, solution.stats

    in_groups_of(size, monkeypatch)
    for axes in ((None, 0), (0, 0)):
        a = MATRICES[0] if axes[0] is None else MATRICES
        value, result, stats = jax.jit(jax.vmap(f, axes))(a, BS)
        one = jax.jit(f)
        singles = [one(a if axes[0] is None else a[i], b) for i, b in enumerate(BS)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *[(v, s) for v, _, s in singles])
        ulp = 4 * np.finfo(BS.dtype).eps
        scale = np.abs(stacked[0]).max()
        np.testing.assert_allclose(
            value, stacked[0], rtol=0, atol=(16 * RTOL if size > 1 else ulp) * scale
        )
        assert [int(c) for c in jax.tree.leaves(result)[0]] == [
            int(jax.tree.leaves(r)[0]) for _, r, _ in singles
        ]
        # (Compiled for three lanes, sums round otherwise: that may be a step at the tolerance.)
        apart = np.abs(stats["num_steps"] - stacked[1]["num_steps"])
        assert np.max(apart) <= (size > 1)
        assert jax.tree.map(jnp.shape, stats) == jax.tree.map(np.shape, stacked[1])
        if size == 1:
            for got, want in zip(jax.tree.leaves(stats), jax.tree.leaves(stacked[1])):
                np.testing.assert_allclose(got, want, rtol=1e-2, atol=RTOL * 10)


def test_derivatives_and_nests_are_those_of_the_whole_batch(monkeypatch):
    many = jnp.stack([BS, 2 * BS])

    def loss(a, bs):
        one = lambda a, b: solve(a, b, lp.CG(RTOL)).value
        x = jax.vmap(jax.vmap(one, (0, 0)), (None, 0))(a, bs)
        return jnp.sum(jnp.sin(x))

    def derivatives(a, bs):
        grads = jax.grad(loss, (0, 1))(a, bs)
        along = lambda a: jnp.vdot(jax.grad(loss)(a, bs), a)
        return grads, jax.grad(along)(a)

    at_once(monkeypatch)
    whole = jax.jit(lambda *args: derivatives(*args))(MATRICES, many)
    in_groups_of(1, monkeypatch)
    alone = jax.jit(lambda *args: derivatives(*args))(MATRICES, many)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e3 * RTOL, rtol=1e-3), alone, whole
    )


def test_pytrees_first_guesses_and_unbatched_results(monkeypatch):
    structure = {"p": BS[0, :4], "q": BS[0, 4:]}

    def scaled(x):
        return {"p": 2 * x["p"], "q": 3.0 * x["q"] + jnp.sum(x["p"])}

    operator = lp.FunctionLinearOperator(scaled, structure)

    def f(b, guess):
        b = {"p": b[:4], "q": b[4:]}
        return lp.linear_solve(operator, b, lp.GMRES(RTOL), options={"y0": guess}).value

    in_groups_of(2, monkeypatch)
    x = jax.jit(jax.vmap(f, (0, None)))(BS, structure)
    np.testing.assert_allclose(x["p"], BS[:, :4] / 2, atol=20 * RTOL)
    np.testing.assert_allclose(x["q"], (BS[:, 4:] - x["p"].sum(1)[:, None]) / 3, atol=20 * RTOL)


def test_a_failure_names_its_lanes_and_a_tape_sees_one_solve(monkeypatch):
    in_groups_of(1, monkeypatch)
    bs = BS.at[4].set(jnp.nan)
    f = jax.jit(jax.vmap(lambda b: solve(MATRICES[0], b, lp.CG(RTOL)).value))
    with pytest.raises(lp.NonFiniteInputError, match=r"\b4\b"), lp.original_errors():
        f(bs)
    with lp.SolveTape() as tape:
        f(BS)
    assert len(tape) == 1
    assert tape[0].stats["num_steps"].shape == (LANES,)


# ---- More devices --------------------------------------------------------------------------------


def test_groups_are_made_on_each_device_but_not_across_S1_07():
    done = run_on_devices(__file__)
    assert done.stdout.split() == ["sharded", "shard_map"], done.stderr[-3000:]


def main():
    assert jax.device_count() == 2
    groups.group_size = lambda lanes, *sizes: 1
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    bs = BS[:6]
    whole = jax.vmap(lambda b: jnp.linalg.solve(MATRICES[0], b))(bs)
    loops = lambda f, b: jax.jit(f).lower(b).as_text().count("stablehlo.while")

    def f(bs):
        return jax.vmap(lambda b: solve(MATRICES[0], b, lp.CG(1e-6), throw=False).value)(bs)

    spread = jax.device_put(bs, jax.sharding.NamedSharding(mesh, spec))
    x = jax.jit(f)(spread)
    np.testing.assert_allclose(x, whole, atol=1e-3)
    assert x.sharding.num_devices == 2
    assert loops(f, bs) == loops(f, spread) + 1
    print("sharded")
    local = jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(jax.jit(local)(spread), whole, atol=1e-3)
    assert loops(local, spread) == loops(f, bs)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda b: local(b).sum()))(spread).shape, bs.shape)
    print("shard_map")


if __name__ == "__main__":
    main()
