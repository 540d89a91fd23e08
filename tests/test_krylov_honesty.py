"""No Krylov method claims what the true residual contradicts, on any system; x is always finite."""

import functools

import hypothesis as hp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_problems import METHODS, tags
from krylov_tools import COMPLEX, REAL, X64, quick_jit, run

import linsolve_prim as lp
from linsolve_prim import REASONS, RESULTS

N = 12
KINDS = [
    "definite",
    "indefinite",
    "general",
    "singular",
    "singular symmetric",
    "without a solution",
    "defective",
    "scaled",
    "skew",
    "nilpotent",
    "zero",
]
SCALES = st.sampled_from([1.0, 1.0, 1e-12, 1e-3, 1e3, 1e12])


def random_system(rng, kind, decades, dtype):
    """A matrix of a kind, with singular values over so many decades, and a right-hand side."""
    is_complex = np.issubdtype(dtype, np.complexfloating)
    normal = lambda *shape: rng.normal(size=shape) + (1j * rng.normal(size=shape)) * is_complex
    q, p = (np.linalg.qr(normal(N, N))[0] for _ in range(2))
    d, b = np.geomspace(1, 10.0**-decades, N), normal(N)
    signs = np.where(np.arange(N) % 2, 1, -1)
    if kind == "definite":
        a = (q * d) @ q.conj().T
    elif kind == "indefinite":
        a = (q * (d * signs)) @ q.conj().T
    elif kind == "general":
        a = (q * d) @ p
    elif kind == "singular":
        a = (q * np.where(np.arange(N) < 9, d, 0)) @ p
    elif kind in ("singular symmetric", "without a solution"):
        a = (q * np.where(np.arange(N) < 9, d * signs, 0)) @ q.conj().T
        b = a @ b if kind == "singular symmetric" else b
    elif kind == "defective":
        a = q @ (np.diag(np.repeat(d[::4], 4)) + np.eye(N, k=1)) @ q.conj().T
    elif kind == "scaled":
        a = np.diag(10.0 ** rng.integers(-4, 5, N)) @ normal(N, N)
    elif kind == "skew":
        a = normal(N, N)
        a = a - a.conj().T
    else:
        a = np.eye(N, k=1) if kind == "nilpotent" else np.zeros((N, N))
    return (a if is_complex else a.real), (b if is_complex else b.real)


def random_preconditioner(rng, kind, a, definite):
    """None, Jacobi's, or one that has little to do with A."""
    if kind == "none":
        return np.eye(N)
    if kind == "jacobi":
        sizes = np.abs(np.diag(a)) + 1e-3 * np.abs(a).max()
        return np.diag(1 / np.where(sizes > 0, sizes, 1))
    if definite:
        return np.diag(rng.uniform(0.1, 1, N))
    return np.eye(N) + 0.3 * rng.normal(size=(N, N))


@functools.cache
def compiled(method, side):
    @quick_jit
    def solve(a, b, m, rtol):
        solver = method(rtol=rtol, side=side)
        state = solver.init(lp.MatrixLinearOperator(a, tags(method)), {})
        return solver.compute(state, b, {"preconditioner": lp.MatrixLinearOperator(m)})

    return solve


def check(method, side, dtype, seed, kind, preconditioner, decades, scales, rtol):
    rng = np.random.default_rng(seed)
    a, b = random_system(rng, kind, decades, dtype)
    a, b = (a * scales[0]).astype(dtype), (b * scales[1]).astype(dtype)
    m = random_preconditioner(rng, preconditioner, a, method.kind != "general").astype(dtype)
    rtol = np.asarray(rtol, np.finfo(dtype).dtype)
    x, result, stats = compiled(method, side)(*map(jnp.asarray, (a, b, m, rtol)))
    assert np.isfinite(x).all()
    assert np.isfinite(stats["residual_norm"])
    success = bool(result == RESULTS.successful)
    assert (stats["reason"] == REASONS.failed) == (not success)
    wide = np.complex128
    a, b, x = a.astype(wide), b.astype(wide), np.asarray(x).astype(wide)
    r = b - a @ x
    if not success:
        return
    if stats["reason"] == REASONS.least_squares:
        normal = np.linalg.norm(a.conj().T @ r)
        assert method.least_squares
        assert normal <= 1e-3 * np.linalg.norm(a, 2) * np.linalg.norm(r)
        return
    # A residual that is computed in the working precision is known up to this, and not better.
    rounding = np.finfo(dtype).eps * np.linalg.norm(np.abs(a) @ np.abs(x) + np.abs(b))
    assert np.linalg.norm(r) <= 1.01 * float(rtol) * np.linalg.norm(b) + rounding


def rows():
    """The methods with the sides and dtypes that they are run with."""
    for method in METHODS:
        for side in ("right", "left") if method.kind == "general" else ("right",):
            for dtype in dict.fromkeys((np.dtype(np.float32), np.dtype(REAL), np.dtype(COMPLEX))):
                quick = dtype == (np.float32 if side == "right" else np.dtype(COMPLEX))
                marks = [] if quick and not method.variant else [pytest.mark.slow]
                name = f"{method.name}-{side}-{dtype.name}"
                yield pytest.param(method, side, dtype.type, id=name, marks=marks)


@pytest.mark.parametrize(("method", "side", "dtype"), list(rows()))
@hp.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hp.HealthCheck.function_scoped_fixture],
)
@hp.given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    preconditioner=st.sampled_from(["none", "jacobi", "random"]),
    decades=st.floats(0, 9),
    scales=st.tuples(SCALES, SCALES),
    rtol=st.sampled_from([1e-2, 1e-4, 1e-6] + ([1e-10] if X64 else [])),
)
def test_honesty(method, side, dtype, seed, kind, preconditioner, decades, scales, rtol):
    """B-03, S0-36, S0-42: success means a small true residual, whatever the system is."""
    check(method, side, dtype, seed, kind, preconditioner, decades, scales, rtol)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "side", "dtype"), list(rows()))
def test_honesty_at_length(method, side, dtype):
    """The same with more systems."""
    rng = np.random.default_rng(0)
    for seed in range(500):
        scales = tuple(10.0 ** rng.choice([0, 0, -12, -3, 3, 12], 2))
        kind, preconditioner = rng.choice(KINDS), rng.choice(["none", "jacobi", "random"])
        rtol, decades = 10.0 ** rng.choice([-2, -4, -6, -10]), rng.uniform(0, 9)
        check(method, side, dtype, seed, kind, preconditioner, decades, scales, rtol)


@pytest.mark.parametrize("name", ["MINRES", "MINRESQLP", "SYMMLQ"])
def test_the_probe_finds_what_is_not_symmetric(name):
    """S3-08: an untagged operator that is not symmetric is found by two products, at any size."""
    method = next(m for m in METHODS if m.name == name)
    rng = np.random.default_rng(0)
    for n, dtype in ((2, REAL), (40, COMPLEX)):
        a = rng.normal(size=(n, n)) + (1j if dtype is COMPLEX else 0) * rng.normal(size=(n, n))
        a = (a + a.conj().T).astype(dtype)
        b = rng.normal(size=n).astype(dtype)
        assert run(method(), a, b)[1] == RESULTS.successful
        bent = a.copy()
        bent[0, 1] *= 1.001 if X64 else 1.1  # √ε is allowed
        x, result, stats = run(method(), bent, b)
        assert result == RESULTS.breakdown
        assert int(stats["num_steps"]) == 0
        assert np.isfinite(x).all()
        assert "not symmetric" in lp.RESULTS[result]


def test_a_tag_spares_the_probe():
    """S3-08: no product is spent on what is promised, and symmetric does not mean Hermitian."""
    a = jnp.asarray(np.diag([1.0, -2, 3]), REAL)
    b = jnp.ones(3, REAL)
    products = lambda operator: int(run(lp.MINRES(), operator, b)[2]["matvecs"])
    plain = products(lp.MatrixLinearOperator(a))
    assert products(lp.MatrixLinearOperator(a, lp.symmetric_tag)) == plain - 2
    c = lp.MatrixLinearOperator(jnp.asarray([[1, 1j], [1j, 1]], COMPLEX), lp.symmetric_tag)
    assert run(lp.MINRES(), c, jnp.ones(2, COMPLEX))[1] == RESULTS.breakdown
