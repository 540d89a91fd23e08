"""Functions as sparse matrices: how long it takes to find them, and what solving by them saves."""

import multiprocessing
import time

import jax
import jax.numpy as jnp
import numpy as np

import linsolve_prim as lp
from linsolve_prim.cli import compare_memory as memory

from .report import Table
from .timing import markdown, spread, time_together

KERNEL = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)


def padded(u):
    """Zeros around, and slices: in two dimensions five points, in three seven."""
    p = jnp.pad(u, 1)
    inner = [slice(1, -1)] * u.ndim
    near = []
    for axis in range(u.ndim):
        for at in (slice(None, -2), slice(2, None)):
            near.append(p[tuple(inner[:axis] + [at] + inner[axis + 1 :])])
    return sum(near) - 2 * u.ndim * u


def rolled(u):
    return sum(jnp.roll(u, s, axis) for s in (1, -1) for axis in range(u.ndim)) - 2 * u.ndim * u


def convolved(u):
    """In single precision: XLA 0.10.2 on CPU breaks off with convolutions in double precision."""
    return jax.lax.conv(u[None, None], KERNEL[None, None], (1, 1), "SAME")[0, 0]


CASES = {
    "5 points, `jnp.pad` and slices, 512²": (padded, (512, 512), np.float64),
    "5 points, `jnp.roll`, 512²": (rolled, (512, 512), np.float64),
    "5 points, `lax.conv`, 512² (float32)": (convolved, (512, 512), np.float32),
    "7 points, `jnp.pad` and slices, 64³": (padded, (64, 64, 64), np.float64),
    "7 points, `jnp.pad` and slices, 128³": (padded, (128, 128, 128), np.float64),
}


def _once(name: str, queue: "multiprocessing.Queue") -> None:
    """The first call in a process of its own, the second one, and the memory at its peak."""
    jax.config.update("jax_enable_x64", True)
    f, shape, dtype = CASES[name]
    like = jax.ShapeDtypeStruct(shape, dtype)
    jax.block_until_ready(jnp.zeros(1) + 1)
    before, times = memory.start(), []
    for _ in range(2):
        start = time.perf_counter()
        operator, _ = lp.materialise_sparse(f, like)
        jax.block_until_ready(operator.values)
        times.append(time.perf_counter() - start)
    used = memory.grown(before)
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    np.testing.assert_allclose(operator.mv(x.ravel()), f(x).ravel(), rtol=1e-4, atol=1e-4)
    queue.put((operator.pattern.nnz, times, used, operator.values.nbytes / 2**20))


def materialise(quick: bool) -> Table:
    """First and second call, in a process of its own for each; the matrix is checked by a product."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for name in list(CASES)[: 2 if quick else None]:
        queue = context.Queue()
        process = context.Process(target=_once, args=(name, queue))
        process.start()
        process.join()
        nnz, (first, second), used, values = queue.get()
        rows.append(
            [name, str(nnz), f"{first:.2f}", f"{second:.3f}", f"{used:.0f}", f"{values:.0f}"]
        )
    header = ["function", "entries", "first call, s", "second call, s", "peak, MiB", "values, MiB"]
    return markdown("Functions as sparse matrices", header, rows)


def screened(u, c):
    return (c + 0.1) * u - padded(u)


def solves(seconds: float, quick: bool) -> Table:
    """A jitted solve and its gradient, by the sparse matrix and by the dense one, or by products."""
    rows = []
    for m in (16, 32) if quick else (16, 24, 32, 48, 64, 128):
        b = jax.random.normal(jax.random.key(0), (m, m))
        c = jnp.ones((m, m))
        products = jax.jit(lambda c, b: _by_products(c, b))
        sparse = jax.jit(lambda c, b: lp.solve(lp.linear_function(screened), b, args=(c,)))
        np.testing.assert_allclose(sparse(c, b), products(c, b), rtol=1e-3, atol=1e-3)
        calls = {}
        for label, solve in (("sparse", sparse), ("function", products)):
            gradient = jax.jit(jax.grad(lambda c, b, solve=solve: solve(c, b).sum()))
            calls[label] = lambda solve=solve, b=b, c=c: solve(c, b)
            calls[f"{label}, gradient"] = lambda g=gradient, b=b, c=c: g(c, b)
        results = time_together(calls, seconds / 4, 7)
        cells = [f"{results[k][0] / 1000:.2f}" for k in calls]
        rows.append([f"{m}²", *cells, spread(results)])
    header = ["grid", "sparse, ms", "gradient, ms", "dense or GMRES, ms", "gradient, ms", "spread"]
    return markdown("Functions solved as sparse matrices, or by their products", header, rows)


def _by_products(c, b):
    operator = lp.FunctionLinearOperator(lambda u: screened(u, c), jax.eval_shape(lambda: b))
    return lp.linear_solve(operator, b).value
