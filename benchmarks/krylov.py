"""Krylov methods: time of an iteration, of a compilation, and of many right-hand sides."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg as jspla
import numpy as np
import scipy.sparse.linalg as spla

import linsolve_prim as lp
from linsolve_prim.primitive import groups

from .report import Table
from .sparse import poisson
from .timing import agree, markdown, spread, time_together, wrong

STEPS = 50
#: How far 50 steps may lie apart: they do not round alike.
ROUNDING = {np.float32: 1e-2, np.float64: 1e-6}


def stencil(x: jax.Array) -> jax.Array:
    """The Laplacian on a grid with zeros around it, matrix-free."""
    padded = jnp.pad(x, 1)
    y = 2 * x.ndim * x
    inner = (slice(1, -1),) * x.ndim
    for axis in range(x.ndim):
        for shift in (slice(0, -2), slice(2, None)):
            window = inner[:axis] + (shift,) + inner[axis + 1 :]
            y = y - padded[window]
    return y


def _scipy(matrix: Any, b: np.ndarray) -> Callable[[], Any]:
    return lambda: spla.cg(matrix, b, rtol=0.0, atol=0.0, maxiter=STEPS)[0]


def _jax_scipy(product: Any, b: jax.Array) -> Callable[[], Any]:
    fn = jax.jit(lambda b: jspla.cg(product, b, tol=0.0, atol=0.0, maxiter=STEPS)[0])
    return lambda: fn(b)


def _operator(product: Any, b: jax.Array) -> lp.AbstractLinearOperator:
    structure = jax.ShapeDtypeStruct(b.shape, b.dtype)
    return lp.FunctionLinearOperator(product, structure, lp.positive_semidefinite_tag)


def _ours(operator: Any, b: jax.Array) -> Callable[[], Any]:
    solver = lp.CG(rtol=0.0, atol=0.0, max_steps=STEPS)
    fn = jax.jit(lambda op, b: lp.linear_solve(op, b, solver, throw=False).value)
    return lambda: fn(operator, b)


def _lineax(product: Any, b: jax.Array) -> Callable[[], Any]:
    import lineax

    structure = jax.ShapeDtypeStruct(b.shape, b.dtype)
    op = lineax.FunctionLinearOperator(product, structure, lineax.positive_semidefinite_tag)
    solver = lineax.CG(rtol=1e-12, atol=1e-12, max_steps=STEPS)  # never reached
    fn = jax.jit(lambda b: lineax.linear_solve(op, b, solver, throw=False).value)
    return lambda: fn(b)


def _phiml(product: Any, b: jax.Array, jitted: bool) -> Callable[[], Any]:
    from phiml import math

    math.use("jax")
    math.set_global_precision(8 * b.dtype.itemsize)
    names = "xyz"[: b.ndim]
    axes = math.spatial(*names)
    y, x0 = math.wrap(b, axes), math.wrap(jnp.zeros_like(b), axes)
    quiet = (math.NotConverged, math.Diverged)
    solve = math.Solve("CG", 0.0, 0.0, x0=x0, max_iterations=STEPS, suppress=quiet)
    f = lambda x: math.wrap(product(x.native([*names])), axes)
    fn = lambda y: math.solve_linear(f, y, solve)
    fn = math.jit_compile(fn) if jitted else fn
    return lambda: fn(y).native([*names])


def _stream(
    b: jax.Array, nonzeros: int = 0, product: Callable[[Any], Any] = lambda p: p
) -> tuple[Callable[[], Any], int]:
    """What an iteration has to read and write once, and the bytes of it.

    With a product that reads its values (`nonzeros`; none for a stencil): p and q = Ap; p, q, x and
    r read, x and r written; r and p read, p written. A `product` is taken in each, and counts as what
    reads p and writes q, however much more it moves.
    """
    vectors = [b + k for k in range(4)]
    values = jnp.ones(max(nonzeros, 1), b.dtype)

    def move(x: Any, r: Any, p: Any, values: Any) -> Any:
        def body(_: Any, c: Any) -> Any:
            x, r, p, s = c
            q = product(p * (1 + s))
            x, r = x + 1e-3 * p, r - 1e-3 * q
            return x, r, r + 1e-3 * p, s + 1e-20 * jnp.sum(values * (1 + s))

        return jax.lax.fori_loop(0, STEPS, body, (x, r, p, jnp.zeros((), b.dtype)))

    fn = jax.jit(move)
    count = (10 * b.size + nonzeros) * b.dtype.itemsize
    return lambda: fn(*vectors[:3], values), count


def iterations(seconds: float, quick: bool) -> Table:
    """The time of one CG iteration, by the shape of the grid; relative to JAX's own."""
    grids = [(256, 2), (64, 3)] if quick else [(256, 2), (1024, 2), (64, 3)]
    rows = []
    for m, dims in grids:
        matrix = poisson(m, dims)
        for dtype in (np.float32, np.float64):
            own = matrix.astype(dtype)
            b = np.random.default_rng(0).normal(size=matrix.shape[0]).astype(dtype)
            grid = jnp.asarray(b.reshape((m,) * dims))
            sparse = lp.SparseLinearOperator.from_scipy(own, lp.positive_semidefinite_tag)
            move, size = _stream(grid)
            move_all, size_all = _stream(jnp.asarray(b), sparse.pattern.nnz)
            move_and_multiply, _ = _stream(grid, 0, stencil)
            calls = {
                "jax.scipy": _jax_scipy(stencil, grid),
                "ours": _ours(_operator(stencil, grid), grid),
                "ours, sparse": _ours(sparse, jnp.asarray(b)),
                "streaming": move,
                "streaming and the product": move_and_multiply,
                "streaming, sparse": move_all,
                "SciPy, sparse": _scipy(own, b),
            }
            if importlib.util.find_spec("lineax"):
                calls["Lineax"] = _lineax(stencil, grid)
            if importlib.util.find_spec("phiml"):
                calls["ΦML"] = _phiml(stencil, grid, True)
                calls["ΦML, not jitted"] = _phiml(stencil, grid, False)
            solves = {k: call for k, call in calls.items() if not k.startswith("streaming")}
            flat = {k: lambda f=f: np.ravel(f()) for k, f in solves.items()}
            out = wrong(flat, ROUNDING[dtype])
            right = {name: call for name, call in calls.items() if name not in out}
            results = time_together(right, seconds, rounds=7 if quick else 15)
            times = {k: results[k][0] / STEPS if k in right else np.nan for k in calls}
            base = times.pop("jax.scipy")
            title = f"{dims}-D {m}, {np.dtype(dtype).name}"
            rows.append([title, f"{base:.0f}", f"{size / 1e6:.1f} ({size_all / 1e6:.1f})"])
            cells = ["wrong" if k in out else f"{t / base:.2f}" for k, t in times.items()]
            rows[-1] += [*cells, spread(results)]
    header = ["CG, one iteration", "jax.scipy, µs", "MB streamed at least (sparse)"]
    header += [*(f"{k}, ×" for k in times), "spread"]
    return markdown("Krylov iterations", header, rows)


def compilation(repeats: int = 5) -> Table:
    """Tracing and compiling the gradient of a jitted CG solve."""
    b = jnp.ones((64, 64))
    solver = lp.CG(rtol=1e-8)
    contestants: dict[str, Callable[[Any, Any], Any]] = {
        "jax.scipy.sparse.linalg.cg": lambda c, b: jspla.cg(
            lambda x: stencil(x) + c * x, b, tol=1e-8
        )[0],
        "ours, throw=False": lambda c, b: (
            lp.linear_solve(
                _operator(lambda x: stencil(x) + c * x, b), b, solver, throw=False
            ).value
        ),
        "ours": lambda c, b: (
            lp.linear_solve(_operator(lambda x: stencil(x) + c * x, b), b, solver).value
        ),
    }
    rows = []
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, solve in contestants.items():
            jax.clear_caches()
            fn = jax.jit(jax.grad(lambda c, b, s=solve: jnp.sum(s(c, b) ** 2), (0, 1)))
            start = time.perf_counter()
            lowered = fn.lower(jnp.ones(()), b)
            middle = time.perf_counter()
            lowered.compile()
            samples[name].append((middle - start, time.perf_counter() - middle))
    for name, pairs in samples.items():
        trace, build = np.median(np.array(pairs), axis=0) * 1e3
        rows.append([name, f"{trace:.0f}", f"{build:.0f}"])
    header = ["gradient of CG on 64²", "trace and lower, ms", "compile, ms"]
    return markdown("Compiling a Krylov solve", header, rows)


def many(seconds: float, quick: bool) -> Table:
    """64 right-hand sides by `vmap`, in groups and at once, and by `lax.map`, against one by one.

    Where the vectors of a batch stay in the cache, `vmap` saves the time in which kernels are started.
    Where they do not, there is a floor. A step of CG streams 14 vectors of the batch: n = 64² in float64
    are 29 MB, from memory, where a single solve streams 0.5 MB from the cache. A step of GMRES reads
    its basis of 21 four times: 176 MB against 2.8 MB. To be four times faster by `vmap`, memory would
    have to be four times as fast as the cache. So such lanes are solved in groups
    (`primitive/groups.py`); "at once" is what they take without.
    """
    rows = []
    grids = [(16, np.float32), (64, np.float64), (32, np.float32), (64, np.float32)]
    for m, dtype in grids[: 2 if quick else None]:
        title = f"2-D {m}², {np.dtype(dtype).name}"
        matrix = poisson(m, 2).astype(dtype)
        op = lp.SparseLinearOperator.from_scipy(matrix, lp.positive_semidefinite_tag)
        bs = jnp.asarray(np.random.default_rng(0).normal(size=(64, m * m)).astype(dtype))
        for name, solver in (("CG", lp.CG(rtol=1e-4)), ("GMRES", lp.GMRES(rtol=1e-2))):
            one = jax.jit(lambda b, s=solver, op=op: lp.linear_solve(op, b, s, throw=False).value)
            batch = jax.jit(jax.vmap(one)).lower(bs).compile()
            single = jax.jit(lambda bs, one=one: jax.lax.map(one, bs))
            with mock.patch.object(groups, "GROUP_BYTES", 1 << 60):
                whole = jax.jit(jax.vmap(lambda b, one=one: one(b))).lower(bs).compile()
            calls = {
                "one by one": lambda one=one, bs=bs: [one(b) for b in bs],
                "vmap": lambda batch=batch, bs=bs: batch(bs),
                "vmap at once": lambda whole=whole, bs=bs: whole(bs),
                "lax.map": lambda single=single, bs=bs: single(bs),
            }
            agree({k: lambda f=f: jnp.asarray(f()) for k, f in calls.items()}, rtol=1e-3)
            results = time_together(calls, seconds, rounds=3 if quick else 5)
            times = {k: t for k, (t, _) in results.items()}
            base = times.pop("one by one")
            rows.append([f"{name}, {title}", f"{base / 1e3:.0f}"])
            rows[-1] += [*(f"{base / t:.1f}" for t in times.values()), f"{bs.nbytes / 1e6:.2f}"]
            rows[-1].append(spread(results))
    header = ["64 right-hand sides", "one by one, ms", *(f"{k} is faster by" for k in times)]
    header += ["MB of a vector of the batch", "spread"]
    return markdown("Many right-hand sides", header, rows)
