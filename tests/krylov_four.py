"""CG, GMRES, BiCGStab, LSMR and Normal, called by hand: the solvers, systems for them, and `run`.

Other tests have tables of methods (`krylov_problems`), in which CG and BiCGStab are; where a test here asks
nothing else of these two, they are left to the slow tests.
"""

import jax.numpy as jnp
import krylov_tools
import numpy as np
import pytest

from linsolve_prim.operators import MatrixLinearOperator, positive_semidefinite_tag
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab
from linsolve_prim.solvers.normal import Normal

METHODS = [CG(), GMRES(), BiCGStab(), LSMR()]
SOLVERS = [*METHODS, Normal(CG())]
NAMES = ["CG", "GMRES", "BiCGStab", "LSMR", "Normal(CG)"]
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
each_method = pytest.mark.parametrize("solver", METHODS, ids=NAMES[:4])


def least(solvers):
    """Parameters for pytest, of which those that other tables have too are slow tests."""
    marks = lambda solver: [pytest.mark.slow] if isinstance(solver, (CG, BiCGStab)) else []
    return [pytest.param(s, marks=marks(s), id=name) for s, name in zip(solvers, NAMES)]


least_solvers = pytest.mark.parametrize("solver", least(SOLVERS))
least_methods = pytest.mark.parametrize("solver", least(METHODS))


def matrix(n, dtype, definite, seed=0, m=None):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m or n, n))
    if np.issubdtype(dtype, np.complexfloating):
        a = a + 1j * rng.normal(size=(m or n, n))
    if definite:
        a = a @ a.conj().T / n + np.eye(n)
    elif m is None:
        a = a + 2 * np.sqrt(n) * np.eye(n)
    return a.astype(dtype)


def vector(n, dtype, seed=1):
    return matrix(1, dtype, False, seed, m=n)[:, 0]


def operator_for(solver, a):
    return MatrixLinearOperator(
        jnp.asarray(a), positive_semidefinite_tag if isinstance(solver, CG) else ()
    )


def run(solver, a, b, options=None, operator=None, state=None):
    """`(x, result, stats)` of a solve with a matrix (or an operator), by `init` and `compute`."""
    operator = operator_for(solver, a) if operator is None else operator
    return krylov_tools.run(solver, operator, b, options, state)
