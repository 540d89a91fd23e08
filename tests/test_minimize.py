"""Minimisation (rows S4-02, S4-03, S4-04, S4-06, S4-23): methods, pytrees, bounds, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from conftest import X64
from jax.test_util import check_grads

import linsolve_prim as lp
from linsolve_prim.nonlinear import GradientDescent
from linsolve_prim.nonlinear.scipy_methods import scipy_names
from linsolve_prim.results import REASONS, RESULTS, member_name

DTYPE = jnp.float64 if X64 else jnp.float32
START = jnp.array([-1.2, 1.0], DTYPE)
GRADIENT_FREE = ("nelder-mead", "powell", "cobyla", "cobyqa")
DEVICE = ["GD", "optimistix.BFGS", "optimistix.LBFGS"]
needs64 = pytest.mark.skipif(not X64, reason="compares to many digits")


def some(names, quick):
    """All names, of which those that are not in `quick` are left to the slow set."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def quadratic(x, theta):
    """Minimal at A⁻¹θ."""
    return 0.5 * jnp.vdot(x, HESSIAN @ x) - jnp.vdot(theta, x)


HESSIAN = jnp.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], DTYPE)
THETA = jnp.array([1.0, -2.0, 0.5], DTYPE)


def optimistix(name):
    if name.startswith("optimistix"):
        pytest.importorskip("optimistix")


@pytest.mark.parametrize("method", [*scipy_names(), *DEVICE])
def test_every_method_minimises_a_quadratic_S4_04(method):
    optimistix(method)
    solution = lp.minimize(quadratic, jnp.ones(3, DTYPE), method, args=(THETA,), max_steps=2000)
    want = np.linalg.solve(np.asarray(HESSIAN), np.asarray(THETA))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, want, atol=1e-3 if X64 else 3e-2)
    assert int(solution.stats["num_steps"]) > 0
    np.testing.assert_allclose(
        solution.stats["loss"], quadratic(solution.value, THETA), rtol=1e-5, atol=1e-6
    )


VALLEY = (
    "bfgs",
    "l-bfgs-b",
    "newton-cg",
    "trust-ncg",
    "nelder-mead",
    "cobyla",
    "GD",
    "optimistix.BFGS",
)


@needs64
@pytest.mark.parametrize("method", some([*scipy_names(), *DEVICE], VALLEY))
def test_rosenbrocks_valley_or_an_honest_failure_S4_02(method):
    """What is called a success is the minimum, and SciPy's own best value is met."""
    optimistix(method)
    solution = lp.minimize(rosenbrock, START, method, throw=False)
    if method == "cobyla":  # takes thousands of steps here, and says so
        assert solution.result == RESULTS.max_steps_reached
        return
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, 1, atol=1e-2)
    if method not in GRADIENT_FREE:
        assert float(solution.stats["gradient_norm"]) <= 1e-5
        assert member_name(solution.stats["reason"], REASONS) == "gradient"


def test_names_of_old_and_tolerances_S4_02():
    loose = lp.minimize(rosenbrock, START, "L-BFGS", atol=1e-2)
    tight = lp.minimize(rosenbrock, START, atol=1e-7 if X64 else 1e-3)
    assert int(loose.stats["evaluations"]) < int(tight.stats["evaluations"])
    assert float(loose.stats["gradient_norm"]) <= 1e-2
    relative = lp.minimize(rosenbrock, START, rtol=1e-2, atol=0.0)
    first = np.max(np.abs(jax.grad(rosenbrock)(START)))
    assert float(relative.stats["gradient_norm"]) <= 1e-2 * first


@pytest.mark.parametrize("method", ["L-BFGS-B", "Powell", "GD"])
def test_tuples_are_several_arguments_and_pytrees_one_S4_03(method):
    two = lp.minimize(
        lambda x, y: jnp.sum((x - 1) ** 2) + (y + 2) ** 2, (jnp.zeros(2, DTYPE), 0.0), method
    )
    x, y = two.value
    np.testing.assert_allclose(x, 1, atol=1e-3)
    np.testing.assert_allclose(y, -2, atol=1e-3)
    tree = {"a": jnp.zeros((2, 2), DTYPE), "b": [jnp.zeros((), DTYPE)]}
    f = lambda t, c: jnp.sum((t["a"] - c) ** 2) + (t["b"][0] - 3) ** 2
    found = lp.minimize(f, tree, method, args=(jnp.asarray(0.5, DTYPE),)).value
    np.testing.assert_allclose(found["a"], 0.5, atol=1e-3)
    np.testing.assert_allclose(found["b"][0], 3, atol=1e-3)
    assert found["a"].shape == (2, 2)


BOUNDED = ["L-BFGS-B", "TNC", "SLSQP", "trust-constr", "Nelder-Mead", "COBYQA", "GD"]


@needs64
@pytest.mark.parametrize("method", some(BOUNDED, ["L-BFGS-B", "SLSQP", "Nelder-Mead", "GD"]))
def test_bounds_hold(method):
    """Rosenbrock's function on x ≤ 0.5: the minimum is on the bound, at (0.5, 0.25)."""
    bounds = (None, jnp.array([0.5, np.inf]))
    solution = lp.minimize(rosenbrock, START, method, bounds=bounds)
    np.testing.assert_allclose(solution.value, [0.5, 0.25], atol=1e-3)
    assert float(solution.value[0]) <= 0.5
    reference = scipy.optimize.minimize(
        lambda x: float(rosenbrock(x)), [-1.2, 1], bounds=[(None, 0.5), (None, None)]
    )
    np.testing.assert_allclose(solution.stats["loss"], reference.fun, rtol=1e-4)


@needs64
def test_a_claim_that_is_not_true_is_a_failure():
    """On that bound SciPy's Powell stops at f = 0.2865, and says that it converged; f is 0.25."""
    bounds = (None, jnp.array([0.5, np.inf]))
    with pytest.raises(lp.NotConverged):
        lp.minimize(rosenbrock, START, "Powell", bounds=bounds)


@needs64
@pytest.mark.parametrize("method", some(["BFGS", "GD", "optimistix.BFGS"], ["BFGS"]))
def test_derivatives_of_a_minimiser_are_implicit(method):
    """Forward and reverse, whatever found x; to second order where that can be compiled."""
    optimistix(method)

    def f(theta):
        loss = lambda x: quadratic(x, theta) + jnp.sum(x**4)
        return lp.minimize(loss, jnp.zeros(3), method, atol=1e-9).value

    jacobian = jax.jacrev(f)(THETA)
    hessian = HESSIAN + jnp.diag(12 * f(THETA) ** 2)
    np.testing.assert_allclose(jacobian, np.linalg.inv(hessian), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(f)(THETA), jacobian, rtol=1e-8, atol=1e-10)
    if method != "BFGS":
        check_grads(jax.jit(f), (THETA,), order=2, rtol=1e-3, atol=1e-3)


@needs64
def test_derivatives_with_active_bounds():
    """Held variables follow their bound, and the others as if it were a constant."""

    def f(theta, upper):
        bounds = (None, jnp.array([np.inf, np.inf, 0.0]).at[2].set(upper))
        return lp.minimize(
            lambda x: quadratic(x, theta), jnp.zeros(3), bounds=bounds, atol=1e-10
        ).value

    theta = jnp.array([1.0, -2.0, 5.0])
    value = f(theta, 0.5)
    np.testing.assert_allclose(value[2], 0.5)
    by_theta, by_upper = jax.jacrev(f, argnums=(0, 1))(theta, 0.5)
    free = np.zeros((3, 3))
    free[:2, :2] = np.linalg.inv(HESSIAN[:2, :2])
    np.testing.assert_allclose(by_theta, free, atol=1e-9)
    want = np.append(-np.linalg.solve(HESSIAN[:2, :2], HESSIAN[:2, 2]), 1)
    np.testing.assert_allclose(by_upper, want, atol=1e-9)


@needs64
@pytest.mark.parametrize("method", some(DEVICE, ["GD", "optimistix.BFGS"]))
def test_device_methods_go_through_jit_vmap_and_grad_S4_23(method):
    optimistix(method)
    solve = lambda t: lp.minimize(quadratic, jnp.zeros(3), method, args=(t,), atol=1e-8).value
    thetas = jnp.stack([THETA, 2 * THETA, 0 * THETA])
    want = np.linalg.solve(HESSIAN, thetas.T).T
    np.testing.assert_allclose(jax.jit(jax.vmap(solve))(thetas), want, atol=1e-7)
    gradient = jax.jit(jax.vmap(jax.grad(lambda t: jnp.sum(solve(t)))))(thetas)
    np.testing.assert_allclose(gradient, np.linalg.inv(HESSIAN).sum(1) + 0 * want, atol=1e-7)


def test_a_scipy_method_says_that_it_cannot_be_compiled():
    f = lambda theta: lp.minimize(quadratic, jnp.zeros(3, DTYPE), args=(theta,)).value
    for transformed in (jax.jit(f), jax.vmap(lambda t: f(t * THETA))):
        with pytest.raises(TypeError, match=r"'l-bfgs-b' runs in SciPy.*optimistix"):
            transformed(THETA)


def test_values_are_compiled_once_S4_23():
    """The loss is traced for the first minimisation, and not for its steps nor for the next one."""
    traces = 0

    def loss(x, theta):
        nonlocal traces
        traces += 1
        return quadratic(x, theta)

    from linsolve_prim.nonlinear.scipy_methods import _evaluated

    lp.minimize(loss, jnp.zeros(3, DTYPE), args=(THETA,))
    programs, first = _evaluated._cache_size(), traces
    lp.minimize(loss, jnp.ones(3, DTYPE), args=(2 * THETA,))
    assert _evaluated._cache_size() == programs
    assert traces - first <= first  # the second call looks at its function, but not at each step
    assert first <= 3


def test_functions_of_numpy_arrays_S4_06():
    """`autodiff=False`: no JAX in f, finite differences by SciPy."""
    calls = []

    def f(x):
        calls.append(type(x))
        return float(np.sum((x - np.array([1.0, 2.0])) ** 2))

    for method in ("BFGS", "Nelder-Mead"):
        solution = lp.minimize(f, jnp.zeros(2, DTYPE), method, autodiff=False)
        np.testing.assert_allclose(solution.value, [1, 2], atol=1e-3)
        assert member_name(solution.stats["reason"], REASONS) == "claimed"
    assert set(calls) == {np.ndarray}
    bounded = lp.minimize(f, np.zeros(2), autodiff=False, bounds=(0.0, 1.5))
    np.testing.assert_allclose(bounded.value, [1, 1.5], atol=1e-3)


def test_failures_have_their_class_and_the_last_estimate():
    """S0-51."""
    with pytest.raises(lp.NotConverged, match="the solve 'valley' by scipy") as caught:
        lp.minimize(rosenbrock, START, max_steps=2, name="valley")
    assert caught.value.solution.value.shape == (2,)
    with pytest.raises(lp.NotConverged, match="max_steps_reached"):
        lp.minimize(rosenbrock, START, "GD", max_steps=2)
    unbounded = lambda x: -jnp.sum(x**4)
    for method in ("GD", "L-BFGS-B"):
        with pytest.raises((lp.Diverged, lp.NotConverged)):
            lp.minimize(unbounded, START, method)
    quiet = lp.minimize(rosenbrock, START, max_steps=2, throw=False)
    assert quiet.result == RESULTS.max_steps_reached
    with pytest.raises(lp.NonFiniteInputError):
        lp.minimize(lambda x: jnp.sum(x) / 0, START, "GD")
    with pytest.raises(lp.LinearSolveError):
        lp.minimize(lambda x: jnp.sum(x) / 0, START)


@needs64
def test_a_minimum_that_rounding_hides_is_one():
    """With a tolerance below what can be met, the reason is that f no longer falls."""
    f = lambda x: 1e6 + jnp.sum(x**2) + 0.1 * jnp.sum(x)
    for method in ("L-BFGS-B", "BFGS", "GD"):
        solution = lp.minimize(f, jnp.array([3.0, -1.0]), method, atol=1e-15)
        assert solution.result == RESULTS.successful
        assert member_name(solution.stats["reason"], REASONS) in ("rounding", "gradient")
        np.testing.assert_allclose(solution.value, -0.05, atol=1e-3)


def test_the_tape_has_it_and_its_derivative():
    f = lambda theta: lp.minimize(
        quadratic, jnp.zeros(3, DTYPE), args=(theta,), name="inner"
    ).value.sum()
    with lp.SolveTape() as tape:
        jax.grad(f)(THETA)
    assert [entry.kind for entry in tape.named("inner")] == ["forward", "adjoint"]
    assert int(tape["inner"].stats["num_steps"]) > 0
    assert "l-bfgs-b" in repr(tape)


def test_bad_input_is_told_with_the_remedy():
    with pytest.raises(TypeError, match="f: must be a function"):
        lp.minimize(1.0, START)
    with pytest.raises(TypeError, match="method: must be one of bfgs"):
        lp.minimize(rosenbrock, START, "steepest")
    with pytest.raises(lp.StructureError, match="f: must return one real number"):
        lp.minimize(lambda x: x, START)
    with pytest.raises(lp.StructureError, match="x0: must be real"):
        lp.minimize(rosenbrock, START.astype(complex if X64 else jnp.complex64))
    with pytest.raises(TypeError, match=r"bounds: .*bfgs.* takes none"):
        lp.minimize(rosenbrock, START, "BFGS", bounds=(0, 1))
    with pytest.raises(lp.StructureError, match=r"bounds: must be a pair"):
        lp.minimize(rosenbrock, START, bounds=[(0, 1), (0, 1)])
    with pytest.raises(lp.StructureError, match="has shape \\(2,\\), and its upper bound \\(3,\\)"):
        lp.minimize(rosenbrock, START, bounds=(None, jnp.ones(3, DTYPE)))
    for method in ("GD", "L-BFGS-B"):
        with pytest.raises(lp.StructureError, match="bounds: the lower ones must not be above"):
            lp.minimize(rosenbrock, START, method, bounds=(2.0, 1.0))
    with pytest.raises(TypeError, match="args: must be a tuple"):
        lp.minimize(quadratic, START, args=2.0)
    with pytest.raises(TypeError, match="needs derivatives by JAX"):
        lp.minimize(rosenbrock, START, "GD", autodiff=False)
    with pytest.raises(ValueError, match="atol"):
        lp.minimize(rosenbrock, START, atol=-1.0)
    with pytest.raises(ValueError, match="rtol"):
        GradientDescent(rtol=-1.0)
    pytest.importorskip("optimistix")
    with pytest.raises(TypeError, match="Optimistix has no minimiser 'Nope'"):
        lp.minimize(rosenbrock, START, "optimistix.Nope")


def test_shards_are_refused_since_derivatives_would_be_wrong():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")

    def least(y):
        return lp.minimize(lambda x: jnp.sum((x - y) ** 2), jnp.zeros(2), "GD").value

    with pytest.raises(NotImplementedError, match=r"f: must not depend on values that vary over"):
        jax.shard_map(least, mesh=mesh, in_specs=spec, out_specs=spec)(jnp.ones(2))
