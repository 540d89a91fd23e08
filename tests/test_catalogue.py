"""`lp.list_solvers()`: what it says is so, and every solver in it solves."""

import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import X64, assert_gradients, normal, quick_jit

import linsolve_prim as lp
from linsolve_prim import solvers
from linsolve_prim.testing.systems import FITTING

TABLE = lp.list_solvers()
TOL = 1e-6 if X64 else 2e-2
N = 4


each = pytest.mark.parametrize("name", [row.name for row in TABLE])


def system(name):
    """A solver by its name, a fitting operator as a function of a matrix, and a right-hand side."""
    row = TABLE[name]
    solver, build = row.example(), FITTING[row.assumes]
    assert type(solver) is getattr(lp, name)
    mine = lambda m, b: lp.linear_solve(build(m), b, solver).value
    dense = lambda m, b: jnp.linalg.solve(build(m).as_matrix(), b)
    return mine, dense, jnp.asarray(normal((N, N))), jnp.asarray(normal(N, seed=1))


@each
def test_every_listed_solver_solves(name):
    """S0-14: each name constructs, and solves a fitting system."""
    mine, dense, m, b = system(name)
    np.testing.assert_allclose(quick_jit(mine)(m, b), dense(m, b), atol=TOL)


@pytest.mark.slow
@each
def test_every_listed_solver_has_gradients(name):
    """S0-14: and the gradients of its solution are right."""
    mine, dense, m, b = system(name)
    assert_gradients(mine, dense, m, b, 10 * TOL)


def test_every_solver_is_listed():
    """S0-14: or is told to be missing, with the command that gets it."""
    names = {
        name
        for name, cls in vars(solvers).items()
        if isinstance(cls, type) and issubclass(cls, lp.AbstractLinearSolver)
    }
    concrete = {name for name in names if not name.startswith("Abstract")}
    assert {row.name for row in TABLE} | set(TABLE.missing) == concrete
    for what in TABLE.missing.values():
        assert "pip install" in what


def test_rows():
    """S0-14: assumptions, shapes, sides, devices, libraries, as the classes have them."""
    assumptions = {row.name: row.assumes for row in TABLE}
    assert set(assumptions.values()) == set(FITTING)
    for name, what in {
        "LU": "nothing", "GMRES": "nothing", "SVD": "nothing", "CG": "definite",
        "Cholesky": "definite", "MINRES": "symmetric", "Triangular": "triangular",
        "SpSolveTriangular": "triangular", "Tridiagonal": "tridiagonal", "Diagonal": "diagonal",
    }.items():  # fmt: skip
        assert assumptions[name] == what
    rectangular = {row.name for row in TABLE if row.rectangular}
    assert rectangular >= {"QR", "SVD", "LSMR", "LSQR", "CGLS", "CRAIG", "Normal", "SciPyIterative"}
    assert not rectangular & {"LU", "GMRES", "CG", "SuperLU", "IterativeRefinement"}
    assert {row.name for row in TABLE if row.kind == "direct"} >= {"LU", "SuperLU", "Triangular"}
    assert TABLE["GMRES"].preconditioning == ("left", "right")
    assert TABLE["FGMRES"].preconditioning == ("right",)
    assert TABLE["CG"].preconditioning == TABLE["MINRES"].preconditioning == ("middle",)
    assert TABLE["IterativeRefinement"].preconditioning == ("inner",)
    assert TABLE["LU"].preconditioning == ()
    assert TABLE["SuperLU"].device == "host"
    assert TABLE["SuperLU"].requires.startswith("scipy ")
    assert TABLE["GMRES"].device == "any"
    assert TABLE["GMRES"].requires == ""
    assert TABLE["GMRES"].by_name
    assert not TABLE["Normal"].by_name


@pytest.mark.slow
def test_rectangular_ones_are():
    """Those that take a rectangular operator solve one."""
    a, b = normal((5, 3)), normal(5, seed=1)
    want = np.linalg.lstsq(a, b)[0]
    for row in TABLE:
        if not row.rectangular or row.name == "CRAIG" or row.on_host:
            continue
        solve = lambda b, s=row.example(): lp.lstsq(a, b, s)
        np.testing.assert_allclose(quick_jit(solve)(b), want, atol=TOL)


def test_table():
    """It prints as a table, and is a sequence with names."""
    text = str(TABLE)
    head, rule, *lines = text.splitlines()
    assert head.split()[:3] == ["solver", "kind", "assumes"]
    assert set(rule) == {"-"}
    assert len(lines) == len(TABLE) + len(TABLE.missing)
    assert any(
        line.split() == ["LU", "direct", "nothing", "square", "full", "any"] for line in lines
    )
    assert len(TABLE) == len(list(TABLE))
    assert TABLE[0].name == next(iter(TABLE)).name
    with pytest.raises(KeyError, match="no solver is called 'lu' here; there are"):
        TABLE["lu"]
    missing = type(TABLE)([], {"KLU": "Get it with: pip install nbklu"})
    assert str(missing).splitlines()[-1] == "KLU: not here. Get it with: pip install nbklu"
