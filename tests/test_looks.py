"""First and second looks: what a compiled solve that only has to raise is judged by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from through_lu import ThroughLU

import linsolve_prim as lp
from linsolve_prim._second_look import sums
from linsolve_prim.primitive.margin import Margin, small_residual
from linsolve_prim.solvers.base import usual_rtol

pytestmark = pytest.mark.usefixtures("quiet_callbacks")
REAL = jnp.zeros(()).dtype
RTOL = usual_rtol(REAL)


class Off(ThroughLU):
    """LU, and then wrong by a given part of the solution."""

    part: float

    def compute(self, state, vector, options):
        x, result, stats = super().compute(state, vector, options)
        return jax.tree.map(lambda y: y * (1 + self.part), x), result, stats


def _matrix_system(n=6):
    rng = np.random.default_rng(n)
    return lp.MatrixLinearOperator(jnp.asarray(rng.normal(size=(n, n)) + 4 * np.eye(n), REAL))


def _pytree_system():
    """Of one leaf `(2, 2)`, and one that is a number."""
    rng = np.random.default_rng(0)
    of = lambda *shape: jnp.asarray(rng.normal(size=shape), REAL)
    eye = jnp.eye(4, dtype=REAL).reshape(2, 2, 2, 2)
    tree = [[of(2, 2, 2, 2) + 4 * eye, of(2, 2)], [of(2, 2), of() + 4]]
    return lp.PyTreeLinearOperator(tree, jax.eval_shape(lambda: [of(2, 2), of()]))


@pytest.mark.parametrize("batched", [False, True], ids=["single", "vmap"])
@pytest.mark.parametrize("system", [_matrix_system, _pytree_system])
@pytest.mark.parametrize("share", [0.0, 0.9, 1.1])
def test_a_residual_is_judged_as_it_is(share, system, batched):
    """Below the tolerance, also where the first look leaves doubt, above it, and for b = 0."""
    operator = system()
    solver = Off(share * RTOL)
    solve = lambda b: lp.linear_solve(operator, b, solver).value
    b = jax.tree.map(
        lambda s: 1 + jnp.arange(s.size, dtype=REAL).reshape(s.shape), operator.out_structure()
    )
    if batched:
        b = jax.tree.map(lambda x: jnp.stack([x, 0 * x, -x]), b)
        solve = jax.vmap(solve)
    run = jax.jit(solve)
    if share > 1:
        with pytest.raises(Exception, match=r"NotConverged(.|\n)*\(inaccurate\)"):
            jax.block_until_ready(run(b))
    else:
        x = run(b)
        product = (jax.vmap(operator.mv) if batched else operator.mv)(x)
        for got, want in zip(jax.tree.leaves(product), jax.tree.leaves(b)):
            np.testing.assert_allclose(got, want, rtol=2 * RTOL, atol=2 * RTOL)
    zero = jax.tree.map(jnp.zeros_like, b)
    assert all(not np.any(x) for x in jax.tree.leaves(run(zero)))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_is_clear_at_first_sight_is_true(size):
    """Over 20 sizes of the residual and 9 scales; and the second look draws the line where it is."""
    rng = np.random.default_rng(size)
    decades = 300 if REAL == np.float64 else 36
    seen = set()
    for scale in np.linspace(-decades, decades, 9):
        b = rng.normal(size=size)
        r = rng.normal(size=size)
        r /= np.linalg.norm(r)
        for part in np.geomspace(1e-6, 1e4, 20):
            wanted = part * RTOL * np.linalg.norm(b) * r
            big = jnp.asarray(b * 10.0**scale, REAL)
            product = jnp.asarray((b - wanted) * 10.0**scale, REAL)
            margin = Margin.of(lp.LU(), product, big)
            clear = bool(Margin.clear(*sums([margin.term])))
            second = small_residual([np.asarray(product)], [np.asarray(big)])
            exact_r = np.asarray(big, np.longdouble) - np.asarray(product, np.longdouble)
            exact = np.linalg.norm(exact_r) / np.linalg.norm(np.asarray(big, np.longdouble)) / RTOL
            assert exact <= 1 or not clear
            if not 0.95 < exact < 1.05:
                assert second == (exact < 1)
            seen.add((clear, second))
    assert seen == {(True, True), (False, True), (False, False)} if size > 1 else len(seen) > 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_is_clear_of_what_is_not_finite(bad):
    b = jnp.asarray([1.0, bad], REAL)
    for product in (b, jnp.ones(2, REAL)):
        margin = Margin.of(lp.LU(), product, b)
        assert not Margin.clear(*sums([margin.term]))
        assert not small_residual([np.asarray(product)], [np.asarray(b)])
