"""Quadratic programmes, deep equilibria, neural ODEs and memory (rows S1-10, S1-15, S1-17, S1-18, S1-19)."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from conftest import X64
from jax.test_util import check_grads

import linsolve_prim as lp
from linsolve_prim.learn import SaddlePointOperator, equality_qp

needs64 = pytest.mark.skipif(not X64, reason="compares to many digits")
DTYPE = jnp.float64 if X64 else jnp.float32
N, M = 8, 3
RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(N, N))
P = jnp.asarray(FACTOR @ FACTOR.T / N + np.eye(N), DTYPE)
Q = jnp.asarray(RNG.normal(size=N), DTYPE)
A = jnp.asarray(RNG.normal(size=(M, N)), DTYPE)
B = jnp.asarray(RNG.normal(size=M), DTYPE)


# ---- equality-constrained quadratic programmes ----------------------------------------------------


@needs64
def test_qp_is_scipys_minimum_and_satisfies_the_conditions_S1_17():
    x, y, solution = equality_qp(P, Q, A, B)
    np.testing.assert_allclose(A @ x, B, atol=1e-12)
    np.testing.assert_allclose(P @ x + Q + A.T @ y, 0, atol=1e-12)
    reference = scipy.optimize.minimize(
        lambda x: 0.5 * x @ np.asarray(P) @ x + np.asarray(Q) @ x,
        np.zeros(N),
        constraints={"type": "eq", "fun": lambda x: np.asarray(A) @ x - np.asarray(B)},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(x, reference.x, atol=1e-5)
    assert float(solution.stats["relative_residual"]) < 1e-12


def _qp_loss(P, q, A, b):
    x, y, _ = equality_qp((P + P.T) / 2, q, A, b)
    return jnp.sum(jnp.sin(x)) + jnp.sum(y**2)


@needs64
def test_qp_gradients_against_finite_differences_S1_17():
    """Reverse and forward, along a direction in all four arguments."""
    args = P, Q, A, B
    random = np.random.default_rng(1)
    d = tuple(jnp.asarray(random.normal(size=x.shape)) for x in args)
    h = 1e-6
    moved = jax.jit(lambda t: _qp_loss(*(x + t * y for x, y in zip(args, d))))
    gradient = jax.jit(jax.grad(_qp_loss, argnums=(0, 1, 2, 3)))(*args)
    got = sum(jnp.vdot(g, y) for g, y in zip(gradient, d))
    np.testing.assert_allclose(got, (moved(h) - moved(-h)) / (2 * h), rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(moved, (0.0,), (1.0,))[1], got, rtol=1e-9)


@needs64
@pytest.mark.slow
def test_qp_derivatives_to_second_order_S1_17():
    check_grads(
        jax.jit(_qp_loss), (P, Q, A, B), order=2, modes=("fwd", "rev"), rtol=1e-3, atol=1e-3
    )


@needs64
@pytest.mark.parametrize(
    "solver",
    [
        lp.MINRES(rtol=1e-12),
        lp.LU(),
        pytest.param(lp.GMRES(restart=N + M), marks=pytest.mark.slow),
        pytest.param(lp.QR(), marks=pytest.mark.slow),
    ],
)
def test_qp_by_any_solver_matrix_free_and_batched(solver):
    want = equality_qp(P, Q, A, B).x
    operator = lp.FunctionLinearOperator(lambda x: P @ x, Q, lp.symmetric_tag)
    np.testing.assert_allclose(equality_qp(operator, Q, A, B, solver).x, want, atol=1e-7)
    batch = jax.jit(jax.vmap(lambda q: equality_qp(operator, q, A, B, solver).x))
    np.testing.assert_allclose(batch(jnp.stack([Q, 2 * Q]))[0], want, atol=1e-7)


@needs64
def test_the_saddle_point_operator_is_an_operator():
    tagged = lp.MatrixLinearOperator(P, lp.symmetric_tag)
    constraint = lp.MatrixLinearOperator(A)
    for operator in (
        SaddlePointOperator(tagged, constraint),
        SaddlePointOperator(lp.MatrixLinearOperator(jnp.asarray(FACTOR)), constraint),
        SaddlePointOperator(tagged, constraint, lp.MatrixLinearOperator(jnp.eye(M))),
    ):
        lp.testing.check_operator(operator)
    assert lp.is_symmetric(SaddlePointOperator(tagged, constraint))
    full = SaddlePointOperator(tagged, constraint).as_matrix()
    want = np.block([[np.asarray(P), np.asarray(A).T], [np.asarray(A), np.zeros((M, M))]])
    np.testing.assert_allclose(full, want)


@needs64
def test_only_the_symmetric_part_of_p_counts_S1_17():
    """For dense, sparse and matrix-free P that are not tagged; and by MINRES, which needs symmetry."""
    skew = FACTOR - FACTOR.T
    want = equality_qp(P, Q, A, B).x
    matrix = P + jnp.asarray(skew)
    for given in (matrix, scipy.sparse.csr_matrix(np.asarray(matrix)), lambda x: matrix @ x):
        np.testing.assert_allclose(equality_qp(given, Q, A, B).x, want, atol=1e-10)
    by_products = equality_qp(lambda x: matrix @ x, Q, A, B, lp.MINRES(rtol=1e-12))
    np.testing.assert_allclose(by_products.x, want, atol=1e-9)


def test_wrong_programmes_are_refused():
    with pytest.raises(lp.StructureError, match=r"q: must be real, as the function.*complex64"):
        equality_qp(P, Q.astype(jnp.complex64), A, B)
    with pytest.raises(lp.StructureError, match="b: must have the structure"):
        equality_qp(P, Q, A, B[:2])
    with pytest.raises(lp.StructureError, match="P, A: P must map"):
        equality_qp(P, Q, A[:, :4], B)
    with pytest.raises(lp.SingularMatrixError):
        equality_qp(P, Q, jnp.stack([A[0], A[0]]), B[:2])


# ---- deep equilibria ------------------------------------------------------------------------------


@needs64
def test_deep_equilibrium_backward_is_one_linear_solve_S1_17():
    """Against the gradient through 300 unrolled iterations, in all parameters."""
    size = 12
    params = {
        "W": jnp.asarray(RNG.normal(size=(size, size)) * 0.5 / np.sqrt(size)),
        "U": jnp.asarray(RNG.normal(size=(size, 4))),
        "c": jnp.asarray(RNG.normal(size=size)),
    }
    inputs = jnp.asarray(RNG.normal(size=(5, 4)))
    layer = lambda z, params, u: jnp.tanh(params["W"] @ z + params["U"] @ u + params["c"])
    z0 = jnp.zeros(size)

    def equilibrium(params, u):
        return lp.fixed_point(layer, z0, args=(params, u), adjoint=lp.GMRES(rtol=1e-12)).value

    def unrolled(params, u):
        return jax.lax.scan(lambda z, _: (layer(z, params, u), None), z0, length=300)[0]

    loss = lambda f: lambda params: jnp.sum(jax.vmap(lambda u: f(params, u))(inputs) ** 2)
    got, want = (jax.jit(jax.grad(loss(f)))(params) for f in (equilibrium, unrolled))
    for key in params:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-6, atol=1e-7)
    with lp.SolveTape() as tape:
        jax.grad(lambda p: jnp.sum(equilibrium(p, inputs[0])))(params)
    assert [entry.kind for entry in tape] == ["forward", "adjoint"]


# ---- solves in a trajectory -----------------------------------------------------------------------


def _right_hand_side(x, weights):
    """A(x) = symmetrised, shifted network; x′ = A⁻¹ tanh(x)."""
    matrix = jnp.tanh(weights @ x).reshape(4, 4)
    matrix = (matrix + matrix.T) / 2
    matrix = matrix + (jnp.linalg.norm(matrix) + 1) * jnp.eye(4)
    operator = lp.MatrixLinearOperator(matrix, lp.positive_semidefinite_tag)
    return lp.linear_solve(operator, jnp.tanh(x) - x, lp.Cholesky(), throw=False).value


@needs64
def test_gradient_through_a_hundred_runge_kutta_steps_S1_18():
    weights = jnp.asarray(RNG.normal(size=(16, 4)))
    x0, h = jnp.asarray(RNG.normal(size=4)), 0.05

    def step(x, weights):
        f = lambda x: _right_hand_side(x, weights)
        k1 = f(x)
        k2 = f(x + h / 2 * k1)
        k3 = f(x + h / 2 * k2)
        k4 = f(x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def loss(weights):
        x = jax.lax.scan(lambda x, _: (step(x, weights), None), x0, length=100)[0]
        return jnp.sum(jnp.sin(x))

    direction = jnp.asarray(RNG.normal(size=weights.shape))
    got = jnp.vdot(jax.jit(jax.grad(loss))(weights), direction)
    along, t = jax.jit(lambda t: loss(weights + t * direction)), 1e-5
    np.testing.assert_allclose(got, (along(t) - along(-t)) / (2 * t), rtol=1e-5)


@needs64
@pytest.mark.slow
def test_gradient_through_diffrax_S1_18():
    diffrax = pytest.importorskip("diffrax")
    weights = jnp.asarray(RNG.normal(size=(16, 4)))
    x0 = jnp.asarray(RNG.normal(size=4))

    def loss(weights):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, w: _right_hand_side(x, w)),
            diffrax.Tsit5(), 0.0, 1.0, 0.1, x0, args=weights, max_steps=64,
        )  # fmt: skip
        return jnp.sum(jnp.sin(solution.ys))

    direction = jnp.asarray(RNG.normal(size=weights.shape))
    got = jnp.vdot(jax.jit(jax.grad(loss))(weights), direction)
    along, t = jax.jit(lambda t: loss(weights + t * direction)), 1e-5
    np.testing.assert_allclose(got, (along(t) - along(-t)) / (2 * t), rtol=1e-5)


# ---- memory ---------------------------------------------------------------------------------------


def test_implicit_differentiation_takes_a_fiftieth_of_the_memory_of_unrolling_S1_19():
    """100 steps of CG on Poisson's equation, 128 × 128: temporary memory of the two gradients."""
    side, steps = 128, 100

    def poisson(u, scale):
        p = jnp.pad(u, 1)
        return scale * (4 * u - p[:-2, 1:-1] - p[2:, 1:-1] - p[1:-1, :-2] - p[1:-1, 2:])

    b = jnp.ones((side, side), DTYPE)
    cg = lp.CG(rtol=0.0, atol=0.0, max_steps=steps)

    def temporary(adjoint):
        def loss(b, scale):
            operator = lp.FunctionLinearOperator(
                lambda u: poisson(u, scale), b, lp.positive_semidefinite_tag
            )
            x = lp.linear_solve(operator, b, cg, adjoint=adjoint, throw=False).value
            return jnp.sum(x**2)

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
        compiled = gradient.lower(b, jnp.ones((), DTYPE)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    implicit, unrolled = temporary(None), temporary(lp.UnrolledAdjoint(steps))
    assert unrolled > 50 * implicit, (unrolled, implicit)
    checkpointed = temporary(lp.UnrolledAdjoint(steps, checkpoint=True))
    assert checkpointed < unrolled


# ---- examples -------------------------------------------------------------------------------------


def run_example(name, **settings):
    """What an example's `main` returns. (Optax relies on JAX's standard promotion of dtypes.)"""
    pytest.importorskip("optax")
    folder = Path(__file__).parent.parent / "docs" / "examples"
    if not folder.exists():
        pytest.skip("examples are not part of an installed package")
    sys.path.insert(0, str(folder))
    try:
        with jax.numpy_dtype_promotion("standard"):
            return __import__(name).main(**settings)
    finally:
        sys.path.remove(str(folder))


@pytest.mark.slow
def test_learned_coefficients_beat_cg_on_unseen_problems_S1_10():
    found = run_example("learned_cg")
    assert found["trained"] < 0.6 * found["CG(5)"]
    np.testing.assert_allclose(found["untrained"], found["CG(5)"], rtol=1e-3)


@pytest.mark.slow
def test_learned_directions_beat_steepest_descent_on_unseen_matrices_S1_15():
    """log10 of the residual after 20 steps, the network having been trained on 5."""
    found = run_example("learned_directions")
    assert found["trained"] < found["untrained"] - 0.1
    assert found["trained"] < found["steepest descent"] - 0.4
