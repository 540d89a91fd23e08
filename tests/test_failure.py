"""A solve that fails says so, truthfully and alike: eager, jitted, vmapped, and in derivatives."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from through_lu import ThroughLU

import linsolve_prim as lp

DTYPE = jnp.result_type(float)
ONES = jnp.ones(3, DTYPE)
SINGULAR = jnp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], DTYPE)
INDEFINITE = jnp.asarray([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], DTYPE)
NONSYMMETRIC = jnp.asarray([[4.0, 1.0, 0.0], [0.0, 4.0, 1.0], [0.0, 0.0, 4.0]], DTYPE)
PSD = lp.positive_semidefinite_tag
pytestmark = pytest.mark.usefixtures("quiet_callbacks")
JIT_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # what JAX makes of a callback's exception


LU = lp.LU()


def solve(a, b=ONES, solver=LU, tags=(), **kwargs):
    return lp.linear_solve(lp.MatrixLinearOperator(a, tags), b, solver, **kwargs)


WRONG = [
    ("singular", SINGULAR, lp.LU(), ()),
    ("singular", SINGULAR, lp.QR(), ()),
    ("zero", jnp.zeros((3, 3), DTYPE), lp.LU(), ()),
    ("triangle", jnp.tril(SINGULAR).at[1, 1].set(0.0), lp.Triangular(), lp.lower_triangular_tag),
    ("tridiagonal", jnp.zeros((3, 3), DTYPE), lp.Tridiagonal(), lp.tridiagonal_tag),
    ("diagonal", jnp.diag(ONES.at[1].set(0.0)), lp.Diagonal(True), lp.diagonal_tag),
    ("indefinite", INDEFINITE, lp.Cholesky(), PSD),
    ("semidefinite", jnp.ones((3, 3), DTYPE), lp.Cholesky(), PSD),
]


@pytest.mark.parametrize(("what", "a", "solver", "tags"), WRONG)
def test_singular_or_wrongly_tagged(what, a, solver, tags):
    """A true code and a named exception, never a silent NaN or a success."""
    b = jnp.asarray([1.0, -2.0, 5.0], DTYPE)
    solution = solve(a, b, solver, tags, throw=False)
    assert solution.result == lp.RESULTS.singular, lp.RESULTS[solution.result]
    with pytest.raises(lp.SingularMatrixError, match="singular") as caught:
        solve(a, b, solver, tags)
    assert caught.value.solution.result == lp.RESULTS.singular
    jitted = jax.jit(lambda a: solve(a, b, solver, tags, throw=False).result)(a)
    assert jitted == lp.RESULTS.singular
    lanes = jax.vmap(lambda a: solve(a, b, solver, tags, throw=False).result)(jnp.stack([a, a]))
    assert bool(jnp.all(lanes == lp.RESULTS.singular))


@pytest.mark.parametrize(
    ("solver", "tags"),
    [
        (lp.Cholesky(), PSD),
        (lp.Triangular(), lp.lower_triangular_tag),
        (lp.Tridiagonal(), lp.tridiagonal_tag),
        (lp.Diagonal(True), lp.diagonal_tag),
    ],
)
def test_tags_that_the_matrix_contradicts(solver, tags):
    """The residual of the matrix as it is tells that a tag is not true."""
    a = NONSYMMETRIC.at[2, 0].set(3.0)
    solution = solve(a, ONES, solver, tags, throw=False)
    # a tag that makes products skip entries makes both the product and the solve skip them
    full = float(jnp.linalg.norm(ONES - a @ solution.value))
    if tags in (lp.tridiagonal_tag, lp.diagonal_tag):
        assert full > 0.1
    else:
        assert solution.result != lp.RESULTS.successful


def test_consistent_singular_systems_are_not_solved_by_lu():
    """b in the range of A: there are solutions, but A has no inverse, and gradients no meaning."""
    solution = solve(SINGULAR, SINGULAR @ ONES, throw=False)
    assert solution.result == lp.RESULTS.singular


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_bad_scaling_is_not_singularity(scale):
    """The test for singularity is blind to a scaling of rows, of columns and of the whole."""
    scale = min(max(scale, 1e-6), 1e6) if DTYPE == jnp.float32 else scale
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=(6, 6)) + 4 * np.eye(6), DTYPE)
    d = jnp.asarray(np.geomspace(1, scale, 6), DTYPE)
    b = jnp.asarray(rng.normal(size=6), DTYPE)
    for scaled in (a * scale, d[:, None] * a, a * d[None, :]):
        rhs = scaled @ jnp.ones(6, DTYPE)
        assert solve(scaled, rhs, throw=False).result == lp.RESULTS.successful
    tiny = 1e-30 if DTYPE == jnp.float32 else 1e-200
    assert solve(a, b * tiny, throw=False).result == lp.RESULTS.successful


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    ("solver", "tags"),
    [
        (lp.LU(), ()),
        (lp.QR(), ()),
        (lp.SVD(), ()),
        (lp.Cholesky(), PSD),
        (lp.GMRES(), ()),
        (lp.CG(), PSD),
        (lp.BiCGStab(), ()),
        (lp.LSMR(), ()),
    ],
)
def test_non_finite_input_is_told(solver, tags, bad):
    """NaN or infinity in b or A: `nonfinite_input`, eagerly by name."""
    eye = jnp.eye(3, dtype=DTYPE)
    for a, b in ((eye, ONES.at[1].set(bad)), (eye.at[2, 1].set(bad), ONES)):
        solution = solve(a, b, solver, tags, throw=False)
        assert solution.result == lp.RESULTS.nonfinite_input, lp.RESULTS[solution.result]
    with pytest.raises(lp.NonFiniteInputError, match="NaN or infinity"):
        solve(eye, ONES.at[1].set(bad), solver, tags)


def test_the_exception_names_what_failed():
    with pytest.raises(lp.SingularMatrixError, match=r"the solve 'pressure' by LU\(\) failed"):
        solve(SINGULAR, name="pressure")


def test_hierarchy_of_exceptions():
    assert issubclass(lp.NotConverged, lp.ConvergenceError)
    assert issubclass(lp.Diverged, lp.ConvergenceError)
    for cls in (lp.ConvergenceError, lp.SingularMatrixError, lp.NonFiniteInputError):
        assert issubclass(cls, lp.LinearSolveError)


def test_not_converged_holds_the_last_estimate():
    a = jnp.asarray(np.diag(np.arange(1.0, 31.0)), DTYPE)
    b = jnp.ones(30, DTYPE)
    with pytest.raises(lp.NotConverged, match=r"num_steps = 2.*relative_residual") as caught:
        solve(a, b, lp.CG(rtol=1e-6, max_steps=2), PSD)
    solution = caught.value.solution
    residual = jnp.linalg.norm(b - a @ solution.value)
    np.testing.assert_allclose(solution.stats["residual_norm"], residual, rtol=1e-4)


def test_raised_from_jit_with_name_and_message():
    for fn in (
        jax.jit(lambda a: solve(a).value),
        jax.jit(lambda a: jax.grad(lambda a: solve(a).value.sum())(a)),
        jax.jit(jax.vmap(lambda a: solve(a).value, axis_size=2, in_axes=None)),
    ):
        with pytest.raises(JIT_ERRORS, match="SingularMatrixError"):
            jax.block_until_ready(fn(SINGULAR))
        jax.block_until_ready(fn(jnp.eye(3, dtype=DTYPE)))  # and the next call works


def test_raised_from_jit_over_constants():
    with pytest.raises(JIT_ERRORS, match="SingularMatrixError"):
        jax.block_until_ready(jax.jit(lambda t: t * solve(SINGULAR).value)(1.0))


def test_failed_lanes_are_named():
    stack = jnp.stack([jnp.eye(3, dtype=DTYPE), SINGULAR, jnp.eye(3, dtype=DTYPE)])
    with pytest.raises(lp.SingularMatrixError, match=r"Failed lanes: \(1,\) \(1 of 3\)"):
        jax.vmap(lambda a: solve(a).value)(stack)
    nan = stack.at[1].set(jnp.nan)
    with pytest.raises(lp.NonFiniteInputError, match=r"\(1,\)"):
        jax.vmap(lambda a: solve(a).value)(nan)


def test_one_bad_lane_fails_alone():
    stack = jnp.stack([2 * jnp.eye(3, dtype=DTYPE), SINGULAR])
    solutions = jax.jit(jax.vmap(lambda a: solve(a, throw=False)))(stack)
    np.testing.assert_array_equal(solutions.result == lp.RESULTS.successful, [True, False])
    np.testing.assert_array_equal(solutions.result == lp.RESULTS.singular, [False, True])
    np.testing.assert_array_equal(solutions.value[0], 0.5 * np.ones(3))


def _bad_adjoint(throw):
    """A forward solve that succeeds, and an adjoint that cannot."""
    a = jnp.asarray(np.diag(np.arange(1.0, 31.0)), DTYPE)
    b = jnp.ones(30, DTYPE)

    def loss(b):
        adjoint = lp.ImplicitAdjoint(solver=lp.CG(rtol=1e-6, max_steps=1))
        operator = lp.MatrixLinearOperator(a, PSD)
        x = lp.linear_solve(operator, b, lp.Cholesky(), adjoint=adjoint, throw=throw).value
        return jnp.sum(x**2)

    return loss, b


def test_adjoint_failure_is_raised_and_says_so():
    """S0-37's part here: `throw` governs the cotangent solve, and its message names it."""
    loss, b = _bad_adjoint(throw=True)
    with pytest.raises(lp.NotConverged, match=r"for a cotangent \(adjoint\) by CG"):
        jax.grad(loss)(b)
    with pytest.raises(JIT_ERRORS, match="cotangent"):
        jax.block_until_ready(jax.jit(jax.grad(loss))(b))
    with pytest.raises(lp.NotConverged, match=r"for a tangent \(jvp\)"):
        jax.jvp(loss, (b,), (jnp.arange(30.0, dtype=DTYPE),))


def test_throw_false_governs_derivatives():
    loss, b = _bad_adjoint(throw=False)
    assert bool(jnp.all(jnp.isfinite(jax.grad(loss)(b))))
    text = jax.jit(jax.grad(loss)).lower(b).compile().as_text()
    assert "callback" not in text


def test_traced_tolerances():
    """S1-05: tolerances may be traced, and have zero derivatives."""
    a = jnp.asarray(np.diag(np.arange(1.0, 7.0)), DTYPE)

    def f(rtol, b):
        return jnp.sum(solve(a, b, lp.CG(rtol=rtol, atol=0.0), PSD, throw=False).value)

    rtol = jnp.asarray(1e-6, DTYPE)
    d_rtol, d_b = jax.jit(jax.grad(f, (0, 1)))(rtol, jnp.ones(6, DTYPE))
    assert float(d_rtol) == 0.0
    np.testing.assert_allclose(d_b, 1 / np.arange(1.0, 7.0), rtol=1e-4)


def test_preconditioner_of_the_differentiated_values():
    """A preconditioner that depends on what is differentiated has a zero tangent, not an error."""
    b = jnp.ones(6, DTYPE)
    base = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)) + 8 * np.eye(6), DTYPE)

    def f(a):
        options = {"preconditioner": lp.DiagonalLinearOperator(1 / jnp.diag(a))}
        operator = lp.MatrixLinearOperator(a)
        return jnp.sum(lp.linear_solve(operator, b, lp.GMRES(), options=options).value)

    want = jax.grad(lambda a: jnp.sum(jnp.linalg.solve(a, b)))(base)
    for grad in (jax.grad(f), jax.jit(jax.grad(f))):
        np.testing.assert_allclose(grad(base), want, rtol=1e-3, atol=1e-5)


def test_adjoint_settings_are_used():
    """Tangents and cotangents take their own solver: counted by its steps being reached."""
    calls = []

    class Spy(ThroughLU):
        def compute(self, state, vector, options):
            calls.append("compute")
            return super().compute(state, vector, options)

    f = lambda b: jnp.sum(solve(NONSYMMETRIC, b, lp.GMRES(), adjoint=Spy()).value)
    f(ONES)
    assert not calls
    np.testing.assert_allclose(jax.grad(f)(ONES), np.linalg.solve(NONSYMMETRIC.T, ONES), rtol=1e-4)
    assert calls


def test_zero_right_hand_side_and_cotangent():
    """b = 0 is solved by 0, its derivatives are finite, and a zero cotangent gives zero."""
    zero = jnp.zeros(3, DTYPE)
    for solver, tags in ((lp.LU(), ()), (lp.GMRES(), ()), (lp.CG(), PSD), (lp.SVD(), ())):
        a = NONSYMMETRIC + NONSYMMETRIC.T
        x, pull = jax.vjp(lambda b, s=solver, t=tags: solve(a, b, s, t).value, zero)
        np.testing.assert_array_equal(x, zero)
        np.testing.assert_array_equal(pull(zero)[0], zero)
        stats = solve(a, zero, solver, tags).stats
        assert stats["reason"] == lp.REASONS.zero_rhs


def test_statistics_are_always_there():
    """S2-11: results, statistics and states survive jit and vmap."""
    for solver in (lp.LU(), lp.SVD(), lp.GMRES()):
        solution = jax.jit(lambda b, s=solver: solve(NONSYMMETRIC, b, s))(ONES)
        keys = {"num_steps", "residual_norm", "relative_residual", "reason"}
        assert keys <= set(solution.stats)
    batch = jax.vmap(lambda b: solve(NONSYMMETRIC, b, lp.GMRES()))(jnp.eye(3, dtype=DTYPE))
    assert batch.stats["num_steps"].shape == (3,)


def test_custom_statistics():
    """S2-11: a solver's own statistics, arrays or not, come back as they are."""

    class Talkative(lp.AbstractLinearSolver):
        def init(self, operator, options):
            return lp.LU().init(operator, options)

        def compute(self, state, vector, options):
            x, result, _ = lp.LU().compute(state, vector, options)
            return x, result, {"note": "hello", "nothing": None, "count": 3, "norm": x.sum()}

        def assume_full_rank(self):
            return True

    stats = solve(NONSYMMETRIC, ONES, Talkative()).stats
    assert stats["note"] == "hello"
    assert stats["nothing"] is None
    assert int(stats["count"]) == 3
    grad = jax.grad(lambda b: solve(NONSYMMETRIC, b, Talkative()).value.sum())(ONES)
    np.testing.assert_allclose(grad, np.linalg.solve(NONSYMMETRIC.T, ONES), rtol=1e-4)


def test_untrue_success_is_contradicted():
    """Law 1: a solver that claims success against the true residual is not believed."""

    class Liar(lp.AbstractLinearSolver):
        def init(self, operator, options):
            return ()

        def compute(self, state, vector, options):
            return 0.5 * vector, lp.RESULTS.successful, {}

        def assume_full_rank(self):
            return True

    solution = solve(NONSYMMETRIC, ONES, Liar(), throw=False)
    assert solution.result == lp.RESULTS.inaccurate
    with pytest.raises(lp.NotConverged, match="true residual"):
        solve(NONSYMMETRIC, ONES, Liar())


def test_failures_leave_nothing_behind():
    for _ in range(3):
        with pytest.raises(lp.SingularMatrixError):
            solve(SINGULAR)
        assert solve(NONSYMMETRIC, throw=False).result == lp.RESULTS.successful
    gc.collect()
