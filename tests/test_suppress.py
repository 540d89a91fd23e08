"""Which failures raise, and how compiled programs deliver them (S0-36…40, S4-12, S4-16)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_table import REAL

import linsolve_prim as lp
from linsolve_prim.results import member_name

N = 10
A = jnp.asarray(4 * np.eye(N) - np.eye(N, k=1) - 0.5 * np.eye(N, k=-1), REAL)
B = jnp.arange(1, N + 1, dtype=REAL)
FEW = lp.GMRES(max_steps=2)

pytestmark = pytest.mark.usefixtures("quiet_callbacks")


def solve(b, **settings):
    return lp.solve(A, b, FEW, name="pressure", **settings)


WRAPPED = {
    "eager": (lambda f: f, B),
    "jit": (jax.jit, B),
    "vmap": (jax.vmap, jnp.stack([B, 2 * B])),
    "jit of vmap": (lambda f: jax.jit(jax.vmap(f)), jnp.stack([B, 2 * B])),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_suppressed_failures_let_the_run_go_on_S0_40(wrapped):
    """S0-40: the run goes on with a finite iterate; what is not named still raises."""
    wrap, arg = WRAPPED[wrapped]
    for which in (lp.NotConverged, (lp.Diverged, lp.NotConverged), lp.LinearSolveError):
        x = wrap(lambda b, w=which: solve(b, suppress=w))(arg)
        assert np.all(np.isfinite(x))
    with pytest.raises(Exception, match="NotConverged"):
        jax.block_until_ready(wrap(lambda b: solve(b, suppress=lp.Diverged))(arg))
    with pytest.raises(Exception, match="NonFiniteInputError"):
        jax.block_until_ready(wrap(lambda b: solve(b, suppress=lp.NotConverged))(arg * jnp.nan))


def test_suppressed_failures_are_still_told():
    operator = lp.MatrixLinearOperator(A)
    solution = lp.linear_solve(operator, B, FEW, suppress=lp.NotConverged)
    assert solution.result == lp.RESULTS.max_steps_reached
    assert solution.stats["num_steps"] == 2
    assert lp.linear_solve(operator, B, suppress=lp.NotConverged).result == lp.RESULTS.successful
    with pytest.raises(TypeError, match="suppress: must be subclasses of LinearSolveError"):
        lp.linear_solve(operator, B, FEW, suppress=ValueError)
    with pytest.raises(TypeError, match="suppress: must be subclasses of LinearSolveError"):
        lp.linear_solve(operator, B, suppress=ValueError)  # which has nothing to raise


def test_suppression_holds_for_derivatives():
    g = jax.grad(lambda b: solve(b, suppress=lp.NotConverged).sum())(B)
    assert np.all(np.isfinite(g))


def test_original_errors_of_compiled_programs_S0_36_S0_38():
    f = jax.jit(solve)
    with pytest.raises(lp.NotConverged, match=r"the solve 'pressure' by GMRES\(.*max_steps=2") as e:
        with lp.original_errors():
            jax.block_until_ready(f(B))
    solution = e.value.solution
    assert solution.result == lp.RESULTS.max_steps_reached
    assert solution.stats["num_steps"] == 2
    residual = np.linalg.norm(B - A @ solution.value) / np.linalg.norm(B)
    np.testing.assert_allclose(solution.stats["relative_residual"], residual, rtol=1e-4)
    assert np.all(np.isfinite(jax.jit(lambda b: lp.solve(A, b))(B)))  # the process is healthy


def test_original_errors_name_lanes_S0_36():
    bs = jnp.stack([B, 0 * B, jnp.nan * B])
    with pytest.raises(lp.NotConverged, match=r"Failed lanes: \(0,\), \(2,\) \(2 of 3\)") as e:
        with lp.original_errors():
            jax.block_until_ready(jax.jit(jax.vmap(solve))(bs))
    names = member_name(e.value.solution.result)
    assert names.tolist() == ["max_steps_reached", "successful", "nonfinite_input"]


def test_original_errors_of_adjoint_solves_S0_37_S4_16():
    @lp.original_errors()
    def gradient(b):
        loss = jax.jit(lambda b: lp.solve(A, b, adjoint=FEW).sum())
        return jax.block_until_ready(jax.grad(loss)(b))

    with pytest.raises(lp.NotConverged, match=r"for a cotangent \(adjoint\) by GMRES"):
        gradient(B)


def test_other_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError), lp.original_errors():
        raise ZeroDivisionError
    own = lp.NotConverged("mine")
    with pytest.raises(lp.NotConverged) as e, lp.original_errors():
        raise own
    assert e.value is own


def test_first_guess_of_the_cotangent_solve_S4_14():
    """S4-14: `x0` of `ImplicitAdjoint`."""
    z = np.linalg.solve(np.asarray(A, float).T, np.ones(N)).astype(REAL)
    adjoint = lp.ImplicitAdjoint(solver=lp.GMRES(rtol=1e-4), x0=jnp.asarray(z))
    kept = lp.ImplicitAdjoint(x0=jnp.asarray(z))  # with the solver of the forward solve
    for settings in (adjoint, kept):
        with lp.SolveTape() as tape:
            loss = lambda b, s=settings: lp.solve(A, b, lp.GMRES(rtol=1e-4), adjoint=s).sum()
            gradient = jax.jit(jax.grad(loss))(B)
        np.testing.assert_allclose(gradient, z, rtol=1e-3)
        assert [(entry.kind, int(entry.stats["num_steps"])) for entry in tape][-1] == ("adjoint", 0)
    hessian = jax.hessian(lambda b: (lp.solve(A, b, lp.GMRES(), adjoint=kept) ** 2).sum())(B)
    inverse = np.linalg.inv(np.asarray(A, float))
    np.testing.assert_allclose(hessian, 2 * inverse.T @ inverse, atol=1e-3)
