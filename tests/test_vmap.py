"""Batches of operators, of right-hand sides and of both (rows S0-50, S2-22, B-08)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from external_solver import CALLS, SuperLU
from solver_table import BY_ID, COMPLEX, REAL, X64, assert_close, over

import linsolve_prim as lp
from linsolve_prim.testing import random_like

SIZE = 3
TOL = 1e-10 if X64 else 1e-4


def _stacked(make, axis=0):
    """A batch of `SIZE` pytrees."""
    lanes = [make(seed) for seed in range(SIZE)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *lanes)


@over(first=1, both=())
def test_batch_of_both_S0_50(case, dtype):
    """Against dense linear algebra, lane by lane."""
    params = _stacked(lambda i: case.params(dtype, i))
    b = _stacked(lambda i: case.vector(dtype, 10 + i))
    x, reference = jax.jit(
        lambda *args: [jax.vmap(f)(*args) for f in (case.solve, case.reference)]
    )(params, b)
    assert_close(x, reference, case.tol())


SOME = ["lu", "lu-pytree", "lu-function", "qr-tall", "qr-wide", "svd-deficient", "cholesky-psd"]
MORE = ["triangular-upper", "tridiagonal", "diagonal-zero", "cg", "gmres", "superlu"]


@over(SOME + MORE, (REAL,))
def test_batch_of_one_S2_22(case, dtype):
    """The other is shared; along another axis; with an output axis of one's own."""
    params, b = case.params(dtype), case.vector(dtype)
    many_params = _stacked(lambda i: case.params(dtype, i))
    many_b = _stacked(lambda i: case.vector(dtype, 10 + i), axis=-1)

    @jax.jit
    def batches(f_params, f_b, params, b):
        out = []
        for f in (case.solve, case.reference):
            over_a = jax.vmap(f, in_axes=(0, None))(f_params, b)
            over_b = jax.vmap(f, in_axes=(None, -1), out_axes=1)(params, f_b)
            out.append((over_a, over_b))
        return out

    ours, reference = batches(many_params, many_b, params, b)
    assert_close(ours, reference, case.tol())


@over(["lu", "svd-deficient", "lu-function", "superlu"], (COMPLEX,))
@pytest.mark.parametrize("batched", ["operator", "vector", "both"])
def test_gradients_of_batches_S2_22(case, dtype, batched):
    """vmap of grad, and grad of vmap, whose cotangents of what is shared are sums."""
    axes = {"operator": (0, None), "vector": (None, 0), "both": (0, 0)}[batched]
    many = axes[0] == 0, axes[1] == 0
    params = _stacked(lambda i: case.params(dtype, i)) if many[0] else case.params(dtype)
    b = _stacked(lambda i: case.vector(dtype, 10 + i)) if many[1] else case.vector(dtype, 10)

    @jax.jit
    def gradients(params, b):
        out = []
        for f in (case.solve, case.reference):
            loss = lambda p, v, f=f: jnp.sum(jnp.abs(f(p, v)) ** 2)
            inside = jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=axes)(params, b)
            total = lambda p, v, loss=loss: jnp.sum(jax.vmap(loss, in_axes=axes)(p, v))
            out.append((inside, jax.grad(total, argnums=(0, 1))(params, b)))
        return out

    ours, reference = gradients(params, b)
    assert_close(ours, reference, case.tol(1))


@pytest.mark.parametrize("id", ["lu", "cg", "bicgstab"])
def test_lanes_do_not_see_each_other_S0_50(id):
    """Bit by bit, whatever the other lanes hold: an easy system, a failing one, NaN."""
    case = BY_ID[id]
    b = _stacked(lambda i: case.vector(REAL, i))
    params = case.params(REAL)

    @jax.jit
    def solve(b):
        operator = case.build(params)
        one = lambda v: lp.linear_solve(operator, v, case.solver, throw=False)
        return jax.vmap(lambda v: (one(v).value, one(v).result, one(v).stats["num_steps"]))(b)

    x, _, steps = solve(b)
    for other in (jnp.nan, 0.0, 1e3):
        changed, results, new_steps = solve(b.at[1].set(jnp.asarray(other, REAL)))
        for lane in (0, 2):
            np.testing.assert_array_equal(np.asarray(changed[lane]), np.asarray(x[lane]))
            assert int(steps[lane]) == int(new_steps[lane])
        codes = jax.vmap(lambda r: r == lp.RESULTS.successful)(results)
        assert list(np.asarray(codes)) == [True, not np.isnan(other), True]


def test_steps_and_results_per_lane_S0_50():
    """A lane with nothing to do takes no step; one with an eigenvector takes one."""
    operator = lp.MatrixLinearOperator(
        jnp.diag(jnp.arange(1, 7, dtype=REAL)), lp.positive_semidefinite_tag
    )
    b = jnp.stack([jnp.ones(6, REAL), jnp.zeros(6, REAL), jnp.eye(6, dtype=REAL)[2]])

    def run(v):
        solution = lp.linear_solve(operator, v, lp.CG(), throw=False)
        return solution.stats["num_steps"], solution.result

    steps, results = jax.vmap(run)(b)
    assert list(np.asarray(steps)) == [6, 0, 1]
    assert bool(jnp.all(jax.vmap(lambda r: r == lp.RESULTS.successful)(results)))


def test_per_lane_tolerances_S0_50():
    case = BY_ID["cg"]
    operator, b = case.build(case.params(REAL)), case.vector(REAL)
    rtols = jnp.asarray([0.9, 1e-1, 1e-5], REAL)

    def run(rtol):
        return lp.linear_solve(operator, b, lp.CG(rtol=rtol)).stats

    stats = jax.vmap(run)(rtols)
    assert np.all(np.diff(np.asarray(stats["num_steps"])) > 0)
    assert np.all(np.asarray(stats["relative_residual"]) <= np.asarray(rtols))


class _Chatty(lp.LU):
    """Not how one should write a solver (they are final), but the shortest way to own statistics."""

    def compute(self, state, vector, options):
        x, result, _ = super().compute(state, vector, options)
        return x, result, {"largest": jnp.max(jnp.abs(x)), "name": "chatty", "tree": {"one": 1.0}}


def test_own_statistics_survive_S2_11():
    case = BY_ID["lu"]
    operator = case.build(case.params(REAL))
    b = _stacked(lambda i: case.vector(REAL, i))
    run = lambda v: lp.linear_solve(operator, v, _Chatty())
    assert run(b[0]).stats["name"] == "chatty"

    @jax.jit
    def largest(b):
        return jax.vmap(lambda v: (run(v).value, run(v).stats["largest"]))(b)

    x, size = largest(b)
    np.testing.assert_array_equal(size, jnp.max(jnp.abs(x), axis=1))
    assert float(run(b[0]).stats["tree"]["one"]) == 1.0


def test_failing_lanes_are_named_S0_36():
    matrices = jnp.stack([jnp.eye(2, dtype=REAL), jnp.zeros((2, 2), REAL), jnp.eye(2, dtype=REAL)])
    b = jnp.ones(2, REAL)
    solve = jax.vmap(lambda a: lp.solve(a, b, lp.LU()))
    with pytest.raises(lp.SingularMatrixError, match=r"Failed lanes: \(1,\) \(1 of 3\)"):
        solve(matrices)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=r"\(1,\) \(1 of 3\)"):
        jax.block_until_ready(jax.jit(solve)(matrices))


def test_host_solver_takes_a_batch_in_one_call_S2_20():
    """64 right-hand sides of one matrix: one callback, one factorization."""
    case = BY_ID["superlu"]
    operator = case.build(case.params(REAL))
    b = random_like(jax.ShapeDtypeStruct((64, 4), REAL))
    CALLS.clear()
    solve = jax.jit(
        jax.vmap(lambda v: lp.linear_solve(operator, v, case.solver, throw=False).value)
    )
    x = jax.block_until_ready(solve(b))
    assert CALLS == {"callbacks": 1, "factorizations": 1}
    assert_close(x, jnp.linalg.solve(operator.as_matrix(), b.T).T, TOL)


def test_host_solver_one_at_a_time_S2_10():
    """Row S2-10: `vmap_method="sequential"` is the solver's own choice (row B-07)."""
    case = BY_ID["superlu"]
    params = _stacked(lambda i: case.params(REAL, i))
    b = case.vector(REAL)

    def solve(p):
        solver = SuperLU("sequential")
        return lp.linear_solve(case.build(p), b, solver, throw=False).value

    CALLS.clear()
    x = jax.block_until_ready(jax.jit(jax.vmap(solve))(params))
    assert CALLS == {"callbacks": SIZE, "factorizations": SIZE}
    assert_close(x, jax.vmap(lambda p: case.reference(p, b))(params), TOL)


def test_shapes_as_of_jnp_linalg_S0_49():
    """Row S0-49: (…, N, N) with (…, N) or (…, N, K), broadcast both ways."""
    make = lambda *shape: random_like(jax.ShapeDtypeStruct(shape, REAL), len(shape))
    a = make(3, 2, 2) + 3 * jnp.eye(2, dtype=REAL)
    for rhs, matrix in [((3, 2), a), ((3, 2, 5), a), ((2, 5), a[0]), ((2,), a), ((4, 1, 2, 5), a)]:
        b = make(*rhs)
        vectors = b.ndim in (1, matrix.ndim - 1)
        want = jnp.linalg.solve(matrix, b[..., None])[..., 0] if vectors else None
        want = jnp.linalg.solve(matrix, b) if want is None else want
        assert_close(lp.solve(matrix, b), want, TOL)
