"""One table of all solvers of host libraries, for the tests of them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import linsolve_prim as lp
from linsolve_prim.host.available import has_module
from linsolve_prim.solvers.host.cholmod import scikit_sparse

DTYPE = np.dtype(jnp.result_type(float))
X64 = DTYPE == np.float64
COMPLEX = np.dtype("complex128" if X64 else "complex64")
PSD, NSD = lp.positive_semidefinite_tag, lp.negative_semidefinite_tag
LOWER, UPPER = lp.lower_triangular_tag, lp.upper_triangular_tag

#: Of iterative methods, in the tests of their numbers.
TIGHT = 1e-12 if X64 else 1e-6


@dataclasses.dataclass(frozen=True)
class Entry:
    """A solver and the matrices that it is for.

    - `kind`: "general", "definite", "negative", "lower", "upper", "unit lower" or "unit upper".
    - `needs`: the modules without which its tests are skipped.
    """

    id: str
    cls: str
    settings: tuple = ()
    kind: str = "general"
    needs: tuple = ()
    direct: bool = True
    takes_complex: bool = True

    def solver(self):
        for name in self.needs:
            pytest.importorskip(name)
        make = MAKERS.get(self.cls) or getattr(lp, self.cls)
        return make(**dict(self.settings))

    def here(self):
        """Whether all that it needs is installed."""
        return all(has_module(name) for name in self.needs)

    def tags(self):
        return {"definite": (PSD,), "negative": (NSD,)}.get(self.kind, ())

    def matrix(self, dtype, n=8, seed=0):
        return make_matrix(self.kind, np.dtype(dtype), n, seed)


def make_matrix(kind, dtype, n, seed=0):
    """A well-conditioned sparse matrix of a kind, as a `csr_array`."""
    rng = np.random.default_rng(seed)
    draw = lambda: (
        rng.normal(size=(n, n)) + (1j * rng.normal(size=(n, n)) if dtype.kind == "c" else 0)
    )
    mask = rng.random((n, n)) < 0.35
    a = 0.5 * np.where(mask, draw(), 0) + np.diag(3 + rng.random(n))
    if kind in ("definite", "negative"):
        a = np.where(mask, 0.3 * draw(), 0)
        a = (a + a.conj().T) + np.diag(4 + rng.random(n))
        a = -a if kind == "negative" else a
    if "lower" in kind or "upper" in kind:
        a = np.tril(a) if "lower" in kind else np.triu(a)
    if "unit" in kind:
        a = a - np.diag(np.diag(a))
    return sp.csr_array(a.astype(dtype))


def superlu_by_functions(multiple=False):
    """`HostSolver` over SciPy's SuperLU."""
    return lp.HostSolver(
        factorize=lambda a: spla.splu(a.tocsc()),
        solve=lambda lu, b, transpose: lu.solve(b, trans="T" if transpose else "N"),
        nbytes=lambda lu: 16 * lu.nnz,
        multiple=multiple,
    )


CHOLMOD_MODULE = "cvxopt" if scikit_sparse() is None else "sksparse.cholmod"
MAKERS = {"superlu_by_functions": superlu_by_functions}


def _direct():
    yield Entry("superlu", "SuperLU")
    yield Entry("superlu-natural", "SuperLU", (("permc_spec", "NATURAL"),))
    yield Entry("superlu-threshold", "SuperLU", (("diag_pivot_thresh", 0.1),))
    yield Entry("superlu-symmetric", "SuperLU", (("symmetric_mode", True),), "definite")
    yield Entry("superlu-definite", "SuperLU", (), "definite")
    yield Entry("banded", "Banded")
    yield Entry("banded-as-given", "Banded", (("reorder", False),))
    yield Entry("banded-definite", "Banded", (), "definite")
    yield Entry("banded-negative", "Banded", (), "negative")
    for kind in ("lower", "upper"):
        yield Entry(f"triangular-{kind}", "SpSolveTriangular", (), kind)
        unit = (("lower", kind == "lower"), ("unit_diagonal", True))
        yield Entry(f"triangular-unit-{kind}", "SpSolveTriangular", unit, f"unit {kind}")
    yield Entry("functions", "superlu_by_functions")
    yield Entry("functions-multiple", "superlu_by_functions", (("multiple", True),))
    yield Entry("rslab", "RSLab", needs=("rslab",))
    yield Entry("rslab-definite", "RSLab", (), "definite", ("rslab",))
    yield Entry("cholmod", "CHOLMOD", (), "definite", (CHOLMOD_MODULE,))
    metis = (("ordering", "metis"),)
    yield Entry("cholmod-metis", "CHOLMOD", metis, "definite", (CHOLMOD_MODULE, "pymetis"))
    yield Entry("cholmod-negative", "CHOLMOD", (), "negative", (CHOLMOD_MODULE,))
    yield Entry("umfpack", "UMFPACK", needs=("cvxopt",))
    yield Entry("klu", "KLU", needs=("nbklu",))
    yield Entry("pardiso", "PARDISO", needs=("pymklpardiso",))
    yield Entry("pardiso-definite", "PARDISO", (), "definite", ("pymklpardiso",))


METHODS = (
    "cg", "cgs", "bicg", "bicgstab", "gmres", "lgmres", "qmr", "minres", "gcrotmk", "tfqmr",
    "lsqr", "lsmr",
)  # fmt: skip


def _iterative():
    rtol = ("rtol", TIGHT)
    for name in METHODS:
        kind = "definite" if name in ("cg", "minres") else "general"
        yield Entry(
            name,
            "SciPyIterative",
            (("name", name), rtol),
            kind,
            direct=False,
            takes_complex=name != "minres",
        )
    for name, how in (("cg", "jacobi"), ("bicgstab", "ilu"), ("gmres", "amg"), ("qmr", "jacobi")):
        kind = "definite" if name == "cg" else "general"
        needs = ("pyamg",) if how == "amg" else ()
        settings = (("name", name), rtol, ("preconditioner", how))
        yield Entry(f"{name}-{how}", "SciPyIterative", settings, kind, needs, False)
    yield Entry("pyamg", "PyAMG", (rtol,), "general", ("pyamg",), False)
    yield Entry("pyamg-definite", "PyAMG", (rtol,), "definite", ("pyamg",), False)
    yield Entry(
        "pyamg-ruge-stuben",
        "PyAMG",
        (("method", "ruge_stuben"), rtol),
        "definite",
        ("pyamg",),
        False,
    )


TABLE = (*_direct(), *_iterative())
DIRECT = tuple(entry for entry in TABLE if entry.direct)
BY_ID = {entry.id: entry for entry in TABLE}


def operator_of(matrix, tags=()):
    """Of a SciPy matrix or a dense array."""
    return lp.SparseLinearOperator.from_scipy(sp.csr_array(matrix), tags)


def unit(entry, dense):
    """What a solver takes the matrix for: with ones on the diagonal, if they are not stored."""
    return dense + np.eye(len(dense), dtype=dense.dtype) if "unit" in entry.kind else dense


# ---- Numbers --------------------------------------------------------------------------------------

RTOL = 1e-9 if X64 else 3e-3
draw = lambda rng, shape, dtype: jnp.asarray(
    rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype.kind == "c" else 0), dtype
)


def close(actual, desired, rtol=RTOL):
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max() <= rtol * np.abs(desired).max()
