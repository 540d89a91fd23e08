"""CG, GMRES, BiCGStab, LSMR and Normal, called by hand: init, compute, transpose, conj."""

import functools
import os
import subprocess
import sys
import textwrap

import equinox as eqx
import hypothesis as hp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as spla
from compiler_flags import on_devices

from linsolve_prim._norms import max_norm
from linsolve_prim._static import split
from linsolve_prim.operators import (
    AbstractLinearOperator,
    DiagonalLinearOperator,
    MatrixLinearOperator,
    PyTreeLinearOperator,
    negative_semidefinite_tag,
    positive_semidefinite_tag,
)
from linsolve_prim.results import REASONS, RESULTS
from linsolve_prim.solvers.cholesky import Cholesky
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab, default_rtol
from linsolve_prim.solvers.normal import Normal, NormalCG

X64 = jax.config.jax_enable_x64
REAL = np.float64 if X64 else np.float32
COMPLEX = np.complex128 if X64 else np.complex64
EPS = float(np.finfo(REAL).eps)

METHODS = [CG(), GMRES(), BiCGStab(), LSMR()]
SOLVERS = [*METHODS, Normal(CG())]
NAMES = ["CG", "GMRES", "BiCGStab", "LSMR", "Normal(CG)"]
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
each_method = pytest.mark.parametrize("solver", METHODS, ids=NAMES[:4])


def matrix(n, dtype, definite, seed=0, m=None):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m or n, n))
    if np.issubdtype(dtype, np.complexfloating):
        a = a + 1j * rng.normal(size=(m or n, n))
    if definite:
        a = a @ a.conj().T / n + np.eye(n)
    elif m is None:
        a = a + 2 * np.sqrt(n) * np.eye(n)
    return a.astype(dtype)


def vector(n, dtype, seed=1):
    return matrix(1, dtype, False, seed, m=n)[:, 0]


def operator_for(solver, a):
    return MatrixLinearOperator(
        jnp.asarray(a), positive_semidefinite_tag if isinstance(solver, CG) else ()
    )


# One program for each kind of solver, operator and options, and quickly compiled.
@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def _compiled(skeleton, *arrays):
    solver, operator, state, b, options = skeleton.fill(arrays)
    state = solver.init(operator, options) if state is None else state
    return solver.compute(state, b, options)


def run(solver, a, b, options=None, operator=None, state=None):
    operator = operator_for(solver, a) if operator is None else operator
    b = jax.tree.map(jnp.asarray, b)
    arrays, skeleton = split((solver, operator, state, b, {} if options is None else options))
    return _compiled(skeleton, *arrays)


def succeeded(result):
    return bool(result == RESULTS.successful)


def relative(a, x, b):
    return float(np.linalg.norm(b - a @ np.asarray(x)) / np.linalg.norm(b))


# ---- solutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "dtype"),
    [(s, d) for s in SOLVERS for d in (REAL, COMPLEX)]
    + [(CG(), np.float32), (GMRES(restart=4), COMPLEX), (BiCGStab(), np.complex64)],
)
def test_solves(solver, dtype):
    """S0-42, B-11: real and complex, in every precision; reported residuals are true."""
    n = 20
    a, b = matrix(n, dtype, isinstance(solver, CG)), vector(n, dtype)
    tol = default_rtol(dtype)
    x, result, stats = run(solver, a, b)
    assert x.dtype == dtype
    assert succeeded(result)
    assert stats["reason"] == REASONS.rtol
    eps = np.finfo(dtype).eps
    true = np.linalg.norm(b.astype(COMPLEX) - a.astype(COMPLEX) @ np.asarray(x).astype(COMPLEX))
    assert true <= (1.01 * tol + 10 * eps) * np.linalg.norm(b)
    assert abs(float(stats["residual_norm"]) - true) <= 0.01 * true + 50 * eps * np.linalg.norm(b)
    assert 0 < int(stats["num_steps"]) <= int(stats["max_steps"])
    assert stats["num_steps"].dtype == jnp.int32


def test_eager():
    """The same without jit."""
    a, b = matrix(6, REAL, True), vector(6, REAL)
    state = CG().init(operator_for(CG(), a), {})
    x, result, _ = CG().compute(state, jnp.asarray(b), {})
    assert succeeded(result)
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-3 if not X64 else 1e-7)


def test_negative_definite():
    a, b = -matrix(10, COMPLEX, True), vector(10, COMPLEX)
    x, result, _ = run(
        CG(), a, b, operator=MatrixLinearOperator(jnp.asarray(a), negative_semidefinite_tag)
    )
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(COMPLEX)


@each_method
def test_pytrees(solver):
    """Vectors are pytrees."""
    a, b = matrix(5, REAL, isinstance(solver, CG)), vector(5, REAL)
    s = jax.ShapeDtypeStruct((2,), REAL), jax.ShapeDtypeStruct((3, 1), REAL)
    structure = {"u": s[0], "p": s[1]}  # raveled in the order p, u
    blocks = {
        "p": {"p": a[:3, :3].reshape(3, 1, 3, 1), "u": a[:3, 3:].reshape(3, 1, 2)},
        "u": {"p": a[3:, :3].reshape(2, 3, 1), "u": a[3:, 3:]},
    }
    tags = positive_semidefinite_tag if isinstance(solver, CG) else ()
    operator = PyTreeLinearOperator(jax.tree.map(jnp.asarray, blocks), structure, tags)
    rhs = {"p": b[:3].reshape(3, 1), "u": b[3:]}
    x, result, _ = run(solver, None, rhs, operator=operator)
    assert succeeded(result)
    flat = np.concatenate([np.ravel(x["p"]), x["u"]])
    assert relative(a, flat, b) <= 1.01 * default_rtol(REAL)


@pytest.mark.parametrize("solver", [LSMR(), Normal(CG()), Normal(Cholesky())], ids=repr)
@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_least_squares(solver, shape):
    """Rectangular operators: A†b, and which of the two tests was fulfilled."""
    a, b = matrix(shape[1], COMPLEX, False, m=shape[0]), vector(shape[0], COMPLEX)
    x, result, stats = run(solver, a, b)
    assert succeeded(result)
    np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=2e-3 if not X64 else 1e-7)
    if solver.checks_residual():
        tall = shape[0] > shape[1]
        assert stats["reason"] == (REASONS.least_squares if tall else REASONS.rtol)
        np.testing.assert_allclose(
            stats["relative_residual"], relative(a, x, b), rtol=0.01, atol=50 * EPS
        )


def test_rank_deficient():
    """LSMR: the minimum-norm solution of singular systems."""
    a = np.outer([1.0, 2, 3], [1, 1, 0]).astype(REAL)
    for b in (np.array([1, 2, 3], REAL), np.array([1, 0, 0], REAL)):
        x, result, _ = run(LSMR(), a, b)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.pinv(a) @ b, atol=1e-5)


# ---- transformations -----------------------------------------------------------------------------


@each_solver
def test_vmap(solver):
    """Lanes equal single runs, and do not depend on their neighbours."""
    n = 20
    a = matrix(n, REAL, isinstance(solver, CG))
    operator = operator_for(solver, a)
    state = solver.init(operator, {})
    batched = jax.jit(jax.vmap(lambda b: solver.compute(state, b, {})))
    bs = np.stack([vector(n, REAL, seed) for seed in range(3)] + [np.zeros(n, REAL)])
    xs, results, stats = batched(jnp.asarray(bs))
    assert bool(jnp.all(results == RESULTS.successful))
    assert int(stats["num_steps"][3]) == 0
    for i in range(4):
        x, _, one = run(solver, a, bs[i])
        # (A batch of products may be rounded differently, and so end a step earlier or later.)
        same = int(one["num_steps"]) == int(stats["num_steps"][i])
        assert abs(int(one["num_steps"]) - int(stats["num_steps"][i])) <= 1
        tol = 200 * EPS if same else 10 * default_rtol(REAL)
        np.testing.assert_allclose(xs[i], x, rtol=tol, atol=tol)
    others = np.stack([bs[0], np.full(n, np.nan, REAL), 1e6 * bs[2], np.eye(n, dtype=REAL)[0]])
    ys, results, _ = batched(jnp.asarray(others))
    np.testing.assert_array_equal(ys[0], xs[0])
    assert (results == RESULTS.nonfinite_input).tolist() == [False, True, False, False]
    assert bool(jnp.all(jnp.isfinite(ys)))


@pytest.mark.parametrize("solver", [CG(), GMRES()], ids=NAMES[:2])
def test_vmap_over_operators(solver):
    n = 6
    mats = np.stack([matrix(n, REAL, isinstance(solver, CG), seed) for seed in range(3)])
    b = vector(n, REAL)
    f = lambda a: solver.compute(solver.init(operator_for(solver, a), {}), jnp.asarray(b), {})
    xs, results, _ = jax.jit(jax.vmap(f))(jnp.asarray(mats))
    assert bool(jnp.all(results == RESULTS.successful))
    for a, x in zip(mats, xs):
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


@pytest.mark.parametrize(
    ("solver", "preconditioned"),
    [
        (GMRES(), False),
        (GMRES(), True),
        (BiCGStab(), True),
        (LSMR(), False),
        (Normal(CG()), True),
        (Normal(Cholesky()), False),
    ],
)
def test_transpose_and_conj(solver, preconditioned):
    """B-11: the laws of states, for a complex operator without symmetry, and a preconditioner."""
    n = 20
    a, b = matrix(n, COMPLEX, False), vector(n, COMPLEX)
    operator = MatrixLinearOperator(jnp.asarray(a))
    m = MatrixLinearOperator(jnp.asarray(np.linalg.inv(a + 0.1 * np.eye(n)).astype(COMPLEX)))
    options = {"preconditioner": m} if preconditioned else {}
    transposed = lambda s: solver.transpose(*s)
    conjugated = lambda s: solver.conj(*s)
    start = solver.init(operator, options), options
    cases = [
        (start, a),
        (transposed(start), a.T),
        (conjugated(start), a.conj()),
        (conjugated(transposed(start)), a.conj().T),
        (transposed(conjugated(start)), a.conj().T),
        (transposed(transposed(start)), a),
    ]
    for (state, turned), mat in cases:
        x, result, stats = run(solver, None, b, turned, operator, state)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.solve(mat, b), atol=1e-3 if not X64 else 1e-7)
        if preconditioned:
            assert int(stats["num_steps"]) <= 8  # the turned preconditioner fits
    state, turned = solver.transpose(start[0], options | {"y0": jnp.ones(n), "x0": jnp.ones(n)})
    assert set(turned) == set(options)
    state, turned = solver.conj(start[0], options | {"y0": jnp.ones(n), "x0": jnp.ones(n)})
    assert set(turned) == set(options)


def test_transpose_of_a_field():
    """A preconditioner that is the solver's own is turned with the state."""
    n = 20
    a, b = matrix(n, COMPLEX, False), vector(n, COMPLEX)
    inverse = np.linalg.inv(a + 0.1 * np.eye(n)).astype(COMPLEX)
    solver = BiCGStab(preconditioner=MatrixLinearOperator(jnp.asarray(inverse)))
    operator = MatrixLinearOperator(jnp.asarray(a))
    state, _ = solver.transpose(solver.init(operator, {}), {})
    x, result, stats = run(solver, None, b, {}, operator, state)
    assert succeeded(result)
    assert int(stats["num_steps"]) <= 5
    np.testing.assert_allclose(x, np.linalg.solve(a.T, b), atol=1e-3 if not X64 else 1e-7)


def test_transpose_and_conj_hermitian():
    a, b = matrix(9, COMPLEX, True), vector(9, COMPLEX)
    solver = CG(preconditioner=DiagonalLinearOperator(jnp.asarray(1 / np.diag(a))))
    state = solver.init(operator_for(solver, a), {})
    for turn, mat in ((solver.transpose, a.T), (solver.conj, a.conj())):
        turned, _ = turn(state, {})
        x, result, _ = run(solver, a, b, {}, None, turned)
        assert succeeded(result)
        np.testing.assert_allclose(x, np.linalg.solve(mat, b), atol=1e-3 if not X64 else 1e-8)


_SHARD_MAP = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from linsolve_prim.operators import MatrixLinearOperator, positive_semidefinite_tag
from linsolve_prim.results import RESULTS
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab
from linsolve_prim.solvers.normal import Normal
mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
a = rng.normal(size=(6, 6)); a = jnp.asarray(a @ a.T + 6 * np.eye(6), jnp.float32)
b = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
shared, own = P(), P("i")
cases = [(CG(), shared), (CG(stabilise_every=2), own), (GMRES(), own), (BiCGStab(), shared)]
cases += [(LSMR(), shared), (Normal(CG()), own)]
for solver, spec in cases:
    def f(a, b):
        operator = MatrixLinearOperator(a if spec == shared else a[0], positive_semidefinite_tag)
        x, result, stats = solver.compute(solver.init(operator, {}), b[0], {})
        return x[None], stats["num_steps"][None]
    f = jax.shard_map(f, mesh=mesh, in_specs=(spec, P("i")), out_specs=(P("i"), P("i")))
    mats = jnp.stack([a, 2 * a])
    quick = {"xla_backend_optimization_level": 0}
    x, steps = jax.jit(f, compiler_options=quick)(a if spec == shared else mats, b)
    for i in range(2):
        m = a if spec == shared else mats[i]
        np.testing.assert_allclose(m @ x[i], b[i], atol=2e-4)
print("ok")
"""


def test_shard_map():
    """The loops run inside `jax.shard_map` with its type checks on, on two devices."""
    env = os.environ | {
        "XLA_FLAGS": on_devices(2),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    }
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    env["PYTHONPATH"] = root + os.pathsep + env.get("PYTHONPATH", "")
    code = textwrap.dedent(_SHARD_MAP)
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert out.stdout.strip() == "ok", out.stderr[-3000:]


# ---- edge cases ----------------------------------------------------------------------------------


@each_solver
def test_zero_rhs(solver):
    """B-10: b = 0 gives x = 0 in no step, whatever the initial guess."""
    a = matrix(3, REAL, isinstance(solver, CG))
    for options in ({}, {"y0": jnp.ones(3, REAL)}):
        x, result, stats = run(solver, a, np.zeros(3, REAL), options)
        assert succeeded(result)
        assert stats["reason"] == REASONS.zero_rhs
        assert int(stats["num_steps"]) == 0
        assert float(stats["relative_residual"]) == 0
        np.testing.assert_array_equal(x, np.zeros(3))


@each_solver
def test_exact_guess(solver):
    """B-10: a guess within the tolerance takes no step."""
    a = np.diag([1.0, 2, 4]).astype(REAL)
    x0 = jnp.asarray([1, -1, 0.5], REAL)
    for key in ("y0", "x0") if isinstance(solver, CG) else ("y0",):
        x, result, stats = run(solver, a, a @ np.asarray(x0), {key: x0})
        assert succeeded(result)
        assert int(stats["num_steps"]) == 0
        np.testing.assert_array_equal(x, x0)


SMALL = {
    "1x1": ([[2.0]], [3.0]),
    "2x2": ([[2.0, 1], [1, 3]], [1.0, 2]),
    "eigenvector": (np.diag([1.0, 2, 3]), [0.0, 1, 0]),
    "identity": (np.eye(3), [1.0, 0, 2]),
    "singular, consistent": (np.diag([1.0, 2, 0]), [1.0, 1, 0]),
    "rank one": ([[1.0, 1], [1, 1]], [2.0, 2]),
}


@each_solver
def test_small(solver):
    """B-10: small systems, and those that end exactly."""
    for a, b in SMALL.values():
        a, b = np.asarray(a, REAL), np.asarray(b, REAL)
        x, result, _ = run(solver, a, b)
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


@each_solver
def test_indefinite(solver):
    """S0-08: [[0, 1], [1, 0]] x = [2, 3]: the solution or a breakdown, never NaN."""
    a, b = np.array([[0, 1], [1, 0]], REAL), np.array([2, 3], REAL)
    x, result, _ = run(solver, a, b)
    assert np.isfinite(x).all()
    assert succeeded(result) or bool(result == RESULTS.breakdown)
    if succeeded(result):
        np.testing.assert_allclose(x, [3, 2], rtol=1e-4)
    assert not isinstance(solver, GMRES) or succeeded(result)


@each_solver
def test_skew(solver):
    a, b = np.array([[0, 1], [-1, 0]], REAL), np.array([2, 3], REAL)
    x, result, _ = run(solver, a, b)
    assert np.isfinite(x).all()
    if isinstance(solver, (CG, BiCGStab)):
        assert bool(result == RESULTS.breakdown)
    else:
        assert succeeded(result)
        np.testing.assert_allclose(x, [-3, 2], rtol=1e-4)


@each_solver
def test_all_zero_matrix(solver):
    """S0-39: 0·x = b is no success (but for least squares, where x = 0 is one), and x is finite."""
    x, result, stats = run(solver, np.zeros((3, 3), REAL), np.array([1, 2, 3], REAL))
    np.testing.assert_array_equal(x, np.zeros(3))
    np.testing.assert_allclose(stats["relative_residual"], 1, rtol=1e-6)
    if isinstance(solver, LSMR):
        assert stats["reason"] == REASONS.least_squares
    else:
        assert bool(result == RESULTS.breakdown) or bool(result == RESULTS.singular)
        assert stats["reason"] == REASONS.failed


@each_solver
def test_inconsistent(solver):
    """B-03: a system without a solution is not solved, in the sense of ‖b − Ax‖."""
    a, b = np.array([[1, 1], [1, 1]], REAL), np.array([2, 1], REAL)
    x, result, stats = run(solver, a, b)
    assert np.isfinite(x).all()
    assert succeeded(result) == isinstance(solver, LSMR)
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=1e-4)


@each_solver
def test_nonfinite(solver):
    """NaN and infinity in A, b or the guess are named, and x stays finite."""
    a, b = np.diag([1.0, 2, 3]).astype(REAL), np.ones(3, REAL)
    bad_a = np.diag([1.0, np.nan, 3]).astype(REAL)
    bad_b = np.array([1, np.inf, 0], REAL)
    cases = [(bad_a, b, {}), (a, bad_b, {}), (a, b, {"y0": jnp.asarray([np.nan, 0, 0], REAL)})]
    for mat, rhs, options in cases:
        x, result, _ = run(solver, mat, rhs, options)
        assert bool(result == RESULTS.nonfinite_input)
        assert np.isfinite(x).all()


@each_method
@pytest.mark.parametrize("scale_b", [1e-30, 1.0, 1e30])
def test_scales(solver, scale_b):
    """Squares of 1e-30 and 1e30 are no numbers in float32."""
    a, b = np.diag([1, 2, 3]).astype(np.float32), np.array([1, 2, 3], np.float32)
    x, result, _ = run(solver, a, b * np.float32(scale_b))
    assert succeeded(result)
    np.testing.assert_allclose(np.asarray(x) / np.float32(scale_b), [1, 1, 1], rtol=1e-4)


@each_method
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_operator_scales(solver, scale):
    a, b = np.diag([1, 2, 3]).astype(np.float32), np.array([1, 2, 3], np.float32)
    x, result, _ = run(solver, a * np.float32(scale), b)
    assert succeeded(result)
    np.testing.assert_allclose(np.asarray(x) * np.float32(scale), [1, 1, 1], rtol=1e-4)


def test_overflow_of_the_solution():
    """x = b/A is no number: the solve fails, and says so."""
    a, b = 1e-20 * np.eye(3, dtype=np.float32), 1e37 * np.ones(3, np.float32)
    for solver in (CG(), GMRES(), BiCGStab(), LSMR()):
        x, result, _ = run(solver, a, b)
        assert bool(result == RESULTS.diverged)
        assert np.isfinite(x).all()


def test_bicgstab_on_float32():
    """B-03: forty of forty well-conditioned float32 systems are solved."""
    for seed in range(40):
        a, b = matrix(50, np.float32, False, seed), vector(50, np.float32, seed + 100)
        x, result, _ = run(BiCGStab(), a, b)
        assert succeeded(result)
        assert relative(a, x, b) <= 1.1e-5


def test_integers():
    """S0-09: integers are promoted, never truncated."""
    operator = MatrixLinearOperator(
        jnp.asarray([[2.0, 0], [0, 4]], REAL), positive_semidefinite_tag
    )
    for solver in (CG(),):
        x, result, _ = run(
            solver, None, np.array([1, 1]), {"x0": np.array([1, 1])}, operator=operator
        )
        assert succeeded(result)
        np.testing.assert_allclose(x, [0.5, 0.25], rtol=1e-4)


# ---- stopping ------------------------------------------------------------------------------------


def test_default_rtol():
    """S0-41: the default depends on the precision."""
    assert default_rtol(jnp.float16) == default_rtol(jnp.bfloat16) == 1e-2
    assert default_rtol(jnp.float32) == default_rtol(jnp.complex64) == 1e-5
    assert default_rtol(np.float64) == default_rtol(np.complex128) == 1e-10


@each_method
def test_tolerances(solver):
    """S0-42: the larger of the two, and the reason says which it was; both may be traced."""
    a, b = matrix(20, REAL, isinstance(solver, CG)), vector(20, REAL)
    size = np.linalg.norm(b)
    tolerance = lambda t: jnp.asarray(t, REAL)
    make = lambda rtol, atol: type(solver)(rtol=tolerance(rtol), atol=tolerance(atol))
    x, result, loose = run(make(0.0, 1e-2 * size), a, b)
    assert succeeded(result)
    assert loose["reason"] == REASONS.atol
    assert relative(a, x, b) <= 1.01e-2
    x, result, tight = run(make(1e-4, 0.0), a, b)
    assert tight["reason"] == REASONS.rtol
    assert relative(a, x, b) <= 1.01e-4
    assert int(tight["num_steps"]) > int(loose["num_steps"])


@pytest.mark.parametrize("solver", [CG(), GMRES(), LSMR()], ids=repr)
def test_norm(solver):
    """The rule is judged in the norm that was asked for."""
    a, b = matrix(20, REAL, isinstance(solver, CG)), vector(20, REAL)
    x, result, stats = run(type(solver)(rtol=1e-3, norm=max_norm), a, b)
    assert succeeded(result)
    r = b - a @ np.asarray(x)
    assert np.abs(r).max() <= 1.01e-3 * np.abs(b).max()
    np.testing.assert_allclose(stats["residual_norm"], np.linalg.norm(r), rtol=1e-3)


@pytest.mark.parametrize(
    ("solver", "max_steps"), [(CG(), 1), (GMRES(), 2), (BiCGStab(), 1), (LSMR(), 2)]
)
def test_few_steps(solver, max_steps):
    """S3-11: one or two steps are legal; x is what they gave, and no success is claimed."""
    a, b = matrix(20, REAL, isinstance(solver, CG)), vector(20, REAL)
    limited = type(solver)(max_steps=max_steps)
    x, result, stats = run(limited, a, b)
    assert bool(result == RESULTS.max_steps_reached)
    assert int(stats["num_steps"]) == int(stats["max_steps"]) == max_steps
    assert 0 < relative(a, x, b) < 1
    np.testing.assert_allclose(stats["relative_residual"], relative(a, x, b), rtol=1e-4)


def test_fixed_number_of_steps():
    """Without any tolerance a number of steps is asked for, and taken; the reason says so."""
    a, b = matrix(20, REAL, True), vector(20, REAL)
    _, result, stats = run(CG(0.0, 0.0, max_steps=5), a, b)
    assert int(stats["num_steps"]) == 5
    assert succeeded(result)
    assert stats["reason"] == REASONS.steps


@pytest.mark.parametrize(
    "solver", [CG(rtol=1e-12), GMRES(rtol=1e-12), BiCGStab(rtol=1e-12)], ids=repr
)
def test_unattainable(solver):
    """B-03: a tolerance below the rounding errors is not claimed, however small the recurrence."""
    n = 60
    a = np.diag(np.geomspace(1, 1e4, n)).astype(np.float32)
    q = np.linalg.qr(matrix(n, np.float32, False, 5))[0]
    a = (q @ a @ q.T).astype(np.float32)
    b = vector(n, np.float32)
    x, result, stats = run(solver, (a + a.T) / 2, b)
    assert not succeeded(result)
    assert np.isfinite(x).all()
    true = relative((a + a.T) / 2, x, b)
    assert abs(float(stats["relative_residual"]) - true) <= 0.2 * true


def test_stagnation():
    """GMRES with too short a restart."""
    n = 10
    a = np.roll(np.eye(n, dtype=REAL), 1, axis=0)
    _, result, stats = run(GMRES(restart=3, stagnation_iters=4), a, np.eye(n, dtype=REAL)[0])
    assert bool(result == RESULTS.stagnation)
    assert int(stats["num_steps"]) == 12
    _, result, stats = run(GMRES(restart=n), a, np.eye(n, dtype=REAL)[0])
    assert succeeded(result)
    assert int(stats["num_steps"]) == n


def test_conlim():
    a = np.diag(np.geomspace(1, 1e-4, 20)).astype(REAL)
    _, result, stats = run(LSMR(rtol=1e-12, conlim=10.0), a, np.ones(20, REAL))
    assert bool(result == RESULTS.conlim)
    assert float(stats["cond_A"]) > 10


def test_iterations_as_scipy():
    """CG needs SciPy's number of steps, within 10 % and 2."""
    n = 100
    a = (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1) + 1e-2 * np.eye(n)).astype(REAL)
    b = vector(n, REAL)
    for m in (None, np.diag(1 / np.linspace(1, 5, n)).astype(REAL)):
        for rtol in (1e-2, 1e-5):
            count = []
            spla.cg(a, b, rtol=rtol, atol=0, M=m, callback=count.append)
            options = {} if m is None else {"preconditioner": MatrixLinearOperator(jnp.asarray(m))}
            _, result, stats = run(CG(rtol=jnp.asarray(rtol)), a, b, options)
            assert succeeded(result)
            assert abs(int(stats["num_steps"]) - len(count)) <= 0.1 * len(count) + 2


def test_stabilise_every():
    a, b = matrix(20, REAL, True), vector(20, REAL)
    _, _, plain = run(CG(), a, b)
    for every in (3,):
        x, result, stats = run(CG(stabilise_every=every), a, b)
        assert succeeded(result)
        assert abs(int(stats["num_steps"]) - int(plain["num_steps"])) <= 1
        assert relative(a, x, b) <= 1.01 * default_rtol(REAL)


class Log:
    products = 0

    def add(self):
        self.products += 1


class Counting(AbstractLinearOperator):
    """A matrix that counts its products while the program runs."""

    matrix: jax.Array
    log: Log = eqx.field(static=True)
    tags: frozenset = eqx.field(static=True, default=frozenset([positive_semidefinite_tag]))

    def mv(self, x):
        jax.debug.callback(self.log.add)
        return self.matrix @ x

    def transpose(self):
        return Counting(self.matrix.T, self.log)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)

    out_structure = in_structure


@pytest.mark.parametrize(
    ("solver", "budget"),
    [
        (CG(), lambda k: k + 2),
        (GMRES(restart=4), lambda k: k + (k + 3) // 4 + 1),
        (BiCGStab(), lambda k: 2 * k + 2),
    ],
    ids=["CG", "GMRES", "BiCGStab"],
)
def test_products(solver, budget):
    """Products with A are what an iteration costs."""
    n, log = 20, Log()
    operator = Counting(jnp.asarray(matrix(n, REAL, True)), log)
    _, result, stats = run(solver, None, vector(n, REAL), {}, operator)
    jax.effects_barrier()
    assert succeeded(result)
    assert log.products <= budget(int(stats["num_steps"]))


# ---- honesty -------------------------------------------------------------------------------------

N = 6
_HONEST = {
    "CG": (CG(rtol=1e-4), False),
    "CG preconditioned": (CG(rtol=1e-4), True),
    "GMRES right": (GMRES(rtol=1e-4), True),
    "GMRES left": (GMRES(rtol=1e-4, side="left"), True),
    "BiCGStab preconditioned": (BiCGStab(rtol=1e-4), True),
    "LSMR": (LSMR(rtol=1e-4), False),
    "Normal": (Normal(CG(rtol=1e-4)), False),
}


@pytest.mark.parametrize("name", _HONEST)
@hp.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hp.HealthCheck.function_scoped_fixture],
)
@hp.given(
    seed=st.integers(0, 10**6),
    decades=st.floats(0, 9),
    kind=st.sampled_from(["definite", "indefinite", "general", "singular", "scaled"]),
    scale=st.sampled_from([1.0, 1e-12, 1e12]),
)
def test_honesty(name, seed, decades, kind, scale):
    """B-03, S0-42: success means a small true residual (or normal residual); x is always finite."""
    rng = np.random.default_rng(seed)
    q, p = (np.linalg.qr(rng.normal(size=(N, N)))[0] for _ in range(2))
    d = np.geomspace(1, 10**-decades, N)
    if kind == "indefinite":
        d[::2] *= -1
    if kind == "singular":
        d[-2:] = 0
    a = q @ np.diag(d) @ (p if kind in ("general", "singular") else q.T)
    if kind == "scaled":
        a = np.diag(10.0 ** rng.integers(-3, 3, N)) @ a
    a, b = a.astype(np.float32), (scale * rng.normal(size=N)).astype(np.float32)
    m = np.diag(1 / (np.abs(np.diag(a)) + 1e-3)).astype(np.float32)
    solver, preconditioned = _HONEST[name]
    options = {"preconditioner": MatrixLinearOperator(jnp.asarray(m))} if preconditioned else {}
    x, result, stats = run(solver, a, b, options)
    assert np.isfinite(x).all()
    a, b, x = a.astype(np.float64), b.astype(np.float64), np.asarray(x, np.float64)
    r, size = b - a @ x, np.linalg.norm(a, 2)
    noise = 1e-6 * (size * np.linalg.norm(x) + np.linalg.norm(b))
    assert abs(float(stats["residual_norm"]) - np.linalg.norm(r)) <= noise
    if not succeeded(result):
        assert stats["reason"] == REASONS.failed
    elif stats["reason"] == REASONS.least_squares:
        assert name == "LSMR"
        assert np.linalg.norm(a.T @ r) <= size * (1.01e-4 * np.linalg.norm(r) + noise)
    else:
        assert np.linalg.norm(r) <= 1.01e-4 * np.linalg.norm(b) + noise


# ---- preconditioners and other options -----------------------------------------------------------


def _hard(n=60):
    d = np.geomspace(1, 1e3, n)
    a = np.diag(d) + 0.3 * (np.eye(n, k=1) + np.eye(n, k=-1))
    return a.astype(REAL), DiagonalLinearOperator(jnp.asarray(1 / d, REAL))


@pytest.mark.parametrize("solver", [CG, GMRES, BiCGStab])
def test_preconditioner(solver):
    """A preconditioner at least halves the steps: on either side, as an option and as a field."""
    a, m = _hard()
    b = vector(60, REAL)
    tol = 1e-6 if X64 else 1e-4
    _, _, plain = run(solver(rtol=tol), a, b)
    for kwargs in ({}, {"side": "left"}) if solver is GMRES else ({},):
        x, result, option = run(solver(rtol=tol, **kwargs), a, b, {"preconditioner": m})
        assert succeeded(result)
        assert relative(a, x, b) <= 1.01 * tol
        assert 2 * int(option["num_steps"]) <= int(plain["num_steps"])
    if solver is CG:
        y, _, field = run(CG(rtol=tol, preconditioner=m), a, b)
        assert int(field["num_steps"]) == int(option["num_steps"])
        np.testing.assert_allclose(y, x, rtol=1e-5)
        useless = DiagonalLinearOperator(jnp.ones(60, REAL))
        _, _, both = run(CG(rtol=tol, preconditioner=useless), a, b, {"preconditioner": m})
        assert int(both["num_steps"]) == int(option["num_steps"])  # the option counts


def test_normal_preconditioner_and_guess():
    """The preconditioner of Normal approximates A⁻¹, for every shape."""
    a, m = _hard(20)
    b = vector(20, REAL)
    solver = Normal(CG(rtol=1e-4))
    x, result, stats = run(solver, a, b, {"preconditioner": m, "y0": jnp.ones(20, REAL)})
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01e-4
    assert int(stats["num_steps"]) <= 20
    wide = a[:15]
    pinv = MatrixLinearOperator(jnp.asarray(np.linalg.pinv(wide).astype(REAL)))
    for options in ({"preconditioner": pinv}, {"preconditioner": pinv, "y0": jnp.ones(20, REAL)}):
        x, result, stats = run(solver, wide, b[:15], options)
        assert succeeded(result)
        assert int(stats["num_steps"]) <= 5
        assert relative(wide, x, b[:15]) <= 1.01e-4


def test_normal_meets_the_tolerance_of_the_system():
    """B-03: ‖AᴴAx − Aᴴb‖ small is not ‖Ax − b‖ small; the inner solver is called until it is."""
    a, b = np.diag(np.geomspace(1, 1e3, 30)).astype(REAL), np.ones(30, REAL)
    rtol = 1e-2
    x, result, stats = run(Normal(CG(rtol=rtol, max_steps=10_000)), a, b)
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * rtol
    assert int(stats["num_passes"]) > 1


def test_normal_cg_is_deprecated():
    with pytest.warns(DeprecationWarning, match="Normal"):
        solver = NormalCG(rtol=1e-3, atol=0.0)
    assert isinstance(solver, Normal)
    assert solver.inner_solver.rtol == 1e-3
    with pytest.raises(ValueError, match="inner_solver: must be a solver"):
        Normal(CG)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"rtol": -1e-3}, "rtol: must be a non-negative.*-0.001"),
        ({"rtol": float("nan")}, "rtol: must be.*nan"),
        ({"rtol": "1e-3"}, "rtol: must be.*'1e-3'.*Pass"),
        ({"rtol": True}, "rtol: must be.*True"),
        ({"rtol": np.ones(2)}, "rtol: must be"),
        ({"atol": None}, "atol: must be.*None"),
        ({"atol": -1}, "atol: must be.*-1"),
        ({"atol": 1j}, "atol: must be"),
        ({"norm": "two"}, "norm: must be a function.*'two'"),
        ({"max_steps": 0}, "max_steps: must be an integer from 1.*got 0.*Leave it out"),
        ({"max_steps": 2.5}, "max_steps: must be.*2.5"),
        ({"max_steps": True}, "max_steps: must be"),
        ({"rtol": 0.0, "atol": 0.0}, "rtol, atol, max_steps: must not be 0, 0 and None"),
    ],
)
@pytest.mark.parametrize("solver", [CG, GMRES, BiCGStab, LSMR])
def test_bad_settings(solver, kwargs, match):
    """S3-11: settings are checked when the solver is made."""
    with pytest.raises(ValueError, match=match):
        solver(**kwargs)


def test_bad_settings_of_one_method():
    with pytest.raises(ValueError, match=r"restart: must be an integer from 1.*got 0"):
        GMRES(restart=0)
    with pytest.raises(ValueError, match="stagnation_iters: must be"):
        GMRES(stagnation_iters=0)
    with pytest.raises(ValueError, match="side: must be 'left' or 'right'; got 'both'"):
        GMRES(side="both")
    with pytest.raises(ValueError, match="stabilise_every: must be"):
        CG(stabilise_every=0)
    with pytest.raises(ValueError, match="conlim: must be"):
        LSMR(conlim=-1.0)
    with pytest.raises(ValueError, match="preconditioner: must be an AbstractLinearOperator"):
        CG(preconditioner=np.eye(3))


def test_bad_operators_and_options():
    """Operators and options that do not fit are errors at trace time."""
    a = jnp.asarray(matrix(4, REAL, True))
    plain, definite = MatrixLinearOperator(a), MatrixLinearOperator(a, positive_semidefinite_tag)
    b = jnp.ones(4, REAL)
    with pytest.raises(ValueError, match=r"`CG` needs a positive or negative.*Tag it.*GMRES"):
        CG().init(plain, {})
    for solver in (GMRES(), BiCGStab(), CG()):
        with pytest.raises(ValueError, match="3×4"):
            solver.init(MatrixLinearOperator(a[:3]), {})
    for solver in (CG(), GMRES(), BiCGStab()):
        state = solver.init(definite, {})
        small = MatrixLinearOperator(a[:3, :3])
        with pytest.raises(ValueError, match=r"preconditioner: approximates A⁻¹.*must map"):
            solver.compute(state, b, {"preconditioner": small})
        with pytest.raises(ValueError, match=r"options\['preconditioner'\]: must be an Abstract"):
            solver.compute(state, b, {"preconditioner": a})
        with pytest.raises(ValueError, match=r"options\['y0'\]: must have the structure"):
            solver.compute(state, b, {"y0": b[:3]})
        with pytest.raises(ValueError, match="'y0' and 'x0' mean the same"):
            solver.compute(state, b, {"y0": b, "x0": b})


@pytest.mark.parametrize(
    "solver",
    [
        CG(),
        CG(1e-3, 1e-4, stabilise_every=5),
        GMRES(restart=7, side="left"),
        BiCGStab(max_steps=3),
        LSMR(conlim=5.0),
    ],
    ids=repr,
)
def test_repr(solver):
    """S0-48: what is printed can be pasted."""
    assert eval(repr(solver)) == solver
    assert repr(solver).startswith(f"{type(solver).__name__}(rtol=")
    assert "rtol=0.5" in repr(CG(rtol=jnp.asarray(0.5)))
    assert "norm=max_norm" in repr(GMRES(norm=max_norm))
    assert "Normal(" in repr(Normal(CG()))


def test_lineax_positions():
    """Positional arguments are those of Lineax."""
    assert CG(1e-3, 1e-4, max_norm, 5, 7) == CG(
        rtol=1e-3, atol=1e-4, norm=max_norm, stabilise_every=5, max_steps=7
    )
    assert GMRES(1e-3, 1e-4, max_norm, 7, 8, 9) == GMRES(
        rtol=1e-3, atol=1e-4, norm=max_norm, max_steps=7, restart=8, stagnation_iters=9
    )
    assert BiCGStab(1e-3, 1e-4, max_norm, 7) == BiCGStab(
        rtol=1e-3, atol=1e-4, norm=max_norm, max_steps=7
    )
    assert LSMR(1e-3, 1e-4, max_norm, 7, 1e6).conlim == 1e6


def test_traits():
    assert all(s.assume_full_rank() for s in (CG(), GMRES(), BiCGStab(), Normal(CG())))
    assert not LSMR().assume_full_rank()
    assert all(s.checks_residual() for s in SOLVERS)
    assert not Normal(Cholesky()).checks_residual()
