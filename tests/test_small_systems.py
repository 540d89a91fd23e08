"""One small system: its exchanges in two words, its verdict in few kernels, the rest by need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp
from linsolve_prim.primitive.stages import Stages
from linsolve_prim.results import member_name
from linsolve_prim.solvers.swaps import places_of


@pytest.mark.parametrize("n", [1, 2, 7, 12, 13, 16, 21])
def test_exchanges_of_rows_in_any_order(n):
    rng = np.random.default_rng(n)
    steps = np.arange(n)
    for swaps in (steps, np.full(n, n - 1), np.minimum(steps + 1, n - 1), rng.integers(steps, n)):
        want = np.arange(n)
        for k in range(n):
            want[[k, swaps[k]]] = want[[swaps[k], k]]
        want = np.argsort(want)
        swaps = jnp.asarray(swaps, jnp.int32)
        np.testing.assert_array_equal(places_of(swaps), want)
        np.testing.assert_array_equal(jax.vmap(places_of)(swaps[None])[0], want)


@pytest.mark.parametrize("scale", [0.0, 1e-35, 1e-30, 1e30, 1e37, np.inf])
def test_small_system_is_judged_alike_at_any_scale(scale):
    """Eager, compiled and as a lane: squares of these over- or underflow in float32."""
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(10, 10)) + 6 * np.eye(10), jnp.float32)
    good = jnp.asarray(rng.normal(size=10), jnp.float32)
    want = "successful" if np.isfinite(scale) else "nonfinite_input"

    def code(b):
        return lp.linear_solve(lp.MatrixLinearOperator(a), b, lp.LU(), throw=False).result

    b = good * jnp.float32(scale)
    assert member_name(code(b)) == member_name(jax.jit(code)(b)) == want
    both = member_name(jax.vmap(code)(jnp.stack([good, b])))
    assert list(both) == ["successful", want]
    # one entry of the solution is wrong by a tenth: never a success
    off = lambda b: _judged_off(a, b)
    if 0 < scale < np.inf:
        assert member_name(off(b)) == member_name(jax.jit(off)(b)) == "inaccurate"


class _Off(lp.LU):
    def compute(self, state, vector, options):
        x, result, stats = super().compute(state, vector, options)
        return x.at[3].multiply(1.1), result, stats


def _judged_off(a, b):
    return lp.linear_solve(lp.MatrixLinearOperator(a), b, _Off(), throw=False).result


def test_what_is_asked_inside_of_a_conditional_is_computed_there():
    def program(x):
        y = jnp.sin(x)
        total = jnp.sum(y)
        return y, total * 2, jnp.cos(x), total > 0

    def staged(x):
        stages = Stages(jax.make_jaxpr(program)(x), [x])
        y, positive = stages.get((0, 3))
        inside = lambda: stages.inside().get((1, 2))
        return y, jax.lax.cond(positive, inside, lambda: (y[0], y))

    x = jnp.arange(1.0, 6.0)
    jaxpr = jax.make_jaxpr(staged)(x).jaxpr
    outside = [eqn.primitive.name for eqn in jaxpr.eqns]
    (cond,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "cond")
    within = [eqn.primitive.name for b in cond.params["branches"] for eqn in b.jaxpr.eqns]
    assert "sin" in outside
    assert not {"cos", "mul"} & set(outside)
    assert {"cos", "mul"} <= set(within)
    assert not {"sin", "reduce_sum"} & set(within)
    twice, cosine = staged(x)[1]
    np.testing.assert_allclose(twice, 2 * jnp.sum(jnp.sin(x)))
    np.testing.assert_allclose(cosine, jnp.cos(x))
