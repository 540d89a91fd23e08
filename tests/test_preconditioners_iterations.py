"""What preconditioners are for: iterations and true residuals, by method and side."""

import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import X64, normal, run
from preconditioner_problems import BY_NAME, advection, from_file, poisson, steps

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc

pytestmark = pytest.mark.skipif(not X64, reason="counts of iterations are those of float64")

# ---- Iterations ----------------------------------------------------------------------------------

ON_GRID = [name for name, row in BY_NAME.items() if row.helps > 0]
CORE = ("SSOR", "IC", "Chebyshev", "SPAI", "CoarseGrid", "Schwarz", "Compose")


@pytest.fixture(scope="module")
def plain():
    """Iterations without preconditioner on 32² unknowns."""
    return {
        "CG": steps(poisson(32), "definite", lp.CG()),
        "GMRES": steps(advection(32), "general", lp.GMRES()),
        "BiCGStab": steps(advection(32), "general", lp.BiCGStab()),
    }


def named(names, core):
    slow = lambda name: [] if name in core else [pytest.mark.slow]
    return pytest.mark.parametrize("name", [pytest.param(n, marks=slow(n)) for n in names])


@named([n for n in ON_GRID if BY_NAME[n].definite], CORE)
def test_fewer_iterations_of_cg(name, plain):
    """Each by the factor in the table, on Poisson's equation with 32² unknowns; none makes it worse."""
    row = BY_NAME[name]
    count = steps(poisson(32), "definite", lp.CG(), row.make())
    assert count <= plain["CG"] / row.helps


@pytest.mark.parametrize("side", ["left", "right"])
@named(
    ["Jacobi", "GaussSeidel(forward)", "ILU", "ILU(1)", "ILU(host)", "SPAI", "Schwarz"], ("ILU",)
)
@pytest.mark.parametrize("method", [lp.GMRES, lp.BiCGStab], ids=lambda m: m.__name__)
def test_fewer_iterations_on_both_sides(method, name, side, plain):
    """S0-23: `side="left"` and "right" for the methods that have them."""
    row = BY_NAME[name]
    count = steps(advection(32), "general", method(side=side), row.make())
    assert count <= plain[method.__name__] / min(row.helps, 2.5)


@pytest.mark.parametrize("make", [lp.MINRES, lp.SYMMLQ, lp.MINRESQLP], ids=lambda m: m.__name__)
@pytest.mark.parametrize("sign", [1, -1])
def test_methods_for_symmetric_operators(make, sign):
    """They take M of positive and of negative definite operators."""
    kind = "definite" if sign > 0 else "negative"
    count = steps(sign * poisson(12), kind, make(), pc.IC())
    assert count <= 0.6 * steps(sign * poisson(12), kind, make())


def test_ilu_halves_iterations_on_64_squared_S0_23():
    """S0-23: iterations with ILU (IC) are under half of those without, on the 64² Poisson matrix."""
    a = poisson(64)
    for solver, kind in (
        (lp.CG(), "definite"),
        (lp.GMRES(), "general"),
        (lp.BiCGStab(), "general"),
    ):
        without = steps(a, kind, solver)
        assert steps(a, kind, solver, "ilu") < without / 2
    assert steps(a, "definite", lp.CG(), "ic") < without


def test_five_sweeps_are_enough():
    """Of the fixed-point iteration: as many steps as with exact factors, to one in twenty."""
    for a, kind, solver, make in (
        (poisson(32), "definite", lp.CG(), pc.IC),
        (advection(32), "general", lp.GMRES(), pc.ILU),
    ):
        exact = steps(a, kind, solver, make(sweeps="exact"))
        assert abs(steps(a, kind, solver, make()) - exact) <= max(1, exact / 20)


def test_coarse_grid_halves_iterations_S0_24():
    """S0-24: clusters by number, and labels of the user: at most half the iterations of CG."""
    n = 48
    a, without = poisson(n), steps(poisson(n), "definite", lp.CG())
    i, j = np.divmod(np.arange(n * n), n)
    boxes = (i // 4) * n + j // 4
    for clusters in (144, boxes):
        assert steps(a, "definite", lp.CG(), pc.CoarseGrid(clusters)) <= without / 2


@pytest.mark.parametrize(
    ("name", "kind", "solver", "row", "most"),
    [
        ("1138_bus", "definite", lp.CG(), "IC", 175),
        ("pde900", "general", lp.BiCGStab(), "ILU", 26),
        pytest.param("nos5", "definite", lp.CG(), "IC", 60, marks=pytest.mark.slow),
        pytest.param("bar", "definite", lp.CG(), "IC", 60, marks=pytest.mark.slow),
        pytest.param("662_bus", "definite", lp.CG(), "IC", 95, marks=pytest.mark.slow),
        pytest.param("g20", "definite", lp.CG(), "CoarseGrid", 65, marks=pytest.mark.slow),
        ("recirc_flow", "general", lp.GMRES(), "ILU(host)", 6),
        pytest.param("cg20", "general", lp.GMRES(), "ILU", 22, marks=pytest.mark.slow),
    ],
)
def test_matrices_of_the_collection(name, kind, solver, row, most):
    """(Without: g20 73, cg20 38 steps; the diagonal of cg20 is constant, and Jacobi leaves it as it is.)"""
    assert steps(from_file(name), kind, solver, BY_NAME[row].make()) <= most


def test_low_rank_preconditioners_of_kernel_matrices():
    """Few large eigenvalues and noise, which is what Nyström and pivoted Cholesky are for."""
    x = np.random.default_rng(0).uniform(size=(200, 2))
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 0.1) + 1e-3 * np.eye(200)
    a = lp.MatrixLinearOperator(jnp.asarray(kernel), lp.positive_semidefinite_tag)
    b = jnp.asarray(normal(200))
    count = lambda m: int(run(lp.CG(preconditioner=m), a, b)[2]["num_steps"])
    without = count(None)
    for m in (pc.Nystrom(40, 1e-3), pc.Nystrom(40), pc.PivotedCholesky(40, 1e-3)):
        assert count(m) < without / 4
    assert count(pc.PivotedCholesky(40)) < without / 3


def test_field_split_of_a_saddle_point():
    """With exact parts: 2 steps for triangles, 3 for the diagonal, 1 for all (and one by rounding)."""
    n, m = 20, 6
    a = poisson(n).toarray()[:n, :n] + np.diag(np.arange(n))
    b = normal((n, m))
    saddle = np.block([[a, b], [b.T, np.zeros((m, m))]])
    schur = -b.T @ np.linalg.solve(a, b)
    inverse = lp.MatrixLinearOperator(jnp.linalg.inv(jnp.asarray(schur)))
    op = lp.MatrixLinearOperator(jnp.asarray(saddle), lp.symmetric_tag)
    rhs = jnp.asarray(normal(n + m))
    exact = pc.BlockJacobi(n)
    for kind, most in (("lower", 3), ("upper", 3), ("full", 2), ("diagonal", 4)):
        split = pc.FieldSplit(n, exact, inverse, kind)
        x, _, stats = run(lp.GMRES(preconditioner=split), op, rhs)
        assert int(stats["num_steps"]) <= most
        np.testing.assert_allclose(op.matrix @ x, rhs, atol=1e-8)
    split = pc.FieldSplit(n, pc.Jacobi(), pc.BlockJacobi(m), "diagonal", definite=True)
    x = run(lp.MINRES(preconditioner=split), op, rhs)[0]
    np.testing.assert_allclose(op.matrix @ x, rhs, atol=1e-7)
    with pytest.raises(ValueError, match=r"preconditioner: `MINRES` needs one that is symmetric"):
        lp.linear_solve(op, rhs, lp.MINRES(preconditioner=pc.FieldSplit(n)))
