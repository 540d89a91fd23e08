"""Gradients through host solvers on matrices of applications and of galleries (row S2-07)."""

import pathlib

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from host_table import BY_ID, DTYPE, X64, close, draw, operator_of

import linsolve_prim as lp

# ---- Matrices of others ----------------------------------------------------------------------------

FOLDER = pathlib.Path(__file__).parents[2] / "shared" / "matrices"
DEFINITE = ["g20", "airfoil", "nos5", "bar", "662_bus", "1138_bus"]
GENERAL = ["recirc_flow", "pde900", "cg20"]
BEST = ["superlu", "rslab", "umfpack", "klu", "pardiso", "functions"]
BEST_DEFINITE = ["superlu-definite", "rslab-definite", "cholmod", "pardiso-definite"]


def _real_world():
    quick = {"g20", "recirc_flow", "cg20"}
    for names, solvers in ((DEFINITE, BEST_DEFINITE), (GENERAL, BEST)):
        for name in names:
            for solver in solvers:
                marks = () if name in quick and "rslab" not in solver else (pytest.mark.slow,)
                yield pytest.param(name, BY_ID[solver], id=f"{name}-{solver}", marks=marks)


def _gradient(matrix, entry, rtol):
    """Cotangents on the pattern, against LAPACK."""
    operator = operator_of(matrix)
    pattern = operator.pattern
    b, w = draw(np.random.default_rng(0), (2, matrix.shape[0]), np.dtype(operator.values.dtype))

    def f(values, b):
        a = lp.SparseLinearOperator(values, pattern, entry.tags())
        return lp.linear_solve(a, b, entry.solver()).value

    x, pull = jax.vjp(f, operator.values, b)
    ct_values, ct_b = pull(w)
    a = matrix.toarray()
    x_ref, z = np.linalg.solve(a, np.asarray(b)), np.linalg.solve(a.T, np.asarray(w))
    close(x, x_ref, rtol)
    close(ct_b, z, rtol)
    close(ct_values, -z[pattern.rows] * x_ref[pattern.indices], rtol)


@pytest.mark.parametrize(("name", "entry"), list(_real_world()))
def test_gradients_on_matrices_of_applications_S2_07(name, entry):
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip("the matrices are not part of the repository")
    if not X64:
        pytest.skip("condition numbers of up to 10⁷ need float64")
    with np.load(path) as z:
        matrix = sp.csr_array((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"]))
    _gradient(matrix, entry, 1e-9)


@pytest.mark.parametrize(
    "solver", ["pyamg-definite", "pyamg-ruge-stuben", "cg", "superlu", "cholmod"]
)
def test_gradients_on_the_gallery(solver):
    gallery = pytest.importorskip("pyamg.gallery")
    matrix = sp.csr_array(gallery.poisson((12, 11), format="csr").astype(DTYPE))
    _gradient(matrix, BY_ID[solver], 1e-9 if X64 else 1e-2)


def test_nonsymmetric_problem_of_the_gallery():
    gallery = pytest.importorskip("pyamg.gallery")
    stencil = gallery.diffusion_stencil_2d(epsilon=0.1, theta=0.7, type="FE")
    matrix = sp.csr_array(gallery.stencil_grid(stencil, (9, 9), format="csr").astype(DTYPE))
    matrix = sp.csr_array(matrix + sp.diags_array(np.ones(80, DTYPE), offsets=1))
    for solver in ("pyamg", "bicgstab-ilu", "klu"):
        if BY_ID[solver].here():
            _gradient(matrix, BY_ID[solver], 1e-8 if X64 else 1e-2)
