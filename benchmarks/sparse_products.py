"""Products of a sparse matrix with a vector: us beside SciPy's CSR, and JAX's BCOO and BCSR."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

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


CASES = {
    "Poisson 100²": lambda: poisson(100),
    "Poisson 400²": lambda: poisson(400),
    "Poisson 1000²": lambda: poisson(1000),
    "uneven, 10⁵": lambda: uneven(100_000),
}


def _repeated(operator, x):
    """The same product several times over, as an iterative method does it."""
    step = lambda _, y: operator.mv(y) / 8
    return jax.lax.fori_loop(0, IN_A_LOOP, step, x)


def products(seconds: float) -> Table:
    """One product in a compiled program, and one of those in a loop; relative to SciPy's."""
    rows = []
    for name, make in CASES.items():
        matrix = make()
        vector = np.random.default_rng(1).normal(size=matrix.shape[1])
        operator, x = lp.SparseLinearOperator.from_scipy(matrix), jnp.asarray(vector)
        product = jax.jit(lambda a, x: a @ x)
        mv, loop = jax.jit(lambda a, x: a.mv(x)), jax.jit(_repeated)
        transposed = jax.jit(lambda a, x: jax.linear_transpose(a.mv, x)(x)[0])
        bcoo, bcsr = operator.to_bcoo(), operator.to_bcsr()
        for ours in (mv(operator, x), product(bcoo, x), product(bcsr, x)):
            np.testing.assert_allclose(ours, matrix @ vector, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(transposed(operator, x), vector @ matrix, rtol=1e-9, atol=1e-9)
        calls = {
            "SciPy": lambda: matrix @ vector,
            "ours": lambda: mv(operator, x).block_until_ready(),
            "loop": lambda: loop(operator, x).block_until_ready(),
            "transposed": lambda: transposed(operator, x).block_until_ready(),
            "BCOO": lambda: product(bcoo, x).block_until_ready(),
            "BCSR": lambda: product(bcsr, x).block_until_ready(),
        }
        results = time_together(calls, seconds)
        times = {key: median for key, (median, _) in results.items()}
        times["loop"] /= IN_A_LOOP
        base = times.pop("SciPy")
        layout = "DIA" if layouts.is_dia(operator.pattern) else "sliced ELL"
        cells = [f"{time / base:.2f}" for time in times.values()]
        rows.append(
            [name, str(operator.pattern.nnz), layout, f"{base:.0f}", *cells, spread(results)]
        )
    header = ["A x", "entries", "our layout", "SciPy CSR, µs", "ours, ×", "ours in a loop, ×"]
    header += ["ours, Aᵀx, ×", "BCOO, ×", "BCSR, ×", "spread"]
    return markdown("Sparse products", header, rows)
