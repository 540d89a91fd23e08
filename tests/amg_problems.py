"""Systems for algebraic multigrid, and solves of them."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import linsolve_prim as lp

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


SA, RS = "smoothed_aggregation", "ruge_stuben"


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
