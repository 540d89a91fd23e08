"""How algebraic hierarchies are set up: level by level, and which matrices they take. S2-26, B-14."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from amg_problems import RS, SA, cg, definite, diffusion, gallery, phases, pyamg, rhs
from conftest import X64

import linsolve_prim as lp
from linsolve_prim.preconditioners import AMG, amg_setup, amg_spectrum

JUMPS = np.where(np.random.default_rng(5).random((48, 48)) < 0.3, 1e4, 1.0)
MATRICES = {
    "Poisson, 2-D": lambda: gallery.poisson((48, 48)),
    "Poisson, 3-D": lambda: gallery.poisson((14, 14, 14)),
    "rotated": lambda: gallery.stencil_grid(
        gallery.diffusion_stencil_2d(0.01, np.pi / 4, type="FE"), (48, 48)
    ),
    "jumps": lambda: diffusion(48, JUMPS).to_scipy().astype(np.float64),
    "elasticity": lambda: gallery.linear_elasticity((20, 20))[0],
}


@pytest.mark.parametrize("name", MATRICES)
def test_damping_knows_the_spectrum_from_few_products(name):
    """λmax of the matrix scaled by its rows' ℓ1 norms, against dense eigenvalues."""
    matrix = sp.csr_matrix(MATRICES[name]())
    root = np.sqrt(amg_spectrum.inverse_row_sums(matrix))
    largest = np.linalg.eigvalsh(root[:, None] * matrix.toarray() * root)[-1]
    assert 0.9 * largest <= amg_spectrum.damping_scale(matrix) <= 1.1 * largest


@pytest.mark.parametrize(
    ("entries", "want"),
    [
        (np.diag([1.0, 2.0, 4.0]), 1.0),  # one power spans everything
        (np.zeros((3, 3)), 1.0),
        (np.triu(np.ones((3, 3)), 1), 1.0),  # powers vanish
    ],
)
def test_damping_of_matrices_whose_powers_are_no_basis(entries, want):
    assert amg_spectrum.damping_scale(sp.csr_matrix(entries)) == pytest.approx(want)


def _calls_of_pyamg(monkeypatch):
    calls, make = [], pyamg.smoothed_aggregation_solver

    def counted(*args, **settings):
        calls.append(settings)
        return make(*args, **settings)

    monkeypatch.setattr(pyamg, "smoothed_aggregation_solver", counted)
    return calls


@pytest.mark.skipif(not X64, reason="asks for a residual of 1e-8")
@pytest.mark.parametrize("name", MATRICES)
def test_levels_that_are_made_one_by_one_are_those_of_pyamg_S2_26(name, monkeypatch):
    """S2-26, B-14: as many unknowns on each, and as many iterations, without PyAMG's eigenvalues."""
    matrix = sp.csr_matrix(MATRICES[name]())
    settings = {"max_coarse": 20}
    if name == "elasticity":
        modes = gallery.linear_elasticity((20, 20))[1]
        settings |= {"near_nullspace": modes, "block_size": 2}
        matrix = sp.csr_matrix(gallery.linear_elasticity((20, 20))[0])
    whole = AMG(**settings, settings={"smooth": "jacobi"})
    calls = _calls_of_pyamg(monkeypatch)
    at_once = whole._build(matrix, hermitian=True)
    assert len(calls) == 1
    one_by_one = AMG(**settings)._build(matrix, hermitian=True)
    assert len(calls) == 1 + len(one_by_one)
    sizes = lambda levels: [level.matrix.shape[0] for level in levels]
    assert sizes(one_by_one) == sizes(at_once)
    for level in one_by_one[1:]:
        assert (abs(level.matrix - level.matrix.T)).max() <= 1e-12 * abs(level.matrix).max()
    b = rhs(matrix.shape[0])
    steps = lambda m: int(cg(definite(matrix), b, m).stats["num_steps"])
    assert steps(AMG(**settings)) <= 1.05 * steps(whole) + 1


@pytest.mark.parametrize(
    "settings",
    [
        {"smooth": ("jacobi", {"omega": 1.0})},
        {"strength": ["symmetric", None]},
        {"improve_candidates": None},
    ],
)
def test_settings_for_single_levels_are_passed_as_they_are(settings, monkeypatch):
    calls = _calls_of_pyamg(monkeypatch)
    AMG(settings=settings, max_coarse=20)._build(MATRICES["Poisson, 2-D"]().tocsr(), True)
    assert len(calls) == 1
    assert calls[0].items() >= settings.items()


def test_one_level_is_the_matrix_itself():
    (level,) = amg_setup.build(
        sp.csr_matrix(gallery.poisson((8, 8))), SA, {"max_levels": 1, "max_coarse": 2}
    )
    assert level.prolongation is None
    assert level.matrix.shape == (64, 64)


@pytest.mark.skipif(not X64, reason="asks for a residual of 1e-8")
def test_levels_of_unsymmetric_matrices_one_by_one():
    matrix = sp.csr_matrix(gallery.poisson((40, 40)) + 0.2 * sp.eye_array(1600, k=1))
    operator, b = lp.SparseLinearOperator.from_scipy(matrix), rhs(1600)
    solver = lp.GMRES(1e-8, 0.0, preconditioner=AMG(max_coarse=20))
    assert int(lp.linear_solve(operator, b, solver).stats["num_steps"]) <= 12


# ---- Complex matrices ----------------------------------------------------------------------------


def _complex(matrix):
    """Hermitian, with the spectrum of a real matrix."""
    return definite(phases(sp.csr_matrix(matrix))[0])


def test_ruge_stuben_refuses_complex_matrices():
    """As PyAMG would, but in words: eager, when it is prepared, and of traced values."""
    operator = _complex(gallery.poisson((8, 8)))
    message = r"operator: must be real for method 'ruge_stuben'.*got complex.*Use 'smoothed_aggr"
    for call in (AMG(RS).init, AMG(RS).prepare, jax.jit(lambda a: AMG(RS).init(a).mv(rhs(64)))):
        with pytest.raises(lp.errors.WrongTypeError, match=message):
            call(operator)


@pytest.mark.parametrize("method", [SA, RS])
def test_a_real_hierarchy_takes_complex_values(method):
    """Interpolation stays real; Galerkin products, smoothers and the coarsest inverse are complex."""
    real = definite(gallery.poisson((24, 24)))
    hierarchy = AMG(method, max_coarse=30).prepare(real)
    tolerance = 1e-8 if X64 else 1e-4
    entries = real.values.astype(jnp.complex128 if X64 else jnp.complex64)
    for values in (2 * entries, jnp.where(real.values > 0, (1 + 0.2j) * entries, entries)):
        operator = lp.SparseLinearOperator(values, real.pattern)
        b = operator.mv(jnp.exp(1j * rhs(576).astype(values.dtype)))
        solver = lp.GMRES(tolerance, 0.0, preconditioner=hierarchy)
        found = jax.jit(lambda a, b: lp.linear_solve(a, b, solver))(operator, b)
        assert int(found.stats["num_steps"]) <= 15
        m = hierarchy.init(operator)
        entries = np.asarray(m.as_matrix())
        scale = np.abs(entries).max() * (1e-10 if X64 else 1e-3)
        np.testing.assert_allclose(m.transpose().as_matrix(), entries.T, atol=scale)


def test_a_real_hierarchy_of_a_hermitian_matrix_is_hermitian():
    hierarchy = AMG(max_coarse=30).prepare(definite(gallery.poisson((12, 12))))
    operator = _complex(gallery.poisson((12, 12)))
    entries = np.asarray(hierarchy.init(operator).as_matrix())
    assert np.iscomplexobj(entries)
    scale = np.abs(entries).max() * (1e-10 if X64 else 1e-4)
    np.testing.assert_allclose(entries, entries.conj().T, atol=scale)


def test_a_complex_hierarchy_refuses_real_values():
    operator = _complex(gallery.poisson((8, 8)))
    hierarchy = AMG(max_coarse=10).prepare(operator)
    real = lp.SparseLinearOperator(operator.values.real, operator.pattern)
    with pytest.raises(lp.errors.WrongTypeError, match=r"operator: must be complex, as .*prepared"):
        hierarchy.init(real)
