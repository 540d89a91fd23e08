"""Sparse direct solves: host libraries through JAX beside the same libraries from plain Python."""

import functools
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import linsolve_prim as lp

from . import peers
from .report import Table
from .timing import markdown, spread


def poisson(m: int, dims: int) -> sp.csr_matrix:
    """The Laplacian on a grid of m points in each of 1 to 3 dimensions."""
    line = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (m, m))
    eye, out = sp.identity(m), line
    for _ in range(dims - 1):
        out = sp.kron(out, eye) + sp.kron(sp.identity(out.shape[0]), line)
    return sp.csr_matrix(out)


def convection(m: int) -> sp.csr_matrix:
    """Convection and diffusion on a square grid, upwind: not symmetric."""
    wind = sp.diags([-1.0, 1.0], [-1, 0], (m, m))
    return sp.csr_matrix(poisson(m, 2) + 0.5 * sp.kron(wind, sp.identity(m)))


def problems(quick: bool) -> dict[str, tuple[sp.csr_matrix, bool]]:
    """Matrices by name, and whether each is definite."""
    out = {
        "2-D 50²": (poisson(50, 2), True),
        "2-D 200²": (poisson(200, 2), True),
        "3-D 20³": (poisson(20, 3), True),
        "convection 100²": (convection(100), False),
    }
    if not quick:
        out |= {
            "2-D 400²": (poisson(400, 2), True),
            "2-D 700²": (poisson(700, 2), True),
            "3-D 30³": (poisson(30, 3), True),
            "3-D 40³": (poisson(40, 3), True),
            "convection 300²": (convection(300), False),
        }
    for matrix, _ in out.values():
        matrix.sort_indices()
    return out


#: What is done with each matrix, and for how many sets of values.
BATCH, STEPS = 16, 20
TASKS = {"forward": 1, "gradient": 1, "many": 1, "batch": BATCH, "newton": STEPS}

_FRESH = itertools.count(1)

Run = Callable[[np.ndarray], Any]  # new values -> something to wait for


def _raw_superlu(matrix: sp.csr_matrix, b: np.ndarray) -> Run:
    def run(values: np.ndarray) -> Any:
        shape = matrix.shape
        return spla.splu(sp.csc_matrix((values, matrix.indices, matrix.indptr), shape)).solve(
            b, "T"
        )

    return run


def _raw_superlu_definite(matrix: sp.csr_matrix, b: np.ndarray) -> Run:
    def run(values: np.ndarray) -> Any:
        csc = sp.csc_matrix((values, matrix.indices, matrix.indptr), matrix.shape)
        options = {"SymmetricMode": True}
        lu = spla.splu(csc, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        return lu.solve(b, "T")

    return run


def _raw_rslab(matrix: sp.csr_matrix, b: np.ndarray, definite: bool) -> Run:
    import rslab

    csc = (sp.tril(matrix) if definite else matrix).tocsc()
    slots = sp.csr_matrix((np.arange(1, matrix.nnz + 1), matrix.indices, matrix.indptr))
    order = (sp.tril(slots) if definite else slots).tocsc().data - 1
    analysis = rslab.analyze(csc, path="ldlt" if definite else "lu", threads=1)
    many = np.asfortranarray(b) if b.ndim == 2 else b

    def run(values: np.ndarray) -> Any:
        factor = analysis.factor(values[order])
        return factor.solve_many(many) if b.ndim == 2 else factor.solve(b)

    return run


def _raw_band(matrix: sp.csr_matrix, b: np.ndarray, definite: bool) -> Run:
    """LAPACK on the band of the matrix as it is."""
    from scipy.linalg import lapack

    n, entries = len(b), matrix.tocoo()
    width = int(np.abs(entries.row - entries.col).max())
    height = width + 1 if definite else 3 * width + 1
    slots = np.flatnonzero(entries.row >= entries.col) if definite else np.arange(matrix.nnz)
    rows, columns = entries.row[slots].astype(np.int64), entries.col[slots].astype(np.int64)
    places = columns * height + rows - columns + (0 if definite else 2 * width)

    def run(values: np.ndarray) -> Any:
        storage = np.zeros((n, height))
        storage.reshape(-1)[places] = values[slots]
        if definite:
            band, _ = lapack.dpbtrf(storage.T, lower=1, overwrite_ab=1)
            return lapack.dpbtrs(band, b, lower=1)[0]
        band, pivots, _ = lapack.dgbtrf(storage.T, width, width, overwrite_ab=1)
        return lapack.dgbtrs(band, width, width, b, pivots)[0]

    return run


def _raw_cholmod(matrix: sp.csr_matrix, b: np.ndarray) -> Run:
    from cvxopt import cholmod, matrix as dense, spmatrix

    rows, columns = matrix.tocoo().row, matrix.tocoo().col
    lower = rows >= columns
    i, j = dense(rows[lower].astype(np.int64)), dense(columns[lower].astype(np.int64))

    def run(values: np.ndarray) -> Any:
        a = spmatrix(dense(values[lower]), i, j, matrix.shape)
        factor, rhs = cholmod.symbolic(a), dense(b)
        cholmod.numeric(a, factor)
        cholmod.solve(factor, rhs)
        return np.array(rhs)

    return run


def _raw_klu(matrix: sp.csr_matrix, b: np.ndarray) -> Run:
    """By rows, so Aᵀ: one analysis, and pivots of their own for each matrix."""
    import nbklu

    solver = nbklu.KLUSolver(index_bits=32, complex_values=False, singular_as_error=True)
    solver.analyze(matrix.shape[0], matrix.indptr, matrix.indices)
    many = np.ascontiguousarray(np.atleast_2d(b.T))

    def run(values: np.ndarray) -> Any:
        solver.factor(values)
        return solver.tsolve(many).T.reshape(b.shape)

    return run


def _raw_pardiso(matrix: sp.csr_matrix, b: np.ndarray, definite: bool) -> Run:
    """The wheel's own module: one analysis, then new values."""
    import pymklpardiso as mkl

    kept = sp.triu(matrix, format="csr") if definite else matrix
    slots = sp.csr_matrix((np.arange(1, matrix.nnz + 1), matrix.indices, matrix.indptr))
    order = (sp.triu(slots, format="csr") if definite else slots).data - 1
    kind = mkl.MTYPE_REAL_SYM_POSDEF if definite else mkl.MTYPE_REAL_NONSYM
    solver, many = mkl.PardisoSolver(kept, kind), np.asfortranarray(b)

    def run(values: np.ndarray) -> Any:
        solver.refactor(values[order])
        return solver.solve(many)

    return run


def _ours(matrix: sp.csr_matrix, b: np.ndarray, solver: Any, definite: bool, what: str) -> Run:
    tags = lp.positive_semidefinite_tag if definite else ()
    pattern = lp.SparsityPattern.from_scipy(matrix)

    def solve(values: Any, rhs: Any) -> Any:
        operator = lp.SparseLinearOperator(values, pattern, tags)
        return lp.linear_solve(operator, rhs, solver, throw=False).value

    return _compiled(solve, jax.vmap(solve, (None, 1), 1), b, what)


def _compiled(solve: Callable[..., Any], columns: Callable[..., Any], b: Any, what: str) -> Run:
    """The program for a task, of a solver for one right-hand side and of one for several."""
    if what == "gradient":
        loss = lambda values, rhs: jnp.sum(jnp.sin(solve(values, rhs)))
        fn = jax.jit(jax.value_and_grad(loss, (0, 1)))
    elif what == "many":
        fn = jax.jit(columns)
    elif what == "batch":
        fn = jax.jit(lambda values, rhs: jax.vmap(solve, (0, None))(_scaled(values, BATCH), rhs))
    elif what == "newton":
        steps = lambda values, rhs: jax.lax.scan(
            lambda x, v: (solve(v, rhs - 0.01 * x), None), rhs, _scaled(values, STEPS)
        )[0]
        fn = jax.jit(steps)
    else:
        fn = jax.jit(solve)
    rhs = jnp.asarray(b)
    return lambda values: jax.block_until_ready(fn(jnp.asarray(values), rhs))


def _scaled(values: Any, count: int) -> Any:
    """That many different matrices on one pattern, `(count, nnz)`."""
    return values * (1 + 1e-3 * jnp.arange(count, dtype=values.dtype))[:, None]


def _repeated(run: Run, count: int) -> Run:
    """A library that knows no batches, once for each matrix."""
    return lambda values: [run(values * (1 + 1e-3 * k)) for k in range(count)]


def _jax_spsolve(matrix: sp.csr_matrix, b: np.ndarray, what: str) -> Run:
    from jax.experimental.sparse.linalg import spsolve

    indices, indptr = jnp.asarray(matrix.indices), jnp.asarray(matrix.indptr)
    solve = lambda values, rhs: spsolve(values, indices, indptr, rhs)
    loss = lambda values, rhs: jnp.sum(jnp.sin(solve(values, rhs)))
    fn = jax.jit(jax.value_and_grad(loss, (0, 1)) if what == "gradient" else solve)
    rhs = jnp.asarray(b)
    return lambda values: jax.block_until_ready(fn(jnp.asarray(values), rhs))


#: What is called without JAX; it does the solves of a task and no more.
RAW = (
    *("scipy splu", "scipy splu, symmetric", "lapack band"),
    *("rslab", "cvxopt cholmod", "nbklu", "pymklpardiso"),
)

#: Wider bands than this are not worth a row.
BAND = 256


def _right(runs: dict[str, Run], values: np.ndarray, what: str) -> set[str]:
    """Those whose result is that of SciPy, or of our SuperLU where more is asked than a solve."""
    outs = {name: [np.ravel(x) for x in jax.tree.leaves(run(values))] for name, run in runs.items()}
    right = set()
    for name, out in outs.items():
        plain = name in RAW or what in ("forward", "many")
        want = outs["scipy splu" if plain else "ours, SuperLU"]
        errors = [np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(out, want, strict=True)]
        if max(errors) <= 1e-6:
            right.add(name)
        else:
            print(f"{name}, {what}: wrong, relative error {max(errors):.1e}", file=sys.stderr)
    return right


def _time(runs: dict[str, Run], values: np.ndarray, seconds: float) -> dict[str, Any]:
    """Medians and spreads in ms, each call with values of its own; contestants take turns."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < seconds:
        rounds += 1
        scale = 1 + 1e-5 * next(_FRESH)  # never the same twice: some peers keep all factors
        for name, run in runs.items():
            fresh = values * scale
            lp.host.registry.clear_factors()
            began = time.perf_counter()
            run(fresh)
            samples[name].append(1e3 * (time.perf_counter() - began))
    quartiles = {name: np.percentile(times, [25, 50, 75]) for name, times in samples.items()}
    return {name: (float(q[1]), float(q[2] - q[0])) for name, q in quartiles.items()}


def _contestants(matrix: Any, b: Any, definite: bool, what: str) -> dict[str, Run]:
    runs: dict[str, Run] = {"scipy splu": _raw_superlu(matrix, b)}
    if definite:
        runs["scipy splu, symmetric"] = _raw_superlu_definite(matrix, b)
    narrow = max(lp.SparsityPattern.from_scipy(matrix).bandwidth()) <= BAND
    if narrow:
        runs["lapack band"] = _raw_band(matrix, b, definite)
    found = {library.solver for library in lp.host.available()}
    if "RSLab" in found:
        runs["rslab"] = _raw_rslab(matrix, b, definite)
    if "CHOLMOD" in found and definite:
        runs["cvxopt cholmod"] = _raw_cholmod(matrix, b)
    if "KLU" in found:
        runs["nbklu"] = _raw_klu(matrix, b)
    if "PARDISO" in found:
        runs["pymklpardiso"] = _raw_pardiso(matrix, b, definite)
    if TASKS[what] > 1:
        runs = {name: _repeated(run, TASKS[what]) for name, run in runs.items()}
    ours: dict[str, Any] = {"ours, SuperLU": lp.SuperLU}
    if narrow:
        ours["ours, Banded"] = lp.Banded
    if "RSLab" in found:
        ours["ours, RSLab"] = lp.RSLab
    if "CHOLMOD" in found:
        ours |= {"ours, UMFPACK": lp.UMFPACK} | ({"ours, CHOLMOD": lp.CHOLMOD} if definite else {})
    if {"CHOLMOD", "METIS"} <= found and definite:
        ours["ours, CHOLMOD by METIS"] = functools.partial(lp.CHOLMOD, "metis")
    if "PARDISO" in found:
        ours["ours, PARDISO"] = lp.PARDISO
    if "KLU" in found:
        ours["ours, KLU"] = lp.KLU
    for name, solver in ours.items():
        runs[name] = _ours(matrix, b, solver(), definite, what)
    if what in ("forward", "gradient"):
        runs["jax spsolve"] = _jax_spsolve(matrix, b, what)
    for name, solve in peers.solvers(matrix, definite).items():
        if peers.does(name, what):
            runs[name] = _compiled(solve, solve, b, what)
    return runs


def direct(seconds: float, quick: bool = True) -> Table:
    """All tasks on all problems, relative to SciPy's `splu` and one solve of the same process.

    Forward, value and gradient over (values, b), 32 right-hand sides, a `vmap` over 16 sets of
    values, and 20 steps that each solve with new values. Large problems take the first two.
    """
    rng, rows, names = np.random.default_rng(0), [], []
    for name, (matrix, definite) in problems(quick).items():
        n = matrix.shape[0]
        large = n > (3_000 if quick else 40_000)
        for what in ("forward", "gradient") if large else TASKS:
            b = rng.normal(size=(n, 32) if what == "many" else n)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runs = _contestants(matrix, b, definite, what)
                right = _right(runs, matrix.data, what)
                results = _time({k: runs[k] for k in runs if k in right}, matrix.data, seconds)
            names += [key for key in runs if key not in names]
            base = results["scipy splu"][0]
            cells = {k: f"{t / base:.2f}" for k, (t, _) in results.items()}
            cells |= {k: "wrong" for k in runs if k not in right}
            rows.append((f"{name}, {what}", f"{base:.1f}", cells, spread(results)))
            print(name, what, cells, file=sys.stderr)
    body = []
    for title, first, cells, wide in rows:
        body.append([title, first, *(cells.get(k, "–") for k in names[1:]), wide])
    header = ["", "scipy splu (factor, solve), ms", *(f"{k}, ×" for k in names[1:]), "spread"]
    return markdown("Sparse direct solves, fresh values in each call", header, body)
