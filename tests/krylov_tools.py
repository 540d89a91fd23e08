"""What the tests of Krylov methods share: systems, compiled runs of a solver, counted products."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linsolve_prim._static import split
from linsolve_prim.operators import AbstractLinearOperator, MatrixLinearOperator
from linsolve_prim.results import RESULTS

X64 = jax.config.jax_enable_x64
REAL = np.float64 if X64 else np.float32
COMPLEX = np.complex128 if X64 else np.complex64
EPS = float(np.finfo(REAL).eps)


def over(solvers, core=None):
    """`@pytest.mark.parametrize` over named solvers; those that are not `core` run with slow tests."""
    marks = lambda name: [pytest.mark.slow] if core is not None and name not in core else []
    values = [pytest.param(solver, id=name, marks=marks(name)) for name, solver in solvers.items()]
    return pytest.mark.parametrize("solver", values)


def normal(shape, dtype=REAL, seed=0):
    """Standard normal numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.normal(size=shape)
    return x.astype(dtype)


def general(n, dtype=REAL, seed=0):
    """A well-conditioned matrix without symmetry."""
    return (normal((n, n), dtype, seed) + 2 * np.sqrt(n) * np.eye(n)).astype(dtype)


def with_spectrum(sizes, shape, seed=0, dtype=REAL):
    """A matrix with these singular values."""
    k = len(sizes)
    u = np.linalg.qr(normal((shape[0], k), dtype, seed))[0]
    v = np.linalg.qr(normal((shape[1], k), dtype, seed + 1))[0]
    return (u * np.asarray(sizes)) @ v.conj().T


def convection(n, speed=0.6):
    """Central differences of −u″ + speed·u′: nonsymmetric, and slow for short restarts."""
    return (2 * np.eye(n) - (1 - speed) * np.eye(n, k=1) - (1 + speed) * np.eye(n, k=-1)).astype(
        REAL
    )


#: Tests compile more than they compute. (The emitters take three times as long as what they replace.)
QUICK = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


# One program for each kind of solver, operator and options.
@functools.partial(quick_jit, static_argnums=0)
def _compiled(skeleton, *arrays):
    solver, operator, state, b, options = skeleton.fill(arrays)
    state = solver.init(operator, options) if state is None else state
    return solver.compute(state, b, options)


def run(solver, a, b, options=None, state=None):
    """`(x, result, stats)` of a solve, by `init` and `compute`; `a` is a matrix or an operator."""
    if not isinstance(a, AbstractLinearOperator):
        a = MatrixLinearOperator(jnp.asarray(a))
    b = jax.tree.map(jnp.asarray, b)
    arrays, skeleton = split((solver, a, state, b, options or {}))
    return _compiled(skeleton, *arrays)


def succeeded(result):
    return bool(result == RESULTS.successful)


def relative(a, x, b):
    """‖b − Ax‖/‖b‖ in the highest precision."""
    a, x, b = (np.asarray(v, np.complex128) for v in (a, x, b))
    return float(np.linalg.norm(b - a @ x) / np.linalg.norm(b))


class Log:
    """Counts of products."""

    def __init__(self):
        self.matvecs = self.rmatvecs = 0

    def add(self, transposed, _):
        if transposed:
            self.rmatvecs += 1
        else:
            self.matvecs += 1


class Counting(AbstractLinearOperator):
    """A matrix that counts its products while the program runs."""

    matrix: jax.Array
    log: Log = eqx.field(static=True)
    transposed: bool = eqx.field(static=True, default=False)
    tags: frozenset = eqx.field(static=True, default=frozenset())

    def mv(self, x):
        # (with an argument, so that each lane of a `vmap` calls)
        jax.debug.callback(functools.partial(self.log.add, self.transposed), x[0])
        return self.matrix @ x

    def transpose(self):
        return Counting(self.matrix.T, self.log, not self.transposed, self.tags)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[1:], self.matrix.dtype)

    def out_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)


def counts(solver, a, b, options=None, tags=frozenset()):
    """`(result, stats, log)` of a solve whose products were counted."""
    log = Log()
    operator = Counting(jnp.asarray(a), log, tags=tags)
    _, result, stats = run(solver, operator, b, options)
    jax.effects_barrier()
    return result, stats, log


def loss_gradients(solve, params, b):
    """The gradients of a fixed function of `solve(params, b)`, by both."""

    def loss(params, b):
        return sum(
            jnp.sum(jnp.sin(jnp.abs(leaf) ** 2)) for leaf in jax.tree.leaves(solve(params, b))
        )

    return quick_jit(jax.grad(loss, argnums=(0, 1)))(params, b)


def assert_gradients(solve, reference, params, b, tol):
    """Those gradients agree with those of a dense reference."""
    got, want = loss_gradients(solve, params, b), loss_gradients(reference, params, b)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert np.abs(np.asarray(x - y)).max() <= tol * max(np.abs(np.asarray(y)).max(), 1e-3)
