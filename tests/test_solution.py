"""Solutions of eager calls put statistics and state together when asked, and nobody can tell."""

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

A = lp.MatrixLinearOperator(jnp.array([[4.0, 1.0], [2.0, 3.0]]))
B = jnp.array([1.0, 2.0])


def test_eager_and_traced_solutions_are_the_same_pytree():
    eager = lp.linear_solve(A, B, lp.LU())
    assert "stats" not in vars(eager)
    traced = jax.jit(lambda b: lp.linear_solve(A, b, lp.LU()))(B)
    assert jax.tree.structure(eager) == jax.tree.structure(traced)
    for x, y in zip(jax.tree.leaves(eager), jax.tree.leaves(traced)):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_what_is_asked_for_later_is_what_the_solver_made():
    solution = lp.linear_solve(A, B, lp.GMRES(1e-8, 0.0, max_steps=1), throw=False)
    assert set(solution.stats) >= {"num_steps", "residual_norm", "relative_residual", "reason"}
    assert solution.stats is solution.stats
    residual = jnp.linalg.norm(B - A.mv(solution.value))
    np.testing.assert_allclose(solution.stats["residual_norm"], residual, rtol=1e-5)
    again = lp.linear_solve(A, 2 * B, lp.LU(), state=lp.linear_solve(A, B, lp.LU()).state)
    np.testing.assert_allclose(A.mv(again.value), 2 * B, rtol=1e-5)


@pytest.mark.parametrize("asked", [False, True])
def test_solutions_are_copied_and_compared_like_other_dataclasses(asked):
    solution = lp.linear_solve(A, B, lp.LU())
    if asked:
        assert solution.stats["num_steps"] == 0
    shallow = copy.copy(solution)
    assert int(shallow.stats["num_steps"]) == 0
    assert dataclasses.replace(solution, value=None).stats is solution.stats
    assert "num_steps" in repr(solution)
    stored = pickle.loads(pickle.dumps(lp.Solution(1.0, 2, {"num_steps": 3}, None)))
    assert (stored.value, stored.stats) == (1.0, {"num_steps": 3})
    with pytest.raises(AttributeError, match="'Solution' object has no attribute 'status'"):
        _ = solution.status
