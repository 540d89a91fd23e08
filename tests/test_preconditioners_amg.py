"""Algebraic multigrid: set up by PyAMG, applied and refreshed on the device. S0-24, S2-26, S0-28."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from amg_problems import (
    MATRICES,
    RS,
    SA,
    cases,
    cg,
    convection,
    definite,
    diffusion,
    gallery,
    phases,
    pyamg_steps,
    rhs,
    slow,
)
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.preconditioners import AMG
from linsolve_prim.testing import check_operator

needs64 = pytest.mark.skipif(not X64, reason="asks for a residual of 1e-8 and less")

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


SHORT = [("2-D 64²", SA), ("2-D 64²", RS), ("3-D 16³", SA), ("anisotropic", SA), ("jumps", SA)]


@needs64
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


@needs64
def test_elasticity_with_its_rigid_body_modes():
    matrix, modes = gallery.linear_elasticity((30, 30))
    b = rhs(matrix.shape[0])
    settings = {"near_nullspace": modes, "block_size": 2, "max_coarse": 60}
    found = cg(definite(matrix), b, AMG(**settings))
    own = pyamg_steps(matrix, b, "smoothed_aggregation", B=modes)
    assert int(found.stats["num_steps"]) <= 2 * own
    assert int(found.stats["num_steps"]) < pyamg_steps(matrix, b, "smoothed_aggregation")


@needs64
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


@needs64
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


@pytest.mark.parametrize("cycle", ["W", "F"])
def test_programs_of_all_cycles_grow_with_the_number_of_levels_only(cycle):
    """Levels that are visited again are in a loop: a program of them is written once."""
    operator, b = definite(gallery.poisson((48, 48))), rhs(48 * 48)

    def lines(levels):
        m = AMG(RS, cycle=cycle, max_levels=levels, max_coarse=2).init(operator)
        assert len(m.levels) == levels - 1
        return len(jax.jit(lambda m, b: m.mv(b)).lower(m, b).compile().as_text().splitlines())

    sizes = [lines(levels) for levels in (3, 4, 5, 6)]
    more = np.diff(sizes)
    assert max(more) <= 1.3 * min(more)


@needs64
def test_f_cycle_with_a_method_that_takes_it():
    matrix = gallery.poisson((24, 24))
    operator, b = definite(matrix), rhs(576)
    with pytest.raises(
        ValueError, match=r"preconditioner: `CG` needs one that is symmetric positive"
    ):
        cg(operator, b, AMG(cycle="F"))
    solver = lp.GMRES(1e-8, 0.0, preconditioner=AMG(cycle="F", max_coarse=20))
    assert int(lp.linear_solve(operator, b, solver).stats["num_steps"]) <= 12


@pytest.mark.parametrize("method", ["smoothed_aggregation", "ruge_stuben", "root_node"])
def test_float32_stays_float32(method):
    operator = definite(gallery.poisson((64, 64)), np.float32)
    dtypes = {str(x.dtype) for x in jax.tree.leaves(AMG(method).init(operator))}
    assert dtypes <= {"float32", "int32", "uint8", "bool"}
    solver = lp.CG(1e-5, preconditioner=AMG(method))
    found = lp.linear_solve(operator, rhs(4096).astype("f"), solver)
    assert found.value.dtype == jnp.float32
    assert int(found.stats["num_steps"]) <= 8


# ---- What kind of operator -----------------------------------------------------------------------


KINDS = itertools.product(
    ("symmetric", "nonsymmetric", "hermitian", "W", "l1"), ("fixed", "refreshed")
)
DIFFERENT = [("nonsymmetric", "fixed"), ("nonsymmetric", "refreshed"), ("hermitian", "refreshed")]


@needs64
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


@needs64
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


@needs64
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
