"""Products of a sparse matrix with a vector: us beside SciPy's CSR, and JAX's BCOO and BCSR."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay

import linsolve_prim as lp
from linsolve_prim.sparse import layouts

from .report import Table
from .timing import markdown, spread, time_together

IN_A_LOOP = 10


def poisson(n: int) -> sp.csr_array:
    """The five-point Laplacian on an n×n grid."""
    second = sp.diags_array([-1.0, 2.01, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    return sp.csr_array(sp.kron(eye, second) + sp.kron(second, eye))


def uneven(n: int) -> sp.csr_array:
    """Random positions, in rows whose lengths follow a power law: 1 to 2000, 12 on average."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.zipf(1.8, n), 2000)
    rows = np.repeat(np.arange(n), lengths)
    columns = rng.integers(0, n, len(rows))
    out = sp.csr_array((rng.normal(size=len(rows)), (rows, columns)), shape=(n, n))
    out.sum_duplicates()
    return out


def poisson_3d(n: int) -> sp.csr_array:
    """The seven-point Laplacian on an n×n×n grid."""
    plane, line = poisson(n), sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    up = sp.kron(line, sp.eye_array(n * n))
    return sp.csr_array(sp.kron(sp.eye_array(n), plane) + up)


def random(n: int) -> sp.csr_array:
    """Eight entries in each row, anywhere."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(n), 8)
    out = sp.csr_array((rng.normal(size=8 * n), (rows, rng.integers(0, n, 8 * n))), shape=(n, n))
    out.sum_duplicates()
    return out


def triangles(n: int) -> sp.csr_array:
    """Linear elements on a Delaunay triangulation of n random points, which are numbered in strips."""
    rng = np.random.default_rng(0)
    points = rng.random((n, 2))
    strips = np.floor(points[:, 1] * np.sqrt(n) / 2)
    corners = Delaunay(points[np.lexsort((points[:, 0], strips))]).simplices
    rows = np.repeat(corners, 3, axis=1).ravel()
    columns = np.tile(corners, (1, 3)).ravel()
    out = sp.csr_array((rng.normal(size=len(rows)), (rows, columns)), shape=(n, n))
    out.sum_duplicates()
    return out


CASES = {
    "Poisson 100²": lambda: poisson(100),
    "Poisson 400²": lambda: poisson(400),
    "Poisson 1000²": lambda: poisson(1000),
    "Poisson 64³": lambda: poisson_3d(64),
    "triangles, 10⁵": lambda: triangles(100_000),
    "random, 10⁵": lambda: random(100_000),
    "uneven, 10⁵": lambda: uneven(100_000),
}


def _repeated(operator, x):
    """The same product several times over, as an iterative method does it."""
    step = lambda _, y: operator.mv(y) / 8
    return jax.lax.fori_loop(0, IN_A_LOOP, step, x)


def products(seconds: float) -> Table:
    """Ax and Aᵀx by themselves, Ax in a loop, and with 8 vectors; each relative to SciPy's.

    SciPy's and JAX's 8 vectors are the columns of an array `(n, 8)`, as they want them; ours come from
    `vmap`, `(8, n)`.
    """
    rows = []
    for name, make in CASES.items():
        matrix = make()
        vectors = np.random.default_rng(1).normal(size=(8, matrix.shape[1]))
        vector, columns = vectors[0], np.ascontiguousarray(vectors.T)
        operator = lp.SparseLinearOperator.from_scipy(matrix)
        x, many = jnp.asarray(vector), jnp.asarray(vectors)
        product = jax.jit(lambda a, x: a @ x)
        mv, loop = jax.jit(lambda a, x: a.mv(x)), jax.jit(_repeated)
        transposed = jax.jit(lambda a, x: jax.linear_transpose(a.mv, x)(x)[0])
        batch = jax.jit(lambda a, x: jax.vmap(a.mv)(x))
        bcoo, bcsr, columns_jax = operator.to_bcoo(), operator.to_bcsr(), jnp.asarray(columns)
        for ours in (mv(operator, x), product(bcoo, x), product(bcsr, x)):
            np.testing.assert_allclose(ours, matrix @ vector, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(transposed(operator, x), vector @ matrix, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            batch(operator, many), (matrix @ columns).T, rtol=1e-9, atol=1e-9
        )
        groups: list[dict[str, Any]] = [
            {
                "SciPy": lambda: matrix @ vector,
                "ours": lambda: mv(operator, x),
                "loop": lambda: loop(operator, x),
                "BCOO": lambda: product(bcoo, x),
                "BCSR": lambda: product(bcsr, x),
            },
            {"SciPy": lambda: matrix.T @ vector, "ours, Aᵀx": lambda: transposed(operator, x)},
            {
                "SciPy": lambda: matrix @ columns,
                "ours, 8": lambda: batch(operator, many),
                "BCOO, 8": lambda: product(bcoo, columns_jax),
            },
        ]
        cells, spreads, base = [], {}, 0.0
        for k, calls in enumerate(groups):
            results = time_together(
                {key: lambda f=f: jax.block_until_ready(f()) for key, f in calls.items()},
                seconds / 3,
            )
            spreads |= {(k, key): result for key, result in results.items()}
            times = {key: median for key, (median, _) in results.items()}
            if "loop" in times:
                times["loop"] /= IN_A_LOOP
            own = times.pop("SciPy")
            base = base if k else own
            cells += [f"{time / own:.2f}" for time in times.values()]
        layout = "DIA" if layouts.is_dia(operator.pattern) else "sliced ELL"
        rows.append(
            [name, str(operator.pattern.nnz), layout, f"{base:.0f}", *cells, spread(spreads)]
        )
    header = ["A x", "entries", "our layout", "SciPy CSR, µs", "ours, ×", "ours in a loop, ×"]
    header += ["BCOO, ×", "BCSR, ×", "ours, Aᵀx, ×", "ours, 8 vectors, ×", "BCOO, 8 vectors, ×"]
    return markdown("Sparse products", [*header, "spread"], rows)
