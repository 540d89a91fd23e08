"""Solvers and preconditioners that are learned (rows S1-10, S1-12…16, S1-26), and their parts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from conftest import X64
from jax.test_util import check_grads
from learn_systems import FACTOR, GENERAL, SPD, B, N

import linsolve_prim as lp
from linsolve_prim.learn import (
    DirectionSolver,
    LearnedPreconditioner,
    MessagePassing,
    UnrolledCG,
    condition_number_loss,
    residual_loss,
)
from linsolve_prim.results import REASONS, RESULTS, member_name

pytestmark = pytest.mark.skipif(not X64, reason="compares to many digits")
RNG = np.random.default_rng(0)
DIAGONAL = lp.DiagonalLinearOperator(jnp.ones(N))
OPERATOR = lp.MatrixLinearOperator(SPD, lp.positive_semidefinite_tag)


def directional(f, tree, seed=1, h=1e-6):
    """The derivative of f along a random direction, and its central difference."""
    leaves, treedef = jax.tree.flatten(tree)
    random = np.random.default_rng(seed)
    directions = [jnp.asarray(random.normal(size=x.shape)) for x in leaves]
    moved = lambda t: f(treedef.unflatten([x + t * d for x, d in zip(leaves, directions)]))
    gradient = jax.tree.leaves(jax.grad(f)(tree))
    return sum(jnp.vdot(g, d) for g, d in zip(gradient, directions)), (moved(h) - moved(-h)) / (
        2 * h
    )


# ---- UnrolledCG -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioner", [None, "jacobi"], ids=["plain", "pcg"])
def test_ones_and_zeros_are_cg_S1_10(preconditioner):
    for steps in (1, 5):
        cg = lp.CG(rtol=0.0, atol=0.0, max_steps=steps, preconditioner=preconditioner)
        want = lp.linear_solve(OPERATOR, B, cg).value
        got = lp.linear_solve(OPERATOR, B, UnrolledCG.of_cg(steps, preconditioner))
        np.testing.assert_allclose(got.value, want, rtol=1e-10, atol=1e-12)
        assert int(got.stats["num_steps"]) == steps
        assert got.result == RESULTS.successful
        assert member_name(got.stats["reason"], REASONS) == "steps"


def test_cgs_own_coefficients_are_cg_without_inner_products_S1_10():
    """α and β as CG takes them, given as numbers."""
    x, r, alphas, betas = np.zeros(N), np.asarray(B), [], []
    p, a = r, np.asarray(SPD)
    for _ in range(6):
        alphas.append(r @ r / (p @ a @ p))
        x, new = x + alphas[-1] * p, r - alphas[-1] * (a @ p)
        betas.append(new @ new / (r @ r))
        p, r = new + betas[-1] * p, new
    solver = UnrolledCG(np.array(alphas), np.array(betas), relative=False)
    np.testing.assert_allclose(lp.solve(OPERATOR, B, solver), x, rtol=1e-11, atol=1e-12)
    jaxpr = str(jax.make_jaxpr(lambda b: lp.solve(OPERATOR, b, solver, throw=False))(B))
    body = jaxpr[jaxpr.index("scan") :]
    assert body.count("dot_general") <= 4  # A p, and the norms of the report


def test_derivatives_by_coefficients_matrix_and_preconditioner():
    given = LearnedPreconditioner(jnp.zeros(N), 0.1 * jnp.asarray(FACTOR[:, :2]))
    solver = UnrolledCG(jnp.linspace(0.8, 1.2, 4), jnp.linspace(-0.1, 0.1, 4), given)

    def loss(tree):
        solver, matrix, b = tree
        operator = lp.MatrixLinearOperator(matrix, lp.positive_semidefinite_tag)
        return residual_loss(SPD, B, lp.solve(operator, b, solver))

    got, want = directional(loss, (solver, SPD, B))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    compiled = jax.jit(jax.grad(loss))((solver, SPD, B))
    eager = jax.grad(loss)((solver, SPD, B))
    for x, y in zip(jax.tree.leaves(compiled), jax.tree.leaves(eager)):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-12)
    assert float(jnp.abs(eager[0].preconditioner.U).max()) > 0
    by_steps = lambda a: loss((UnrolledCG(a, solver.betas), SPD, B))
    second = jax.jit(jax.hessian(by_steps))(solver.alphas)
    assert bool(jnp.all(jnp.isfinite(second)))


@pytest.mark.parametrize("given", ["jacobi", "amg", lp.preconditioners.Chebyshev()], ids=str)
def test_settings_of_a_preconditioner_are_no_parameters(given):
    """Only numbers to learn are leaves, so that `jax.grad` and optax take the solver as it is."""
    band = scipy.sparse.diags([-1.0, 3.0, -1.0], [-1, 0, 1], (N, N)).tocsr()
    operator = lp.SparseLinearOperator.from_scipy(band, lp.positive_semidefinite_tag)
    solver = UnrolledCG(jnp.full(3, 0.9), jnp.full(3, 0.1), given)
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(solver))
    cg = lp.CG(rtol=0.0, atol=0.0, max_steps=3, preconditioner=given)
    own = lp.solve(operator, B, UnrolledCG.of_cg(3, given))
    np.testing.assert_allclose(own, lp.linear_solve(operator, B, cg).value, rtol=1e-9)
    loss = lambda s: residual_loss(operator, B, lp.solve(operator, B, s))
    moved = lambda t: loss(UnrolledCG(solver.alphas + t, solver.betas, given))
    finite = (moved(1e-6) - moved(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(solver).alphas.sum(), finite, rtol=1e-5)


def test_any_step_length_below_two_lets_the_energy_of_the_error_fall():
    exact = jnp.linalg.solve(SPD, B)
    energy = lambda x: float((x - exact) @ SPD @ (x - exact))
    for seed in range(5):
        random = np.random.default_rng(seed)
        alphas, betas = random.uniform(0.05, 1.95, 4), random.normal(size=4)
        steps = [lp.solve(OPERATOR, B, UnrolledCG(alphas[:k], betas[:k])) for k in range(1, 5)]
        energies = [energy(0 * B), *map(energy, steps)]
        assert all(new <= old for old, new in itertools.pairwise(energies))


def test_zero_and_batched_right_hand_sides_and_an_exact_guess():
    solver = UnrolledCG.of_cg(4)
    f = lambda b: jnp.sum(lp.solve(OPERATOR, b, solver) ** 2)
    batch = jnp.stack([B, 0 * B])
    gradient = jax.vmap(jax.grad(f))(batch)
    np.testing.assert_allclose(gradient[0], jax.grad(f)(B), rtol=1e-9)
    assert bool(jnp.all(gradient[1] == 0))
    exact = jnp.linalg.solve(SPD, B)
    np.testing.assert_allclose(lp.solve(OPERATOR, B, solver, x0=exact), exact, rtol=1e-12)


def test_learned_solvers_tell_what_went_wrong_and_are_on_the_tape():
    with lp.SolveTape() as tape:
        jax.grad(lambda b: jnp.sum(lp.solve(OPERATOR, b, UnrolledCG.of_cg(3), name="five")))(B)
    assert [entry.kind for entry in tape] == ["forward"]
    assert float(tape["five"].stats["relative_residual"]) > 0
    with pytest.raises(lp.NonFiniteInputError):
        lp.solve(OPERATOR, B.at[0].set(np.nan), UnrolledCG.of_cg(3))
    with pytest.raises(lp.Diverged):
        lp.solve(OPERATOR, B, UnrolledCG(jnp.full(3, 1e200), jnp.zeros(3)))
    with pytest.raises(ValueError, match="needs a positive or negative definite operator"):
        lp.solve(SPD, B, UnrolledCG.of_cg(3))
    with pytest.raises(lp.StructureError, match="two vectors of one length"):
        UnrolledCG(jnp.ones(3), jnp.ones(2))
    general = LearnedPreconditioner(jnp.zeros(N), FACTOR[:, :2], FACTOR[:, 2:4])
    for settings in ({}, {"preconditioner": general}):
        solver = UnrolledCG.of_cg(3, None if settings else general)
        with pytest.raises(ValueError, match="`UnrolledCG` needs one that is symmetric positive"):
            lp.solve(OPERATOR, B, solver, **settings)
    with pytest.raises(lp.StructureError, match="preconditioner: approximates A⁻¹, so it must map"):
        lp.solve(OPERATOR, B, UnrolledCG.of_cg(3, lp.DiagonalLinearOperator(jnp.ones(3))))


# ---- LearnedPreconditioner ------------------------------------------------------------------------


@pytest.mark.parametrize(("symmetric", "follows"), [(True, True), (False, False)])
def test_it_is_the_inverse_by_woodbury_S1_12_S1_13(symmetric, follows):
    U, V = jnp.asarray(FACTOR[:, :3]), None if symmetric else jnp.asarray(FACTOR[:, 3:6])
    log_d = jnp.asarray(RNG.normal(size=N) / 3)
    m = LearnedPreconditioner(log_d, U, V, follows_diagonal=follows)
    d = jnp.exp(log_d) * (jnp.diag(SPD) if follows else 1)
    dense = jnp.diag(d) + U @ (U if symmetric else V).T
    made = m.init(OPERATOR)
    np.testing.assert_allclose(made.mv(B), np.linalg.solve(dense, B), rtol=1e-10)
    np.testing.assert_allclose(m.approximation(OPERATOR).logdet(), np.linalg.slogdet(dense)[1])
    jaxpr = str(jax.make_jaxpr(lambda m, b: m.init(DIAGONAL).mv(b))(m, B))
    assert "f64[3,3]" in jaxpr
    large = [line for line in jaxpr.splitlines() if f":f64[{N},{N}] = " in line]
    assert not large  # nothing of size n² is made, and so nothing of that size is factorized
    f = lambda m: jnp.sum(jnp.sin(m.init(OPERATOR).mv(B)))
    got, want = directional(f, m)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_cg_takes_the_symmetric_form_only_S1_14():
    U, V = jnp.asarray(FACTOR[:, :3]), jnp.asarray(FACTOR[:, 3:6])
    good = LearnedPreconditioner(jnp.zeros(N), U)
    exact = np.linalg.solve(SPD, B)
    for solver in (lp.CG(preconditioner=good), lp.GMRES(preconditioner=good)):
        np.testing.assert_allclose(lp.solve(OPERATOR, B, solver), exact, rtol=1e-7)
    general = LearnedPreconditioner(jnp.zeros(N), U, V / 5)
    np.testing.assert_allclose(
        lp.solve(GENERAL, B, lp.GMRES(restart=N), preconditioner=general),
        np.linalg.solve(GENERAL, B),
        rtol=1e-7,
    )
    with pytest.raises(ValueError, match="symmetric positive definite"):
        lp.solve(OPERATOR, B, lp.CG(), preconditioner=general)


def test_a_converged_solution_does_not_depend_on_it_S1_25():
    m = LearnedPreconditioner(jnp.zeros(N), 0.3 * jnp.asarray(FACTOR[:, :2]))
    f = lambda m, adjoint=None: jnp.sum(
        lp.linear_solve(OPERATOR, B, lp.CG(), options={"preconditioner": m}, adjoint=adjoint).value
    )
    implicit = jax.tree.leaves(jax.grad(f)(m))
    assert all(bool(jnp.all(g == 0)) for g in implicit)
    got, want = directional(lambda m: f(m, lp.UnrolledAdjoint(3)), m)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert abs(want) > 1e-4


def test_wrong_shapes_are_refused():
    with pytest.raises(lp.StructureError, match="U: must have shape"):
        LearnedPreconditioner(jnp.zeros(3), jnp.zeros((4, 2)))
    with pytest.raises(lp.StructureError, match="V: must have the shape of U"):
        LearnedPreconditioner(jnp.zeros(3), jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    small = LearnedPreconditioner(jnp.zeros(3), jnp.zeros((3, 1)))
    with pytest.raises(lp.StructureError, match="is for 3 unknowns"):
        lp.solve(OPERATOR, B, lp.GMRES(), preconditioner=small)
    unreal = LearnedPreconditioner(jnp.zeros(N), 1j * FACTOR[:, :2])
    with pytest.raises(lp.StructureError, match="U, V: must be real for a real operator"):
        lp.solve(OPERATOR, B, lp.GMRES(), preconditioner=unreal)
    negative = lp.MatrixLinearOperator(-SPD, lp.negative_semidefinite_tag)
    with pytest.raises(ValueError, match="symmetric positive definite"):
        lp.solve(negative, B, lp.CG(), preconditioner=LearnedPreconditioner(jnp.zeros(N), FACTOR))


# ---- losses ---------------------------------------------------------------------------------------


def test_condition_number_against_lapack_S1_26():
    m = jnp.linalg.inv(jnp.diag(jnp.diag(GENERAL)))
    np.testing.assert_allclose(condition_number_loss(GENERAL), np.log(np.linalg.cond(GENERAL)))
    want = np.log(np.linalg.cond(np.asarray(m @ GENERAL)))
    np.testing.assert_allclose(condition_number_loss(GENERAL, m), want)
    operator = lp.MatrixLinearOperator(m)
    np.testing.assert_allclose(condition_number_loss(GENERAL, operator), want)
    np.testing.assert_allclose(condition_number_loss(OPERATOR, lp.preconditioners.Jacobi()),
        np.log(np.linalg.cond(np.asarray(SPD) / np.diag(SPD)[:, None])))  # fmt: skip
    check_grads(condition_number_loss, (GENERAL,), order=1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["negative", "complex", "indefinite"])
def test_condition_number_is_finite_whatever_the_eigenvalues_S1_26(kind):
    rotation = np.kron(np.eye(N // 2), [[0.1, -1], [1, 0.1]])
    matrix = {
        "negative": -SPD,
        "complex": jnp.asarray(rotation + 0.05 * FACTOR),
        "indefinite": SPD - 2 * jnp.eye(N),
    }[kind]
    eigenvalues = np.linalg.eigvals(np.asarray(matrix))
    assert (eigenvalues.real < 0).any() or (np.abs(eigenvalues.imag) > 0.5).any()
    value, gradient = jax.value_and_grad(condition_number_loss)(matrix)
    np.testing.assert_allclose(value, np.log(np.linalg.cond(np.asarray(matrix))))
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_condition_number_of_large_operators_is_by_products():
    """Bidiagonalisation: exact when the spectrum has few points, else a lower bound."""
    d = np.concatenate([np.full(400, 1.0), np.full(300, 3.0), [50.0]])
    operator = lp.DiagonalLinearOperator(jnp.asarray(d))
    free = lp.FunctionLinearOperator(lambda x: jnp.asarray(d) * x, operator.in_structure())
    np.testing.assert_allclose(condition_number_loss(free, steps=4), np.log(50), rtol=1e-6)
    spread = jnp.linspace(1.0, 1000.0, 700)
    wide = lp.DiagonalLinearOperator(spread)
    estimate = float(condition_number_loss(wide, steps=30))
    assert np.log(1000) / 2 < estimate <= np.log(1000) * (1 + 1e-12)


def test_condition_number_of_other_kinds_S1_26():
    """Complex, rectangular, by name; and Krylov spaces that end at once are led on from elsewhere."""
    unreal = FACTOR + 1j * FACTOR[::-1]
    np.testing.assert_allclose(condition_number_loss(unreal), np.log(np.linalg.cond(unreal)))
    tall = FACTOR[:, :5]
    np.testing.assert_allclose(condition_number_loss(tall), np.log(np.linalg.cond(tall)))
    by_object = condition_number_loss(OPERATOR, lp.preconditioners.Jacobi())
    assert condition_number_loss(OPERATOR, "jacobi") == by_object
    spread = lp.DiagonalLinearOperator(jnp.linspace(1.0, 9.0, 700))
    one = condition_number_loss(spread, lp.preconditioners.Jacobi(), steps=10)
    np.testing.assert_allclose(one, 0, atol=1e-14)
    identity = lp.IdentityLinearOperator(spread.in_structure())
    value, gradient = jax.value_and_grad(lambda s: condition_number_loss(s * identity, steps=5))(
        2.0
    )
    np.testing.assert_allclose([value, gradient], 0, atol=1e-14)
    with pytest.raises(TypeError, match=r"A: must be an operator or a matrix.*got a function"):
        condition_number_loss(lambda x: x)
    with pytest.raises(ValueError, match="steps: must be an integer from 1"):
        condition_number_loss(spread, steps=0)


def test_residual_loss():
    x = jnp.ones(N)
    want = np.sum(np.asarray(B - SPD @ x) ** 2) / np.sum(np.asarray(B) ** 2)
    for A in (SPD, OPERATOR, lambda x: SPD @ x, scipy.sparse.csr_matrix(np.asarray(SPD))):
        np.testing.assert_allclose(residual_loss(A, B, x), want)
    assert float(residual_loss(SPD, 0 * B, x)) > 0
    tree = {"u": jnp.ones(2), "v": 1.0}
    assert residual_loss(lambda t: jax.tree.map(lambda a: 3 * a, t), tree, tree) == 4
    with pytest.raises(lp.StructureError, match=r"b: must have the structure of Ax, float64\[20\]"):
        residual_loss(SPD, B[:3], x)


# ---- graphs and directions ------------------------------------------------------------------------

SPARSE = scipy.sparse.random(N, N, 0.2, random_state=1) + scipy.sparse.diags(np.full(N, 4.0))
SPARSE = (SPARSE + SPARSE.T).tocsr()


@pytest.mark.parametrize("kind", ["sparse", "dense", "tagged", "traced"])
def test_graph_is_the_pattern_S1_16(kind):
    """S1-16: senders, receivers and values of the entries."""
    dense = jnp.asarray(SPARSE.toarray())
    given = {
        "sparse": SPARSE,
        "dense": dense,
        "tagged": lp.SparseLinearOperator.from_scipy(SPARSE, lp.symmetric_tag),
        "traced": dense,
    }[kind]
    web = jax.jit(lp.graph)(given) if kind == "traced" else lp.graph(given)
    x = jnp.asarray(RNG.normal(size=N))
    np.testing.assert_allclose(web.gather(web.values * x[web.senders]), SPARSE @ x, rtol=1e-12)
    np.testing.assert_allclose(web.diagonal(), SPARSE.diagonal())
    assert len(web.values) == (N * N if kind == "traced" else SPARSE.nnz)
    if kind != "traced":
        edges = {*zip(np.asarray(web.receivers).tolist(), np.asarray(web.senders).tolist())}
        assert edges == {*zip(*(x.tolist() for x in SPARSE.nonzero()))}
    for wrong in (np.ones((2, 3)), lp.IdentityLinearOperator({"u": x})):
        with pytest.raises(lp.StructureError, match="must be a square matrix, from vectors"):
            lp.graph(wrong)


def test_the_residual_as_direction_is_steepest_descent_S1_15():
    x, a = np.zeros(N), np.asarray(SPD)
    for _ in range(7):
        r = np.asarray(B) - a @ x
        x = x + (r @ r) / (r @ a @ r) * r
    solver = DirectionSolver(lambda operator, x, r, b: r, steps=7, line_search="energy")
    np.testing.assert_allclose(lp.solve(SPD, B, solver), x, rtol=1e-10)


def test_the_residual_never_grows_whatever_the_direction_S1_15():
    """Random networks, random matrices (not definite either), step by step."""
    for seed in range(2):
        random = np.random.default_rng(seed)
        matrix = jnp.asarray(random.normal(size=(N, N)))
        params = jnp.asarray(random.normal(size=(N, N)))
        wild = lambda p, operator, x, r, b: jnp.sin(p @ r) * 100 + p.T @ x
        run = lambda k, p=params, m=matrix: lp.linear_solve(
            lp.MatrixLinearOperator(m), B, DirectionSolver(wild, p, steps=k)
        ).stats["residual_norm"]
        norms = [float(jnp.linalg.norm(B)), *(float(run(k)) for k in (1, 2, 3, 5))]
        assert all(new <= old * (1 + 1e-12) for old, new in itertools.pairwise(norms))


def test_directions_of_a_network_are_differentiable_by_its_parameters_S1_15():
    network = MessagePassing(jax.random.key(0), width=4, layers=2)
    network = jax.tree.map(lambda w: w + 0.1, network)
    operator = lp.SparseLinearOperator.from_scipy(SPARSE)

    def loss(tree):
        network, values = tree
        moved = lp.SparseLinearOperator(values, operator.pattern)
        x = lp.solve(moved, B, DirectionSolver(network, steps=3))
        return residual_loss(operator, B, x)

    got, want = directional(loss, (network, operator.values))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    batch = jax.vmap(lambda b: lp.solve(operator, b, DirectionSolver(network, steps=3)))
    np.testing.assert_allclose(
        batch(jnp.stack([B, 2 * B]))[1], 2 * lp.solve(operator, B, DirectionSolver(network, steps=3)),
        rtol=1e-9,
    )  # fmt: skip
    zero = jax.grad(lambda b: jnp.sum(lp.solve(operator, b, DirectionSolver(network, steps=3))))
    assert bool(jnp.all(jnp.isfinite(jax.jit(zero)(0 * B))))


def test_settings_of_the_direction_solver_are_checked():
    with pytest.raises(TypeError, match="direction_fn: must be a function"):
        DirectionSolver(3)
    with pytest.raises(ValueError, match="line_search"):
        DirectionSolver(lambda *a: a[-1], line_search="none")
    with pytest.raises(ValueError, match="steps"):
        DirectionSolver(lambda *a: a[-1], steps=0)
    with pytest.raises(lp.StructureError, match="direction_fn: must return a direction like x"):
        lp.solve(SPD, B, DirectionSolver(lambda A, x, r, b: r[:2], steps=1))
    with pytest.raises(ValueError, match="width: must be an integer from 1"):
        MessagePassing(jax.random.key(0), width=0)
