"""Preconditioners of tiny, singular, badly scaled and wrong matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from krylov_tools import REAL, X64, quick_jit, run, succeeded
from preconditioner_problems import BY_NAME, chain, operator, poisson

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc

NEUMANN = sp.csr_array(np.array([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]]))
SCALE = 1e200 if X64 else 1e30
SIZE = 2.0**660 if X64 else 2.0**66  # entries are as exact as those of size one
MATRICES = [
    sp.csr_array(np.array([[3.0]])),
    sp.csr_array(np.array([[3.0, 1], [1, 2]])),
    sp.csr_array(sp.eye_array(4)),
    NEUMANN,
    sp.csr_array(NEUMANN * SCALE),
    sp.csr_array(NEUMANN / SCALE),
]


@pytest.mark.parametrize("name", ["Nystrom", "PivotedCholesky"])
def test_low_ranks_that_hold_all_of_a_matrix_S0_30(name):
    """With a rank of n or more, of singular matrices and of all sizes of entries, M is definite."""
    preconditioner = BY_NAME[name].make()
    made = quick_jit(lambda all: [preconditioner.init(a).as_matrix() for a in all])
    operators = [operator(sp.csr_array(a), "definite") for a in MATRICES]
    for a, m in zip(operators, made(operators)):
        size = jnp.abs(a.values).max()
        a, m = np.asarray((a / size).as_matrix()), np.asarray(m * size)
        np.testing.assert_allclose(m, m.T, atol=1e-6 * np.abs(m).max())
        assert np.linalg.eigvalsh(m).min() > 0
        # on the range of A it is the inverse
        np.testing.assert_allclose(a @ m @ a, a, rtol=0, atol=1e-3 if X64 else 0.1)


@pytest.mark.parametrize("maker", [pc.Jacobi, pc.Nystrom, pc.PivotedCholesky, pc.Chebyshev])
def test_no_unknowns_at_all(maker):
    a = operator(sp.csr_array((0, 0)), "definite")
    assert maker().init(a).mv(jnp.zeros(0, REAL)).shape == (0,)


def test_entries_of_any_size_in_cg():
    """A in other units, so that M is huge: as many steps as in these."""
    steps = []
    for size in (1.0, 1 / SCALE):
        a = operator(chain(20, main=2.1) * size, "definite")
        solver = lp.CG(1e-4, preconditioner=pc.Jacobi())
        _, result, stats = run(solver, a, jnp.linspace(1, 2, 20, dtype=REAL))
        assert succeeded(result)
        steps.append(int(stats["num_steps"]))
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "make",
    [
        lp.GMRES,
        lp.BiCGStab,
        pytest.param(lp.IDR, marks=pytest.mark.slow),
        pytest.param(lp.TFQMR, marks=pytest.mark.slow),
        pytest.param(lp.BiCG, marks=pytest.mark.slow),
    ],
)
def test_entries_of_any_size_on_the_left_S1_14(make):
    """MA is of order one, but Mr is of the size of M, whose square is no number any more."""
    steps = []
    for size in (1.0, SIZE, 1 / SIZE):
        a = operator(chain(20, main=2.3, above=-0.7) * size)
        solver = make(1e-4, preconditioner=pc.Jacobi(), side="left")
        x, result, stats = run(solver, a, a.mv(jnp.linspace(1, 2, 20, dtype=REAL)))
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linspace(1, 2, 20), rtol=1e-2)
        steps.append(int(stats["num_steps"]))
    assert len(set(steps)) == 1


@pytest.mark.parametrize("maker", ["AMG", "GeometricMultigrid"])
def test_multigrid_of_an_indefinite_operator_is_not_for_minres(maker):
    pytest.importorskip("pyamg")
    settings = {"grid": (6, 6)} if maker == "GeometricMultigrid" else {}
    m = getattr(pc, maker)(**settings)
    a = operator(poisson(6) - 3 * sp.eye_array(36), "symmetric")
    with pytest.raises(ValueError, match=r"`MINRES` needs one .* tagged `positive_semidefinite"):
        lp.linear_solve(a, jnp.ones(36, REAL), lp.MINRES(preconditioner=m))


def test_nan_in_the_matrix_is_told_with_amg_too():
    """PyAMG would raise in the middle of its set-up."""
    pytest.importorskip("pyamg")
    matrix = poisson(6)
    matrix.data[7] = np.nan
    a, b = operator(matrix, "definite"), jnp.ones(36, REAL)
    solver = lp.CG(preconditioner=pc.AMG())
    found = lp.linear_solve(a, b, solver, throw=False)
    assert found.result == lp.RESULTS.nonfinite_input
    with pytest.raises(ValueError, match=r"operator: must have finite values.*got NaN"):
        pc.AMG().prepare(a)


@pytest.mark.filterwarnings("ignore:Breakdown occurred:UserWarning")
@pytest.mark.parametrize("method", ["smoothed_aggregation", "ruge_stuben", "root_node"])
def test_multigrid_of_zeros_is_made_and_the_solve_tells(method):
    """PyAMG itself raises, or returns NaN, for some matrices that nobody would call elliptic."""
    pytest.importorskip("pyamg")
    pattern = lp.SparseLinearOperator.from_scipy(poisson(4)).pattern
    a = lp.SparseLinearOperator(jnp.zeros(pattern.nnz, REAL), pattern, lp.symmetric_tag)
    solver = lp.GMRES(preconditioner=pc.AMG(method, max_coarse=2))
    solution = lp.linear_solve(a, jnp.ones(16, REAL), solver, throw=False)
    assert not succeeded(solution.result)
    assert np.all(np.isfinite(solution.value))


def test_settings_that_the_library_refuses_are_refused():
    pytest.importorskip("pyamg")
    a = operator(poisson(6), "definite")
    with pytest.raises(ValueError, match="bogus"):
        pc.AMG(max_coarse=2, settings={"strength": "bogus"}).init(a)


def test_squares_of_entries_may_overflow_S0_30():
    """SPAI of a general matrix, whose normal equations hold squares: M in other units, not zero."""
    size = 2.0**80 if REAL == np.float32 else 2.0**600
    made = quick_jit(lambda a: pc.SPAI().init(a).as_matrix())
    plain = made(operator(chain(9, above=-0.7)))
    for unit in (size, 1 / size):
        np.testing.assert_allclose(
            made(operator(chain(9, above=-0.7) * unit)) * unit, plain, rtol=1e-4
        )


@pytest.mark.parametrize("dtype", [float, jnp.float32])
def test_grids_whose_structure_is_given_by_a_type(dtype):
    """S2-26: `float` is float32 where x64 is off, and multigrid on grids takes it."""

    def laplacian(u):
        u = jnp.pad(u, 1)
        inner, ends = u[1:-1, 1:-1], u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
        return 4 * inner - ends

    structure = jax.ShapeDtypeStruct((40, 24), dtype)
    a = lp.FunctionLinearOperator(laplacian, structure, lp.positive_semidefinite_tag)
    b = jnp.asarray(np.random.default_rng(0).standard_normal((40, 24)), dtype)
    found = lp.linear_solve(a, b, lp.CG(1e-4, preconditioner=pc.GeometricMultigrid()))
    assert found.value.dtype == b.dtype
    assert int(found.stats["num_steps"]) <= 8
    assert np.linalg.norm(laplacian(found.value) - b) <= 1.01e-4 * np.linalg.norm(b)
