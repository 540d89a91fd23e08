"""Algebraic multigrid: set up by PyAMG, applied and refreshed on the device. S0-24, S2-26, S0-28."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import linsolve_prim as lp
from linsolve_prim.preconditioners import AMG, amg_setup
from linsolve_prim.testing import check_operator

pyamg = pytest.importorskip("pyamg")
gallery = pyamg.gallery
MATRICES = pathlib.Path(__file__).parents[2] / "shared" / "matrices"


def slow(*case, id=None):
    """A case that is left out by default: others go through the same code, and all compile for long."""
    return pytest.param(*case, marks=pytest.mark.slow, id=id)


def cases(of, but):
    """All pairs; those of `but` run by default, and the others with the slow tests."""
    return [pair if pair in but else slow(*pair) for pair in of]


def definite(matrix, dtype=None):
    matrix = sp.csr_matrix(matrix)
    return lp.SparseLinearOperator.from_scipy(
        matrix if dtype is None else matrix.astype(dtype), lp.positive_semidefinite_tag
    )


def rhs(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(n))


def cg(operator, b, preconditioner, **settings):
    solver = lp.CG(1e-8, 0.0, preconditioner=preconditioner, **settings)
    return lp.linear_solve(operator, b, solver)


def pyamg_steps(matrix, b, method, **settings):
    make = {
        "smoothed_aggregation": functools.partial(
            pyamg.smoothed_aggregation_solver, symmetry="hermitian"
        ),
        "ruge_stuben": pyamg.ruge_stuben_solver,
    }[method]
    residuals = []
    make(matrix, **settings).solve(
        np.asarray(b), tol=1e-8, accel="cg", residuals=residuals, maxiter=300
    )
    return len(residuals) - 1


def diffusion(size, coefficient):
    """−∇·(c∇u) on size × size cells, zero outside; c of shape (size, size). A JAX function of c."""
    n = size * size
    index = np.arange(n).reshape(size, size)
    rows, cols = [index.ravel()], [index.ravel()]
    for one, two in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        rows += [one.ravel(), two.ravel()]
        cols += [two.ravel(), one.ravel()]
    rows, cols = np.concatenate(rows), np.concatenate(cols)
    c = jnp.asarray(coefficient)
    padded = jnp.pad(c, 1, mode="edge")
    mean = lambda a, b: 2 * a * b / (a + b)
    centre = padded[1:-1, 1:-1]
    faces = [
        mean(centre, other)
        for other in (padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2])
    ]
    down, right = mean(c[1:], c[:-1]), mean(c[:, 1:], c[:, :-1])
    parts = [sum(faces), -down, -down, -right, -right]
    values = jnp.concatenate([part.ravel() for part in parts])
    return lp.SparseLinearOperator.from_coo(
        rows, cols, values, (n, n), lp.positive_semidefinite_tag
    )


# ---- How many iterations -------------------------------------------------------------------------

PROBLEMS = {
    "2-D 64²": lambda: (gallery.poisson((64, 64)), 15),
    "2-D 128²": lambda: (gallery.poisson((128, 128)), 15),
    "3-D 16³": lambda: (gallery.poisson((16, 16, 16)), 20),
    "3-D 24³": lambda: (gallery.poisson((24, 24, 24)), 20),
    "anisotropic": lambda: (
        gallery.stencil_grid(gallery.diffusion_stencil_2d(0.01, 0.0, type="FD"), (64, 64)),
        None,
    ),
    "rotated": lambda: (
        gallery.stencil_grid(gallery.diffusion_stencil_2d(0.01, np.pi / 4, type="FE"), (48, 48)),
        None,
    ),
    "jumps": lambda: (
        diffusion(
            64, np.where(np.random.default_rng(3).random((64, 64)) < 0.4, 1e3, 1.0)
        ).to_scipy(),
        None,
    ),
}


SA, RS = "smoothed_aggregation", "ruge_stuben"
SHORT = [("2-D 64²", SA), ("2-D 64²", RS), ("3-D 16³", SA), ("anisotropic", SA), ("jumps", SA)]


@pytest.mark.parametrize(
    ("name", "method"), cases(itertools.product(PROBLEMS, [SA, RS]), but=SHORT)
)
def test_few_iterations_whatever_the_size_S2_26(name, method):
    """At most 15 in 2-D and 20 in 3-D, and at most twice as many as PyAMG's own cycles."""
    matrix, most = PROBLEMS[name]()
    matrix, b = sp.csr_matrix(matrix), rhs(matrix.shape[0])
    found = cg(definite(matrix), b, AMG(method))
    assert np.linalg.norm(b - matrix @ found.value) <= 1.001e-8 * np.linalg.norm(b)
    steps = int(found.stats["num_steps"])
    assert steps <= 2 * pyamg_steps(matrix, b, method)
    assert most is None or steps <= most


def test_elasticity_with_its_rigid_body_modes():
    matrix, modes = gallery.linear_elasticity((30, 30))
    b = rhs(matrix.shape[0])
    settings = {"near_nullspace": modes, "block_size": 2, "max_coarse": 60}
    found = cg(definite(matrix), b, AMG(**settings))
    own = pyamg_steps(matrix, b, "smoothed_aggregation", B=modes)
    assert int(found.stats["num_steps"]) <= 2 * own
    assert int(found.stats["num_steps"]) < pyamg_steps(matrix, b, "smoothed_aggregation")


@pytest.mark.parametrize("name", ["bar", "airfoil"])
def test_real_matrices(name):
    path = MATRICES / f"{name}.npz"
    if not path.exists():
        pytest.skip("the matrices are not here")
    with np.load(path) as z:
        matrix = sp.csr_matrix((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"]))
        modes = z["B"]
    b = rhs(matrix.shape[0])
    block = 3 if modes.shape[1] == 6 else 1
    own = AMG(near_nullspace=modes, block_size=block, max_coarse=20)
    found = cg(definite(matrix), b, own)
    ref = pyamg_steps(
        matrix.tobsr((block, block)) if block > 1 else matrix, b, "smoothed_aggregation", B=modes
    )
    assert len(own.init(definite(matrix)).levels) >= 1
    assert int(found.stats["num_steps"]) <= 2 * ref


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"cycle": "W", "degree": 3}, 7),
        ({"smoother": "l1_jacobi"}, 15),
        ({"method": "root_node", "max_levels": 2, "max_coarse": 10}, 12),
        slow({"cycle": "W"}, 9),
        slow({"degree": 3}, 9),
        slow({"degree": 1}, 14),
        slow({"method": "root_node"}, 12),
    ],
)
def test_settings(settings, most):
    matrix = gallery.poisson((64, 64))
    found = cg(definite(matrix), rhs(4096), AMG(**settings))
    assert int(found.stats["num_steps"]) <= most


def test_f_cycle_with_a_method_that_takes_it():
    matrix = gallery.poisson((24, 24))
    operator, b = definite(matrix), rhs(576)
    with pytest.raises(
        ValueError, match=r"preconditioner: `CG` needs one that is symmetric positive"
    ):
        cg(operator, b, AMG(cycle="F"))
    solver = lp.GMRES(1e-8, 0.0, preconditioner=AMG(cycle="F", max_coarse=20))
    assert int(lp.linear_solve(operator, b, solver).stats["num_steps"]) <= 12


def test_float32_stays_float32():
    operator = definite(gallery.poisson((64, 64)), np.float32)
    assert {str(x.dtype) for x in jax.tree.leaves(AMG().init(operator))} <= {
        "float32",
        "int32",
        "bool",
    }
    found = lp.linear_solve(operator, rhs(4096).astype("f"), lp.CG(1e-5, preconditioner=AMG()))
    assert found.value.dtype == jnp.float32
    assert int(found.stats["num_steps"]) <= 8


# ---- What kind of operator -----------------------------------------------------------------------


def convection(size):
    """−Δu + 20 ∂u/∂x, upwind."""
    eye = sp.eye_array(size)
    second = sp.diags_array(
        [-np.ones(size - 1), 2 * np.ones(size), -np.ones(size - 1)], offsets=[-1, 0, 1]
    )
    first = sp.diags_array([-np.ones(size - 1), np.ones(size)], offsets=[-1, 0])
    return sp.csr_matrix(
        sp.kron(second, eye) + sp.kron(eye, second) + 20 / size * sp.kron(eye, first)
    )


def phases(matrix, seed=0):
    """DAD* with random phases D: Hermitian, and as hard as A."""
    phase = np.exp(2j * np.pi * np.random.default_rng(seed).random(matrix.shape[0]))
    return sp.csr_matrix(sp.diags_array(phase) @ matrix @ sp.diags_array(phase.conj())), phase


KINDS = itertools.product(
    ("symmetric", "nonsymmetric", "hermitian", "W", "l1"), ("fixed", "refreshed")
)
DIFFERENT = [("nonsymmetric", "fixed"), ("nonsymmetric", "refreshed"), ("hermitian", "refreshed")]


@pytest.mark.parametrize(("kind", "how"), cases(KINDS, but=DIFFERENT))
def test_cycles_are_linear_operators_with_transposes(kind, how):
    """B-02: the adjoint has the transposed cycle."""
    matrix, settings = sp.csr_matrix(gallery.poisson((14, 14))), {"max_coarse": 10}
    operator = definite(matrix)
    if kind == "nonsymmetric":
        operator = lp.SparseLinearOperator.from_scipy(convection(14))
    if kind == "hermitian":
        twisted, phase = phases(matrix)
        settings["near_nullspace"] = phase[:, None]
        operator = definite(twisted)
    if kind == "W":
        settings["cycle"] = "W"
    if kind == "l1":
        settings["smoother"] = "l1_jacobi"
    own = AMG(**settings)
    m = (own.prepare(operator) if how == "refreshed" else own).init(operator)
    assert len(m.levels) >= 1
    parts = jax.jit(lambda m: [a.as_matrix() for a in (m, m.T, lp.conj(m))])(m)
    dense, turned, conjugate = (np.asarray(part) for part in parts)
    np.testing.assert_allclose(turned, dense.T, atol=1e-13)
    np.testing.assert_allclose(conjugate, dense.conj(), atol=1e-13)
    if kind != "nonsymmetric":
        np.testing.assert_allclose(dense, dense.conj().T, atol=1e-13)
        assert np.linalg.eigvalsh(dense).min() > 0
    # it approximates the inverse: A M is near to the identity in all but a few directions
    values = np.abs(np.linalg.eigvals(np.asarray(operator.as_matrix()) @ dense))
    assert values.max() < 1.6
    assert values.min() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
def test_laws(symmetric):
    operator = lp.SparseLinearOperator.from_scipy(convection(10))
    if symmetric:
        operator = definite(gallery.poisson((10, 10)))
    check_operator(AMG(max_coarse=10).init(operator))


METHODS = itertools.product(("GMRES", "BiCGStab", "IDR", "TFQMR"), ("left", "right"))


@pytest.mark.parametrize(
    ("solver", "side"), cases(METHODS, but=[("GMRES", "right"), ("BiCGStab", "left")])
)
def test_nonsymmetric_systems_and_their_adjoints_B_02(solver, side):
    matrix = convection(32)
    operator = lp.SparseLinearOperator.from_scipy(matrix)
    b = rhs(1024)
    chosen = getattr(lp, solver)(1e-8, 0.0, preconditioner=AMG(max_coarse=40), side=side)
    with lp.SolveTape() as tape:
        loss = lambda b: jnp.sum(jnp.sin(lp.linear_solve(operator, b, chosen).value))
        gradient = jax.grad(loss)(b)
    forward, adjoint = (int(entry.stats["num_steps"]) for entry in tape)
    assert forward <= 14
    assert adjoint <= 1.5 * forward
    x = sp.linalg.spsolve(matrix.tocsc(), b)
    want = sp.linalg.spsolve(matrix.T.tocsc(), np.cos(x))
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-7)


def test_pure_neumann_with_its_null_space_B_12():
    size = 24
    line = sp.diags_array(
        [-np.ones(size - 1), np.r_[1, 2 * np.ones(size - 2), 1], -np.ones(size - 1)],
        offsets=[-1, 0, 1],
    )
    matrix = sp.csr_matrix(sp.kron(line, sp.eye_array(size)) + sp.kron(sp.eye_array(size), line))
    b = rhs(size**2)
    b -= b.mean()
    found = cg(definite(matrix), b, AMG(max_coarse=40), nullspace="constant")
    assert int(found.stats["num_steps"]) <= 12
    assert abs(float(found.value.mean())) < 1e-10


# ---- Derivatives, batches, values that change ----------------------------------------------------


def loss_of(preconditioner, size=12):
    def loss(c, b):
        x = lp.linear_solve(
            diffusion(size, c), b, lp.CG(1e-12, 0.0, preconditioner=preconditioner)
        ).value
        return jnp.sum(jnp.cos(x))

    return loss


def dense_loss(c, b, size=12):
    return jnp.sum(jnp.cos(jnp.linalg.solve(diffusion(size, c).as_matrix(), b)))


WAYS = itertools.product(("rebuilt", "refreshed", "kept"), ("eager", "jit"))


@pytest.mark.parametrize(
    ("way", "how"),
    cases(WAYS, but=[("rebuilt", "eager"), ("rebuilt", "jit"), ("refreshed", "jit")]),
)
def test_gradients_do_not_know_of_it_S1_25(way, how):
    """A preconditioner made from what is differentiated raises nothing and changes nothing."""
    c = jnp.asarray(1 + np.random.default_rng(0).random((12, 12)))
    b = rhs(144)
    base = AMG(max_coarse=20)
    own = {
        "rebuilt": base,
        "refreshed": base.prepare(diffusion(12, c)),
        "kept": base.init(diffusion(12, c)),
    }[way]
    gradient = jax.grad(loss_of(own), (0, 1))
    gradient = jax.jit(gradient) if how == "jit" else gradient
    for got, want in zip(gradient(c, b), jax.grad(dense_loss, (0, 1))(c, b)):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_second_derivatives():
    c, b = jnp.asarray(1 + np.random.default_rng(0).random((6, 6))), rhs(36)
    v = rhs(36, 1).reshape(6, 6)
    hvp = lambda loss: jax.jvp(jax.grad(lambda c: loss(c, b)), (c,), (v,))[1]
    got = hvp(functools.partial(loss_of(AMG(max_coarse=8), 6)))
    np.testing.assert_allclose(
        got, hvp(functools.partial(dense_loss, size=6)), rtol=1e-7, atol=1e-9
    )


def test_batches_of_coefficients_share_a_hierarchy():
    c = jnp.asarray(np.exp(np.random.default_rng(0).standard_normal((3, 24, 24))))
    b = rhs(576)
    hierarchy = AMG(max_coarse=30).prepare(diffusion(24, np.ones((24, 24))))
    solver = lp.CG(1e-9, 0.0, preconditioner=hierarchy)
    one = jax.jit(lambda c: lp.linear_solve(diffusion(24, c), b, solver))
    batch = jax.jit(jax.vmap(one))(c)
    for i in range(3):
        single = one(c[i])
        np.testing.assert_allclose(batch.value[i], single.value, rtol=1e-10, atol=1e-12)
        assert int(batch.stats["num_steps"][i]) == int(single.stats["num_steps"]) <= 25


@pytest.fixture
def setups(monkeypatch):
    """How often PyAMG was asked for a hierarchy."""
    made = []
    build = amg_setup.build
    monkeypatch.setattr(amg_setup, "build", lambda *args: made.append(1) or build(*args))
    return made


def test_refreshed_in_a_time_loop_with_one_setup(setups):
    size, steps = 24, 6
    base = diffusion(size, np.ones((size, size)))
    hierarchy = AMG(max_coarse=40).prepare(base)
    solver = lp.CG(1e-9, 0.0, preconditioner=hierarchy)

    def step(u, t):
        c = 1 + 0.5 * jnp.sin(t + jnp.arange(size * size, dtype=float)).reshape(size, size)
        operator = diffusion(size, c) * 0.1 + definite(sp.eye_array(size * size))
        padded = lp.SparseLinearOperator(
            operator.values, base.pattern, lp.positive_semidefinite_tag
        )
        found = lp.linear_solve(padded, u, solver)
        return found.value, found.stats["num_steps"]

    u, counts = jax.jit(lambda u: jax.lax.scan(step, u, jnp.arange(steps, dtype=float)))(
        rhs(size**2)
    )
    assert len(setups) == 1
    assert int(counts.max()) <= 10
    want = np.asarray(rhs(size**2))
    for t in range(steps):
        c = 1 + 0.5 * np.sin(t + np.arange(size * size)).reshape(size, size)
        matrix = 0.1 * diffusion(size, c).to_scipy() + sp.eye_array(size**2)
        want = sp.linalg.spsolve(sp.csc_matrix(matrix), want)
    np.testing.assert_allclose(u, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", [SA, slow(RS)])
def test_refreshing_with_the_same_values_changes_nothing(method):
    """Galerkin products on the device are PyAMG's."""
    operator = definite(gallery.poisson((40, 40)))
    own = AMG(method, max_coarse=30)
    apply = jax.jit(lambda m: m.mv(rhs(1600)))
    refreshed = own.prepare(operator).init(operator)
    np.testing.assert_allclose(apply(refreshed), apply(own.init(operator)), rtol=1e-6, atol=1e-8)


def test_traced_values_take_the_graph_alone():
    matrix = gallery.poisson((64, 64))
    operator = definite(matrix)

    @jax.jit
    def solve(values, b):
        own = lp.SparseLinearOperator(values, operator.pattern, operator.tags)
        return lp.linear_solve(own, b, lp.CG(1e-8, 0.0, preconditioner=AMG()))

    found = solve(operator.values, rhs(4096))
    assert int(found.stats["num_steps"]) <= 15


def test_constants_are_set_up_while_tracing_S0_28(setups):
    operator = definite(gallery.poisson((40, 40)))
    solve = jax.jit(
        lambda b: lp.linear_solve(operator, b, lp.CG(preconditioner=AMG()), throw=False).value
    )
    program = solve.lower(rhs(1600))
    assert len(setups) == 1
    assert "callback" not in program.as_text()
    for seed in range(3):
        solve(rhs(1600, seed))
    assert len(setups) <= 2  # `lower` and the call may trace once each


def test_it_is_rebuilt_for_each_eager_solve_and_kept_on_demand(setups):
    operator = definite(gallery.poisson((16, 16)))
    for _ in range(2):
        cg(operator, rhs(256), AMG())
    assert len(setups) == 2
    kept = AMG().init(operator)
    for _ in range(2):
        cg(operator, rhs(256), kept)
    assert len(setups) == 3


def test_inside_of_others_it_is_made_from_numbers_too(setups):
    operator, b = definite(gallery.poisson((24, 24))), rhs(576)
    pair = lp.preconditioners.Compose(lp.preconditioners.Jacobi(), AMG(max_coarse=40))
    found = cg(operator, b, pair)
    assert len(setups) == 1
    assert int(found.stats["num_steps"]) <= 12


# ---- Bad input -----------------------------------------------------------------------------------


def test_bad_input_is_refused_by_name():
    operator = definite(gallery.poisson((8, 8)))
    with pytest.raises(ValueError, match=r"method: must be one of smoothed_aggregation.*got 'sa'"):
        AMG("sa")
    with pytest.raises(ValueError, match=r"cycle: must be one of V, W, F; got 'X'"):
        AMG(cycle="X")
    with pytest.raises(ValueError, match=r"smoother: must be one of chebyshev"):
        AMG(smoother="gs")
    with pytest.raises(ValueError, match=r"degree: must be a positive integer; got 0"):
        AMG(degree=0)
    with pytest.raises(ValueError, match=r"near_nullspace: is for 'smoothed_aggregation'"):
        AMG("ruge_stuben", near_nullspace=np.ones((4, 1)))
    with pytest.raises(TypeError, match=r"operator: `AMG` needs a sparse matrix; got MatrixLinear"):
        AMG().init(lp.MatrixLinearOperator(jnp.eye(3)))
    with pytest.raises(ValueError, match=r"operator: must have the pattern for which"):
        AMG().prepare(operator).init(definite(gallery.poisson((8, 9))))
    with pytest.raises(ValueError, match=r"operator: must have values that are not traced"):
        jax.jit(
            lambda v: (
                AMG().prepare(lp.SparseLinearOperator(v, operator.pattern)).init(operator).mv(v)
            )
        )(operator.values)


def test_a_missing_library_is_told_with_its_remedy(monkeypatch):
    import builtins

    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "pyamg":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setattr("importlib.util.find_spec", lambda *a, **k: None)
    monkeypatch.delitem(__import__("sys").modules, "pyamg")
    with pytest.raises(ImportError, match=r"pip install 'linsolve-prim\[amg\]'"):
        AMG()
