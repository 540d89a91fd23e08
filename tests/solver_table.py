"""One table of solvers and the systems they are tested on; one test file per transformation uses it.

A case makes parameters (a pytree) from a seed, and builds the operator from them, so that derivatives
with respect to the parameters keep what the operator promises. The reference is always dense:
`jnp.linalg.solve` or `jnp.linalg.pinv` of `build(params).as_matrix()`.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from external_solver import SuperLU
from jax.flatten_util import ravel_pytree

import linsolve_prim as lp
from linsolve_prim.testing import random_like

X64 = jax.config.jax_enable_x64
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
DTYPES = (REAL, COMPLEX)

#: Krylov methods go as far as the dtype reaches.
TIGHT = 1e-13 if X64 else 1e-6


@dataclasses.dataclass(frozen=True)
class Case:
    """One solver on one kind of system.

    - `shapes`: of the parameters, which are standard normal, a pytree of tuples.
    - `build`: from parameters to the operator.
    - `rank`: "full" (square and regular), "rectangular" (of full rank) or "deficient".
    - `loose`: by how much its tolerance is wider (an iteration, or a squared condition number).
    """

    id: str
    solver: lp.AbstractLinearSolver
    shapes: Any
    build: Callable[[Any], lp.AbstractLinearOperator]
    rank: str = "full"
    loose: float = 1.0

    def params(self, dtype, seed=0):
        leaf = lambda shape: jax.ShapeDtypeStruct(shape, dtype)
        is_shape = lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x)
        return random_like(jax.tree.map(leaf, self.shapes, is_leaf=is_shape), seed)

    def vector(self, dtype, seed=1):
        """A right-hand side, which for a deficient system is in no particular place."""
        return random_like(jax.eval_shape(self.structure, self.params(dtype)), seed)

    def structure(self, params):
        """Any pytree of the operator's output structure."""
        zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
        return jax.tree.map(zeros, self.build(params).out_structure())

    def solve(self, params, b, **settings):
        """The solution, flat."""
        return flat(lp.linear_solve(self.build(params), b, self.solver, **settings).value)

    def reference(self, params, b):
        """The same from dense linear algebra. (JAX's derivative of `pinv` is right at constant rank.)"""
        matrix = self.build(params).as_matrix()
        if self.rank == "full":
            return jnp.linalg.solve(matrix, flat(b))
        return jnp.linalg.pinv(matrix) @ flat(b)

    def tol(self, order=0):
        """The allowed relative error of a derivative of the given order."""
        return (1e-10 if X64 else 1e-4) * self.loose * 10**order


def flat(tree):
    return ravel_pytree(tree)[0]


def assert_close(actual, desired, tol):
    """Relative to the largest entry, leaf by leaf."""
    a_leaves, a_def = jax.tree.flatten(actual)
    d_leaves, d_def = jax.tree.flatten(desired)
    assert a_def == d_def
    for a, d in zip(a_leaves, d_leaves):
        a, d = np.asarray(a), np.asarray(d)
        assert a.shape == d.shape
        assert a.dtype == d.dtype
        scale = max(np.abs(d).max(initial=0), 1e-3)
        np.testing.assert_allclose(a / scale, d / scale, rtol=0, atol=tol)


# ---- systems -------------------------------------------------------------------------------------

N = 4


def _eye(m):
    return jnp.eye(m.shape[0], dtype=m.dtype)


def _scaled(m, shift=3):
    """A regular matrix that is not symmetric, nor diagonally dominant, from any small one."""
    return m + shift * _eye(m)


def general(m):
    return lp.MatrixLinearOperator(_scaled(m))


def definite(m):
    return lp.MatrixLinearOperator(m @ m.conj().T + _eye(m), lp.positive_semidefinite_tag)


def negative(m):
    return lp.MatrixLinearOperator(-m @ m.conj().T - _eye(m), lp.negative_semidefinite_tag)


def lower(m):
    return lp.MatrixLinearOperator(jnp.tril(_scaled(m)), lp.lower_triangular_tag)


def upper(m):
    return lp.MatrixLinearOperator(jnp.triu(_scaled(m)), lp.upper_triangular_tag)


def unit_lower(m):
    tags = lp.lower_triangular_tag, lp.unit_diagonal_tag
    return lp.MatrixLinearOperator(jnp.tril(m, -1) + _eye(m), tags)


def bands(p):
    return lp.TridiagonalLinearOperator(p["main"] + 3, p["lower"], p["upper"])


def diagonal(d):
    return lp.DiagonalLinearOperator(d + 3)


def holed_diagonal(d):
    """With an entry that is zero and stays so."""
    return lp.DiagonalLinearOperator((d + 3).at[1].set(0))


def full_matrix(m):
    return lp.MatrixLinearOperator(m + jnp.eye(*m.shape, dtype=m.dtype))


def product(p):
    """Of rank 2, and so are its neighbours."""
    return lp.MatrixLinearOperator(p["b"] @ p["c"])


def blocks(p):
    """On {"u": (2,), "p": (3,)}: a `PyTreeLinearOperator`."""
    pp, uu = p["pp"] + 3 * _eye(p["pp"]), p["uu"] + 3 * _eye(p["uu"])
    structure = {
        "p": jax.ShapeDtypeStruct(pp.shape[:1], pp.dtype),
        "u": jax.ShapeDtypeStruct(uu.shape[:1], uu.dtype),
    }
    tree = {"p": {"p": pp, "u": p["pu"]}, "u": {"p": p["up"], "u": uu}}
    return lp.PyTreeLinearOperator(tree, structure)


def function(p):
    """Matrix-free and nonsymmetric: x ↦ 3x + w·shift(x) + c·cumsum(x) (row B-01)."""

    def fn(x):
        return 3 * x + p["w"] * jnp.roll(x, 1) + p["c"] * jnp.cumsum(x)

    return lp.FunctionLinearOperator(fn, jax.ShapeDtypeStruct((N,), p["w"].dtype))


def jacobian(p):
    """Of a nonlinear function, at a point: both are parameters."""

    def fn(x, args):
        return 4 * x + jnp.sin(args["m"] @ x) + x * jnp.roll(x, 1) / 4

    return lp.JacobianLinearOperator(fn, p["x"] / 2, {"m": p["m"] / 3})


def _normal_cg(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return lp.NormalCG(**settings)


_SQUARE, _TALL, _WIDE = (N, N), (5, 3), (3, 5)
_BANDS = {"main": (N,), "lower": (N - 1,), "upper": (N - 1,)}
_BLOCKS = {"pp": (3, 3), "pu": (3, 2), "up": (2, 3), "uu": (2, 2)}
_FUNCTION = {"w": (N,), "c": (N,)}
_JACOBIAN = {"x": (N,), "m": (N, N)}
_FACTORS = {"b": (5, 2), "c": (2, 4)}

CASES = [
    Case("lu", lp.LU(), _SQUARE, general),
    Case("lu-pytree", lp.LU(), _BLOCKS, blocks),
    Case("lu-function", lp.LU(), _FUNCTION, function),
    Case("lu-jacobian", lp.LU(), _JACOBIAN, jacobian),
    Case("qr-square", lp.QR(), _SQUARE, general),
    Case("qr-tall", lp.QR(), _TALL, full_matrix, "rectangular"),
    Case("qr-wide", lp.QR(), _WIDE, full_matrix, "rectangular"),
    Case("svd-square", lp.SVD(), _SQUARE, general),
    Case("svd-tall", lp.SVD(), _TALL, full_matrix, "rectangular"),
    Case("svd-wide", lp.SVD(), _WIDE, full_matrix, "rectangular"),
    Case("svd-deficient", lp.SVD(), _FACTORS, product, "deficient", 10),
    Case("cholesky-psd", lp.Cholesky(), _SQUARE, definite),
    Case("cholesky-nsd", lp.Cholesky(), _SQUARE, negative),
    Case("triangular-lower", lp.Triangular(), _SQUARE, lower),
    Case("triangular-upper", lp.Triangular(), _SQUARE, upper),
    Case("triangular-unit", lp.Triangular(), _SQUARE, unit_lower),
    Case("tridiagonal", lp.Tridiagonal(), _BANDS, bands),
    Case("diagonal", lp.Diagonal(well_posed=True), (N,), diagonal),
    Case("diagonal-zero", lp.Diagonal(), (N,), holed_diagonal, "deficient"),
    Case("cg", lp.CG(rtol=TIGHT), _SQUARE, definite, loose=10),
    Case("gmres", lp.GMRES(rtol=TIGHT), _SQUARE, general, loose=10),
    Case("gmres-function", lp.GMRES(rtol=TIGHT), _FUNCTION, function, loose=10),
    Case("gmres-pytree", lp.GMRES(rtol=TIGHT), _BLOCKS, blocks, loose=10),
    Case("bicgstab", lp.BiCGStab(rtol=TIGHT), _SQUARE, general, loose=10),
    Case("lsmr-tall", lp.LSMR(rtol=TIGHT), _TALL, full_matrix, "rectangular", 100),
    Case("normal-cholesky", lp.Normal(lp.Cholesky()), _SQUARE, general, loose=100),
    Case("normal-cg", _normal_cg(rtol=TIGHT), _SQUARE, general, loose=100),
    Case("auto-true", lp.AutoLinearSolver(well_posed=True), _SQUARE, definite),
    Case("auto-none", lp.AutoLinearSolver(well_posed=None), _TALL, full_matrix, "rectangular"),
    Case("auto-false", lp.AutoLinearSolver(well_posed=False), _FACTORS, product, "deficient", 10),
    Case("superlu", SuperLU("expand_dims"), _SQUARE, general),
]

BY_ID = {case.id: case for case in CASES}


#: These run in both dtypes; the others in one by default, and in the other if slow tests are run.
CORE = ("lu", "lu-function", "qr-tall", "svd-deficient", "cholesky-psd", "superlu")


def over(cases=tuple(BY_ID), dtypes=DTYPES, first=0, both=CORE):
    """`@pytest.mark.parametrize` of cases and dtypes; `first` says which dtype comes first."""
    values = []
    for i, case in enumerate(BY_ID[case] for case in cases):
        for dtype in dtypes:
            second = len(dtypes) > 1 and dtype != dtypes[(i + first) % 2]
            spared = second and case.id not in both
            marks = [pytest.mark.slow] if spared else []
            values.append(pytest.param(case, dtype, id=f"{case.id}-{dtype.name}", marks=marks))
    return pytest.mark.parametrize(("case", "dtype"), values)
