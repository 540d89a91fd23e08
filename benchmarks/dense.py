"""Dense solves: us beside `jnp.linalg.solve` and Lineax."""

import itertools
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import linsolve_prim as lp

from .report import Table
from .timing import agree, markdown, spread, time_together

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lineax as lx


def system(n: int, batch: tuple[int, ...] = ()):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(*batch, n, n)) + n**0.5 * 2 * np.eye(n)
    return jnp.asarray(a), jnp.asarray(rng.normal(size=(*batch, n)))


def with_package(m, throw: bool):
    """A solve by LU with Lineax's interface, which is ours too."""

    def solve(a, b):
        return m.linear_solve(m.MatrixLinearOperator(a), b, m.LU(), throw=throw).value

    return solve


SOLVES = {
    "jnp.linalg.solve": jnp.linalg.solve,
    "ours, throw=False": with_package(lp, False),
    "ours": with_package(lp, True),
    "Lineax, throw=False": with_package(lx, False),
    "Lineax": with_package(lx, True),
}


def _check(fns, args) -> None:
    """No contestant is timed before its result is right."""
    want = fns["jnp.linalg.solve"](*args)
    for name, fn in fns.items():
        for x, y in zip(jax.tree.leaves(fn(*args)), jax.tree.leaves(want)):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8, err_msg=name)


def _row(name: str, results: dict[str, tuple[float, float]]) -> list[str]:
    base = results["jnp.linalg.solve"][0]
    cells = [f"{median / base:.2f}" for median, _ in results.values()]
    return [name, f"{base:.1f}", *cells[1:], spread(results)]


def jitted(seconds: float) -> Table:
    """Compiled solves and gradients, single and batched."""
    cases = [("10×10", 10, ()), ("100×100", 100, ()), ("1000×1000", 1000, ())]
    cases.append(("vmap, 1000 of 10×10", 10, (1000,)))
    rows = []
    for (name, n, batch), what in itertools.product(cases, ("forward", "gradient")):
        a, b = system(n, batch)
        fns = {}
        for key, solve in SOLVES.items():
            fn = solve
            if what == "gradient":
                fn = jax.grad(lambda a, b, solve=solve: jnp.sum(jnp.sin(solve(a, b))), (0, 1))
            fns[key] = jax.jit(jax.vmap(fn) if batch else fn)
        _check(fns, (a, b))
        calls = {key: lambda fn=fn: fn(a, b) for key, fn in fns.items()}
        rows.append(_row(f"{name}, {what}", time_together(calls, seconds)))
    header = ["jitted", "jnp.linalg.solve, µs", *(f"{k}, ×" for k in list(SOLVES)[1:]), "spread"]
    return markdown("Compiled", header, rows)


def eager(seconds: float) -> Table:
    """What a call that is not jitted costs beyond the same one jitted.

    (Not beyond a jitted `jnp.linalg.solve`: for 100×100 JAX computes that on another thread, and what is
    jitted with `throw=True` on the one that calls, so that an eager call of ours takes less.)
    """
    rows = []
    cases = [("ours", lp, True), ("ours, throw=False", lp, False)]
    cases += [("Lineax", lx, True), ("Lineax, throw=False", lx, False)]
    for n in (10, 100):
        a, b = system(n)
        base = jax.jit(jnp.linalg.solve)
        calls = {"jnp.linalg.solve": lambda: base(a, b).block_until_ready()}
        for key, m, throw in cases:
            operator, solver = m.MatrixLinearOperator(a), m.LU()
            jitted = jax.jit(with_package(m, throw))

            def call(m=m, operator=operator, solver=solver, throw=throw):
                value = m.linear_solve(operator, b, solver, throw=throw).value
                return value.block_until_ready()

            calls[key] = call
            calls[f"jitted {key}"] = lambda jitted=jitted: jitted(a, b).block_until_ready()
        agree(calls)
        results = time_together(calls, seconds)
        times = {key: median for key, (median, _) in results.items()}
        extra = {key: times[key] - times[f"jitted {key}"] for key, *_ in cases}
        shown = [f"{times[key]:.1f} (+{extra[key]:.1f})" for key, *_ in cases]
        ratio = f"{extra['Lineax'] / extra['ours']:.1f}"
        rows.append([f"{n}×{n}", f"{times['jnp.linalg.solve']:.1f}", *shown, ratio])
        rows[-1].append(spread(results))
    header = ["eager, µs (beyond jitted)", "jitted jnp.linalg.solve", *(key for key, *_ in cases)]
    return markdown("Eager", [*header, "Lineax's overhead / ours", "spread"], rows)


def compilation(repeats: int) -> Table:
    """Milliseconds of CPU to trace and to compile the gradient of one solve, median and least."""
    a, b = system(100)
    traced: dict[str, list[float]] = {key: [] for key in SOLVES}
    compiled: dict[str, list[float]] = {key: [] for key in SOLVES}
    for i, (key, solve) in itertools.product(range(repeats), SOLVES.items()):  # they take turns
        scale = 1.0 + i  # a new program each time
        loss = lambda a, b, scale=scale, solve=solve: jnp.sum(jnp.sin(solve(a * scale, b)))
        fn = jax.jit(jax.grad(loss, (0, 1)))
        start = time.process_time()  # several threads compile, and other processes run beside them
        lowered = fn.lower(a, b)
        middle = time.process_time()
        lowered.compile()
        traced[key].append(1e3 * (middle - start))
        compiled[key].append(1e3 * (time.process_time() - middle))
    show = lambda times: f"{np.median(times):.0f} ({min(times):.0f})"
    both = {key: np.add(traced[key], compiled[key]) for key in SOLVES}
    rows = [[key, show(traced[key]), show(compiled[key]), show(both[key])] for key in SOLVES]
    return markdown(
        "Compiling one gradient", ["", "trace, lower, ms", "compile, ms", "both, ms"], rows
    )
