"""Other sparse solvers for JAX, each as `solve(values, b)`, where they are installed."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

Solve = Callable[[Any, Any], Any]


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _import(module: str) -> Any:
    """A peer, or None: not installed, or with others that it cannot work with (which is told)."""
    if not _has(module):
        return None
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"{module}: left out, {error}", file=sys.stderr)
        return None


def _triplets(matrix: sp.csr_matrix) -> tuple[Any, Any]:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return jnp.asarray(rows, jnp.int32), jnp.asarray(matrix.indices, jnp.int32)


#: Who takes several right-hand sides as `(n, k)`; and whose `vmap` over values is safe. (Of the
#: others some have no rule, and some corrupt memory.)
COLUMNS = ("klujax", "sparsax CHOLMOD", "sparsax KLU")
BATCHES = ("sparsax CHOLMOD", "sparsax KLU")
NO_GRADIENT = ("pardiso-mkl-jax",)


def does(name: str, task: str) -> bool:
    """Whether a peer can be asked for a task of the benchmark."""
    return {
        "forward": True,
        "gradient": name not in NO_GRADIENT,
        "many": name in COLUMNS,
        "batch": name in BATCHES,
        "newton": name in BATCHES,
    }[task]


def solvers(matrix: sp.csr_matrix, definite: bool) -> dict[str, Solve]:
    """What is installed here and fits; symbolic analyses are made ahead where the peer can."""
    rows, columns = _triplets(matrix)
    found: dict[str, Solve] = {}
    if _has("klujax"):
        import klujax

        symbolic = klujax.analyze(rows, columns, matrix.shape[0])

        def klu(v: Any, b: Any) -> Any:  # else XLA sorts the constant indices when it compiles
            i, j = jax.lax.optimization_barrier((rows, columns))
            return klujax.solve_with_symbol(i, j, v, b, symbolic)

        found["klujax"] = klu
    if _has("sparsax"):
        import sparsax

        if definite:
            found["sparsax CHOLMOD"] = lambda v, b: sparsax.solve(rows, columns, v, b)
        found["sparsax KLU"] = lambda v, b: sparsax.lu_solve(rows, columns, v, b)
    splineax = _import("splineax")
    if splineax is not None:
        from jax.experimental.sparse import BCSR

        indices, indptr = columns, jnp.asarray(matrix.indptr, jnp.int32)

        def _sorted(v: Any) -> Any:
            return BCSR((v, indices, indptr), shape=matrix.shape, indices_sorted=True)

        def through(solver: Any) -> Solve:
            def solve(v: Any, b: Any) -> Any:
                operator = splineax.BCSRLinearOperator(_sorted(v))
                solution = splineax.linear_solve(operator, b, solver, throw=False)
                return (solution[0] if isinstance(solution, tuple) else solution).value

            return solve

        for name in ("Pardiso", "KLU"):
            with contextlib.suppress(ImportError):  # each needs a library of its own
                found[f"splineax {name}"] = through(getattr(splineax, name)())
    if _has("pardiso_mkl_jax"):
        import pardiso_mkl_jax as pm

        kind = pm.MatrixType.REAL_NONSYMMETRIC
        indptr, indices = jnp.asarray(matrix.indptr), columns
        found["pardiso-mkl-jax"] = lambda v, b: pm.solve(indptr, indices, v, b, matrix_type=kind)
    return found
