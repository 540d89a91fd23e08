"""Multigrid for stencils on grids, matrix-free. S2-26, S4-25 (pressure projection), B-12."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.preconditioners import GeometricMultigrid
from linsolve_prim.preconditioners.stencil import (
    Interpolation,
    StencilOperator,
    coarse_shape,
    find_stencil,
    interpolation_weights,
)
from linsolve_prim.testing import check_operator

pytestmark = pytest.mark.skipif(not X64, reason="asks for residuals and agreement of 1e-8 and less")


def rhs(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def label(value):
    """Functions by name: their addresses differ from process to process."""
    return getattr(value, "__name__", str(value))


def slow(*case):
    """A case that goes through the same code as others; all compile for long."""
    return pytest.param(*case, marks=pytest.mark.slow)


def dirichlet(x):
    """−Δ with zeros outside."""
    padded, y = jnp.pad(x, 1), 2.0 * x.ndim * x
    for d in range(x.ndim):
        for first in (0, 2):
            cut = [slice(1, -1)] * x.ndim
            cut[d] = slice(first, first + x.shape[d])
            y = y - padded[tuple(cut)]
    return y


def periodic(x):
    return sum(2 * x - jnp.roll(x, 1, d) - jnp.roll(x, -1, d) for d in range(x.ndim))


def diffusion(c):
    """−∇·(c∇u) with no flux across the border; c of the grid's shape."""

    def apply(u):
        y = 1e-3 * u
        for d in range(u.ndim):
            one, two = (jax.lax.slice_in_dim(a, 1, None, axis=d) for a in (u, c))
            u0, c0 = (jax.lax.slice_in_dim(a, 0, -1, axis=d) for a in (u, c))
            flux = 2 * two * c0 / (two + c0) * (one - u0)
            pad = lambda before: [(before, 1 - before) if k == d else (0, 0) for k in range(u.ndim)]
            y = y - jnp.pad(flux, pad(0)) + jnp.pad(flux, pad(1))
        return y

    return apply


def convection(x):
    """−Δu + 8 ∂u/∂x/n, upwind: not symmetric."""
    return dirichlet(x) + 8 / x.shape[0] * (x - jnp.pad(x, ((1, 0), (0, 0)))[:-1])


def operator_of(fn, shape, tags=lp.positive_semidefinite_tag, dtype=float):
    return lp.FunctionLinearOperator(fn, jax.ShapeDtypeStruct(shape, dtype), tags)


def cg(operator, b, preconditioner, **settings):
    return lp.linear_solve(operator, b, lp.CG(1e-8, 0.0, preconditioner=preconditioner, **settings))


@pytest.mark.parametrize(
    ("fn", "shape"),
    [
        (dirichlet, (51, 38)),
        (periodic, (35, 50)),
        (dirichlet, (500,)),
        slow(dirichlet, (64, 64)),
        slow(dirichlet, (14, 14, 14)),
    ],
    ids=label,
)
def test_few_iterations_on_grids_of_all_kinds_S2_26(fn, shape):
    b, settings = rhs(shape), {}
    if fn is periodic:
        b, settings = b - b.mean(), {"nullspace": "constant"}
    operator = operator_of(fn, shape)
    found = cg(operator, b, GeometricMultigrid(), **settings)
    assert int(found.stats["num_steps"]) <= 9
    assert float(jnp.linalg.norm(b - operator.mv(found.value))) <= 1.01e-8 * float(
        jnp.linalg.norm(b)
    )


def test_fewer_steps_than_without_and_as_many_as_jax_scipy_B_14():
    """B-14: CG takes the steps of `jax.scipy.sparse.linalg.cg`, and with multigrid a tenth of them."""
    shape = (64, 64)
    operator, b = operator_of(dirichlet, shape), rhs(shape)
    plain, multigrid = (cg(operator, b, m) for m in (None, GeometricMultigrid()))
    steps = int(plain.stats["num_steps"])
    apply = jax.jit(lambda n: jax.scipy.sparse.linalg.cg(dirichlet, b, tol=0.0, maxiter=n)[0])
    left = [float(jnp.linalg.norm(b - dirichlet(apply(steps + k)))) for k in (-2, 0)]
    assert left[1] <= 1.01e-8 * float(jnp.linalg.norm(b)) < left[0]
    assert int(multigrid.stats["num_steps"]) <= steps / 10


def test_jumping_coefficients():
    """Blocks of 10⁴ in 1: interpolation follows the coefficients."""
    blocks = np.random.default_rng(0).random((8, 8)) < 0.3
    c = jnp.asarray(np.where(np.kron(blocks, np.ones((8, 8), bool)), 1e4, 1.0))
    found = cg(operator_of(diffusion(c), (64, 64)), rhs((64, 64)), GeometricMultigrid())
    assert int(found.stats["num_steps"]) <= 20


@pytest.mark.parametrize(
    "settings",
    [
        {"cycle": "W", "degree": 3},
        {"smoother": "l1_jacobi"},
        slow({"cycle": "W"}),
        slow({"degree": 3}),
    ],
    ids=str,
)
def test_settings(settings):
    operator = operator_of(dirichlet, (40, 40))
    found = cg(operator, rhs((40, 40)), GeometricMultigrid(max_coarse=30, **settings))
    assert int(found.stats["num_steps"]) <= 12


SMALL = [
    (dirichlet, (9,)),
    (dirichlet, (8, 7)),
    (periodic, (6, 8)),
    (convection, (7, 8)),
    (dirichlet, (4, 5, 3)),
    (periodic, (2, 6)),
    (dirichlet, (1, 7)),
]


FEW = [SMALL[0], SMALL[3], SMALL[5]]


@pytest.mark.parametrize(
    ("fn", "shape"), [case if case in FEW else slow(*case) for case in SMALL], ids=label
)
def test_stencils_and_cycles_are_what_they_stand_for(fn, shape):
    """The stencil is the operator, and its transpose Aᵀ; so with interpolation and with the cycle."""
    operator = operator_of(fn, shape, ())

    @jax.jit
    def matrices():
        found = StencilOperator(find_stencil(operator.mv, shape, jnp.dtype(float)))
        p = Interpolation(interpolation_weights(found.stencil), shape)
        m = GeometricMultigrid(max_coarse=3).init(operator)
        return [(a.as_matrix(), a.T.as_matrix()) for a in (found, p, m)]

    (a, _), (p, _), (m, _) = pairs = matrices()
    np.testing.assert_allclose(a, operator.as_matrix(), atol=1e-14)
    assert p.shape[1] == np.prod(coarse_shape(shape))
    for one, turned in pairs:
        np.testing.assert_allclose(turned, one.T, atol=1e-13)
    if fn is dirichlet:
        np.testing.assert_allclose(m, m.T, atol=1e-13)
        assert np.linalg.eigvalsh(np.asarray(m)).min() > 0
        assert np.linalg.cond(np.asarray(a @ m)) < 3


@pytest.mark.slow
@pytest.mark.parametrize(("fn", "shape"), SMALL, ids=label)
def test_laws(fn, shape):
    operator = operator_of(fn, shape, ())
    check_operator(StencilOperator(find_stencil(operator.mv, shape, jnp.dtype(float))))
    check_operator(GeometricMultigrid(max_coarse=3).init(operator))


def test_a_grid_that_is_small_enough_is_solved_at_once():
    operator = operator_of(dirichlet, (6, 5))
    found = cg(operator, rhs((6, 5)), GeometricMultigrid())
    assert found.value.shape == (6, 5)
    assert int(found.stats["num_steps"]) == 1


def test_interpolation_keeps_constants_where_the_operator_does():
    operator = operator_of(periodic, (8, 6))
    p = Interpolation(
        interpolation_weights(find_stencil(operator.mv, (8, 6), jnp.dtype(float))), (8, 6)
    )
    np.testing.assert_allclose(p.mv(jnp.ones((4, 3))), jnp.ones((8, 6)), atol=1e-14)


def test_raveled_vectors_and_sparse_matrices():
    import scipy.sparse as sp

    line = sp.diags_array([-np.ones(23), 2 * np.ones(24), -np.ones(23)], offsets=[-1, 0, 1])
    matrix = sp.csr_matrix(sp.kron(line, sp.eye_array(24)) + sp.kron(sp.eye_array(24), line))
    operator = lp.SparseLinearOperator.from_scipy(matrix, lp.positive_semidefinite_tag)
    own = GeometricMultigrid(grid=(24, 24), max_coarse=40)
    found = cg(operator, rhs(576), own)
    assert int(found.stats["num_steps"]) <= 9
    m = own.init(operator)
    np.testing.assert_allclose(m.T.mv(rhs(576)), m.mv(rhs(576)), atol=1e-12)


def test_unsymmetric_operators_and_their_adjoints_B_02():
    operator = operator_of(convection, (32, 32), ())
    solver = lp.GMRES(1e-9, 0.0, preconditioner=GeometricMultigrid(max_coarse=40))
    with lp.SolveTape() as tape:
        gradient = jax.grad(lambda b: jnp.sum(jnp.sin(lp.linear_solve(operator, b, solver).value)))
        got = gradient(rhs((32, 32)))
    forward, adjoint = (int(entry.stats["num_steps"]) for entry in tape)
    assert forward <= 10
    assert adjoint <= 1.5 * forward
    dense = operator.as_matrix()
    x = jnp.linalg.solve(dense, rhs((32, 32)).ravel())
    np.testing.assert_allclose(
        got.ravel(), jnp.linalg.solve(dense.T, jnp.cos(x)), rtol=1e-5, atol=1e-7
    )


def test_gradients_and_batches_of_coefficients():
    """The preconditioner is made from what is differentiated, under `jit` and `vmap`."""
    c = jnp.exp(rhs((2, 12, 12)))
    b = rhs((12, 12), 1)
    own = GeometricMultigrid(max_coarse=20)

    def loss(c):
        operator = operator_of(diffusion(c), (12, 12))
        return jnp.sum(
            jnp.sin(lp.linear_solve(operator, b, lp.CG(1e-12, preconditioner=own)).value)
        )

    def dense(c):
        matrix = operator_of(diffusion(c), (12, 12)).as_matrix()
        return jnp.sum(jnp.sin(jnp.linalg.solve(matrix, b.ravel())))

    got = jax.jit(jax.vmap(jax.grad(loss)))(c)
    np.testing.assert_allclose(got, jax.vmap(jax.grad(dense))(c), rtol=1e-6, atol=1e-9)


def test_bad_input_is_refused_by_name():
    wide = lambda x: 4 * x - jnp.roll(x, 2, 0) - jnp.roll(x, -2, 0)
    with pytest.raises(ValueError, match=r"operator: must couple a point with its neighbours only"):
        GeometricMultigrid().init(operator_of(wide, (12, 12)))
    with pytest.raises(ValueError, match=r"grid: must have as many points.* 144; got \(5, 5\)"):
        GeometricMultigrid(grid=(5, 5)).init(operator_of(dirichlet, (12, 12)))
    with pytest.raises(ValueError, match=r"cycle: must be one of V, W; got 'F'"):
        GeometricMultigrid(cycle="F")
    pair = lp.FunctionLinearOperator(lambda x: x, (jnp.zeros(3), jnp.zeros(3)))
    with pytest.raises(ValueError, match=r"operator: must map arrays on a grid to such"):
        GeometricMultigrid().init(pair)


# ---- Pressure projection (S4-25) -----------------------------------------------------------------


def divergence(u, v):
    return u - jnp.roll(u, 1, 0) + v - jnp.roll(v, 1, 1)


def project(u, v, open_u, open_v, preconditioner):
    """The divergence-free part of a staggered velocity; no flow through closed faces."""
    u, v = u * open_u, v * open_v
    gradient = lambda p: (
        open_u * (jnp.roll(p, -1, 0) - p),
        open_v * (jnp.roll(p, -1, 1) - p),
    )
    cells = open_u + jnp.roll(open_u, 1, 0) + open_v + jnp.roll(open_v, 1, 1)
    solid = (cells == 0).astype(u.dtype)
    laplace = lambda p: -divergence(*gradient(p)) + solid * p
    operator = operator_of(laplace, u.shape)
    fluid = (1 - solid) / jnp.linalg.norm(1 - solid)
    solver = lp.CG(1e-10, 0.0, preconditioner=preconditioner, nullspace=fluid)
    solution = lp.linear_solve(operator, -divergence(u, v), solver)
    du, dv = gradient(solution.value)
    return u - du, v - dv, solution.stats


@pytest.mark.parametrize("obstacle", [False, True], ids=["periodic", "obstacle"])
def test_pressure_projection_S4_25(obstacle):
    """Divergence ≤ 1e-5, and the gradient by the velocity is that of finite differences."""
    size = 32
    open_u, open_v = jnp.ones((size, size)), jnp.ones((size, size))
    if obstacle:
        block = jnp.zeros((size, size)).at[10:18, 12:20].set(1)
        open_u = 1 - jnp.maximum(block, jnp.roll(block, -1, 0))
        open_v = 1 - jnp.maximum(block, jnp.roll(block, -1, 1))
    u, v = rhs((size, size)), rhs((size, size), 1)
    flow = jax.jit(lambda u, v: project(u, v, open_u, open_v, GeometricMultigrid()))
    pu, pv, stats = flow(u, v)
    assert float(jnp.abs(divergence(pu, pv)).max()) <= 1e-5
    assert int(stats["num_steps"]) <= 20
    if obstacle:
        assert float(jnp.abs(pu * (1 - open_u)).max()) == 0

    loss = lambda u: jnp.sum(flow(u, v)[0] ** 2 * jnp.arange(size, dtype=float))
    du = rhs((size, size), 2)
    slope = float(jnp.sum(jax.grad(loss)(u) * du))
    h = 1e-4
    want = float(loss(u + h * du) - loss(u - h * du)) / (2 * h)
    assert slope == pytest.approx(want, rel=1e-6)
