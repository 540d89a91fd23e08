"""States and objects of solvers outside of JAX: pickled, held as settings, batched, on devices.

Rows S2-15, S2-19, S2-21 and S3-16. (A factor as bytes inside of `jit` is in the recipe, see
`test_readme.py`.)
"""

import collections
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from compiler_flags import on_devices
from host_table import BY_ID, COMPLEX, DTYPE, X64, close, draw, make_matrix, operator_of

import linsolve_prim as lp

N = 8
B = jnp.arange(1.0, N + 1, dtype=DTYPE)
PATH = os.pathsep.join(p for p in sys.path if p)


def python(code, *args, devices=1, given=None):
    """A new process; `given` are bytes for its standard input."""
    env = {**os.environ, "PYTHONPATH": PATH, "XLA_FLAGS": on_devices(devices)}
    run = [sys.executable, "-c", code, *args]
    done = subprocess.run(run, env=env, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return done.stdout


# ---- Pickled (S2-15) -------------------------------------------------------------------------------

ELSEWHERE = """
import pickle, sys
import jax, jax.numpy as jnp
import linsolve_prim as lp
operator, solver, state, factors, b = pickle.load(sys.stdin.buffer)
assert lp.host.registry.stats()["factorizations"] == 0
solve = jax.jit(lambda a, b: lp.linear_solve(a, b, solver, state=state, options={}).value)
x = solve(operator, b)
z = jax.grad(lambda b: solve(operator, b).real.sum())(b)
y = factors.T.solve(b)
counted = lp.host.registry.stats()["factorizations"]
sys.stdout.buffer.write(pickle.dumps([jax.device_get(a) for a in (x, z, y)] + [counted]))
"""


@pytest.mark.parametrize("id", ["superlu", "rslab", "umfpack", "dense"])
def test_a_state_survives_pickling_into_another_process_S2_15(id):
    """What stands in a state is the handle, and beside it the values: whoever gets the bytes makes the
    factor again, once, and finds it under the same handle."""
    matrix = make_matrix("general", DTYPE, N)
    if id == "dense":
        solver, operator = lp.LU(), lp.MatrixLinearOperator(jnp.asarray(matrix.toarray()))
    else:
        solver, operator = BY_ID[id].solver(), operator_of(matrix)
    state, factors = solver.init(operator, {}), lp.factorize(operator, solver)
    given = pickle.dumps((operator, solver, state, factors, B))
    x, z, y, factorizations = pickle.loads(python(ELSEWHERE, given=given))
    a = matrix.toarray()
    close(x, np.linalg.solve(a, B))
    close(y, np.linalg.solve(a.T, B))
    close(z, np.linalg.solve(a.T, np.ones(N)))
    assert factorizations == (0 if id == "dense" else 1)


def test_handles_are_the_same_everywhere_S2_15():
    """A hash of the values, and of nothing else: not of an address, nor of when it was made."""
    n = 25_000  # where the handle is a part of the state
    code = (
        "import sys, jax.numpy as jnp, scipy.sparse as sp, linsolve_prim as lp\n"
        f"a = sp.diags_array([2.0], offsets=[0], shape=({n}, {n}), dtype='float32')\n"
        "a = lp.SparseLinearOperator.from_scipy(a.tocsr())\n"
        "print(lp.SuperLU().init(a, {})[1].tolist())"
    )
    first, second = python(code), python(code)
    assert first == second
    assert eval(first) != [0, 0, 0, 0]


# ---- Objects of Python as settings (S2-19) ---------------------------------------------------------


class WithHierarchy(lp.AbstractHostSolver):
    """A multigrid hierarchy that was built before, outside of `jit`; CG with it as preconditioner."""

    hierarchy: object

    def factorize(self, pattern, values):
        CALLS["factorize"] += 1
        return sp.csr_matrix((values, pattern.indices, pattern.indptr), pattern.shape)

    def solve(self, matrix, b, *, transpose):
        preconditioner = self.hierarchy.aspreconditioner()
        rtol = 1e-12 if X64 else 1e-6
        solve = lambda row: spla.cg(matrix, row, rtol=rtol, M=preconditioner)[0]
        return np.stack([solve(row) for row in b])


CALLS = collections.Counter()


def test_a_solver_that_holds_an_object_built_outside_of_jit_S2_19():
    """A PyAMG hierarchy as a field: compiled in, never hashed by content, used by every transformation."""
    pyamg = pytest.importorskip("pyamg")
    line = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (30, 30), dtype=DTYPE).tocsr()
    solver = WithHierarchy(pyamg.ruge_stuben_solver(line))
    operator = operator_of(line + 0.1 * sp.eye(30, dtype=DTYPE))
    b = draw(np.random.default_rng(0), 30, DTYPE)
    traces = []

    def loss(values, b):
        traces.append(1)
        a = lp.SparseLinearOperator(values, operator.pattern)
        return jnp.sum(lp.linear_solve(a, b, solver).value ** 2)

    CALLS.clear()
    both = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))
    for _ in range(2):
        ct_values, ct_b = both(operator.values, jnp.stack([b, -b, 2 * b]))
    assert len(traces) == 1
    assert CALLS["factorize"] == 1
    a = np.asarray(operator.as_matrix())
    x = np.linalg.solve(a, b)
    z = np.linalg.solve(a.T, 2 * x)
    close(ct_b[0], z, 1e-6 if X64 else 1e-2)
    expected = -z[operator.pattern.rows] * x[operator.pattern.indices]
    close(ct_values[2], 4 * expected, 1e-6 if X64 else 1e-2)


def test_objects_that_are_equal_share_a_factor_S2_19():
    """Settings are compared by `==` and `hash` where they have those, else by identity."""
    traces = []
    plain, other = object(), object()
    operator = operator_of(make_matrix("general", DTYPE, N))

    class Holding(lp.AbstractHostSolver):
        held: object

        def factorize(self, pattern, values):
            traces.append(self.held)
            return sp.csr_matrix((values, pattern.indices, pattern.indptr), pattern.shape)

        def solve(self, matrix, b, *, transpose):
            return np.linalg.solve((matrix.T if transpose else matrix).toarray(), b.T).T

    lp.host.registry.clear()
    for held in (plain, plain, other, ("a", 1), ("a", 1)):
        close(
            lp.linear_solve(operator, B, Holding(held)).value,
            np.linalg.solve(operator.as_matrix(), B),
        )
    assert traces == [plain, other, ("a", 1)]


# ---- Batches of a library's own (S2-21) ------------------------------------------------------------


class NativeBatch(lp.AbstractLinearSolver):
    """NumPy solves stacks of systems by itself: one call for all matrices and right-hand sides."""

    vmap_method: str = "broadcast_all"

    def init(self, operator, options):
        return operator.as_matrix()

    def compute(self, state, vector, options):
        def host(a, b):
            a, b = np.asarray(a), np.asarray(b)
            CALLS[a.shape, b.shape] += 1
            return np.linalg.solve(a, b[..., None])[..., 0]

        like = jax.ShapeDtypeStruct(vector.shape, vector.dtype)
        x = jax.pure_callback(host, like, state, vector, vmap_method=self.vmap_method)
        return x, lp.RESULTS.successful, {}

    def transpose(self, state, options):
        return state.T, options

    def conj(self, state, options):
        return state.conj(), options

    def assume_full_rank(self):
        return True


@pytest.mark.parametrize("dtype", [DTYPE, COMPLEX], ids=str)
def test_a_library_with_batches_of_its_own_gets_them_whole_S2_21(dtype):
    """A batch of matrices is one call, with all of them; so is the batch of its adjoints."""
    rng = np.random.default_rng(0)
    a = draw(rng, (5, 3, 3), dtype) + 4 * jnp.eye(3, dtype=dtype)
    b = draw(rng, (5, 3), dtype)

    def loss(solve, a, b):
        return jnp.sum(jnp.abs(jax.vmap(solve)(a, b)) ** 2)

    ours = lambda a, b: (
        lp.linear_solve(lp.MatrixLinearOperator(a), b, NativeBatch(), throw=False).value
    )
    theirs = lambda a, b: jnp.linalg.solve(a, b)
    CALLS.clear()
    found = jax.jit(jax.grad(lambda *x: loss(ours, *x), (0, 1)))(a, b)
    jax.block_until_ready(found)
    assert CALLS == {((5, 3, 3), (5, 3)): 2}
    for x, y in zip(found, jax.grad(lambda a, b: loss(theirs, a, b), (0, 1))(a, b)):
        close(x, y)


def test_a_batch_of_matrices_is_one_callback_of_a_host_solver_S2_21():
    operator = operator_of(make_matrix("general", DTYPE, N))
    many = operator.values * jnp.arange(1, 6, dtype=DTYPE)[:, None]
    solve = lambda v: (
        lp.linear_solve(
            lp.SparseLinearOperator(v, operator.pattern), B, lp.SuperLU(), throw=False
        ).value
    )
    lp.host.registry.clear()
    lp.host.registry.reset_stats()
    x = jax.block_until_ready(jax.jit(jax.vmap(solve))(many))
    stats = lp.host.registry.stats()
    assert (stats["callbacks"], stats["factorizations"]) == (1, 5)
    close(x[4], np.linalg.solve(5 * np.asarray(operator.as_matrix()), B))


# ---- Devices (S3-16) -------------------------------------------------------------------------------

DEVICES = """
import jax, jax.numpy as jnp, numpy as np, scipy.sparse as sp
import linsolve_prim as lp
one, two = jax.devices()
rng = np.random.default_rng(0)
dense = rng.normal(size=(8, 8)) + 8 * np.eye(8)
values = jnp.asarray(dense, jnp.result_type(float))
b = jnp.ones(8, values.dtype)
on = lambda device, x: jax.device_put(x, device)
close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3)
pattern = lp.SparsityPattern.from_dense(dense)
sparse = lambda a: lp.SparseLinearOperator(a[pattern.rows, pattern.indices], pattern)

for solver, make in ((lp.LU(), lp.MatrixLinearOperator), (lp.SuperLU(), sparse)):
    solve = lambda a, b: lp.linear_solve(make(a), b, solver).value
    for f in (solve, jax.jit(solve)):
        x = f(on(two, values), on(two, b))  # the solution stays where its data are
        assert x.devices() == {two}, x.devices()
        close(x, np.linalg.solve(dense, b))
        try:
            f(on(one, values), on(two, b))
        except ValueError as error:  # JAX's own, which names both
            assert "incompatible devices" in str(error), error
            assert "[0]" in str(error) and "[1]" in str(error), error
        else:
            raise AssertionError("two devices went unnoticed")

    # rows of A, and of a batch of right-hand sides, spread over both devices
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    loss = lambda a, bs: jnp.sum(jnp.sin(jax.vmap(solve, (None, 0))(a, bs)))
    bs = jnp.asarray(rng.normal(size=(4, 8)), values.dtype)
    ours = jax.jit(jax.value_and_grad(loss, (0, 1)))(on(spread, values), on(spread, bs))
    reference = lambda a, bs: jnp.sum(jnp.sin(jnp.linalg.solve(a, bs.T)))
    theirs = jax.value_and_grad(reference, (0, 1))(values, bs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-4)
"""


def test_devices_S3_16():
    """Operands on one device, whichever; on two, JAX's error that names them; sharded ones."""
    python(DEVICES, devices=2)
