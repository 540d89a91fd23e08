"""One table of preconditioners, and of the systems that they are tested on."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from krylov_tools import COMPLEX, REAL, X64, normal, run, succeeded

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc

MATRICES = pathlib.Path(__file__).parent.parent.parent / "shared" / "matrices"


# ---- systems: scipy.sparse matrices --------------------------------------------------------------


def chain(n, below=-1.0, main=2.0, above=-1.0):
    return sp.diags_array([below, main, above], offsets=[-1, 0, 1], shape=(n, n), dtype=float)


def poisson(n):
    """The five-point −Δ on n² points."""
    one, eye = chain(n), sp.eye_array(n)
    return sp.csr_array(sp.kron(one, eye) + sp.kron(eye, one))


def advection(n, speed=0.6):
    """With central differences of an advection along the diagonal: not symmetric."""
    one, eye = chain(n, -1 - speed, 2.0, -1 + speed), sp.eye_array(n)
    return sp.csr_array(sp.kron(one, eye) + sp.kron(eye, one))


def hermitian(n):
    """A complex definite five-point matrix: −Δ in a magnetic field."""
    a = poisson(n).astype(complex).tocoo()
    phase = np.exp(0.4j * np.sign(a.col - a.row))
    return sp.csr_array((a.data * phase, (a.row, a.col)), shape=a.shape)


def from_file(name):
    """A matrix of the collection beside the repository; skips where it is absent."""
    path = MATRICES / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}: no collection of matrices beside the repository")
    z = np.load(path)
    return sp.csr_array((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"]))


def operator(matrix, kind="general"):
    """A sparse operator with the tag of its kind, in the dtype of the test run."""
    dtype = COMPLEX if np.iscomplexobj(matrix.data) else REAL
    tags = {"definite": lp.positive_semidefinite_tag, "negative": lp.negative_semidefinite_tag}
    tag = tags.get(kind, lp.symmetric_tag if kind == "symmetric" else ())
    return lp.SparseLinearOperator.from_scipy(matrix.astype(dtype), tag)


#: Small, one for each kind of symmetry: name → (kind, matrix).
SMALL = {
    "definite": ("definite", poisson(6)),
    "negative": ("negative", -poisson(6)),
    "general": ("general", advection(6)),
    "hermitian": ("definite", hermitian(6)),
    "complex": ("general", sp.csr_array(advection(6) + 0.5j * poisson(6))),
}


# ---- preconditioners -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """One preconditioner.

    - `kinds`: the kinds of systems that it takes.
    - `definite`: whether CG may use it on definite ones.
    - `helps`: by which factor it brings down the iterations on 32² unknowns, at least.
    - `free`: of operators that are known by their products, no entries are read.
    - `variant`: it stands beside another row for the same class, and is tested with the slow tests.
    """

    name: str
    make: Any
    kinds: tuple[str, ...] = ("definite", "negative", "general", "hermitian", "complex")
    definite: bool = True
    helps: float = 1.0
    free: bool = False
    variant: bool = False


DEFINITE = ("definite", "negative", "hermitian")
LABELS = np.arange(36) % 7
ROWS = [
    Row("Jacobi", pc.Jacobi),
    Row("Jacobi(absolute)", lambda: pc.Jacobi(absolute=True), variant=True),
    Row("BlockJacobi(5)", lambda: pc.BlockJacobi(5), helps=1.1),
    Row("BlockJacobi(labels)", lambda: pc.BlockJacobi(LABELS), helps=0, variant=True),
    Row("SSOR", lambda: pc.SSOR(1.2), helps=2.0),
    Row("GaussSeidel", pc.GaussSeidel, helps=2.0),
    Row("GaussSeidel(forward)", lambda: pc.GaussSeidel("forward"), definite=False, helps=1.5),
    Row(
        "GaussSeidel(backward)",
        lambda: pc.GaussSeidel("backward"),
        definite=False,
        helps=1.5,
        variant=True,
    ),
    Row("ILU", pc.ILU, helps=2.5),
    Row("ILU(1)", lambda: pc.ILU(1), helps=4.0, variant=True),
    Row("ILU(sweeps)", lambda: pc.ILU(solves=4), helps=2.0),
    Row("ILU(host)", lambda: pc.ILU(device="host"), definite=False, helps=8.0),
    Row("IC", pc.IC, kinds=DEFINITE, helps=2.5),
    Row("IC(sweeps)", lambda: pc.IC(solves=4), kinds=DEFINITE, helps=2.0, variant=True),
    Row("Host(ilu)", lambda: pc.Host("ilu"), definite=False, helps=8.0, variant=True),
    Row("Chebyshev", pc.Chebyshev, helps=3.0, free=True),
    Row("Neumann", pc.Neumann, helps=1.8, variant=True, free=True),
    Row("SPAI", pc.SPAI, helps=1.5),
    Row("SPAI(2)", lambda: pc.SPAI(2), helps=2.0, variant=True),
    Row("Nystrom", lambda: pc.Nystrom(10), kinds=DEFINITE, helps=0.9, free=True),
    Row("PivotedCholesky", lambda: pc.PivotedCholesky(10), kinds=DEFINITE, helps=0),
    Row("CoarseGrid", lambda: pc.CoarseGrid(9), helps=1.1, free=True),
    Row(
        "CoarseGrid(additive)",
        lambda: pc.CoarseGrid(LABELS, additive=True),
        helps=0,
        variant=True,
        free=True,
    ),
    Row("Schwarz", lambda: pc.Schwarz(5), helps=2.0),
    Row("Schwarz(labels)", lambda: pc.Schwarz(LABELS, restricted=False), helps=0, variant=True),
    Row(
        "Schwarz(restricted)",
        lambda: pc.Schwarz(5, restricted=True),
        definite=False,
        helps=2.0,
        variant=True,
    ),
    Row(
        "FieldSplit",
        lambda: pc.FieldSplit(20, pc.ILU(), pc.Jacobi()),
        definite=False,
        helps=0,
        variant=True,
    ),
    Row(
        "FieldSplit(full)",
        lambda: pc.FieldSplit(20, kind="full"),
        definite=False,
        helps=0,
        variant=True,
    ),
    Row("Compose", lambda: pc.Compose(pc.SSOR(), pc.CoarseGrid(9)), helps=3.0, free=True),
    Row(
        "Compose(additive)",
        lambda: pc.Compose(pc.SSOR(), pc.CoarseGrid(9), how="additive"),
        helps=1.8,
        free=True,
        variant=True,
    ),
]
BY_NAME = {row.name: row for row in ROWS}


def cases(*kinds, slow=()):
    """`@pytest.mark.parametrize` over rows and those of the kinds that they take."""
    found = [(row, kind) for row in ROWS for kind in (*kinds, *slow) if kind in row.kinds]
    marks = lambda row, kind: [pytest.mark.slow] if row.variant or kind in slow else []
    params = [pytest.param(r, k, id=f"{r.name}-{k}", marks=marks(r, k)) for r, k in found]
    return pytest.mark.parametrize(("row", "kind"), params)


def solve(matrix, kind, solver, preconditioner=None, seed=0):
    """The solution of a system with a random right-hand side, which succeeded, and its statistics."""
    a = operator(matrix, kind)
    b = jnp.asarray(normal(a.out_size(), a.values.dtype, seed))
    solver = dataclasses.replace(solver, preconditioner=preconditioner)
    x, result, stats = run(solver, a, b)
    assert succeeded(result)
    residual = np.linalg.norm(np.asarray(b) - matrix @ np.asarray(x))
    bound = (1e-9 if X64 else 1e-4) * np.linalg.norm(b)
    assert residual <= bound, "the residual is larger than what was reported"
    return x, stats


def steps(*args, **settings):
    return int(solve(*args, **settings)[1]["num_steps"])
