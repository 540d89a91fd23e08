"""Substitution with sparse triangular matrices: level by level on the device, beside SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import linsolve_prim as lp

from .report import Table
from .sparse import poisson
from .timing import markdown, spread, time_together

RIGHT_HAND_SIDES = 16


def factor(m: int) -> sp.csr_matrix:
    """The lower factor of a 2-D Laplacian, with fill."""
    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
    return spla.splu(poisson(m, 2).tocsc(), diag_pivot_thresh=0.0, **symmetric).L.tocsr()


def random(n: int) -> sp.csr_matrix:
    """About three entries in a row, anywhere below the diagonal."""
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, n, (2, 6 * n))
    a = sp.csr_matrix((rng.random(6 * n) / 6, (rows, columns)), (n, n))
    return sp.csr_matrix(sp.tril(a, -1) + 2 * sp.identity(n))


CASES = {
    "2-D 30²": lambda: sp.tril(poisson(30, 2)).tocsr(),
    "2-D 300²": lambda: sp.tril(poisson(300, 2)).tocsr(),
    "3-D 40³": lambda: sp.tril(poisson(40, 3)).tocsr(),
    "factor of 2-D 100²": lambda: factor(100),
    "random, 10⁵": lambda: random(100_000),
    "bidiagonal, 2·10⁴": lambda: sp.diags([2.0, -1.0], [0, -1], (20_000,) * 2).tocsr(),
}


def substitution(seconds: float, quick: bool) -> Table:
    """One compiled solve, and one of 16 right-hand sides; values are new in every call."""
    rows = []
    for name, make in list(CASES.items())[slice(1, 4) if quick else slice(None)]:
        matrix = make()
        matrix.sort_indices()
        operator = lp.SparseLinearOperator.from_scipy(matrix)
        pattern, n = operator.pattern, matrix.shape[0]
        rng = np.random.default_rng(1)
        b, many = (jnp.asarray(rng.normal(size=s)) for s in ((n,), (RIGHT_HAND_SIDES, n)))

        def contestant(solver, pattern=pattern):
            of = lambda v: lp.SparseLinearOperator(v, pattern)
            solve = lambda v, b: lp.linear_solve(of(v), b, solver).value
            return jax.jit(solve), jax.jit(jax.vmap(solve, (None, 0)))

        calls = {}
        for label, solver in (("device", lp.Triangular()), ("host", lp.SpSolveTriangular())):
            one, batch = contestant(solver)
            np.testing.assert_allclose(
                one(operator.values, b), spla.spsolve_triangular(matrix, b), rtol=1e-9, atol=1e-9
            )
            values = iter(lambda: operator.values * (1 + 1e-6 * rng.random()), None)
            calls[label] = lambda one=one, values=values, b=b: one(next(values), b)
            calls[f"{label}, 16"] = lambda f=batch, values=values, many=many: f(next(values), many)
        results = time_together(calls, seconds / len(CASES))
        times = {k: t for k, (t, _) in results.items()}
        count = lp.Triangular().triangle(operator).levels(transpose=False).height
        rows.append([name, str(n), str(matrix.nnz), str(count)])
        rows[-1] += [f"{times[k] / 1000:.2f}" for k in ("device", "host", "device, 16", "host, 16")]
        rows[-1].append(spread(results))
    header = ["matrix", "n", "entries", "levels", "`Triangular`, ms", "`SpSolveTriangular`, ms"]
    header += ["16 right-hand sides: `Triangular`", "`SpSolveTriangular`", "spread"]
    return markdown("Substitution with sparse triangular matrices", header, rows)
