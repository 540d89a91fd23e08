"""Nonlinear equations with implicit derivatives (row S4-05): `root_solve` and its kin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from conftest import X64
from jax.test_util import check_grads

import linsolve_prim as lp
from linsolve_prim.nonlinear import Anderson, Newton, newton_krylov
from linsolve_prim.nonlinear.implicit import _compiled
from linsolve_prim.results import REASONS, RESULTS, member_name

N = 24
DTYPE = jnp.float64 if X64 else jnp.float32
TOL = 1e-9 if X64 else 2e-4
needs64 = pytest.mark.skipif(not X64, reason="compares to many digits")


def bratu(u, lam):
    """−u″ = λeᵘ on (0, 1) by finite differences (Bratu's problem)."""
    padded = jnp.pad(u, 1)
    return (2 * u - padded[:-2] - padded[2:]) * ((N + 1) ** 2 / 1000) - lam * jnp.exp(u) / 1000


def dense_bratu(u, lam):
    return lp.MatrixLinearOperator(jax.jacfwd(bratu)(u, lam))


def sparse_bratu(u, lam):
    """∂/∂u on its pattern, entry by entry of a scipy-like triple."""
    off = jnp.full(N - 1, -((N + 1) ** 2 / 1000), u.dtype)
    main = 2 * (N + 1) ** 2 / 1000 - lam * jnp.exp(u) / 1000
    rows = [np.arange(N), np.arange(1, N), np.arange(N - 1)]
    columns = [np.arange(N), np.arange(N - 1), np.arange(1, N)]
    values = jnp.concatenate([main, off, off])
    return lp.SparseLinearOperator.from_coo(
        np.concatenate(rows), np.concatenate(columns), values, (N, N)
    )


METHODS = {
    "newton": Newton(),
    "qr": lp.QR(),
    "host": Newton(lp.SuperLU()),
    "krylov": newton_krylov(lp.GMRES()),
    "bicgstab": newton_krylov(lp.BiCGStab(), forcing=0.1),
    "tight krylov": Newton(lp.GMRES(), forcing=None),
    "chord": Newton(refresh=5),
    "plain": Newton(line_search=False),
}
START = jnp.zeros(N, DTYPE)


def scipy_root(lam):
    f = lambda u: np.asarray(bratu(jnp.asarray(u), lam), dtype=float)
    return scipy.optimize.root(f, np.zeros(N), tol=1e-13 if X64 else 1e-6).x


QUICK = ("newton", "host", "krylov", "chord", "plain")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]
)
def test_every_linear_solver_finds_scipys_root_S4_05(name):
    lam = jnp.asarray(2.0, DTYPE)
    solution = lp.root_solve(bratu, START, METHODS[name], args=(lam,))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, scipy_root(2.0), atol=TOL * 10)
    true = np.linalg.norm(bratu(solution.value, lam))
    np.testing.assert_allclose(solution.stats["residual_norm"], true, rtol=1e-3, atol=1e-6)


def total(lam, method, **settings):
    return jnp.sum(lp.root_solve(bratu, START, method, args=(lam,), **settings).value ** 2)


@needs64
def test_derivatives_to_second_order_in_both_modes_S4_05():
    f = jax.jit(lambda lam: total(lam, Newton()))
    check_grads(f, (2.0,), order=2, modes=("fwd", "rev"), rtol=1e-4, atol=1e-4)


@needs64
@pytest.mark.parametrize("name", ["host", "krylov", pytest.param("chord", marks=pytest.mark.slow)])
def test_derivatives_do_not_depend_on_the_linear_solver(name):
    """Against finite differences of the value, and of the gradient."""
    f = jax.jit(lambda lam: total(lam, METHODS[name]))
    gradient = jax.jit(jax.value_and_grad(jax.grad(f)))
    h = 1e-4
    got, second = gradient(2.0)
    np.testing.assert_allclose(got, (f(2.0 + h) - f(2.0 - h)) / (2 * h), rtol=1e-6)
    far, near = gradient(2.0 + h)[0], gradient(2.0 - h)[0]
    np.testing.assert_allclose(second, (far - near) / (2 * h), rtol=1e-5)


@needs64
def test_another_solver_for_derivatives():
    """`adjoint=` is used for tangents and cotangents, and nowhere else."""
    settings = {"adjoint": lp.QR()}
    want = jax.jit(jax.grad(lambda lam: total(lam, Newton())))(2.0)
    with lp.SolveTape() as tape:
        got = jax.grad(lambda lam: total(lam, Newton(), name="u", **settings))(2.0)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    assert [entry.solver for entry in tape.named("u")] == ["Newton()", "QR()"]


@needs64
def test_third_order():
    """x = y^⅓: three derivatives by hand."""
    f = lambda y: lp.solve_nonlinear(lambda x: x**3, y, jnp.array(1.0))
    third = jax.grad(jax.grad(jax.grad(f)))(8.0)
    np.testing.assert_allclose(third, 10 / 27 * 8.0 ** (-8 / 3), rtol=1e-10)


def test_the_cube_root_of_8_and_27_S4_05():
    y = jnp.array([8.0, 27.0], DTYPE)
    f = lambda y: lp.solve_nonlinear(lambda x: x**3, y, jnp.ones(2, DTYPE))
    np.testing.assert_allclose(f(y), [2, 3], rtol=TOL)
    np.testing.assert_allclose(jax.jacrev(f)(y), np.diag([1 / 12, 1 / 27]), rtol=TOL, atol=TOL)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(f))(y), np.diag([1 / 12, 1 / 27]), atol=TOL)


def test_pytrees_of_unlike_structure_and_captured_arrays():
    """x = (u, {v}) and f returns one vector; what f captures is differentiated."""

    def solve(shift):
        def f(x):
            u, v = x[0], x[1]["v"]
            return jnp.concatenate([u**2 - shift, jnp.atleast_1d(v - u.sum())])

        x0 = (jnp.ones(2, DTYPE), {"v": 1.0})
        return lp.root_solve(f, x0).value

    shift = jnp.array([4.0, 9.0], DTYPE)
    u, v = solve(shift)
    np.testing.assert_allclose(u, [2, 3], rtol=TOL)
    np.testing.assert_allclose(v["v"], 5, rtol=TOL)
    gradient = jax.grad(lambda s: solve(s)[1]["v"])(shift)
    np.testing.assert_allclose(gradient, [1 / 4, 1 / 6], rtol=TOL)


def test_lanes_of_a_vmap_are_independent():
    """A lane takes the steps that it takes alone, and raises nothing for its neighbours."""
    y = jnp.array([8.0, 1.0, 1e6], DTYPE)
    solve = lambda y: lp.root_solve(lambda x: x**3 - y, jnp.ones((), DTYPE))
    batch = jax.jit(jax.vmap(solve))(y)
    alone = [solve(one) for one in y]
    np.testing.assert_allclose(batch.value, [s.value for s in alone], rtol=TOL)
    assert batch.stats["num_steps"].tolist() == [int(s.stats["num_steps"]) for s in alone]
    gradient = jax.vmap(jax.grad(lambda y: solve(y).value))(y)
    np.testing.assert_allclose(gradient, np.asarray(y) ** (-2 / 3) / 3, rtol=10 * TOL)


def test_newton_is_quadratic_and_factors_are_used_again():
    """Few steps with new factors; with `refresh` more steps, but fewer factorizations."""
    lam = jnp.asarray(3.0, DTYPE)
    run = lambda **settings: lp.root_solve(bratu, START, Newton(**settings), args=(lam,)).stats
    newton, chord = run(), run(refresh=20)
    assert newton["num_steps"] == newton["factorizations"] <= 6
    assert chord["factorizations"] < newton["factorizations"]
    assert chord["num_steps"] > newton["num_steps"]


def test_host_factorizations_are_counted_once_each():
    """The registry of host factors sees as many factorizations as the statistics say."""
    lam = jnp.asarray(2.5, DTYPE)
    for refresh in (1, 20):
        lp.host.registry.clear()
        lp.host.registry.reset_stats()
        method = Newton(lp.SuperLU(), refresh=refresh)
        solution = lp.root_solve(bratu, START, method, args=(lam,), jacobian=sparse_bratu)
        made = lp.host.registry.stats()["factorizations"]
        assert made == solution.stats["factorizations"]
        np.testing.assert_allclose(solution.value, scipy_root(2.5), atol=10 * TOL)
    assert made < int(solution.stats["num_steps"])


@needs64
def test_a_given_jacobian_is_that_of_the_derivative_too():
    """A sparse Jacobian serves tangents, cotangents and second order."""

    f = lambda lam, jacobian=None: total(lam, lp.SuperLU(), jacobian=jacobian)
    want = jax.jit(jax.value_and_grad(jax.grad(lambda lam: total(lam, Newton()))))(2.0)
    for jacobian in (sparse_bratu, dense_bratu):
        first = jax.grad(functools.partial(f, jacobian=jacobian))
        derive = jax.value_and_grad(first) if jacobian is sparse_bratu else lambda x: (first(x),)
        for got, exact in zip(jax.jit(derive)(2.0), want):
            np.testing.assert_allclose(got, exact, rtol=1e-8)


def test_inexact_steps_take_fewer_products():
    """Eisenstat and Walker's forcing term saves inner steps against solving each system fully."""
    angles = jnp.cos(jnp.arange(40.0 * 40, dtype=DTYPE)).reshape(40, 40) / 8
    f = lambda x: x + 0.5 * jnp.sin(angles @ x) + 0.1 * x**3 - 1
    exact = lp.GMRES(rtol=1e-12 if X64 else 1e-5)
    runs = [
        lp.root_solve(f, jnp.zeros(40, DTYPE), Newton(exact, forcing=k)) for k in ("auto", None)
    ]
    inexact, full = (int(run.stats["linear_steps"]) for run in runs)
    assert inexact < 0.8 * full
    np.testing.assert_allclose(runs[0].value, runs[1].value, rtol=1e-4)


def test_line_search_saves_newton_from_overshooting():
    """From 3, Newton's steps for arctan grow without end; shortened ones do not."""
    start = jnp.asarray(3.0, DTYPE)
    with pytest.raises((lp.Diverged, lp.NotConverged, lp.SingularMatrixError)):
        lp.root_solve(jnp.arctan, start, Newton(line_search=False))
    solution = lp.root_solve(jnp.arctan, start)
    assert abs(float(solution.value)) < 1e-6


def test_failures_have_their_class_eagerly_and_under_jit(quiet_callbacks):
    one = jnp.ones((), DTYPE)
    no_root = lambda x: x**2 + 1
    cases = [
        (lp.NotConverged, no_root, 3 * one),
        (lp.SingularMatrixError, lambda x: x * 0 + 1, one),
        (lp.NonFiniteInputError, lambda x: x / 0, one),
    ]
    for error, f, x0 in cases:
        with pytest.raises(error) as caught:
            lp.root_solve(f, x0, name="heat")
        assert "'heat' by Newton()" in str(caught.value)
        assert caught.value.solution is not None
        solve = jax.jit(lambda x0, f=f, **kw: lp.root_solve(f, x0, **kw).value)
        with pytest.raises(error), lp.original_errors():
            jax.block_until_ready(solve(x0))
        solution = lp.root_solve(f, x0, throw=False)
        assert solution.result != RESULTS.successful
        assert member_name(solution.stats["reason"], REASONS) == "failed"
    assert lp.root_solve(no_root, 3 * one, suppress=lp.NotConverged).value.shape == ()


def test_one_lane_fails_of_a_batch(quiet_callbacks):
    f = lambda c: lp.root_solve(lambda x: x**2 - c, jnp.ones((), DTYPE)).value
    with pytest.raises(lp.NotConverged, match=r"Failed lanes: \(1,\) \(1 of 2\)"):
        jax.vmap(f)(jnp.array([4.0, -4.0], DTYPE))
    with pytest.raises(lp.NotConverged), lp.original_errors():
        jax.block_until_ready(jax.jit(jax.vmap(f))(jnp.array([4.0, -4.0], DTYPE)))


@pytest.mark.parametrize("compiled", [False, True])
def test_the_tape_has_the_solve_its_steps_and_its_derivative(compiled):
    f = lambda y: lp.root_solve(lambda x: x**3 - y, jnp.ones((), DTYPE), name="cube").value
    gradient = jax.grad(f)
    gradient = jax.jit(gradient) if compiled else gradient
    y = jnp.asarray(8.0, DTYPE)
    jax.block_until_ready(gradient(y))
    with lp.SolveTape() as tape:
        gradient(y)
    kinds = [entry.kind for entry in tape.named("cube")]
    assert kinds == ["forward", "adjoint"]
    assert len(tape.named("step of Newton")) == int(tape["cube"].stats["num_steps"])
    with lp.SolveTape() as tape:
        jax.jvp(f, (y,), (y,))
    assert [entry.kind for entry in tape.named("cube")] == ["forward", "tangent"]


def test_equal_solves_are_one_compilation():
    def find(y):
        method = Newton(rtol=1e-6)
        return lp.root_solve(lambda x: x**3 - y, jnp.ones((), DTYPE), method).value

    find(jnp.asarray(2.0, DTYPE))
    size = _compiled._cache_size()
    for y in (3.0, 4.0, 5.0):
        find(jnp.asarray(y, DTYPE))
    assert _compiled._cache_size() == size


def test_an_exact_guess_and_a_tolerance_of_the_residual():
    exact = lp.root_solve(lambda x: x - 1, jnp.ones(3, DTYPE))
    assert int(exact.stats["num_steps"]) == 0
    assert member_name(exact.stats["reason"], REASONS) == "atol"
    loose = lp.root_solve(lambda x: x**3 - 8, jnp.ones((), DTYPE), Newton(rtol=0.0, atol=1e-2))
    assert abs(float(loose.value) ** 3 - 8) <= 1e-2


def test_complex_roots_of_a_holomorphic_function():
    z0 = jnp.asarray(0.5 + 1.0j, jnp.complex128 if X64 else jnp.complex64)
    f = lambda c: lp.root_solve(lambda z: z**2 + z + c, z0).value
    one = jnp.ones((), z0.dtype)
    want = (-1 + np.sqrt(3) * 1j) / 2
    np.testing.assert_allclose(f(one), want, rtol=TOL)
    derivative = jax.grad(f, holomorphic=True)(one)
    np.testing.assert_allclose(derivative, -1 / (2 * want + 1), rtol=TOL)


# ---- bad input ------------------------------------------------------------------------------------


def test_bad_input_is_told_with_the_remedy():
    x0 = jnp.ones(2, DTYPE)
    with pytest.raises(lp.StructureError, match="as many numbers as x has, 2"):
        lp.root_solve(lambda x: x.sum(), x0)
    with pytest.raises(TypeError, match="f: must be a function"):
        lp.root_solve(3.0, x0)
    with pytest.raises(TypeError, match="solver: must be"):
        lp.root_solve(lambda x: x, x0, "newton")
    with pytest.raises(lp.StructureError, match="y: must have the structure of f"):
        lp.solve_nonlinear(lambda x: x, jnp.ones(3, DTYPE), x0)
    with pytest.raises(lp.StructureError, match="g: must return the structure of x0"):
        lp.fixed_point(lambda x: x[:1], x0)
    with pytest.raises(TypeError, match="jacobian: must return an AbstractLinearOperator"):
        lp.root_solve(lambda x: x, x0, jacobian=lambda x: jnp.eye(2, dtype=DTYPE))
    with pytest.raises(lp.StructureError, match="jacobian: must map"):
        lp.root_solve(
            lambda x: x, x0, jacobian=lambda x: lp.MatrixLinearOperator(jnp.eye(3, dtype=DTYPE))
        )
    with pytest.raises(TypeError, match=r"jacobian: must return an Abs.*got csr_matrix"):
        lp.root_solve(lambda x: x, x0, jacobian=lambda x: scipy.sparse.eye(2, format="csr"))
    for call in (
        lp.root_solve,
        lp.fixed_point,
        lambda *a, **k: lp.solve_nonlinear(a[0], x0, a[1], **k),
    ):
        with pytest.raises(TypeError, match=r"args: must be a tuple.*got .*Write one alone as"):
            call(lambda x, a: a * x, x0, args=x0)
    with pytest.raises(ValueError, match="forcing: must be 'auto'"):
        Newton(forcing=2.0)
    with pytest.raises(ValueError, match="refresh: must be an integer"):
        Newton(refresh=0)
    with pytest.raises(TypeError, match="linear_solver: must be"):
        Newton("lu")
    with pytest.raises(ValueError, match="memory: must be an integer"):
        Anderson(memory=-1)
    with pytest.raises(lp.StructureError, match="x0: must hold at least one array"):
        lp.root_solve(lambda x: x, ())


def test_roots_under_shard_map_sum_the_cotangents_of_what_is_shared():
    """One device is enough for the types; the sum over a mesh is JAX's."""
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    root = lambda y, a: lp.root_solve(lambda x: a * x**3 - y, jnp.ones_like(y)).value
    spread = jax.shard_map(
        root, mesh=mesh, in_specs=(spec, jax.sharding.PartitionSpec()), out_specs=spec
    )
    y, a = jnp.array([8.0, 27.0], DTYPE), jnp.asarray(2.0, DTYPE)
    got, want = (jax.jit(jax.grad(lambda a, f=f: f(y, a).sum()))(a) for f in (spread, root))
    np.testing.assert_allclose(got, want, rtol=10 * TOL)
