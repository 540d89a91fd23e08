"""Substitution with sparse triangular matrices on the device, level after level (row S3-20)."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import X64
from host_table import COMPLEX, DTYPE, LOWER, make_matrix, operator_of
from jax.test_util import check_grads
from processes import run_on_devices

import linsolve_prim as lp
from linsolve_prim.testing import random_like

RTOL = 1e-10 if X64 else 3e-3
N = 9

flags = [
    pytest.param(lower, unit, transposed, id=f"{side}-{'unit' if unit else 'stored'}{turn}")
    for lower, side in ((True, "lower"), (False, "upper"))
    for unit in (False, True)
    for transposed, turn in ((False, ""), (True, "-transposed"))
]


def draw(shape, dtype=DTYPE, seed=0):
    return random_like(jax.ShapeDtypeStruct(shape, dtype), seed)


def close(actual, desired, rtol=RTOL):
    actual, desired = np.asarray(actual), np.asarray(desired)
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max(initial=0) <= rtol * np.abs(desired).max(initial=1e-30)


class Problem:
    """A triangular matrix by its flags, and what dense linear algebra says of it."""

    def __init__(self, lower, unit, transposed, dtype=DTYPE, n=N):
        self.unit, self.transposed, self.dtype = unit, transposed, np.dtype(dtype)
        kind = ("unit " if unit else "") + ("lower" if lower else "upper")
        operator = operator_of(make_matrix(kind, self.dtype, n))
        self.pattern, self.values = operator.pattern, operator.values
        self.solver = lp.Triangular(unit_diagonal=unit)
        self.b, self.w = draw((n,), dtype, 1), draw((n,), dtype, 2)

    def solve(self, values, b):
        a = lp.SparseLinearOperator(values, self.pattern)
        return lp.linear_solve(a.T if self.transposed else a, b, self.solver).value

    def pull(self, values, b, w):
        x, pull = jax.vjp(self.solve, values, b)
        return x, *pull(w)

    def dense(self, values):
        a = np.zeros(self.pattern.shape, COMPLEX if np.iscomplexobj(values) else DTYPE)
        a[self.pattern.rows, self.pattern.indices] = values
        a = a + np.eye(len(a)) if self.unit else a
        return a.T if self.transposed else a

    def expected(self, values, b, w):
        a = self.dense(values)
        x, z = np.linalg.solve(a, b), np.linalg.solve(a.T, w)
        of_matrix = -np.outer(z, x)
        of_matrix = of_matrix.T if self.transposed else of_matrix
        return x, of_matrix[self.pattern.rows, self.pattern.indices], z


# ---- The eight combinations ------------------------------------------------------------------------


def _situations():
    """All flags with one system each; batches and complex numbers of some, and of all if slow tests run."""
    for i, case in enumerate(flags):
        for dtype in (DTYPE, COMPLEX):
            for axes in (None, (None, 0, 0), (0, 0, 0), (0, None, None)):
                turn = (None, (None, 0, 0), (0, 0, 0))[i % 3]
                quick = axes in (None, turn) if dtype == DTYPE else axes == turn
                name = f"{case.id}-{dtype}-{axes}"
                marks = () if quick else pytest.mark.slow
                yield pytest.param(*case.values, dtype, axes, id=name, marks=marks)


@pytest.mark.parametrize(("lower", "unit", "transposed", "dtype", "axes"), list(_situations()))
def test_value_and_gradient_S3_20(lower, unit, transposed, dtype, axes):
    """Of values (on the pattern) and of b, compiled, and of batches of either or both; no callback."""
    problem = Problem(lower, unit, transposed, dtype)
    args = [problem.values, problem.b, problem.w]
    pull, count = problem.pull, 1
    if axes is not None:
        args = [a if axis is None else jnp.stack([a, -2 * a]) for a, axis in zip(args, axes)]
        pull, count = jax.vmap(pull, axes), 2
    lp.host.registry.reset_stats()
    found = jax.jit(pull)(*args)
    for lane in range(count):
        own = [a if axes is None or axes[i] is None else a[lane] for i, a in enumerate(args)]
        for actual, desired in zip(found, problem.expected(*own)):
            assert actual.dtype == dtype
            close(actual if axes is None else actual[lane], desired)
    assert lp.host.registry.stats()["callbacks"] == 0


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize(("lower", "unit", "transposed"), flags[:2])
def test_single_precision(lower, unit, transposed, dtype):
    problem = Problem(lower, unit, transposed, dtype)
    x = problem.solve(problem.values, problem.b)
    assert x.dtype == dtype
    close(x, np.linalg.solve(problem.dense(problem.values), problem.b), 1e-4)


@pytest.mark.skipif(not X64, reason="finite differences of second order need float64")
def test_second_order():
    problem = Problem(True, False, False)
    args = problem.values, problem.b
    check_grads(jax.jit(problem.solve), args, order=2, modes=("rev",), rtol=1e-4)


def test_nests_of_vmap():
    """Matrices inside of right-hand sides, and the other way round."""
    problem = Problem(True, False, False)
    values, b = problem.values * jnp.ones((3, 1), DTYPE), draw((4, N), DTYPE, 5)
    values = values * jnp.asarray([1.0, 2.0, -1.0], DTYPE)[:, None]
    inside = jax.vmap(jax.vmap(problem.solve, (0, None)), (None, 0))
    outside = jax.vmap(jax.vmap(problem.solve, (None, 0)), (0, None))
    expected = np.stack([np.linalg.solve(problem.dense(v), b.T).T for v in values])
    close(outside(values, b), expected)
    close(inside(values, b), np.moveaxis(expected, 0, 1))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        pytest.param("lower", DTYPE, marks=pytest.mark.slow),
        pytest.param("upper", COMPLEX, marks=pytest.mark.slow),
        pytest.param("upper", DTYPE, marks=pytest.mark.slow),
        pytest.param("lower", COMPLEX, marks=pytest.mark.slow),
    ],
)
def test_laws(kind, dtype):
    """States transposed, conjugated and both; statistics; linearity; edge cases."""
    lp.testing.check_solver(lp.Triangular(), operator_of(make_matrix(kind, dtype, N)))


@pytest.mark.parametrize("kind", ["lower", "unit upper"])
def test_states_of_complex_matrices(kind):
    """A state that was transposed, conjugated or both solves the system that was turned alike."""
    operator = operator_of(make_matrix(kind, COMPLEX, N))
    a = np.asarray(operator.as_matrix()) + ("unit" in kind) * np.eye(N)
    solver, b = lp.Triangular(unit_diagonal="unit" in kind), draw((N,), COMPLEX)
    start = solver.init(operator, {}), {}
    transpose, conjugate = (lambda s: solver.transpose(*s)), (lambda s: solver.conj(*s))
    for state, matrix in (
        (transpose(start), a.T),
        (conjugate(start), a.conj()),
        (conjugate(transpose(start)), a.conj().T),
        (transpose(conjugate(start)), a.conj().T),
        (transpose(transpose(start)), a),
    ):
        x, result, _ = solver.compute(state[0], b, state[1])
        assert result == lp.RESULTS.successful
        close(x, np.linalg.solve(matrix, b))


@pytest.mark.parametrize("unit", [False, True])
def test_in_a_scan_with_its_gradient(unit):
    problem = Problem(True, unit, False)

    def chain(values, b):
        return jax.lax.scan(lambda x, _: (problem.solve(values, x), x), b, None, length=3)[0]

    x, pull = jax.vjp(jax.jit(chain), problem.values, problem.b)
    ct_values, ct_b = pull(problem.w)
    a, w, expected = problem.dense(problem.values), problem.w, 0
    powers = [np.linalg.matrix_power(np.linalg.inv(a), k) for k in range(4)]
    close(x, powers[3] @ problem.b)
    close(ct_b, powers[3].T @ w)
    for k in range(3):  # the gradient of A⁻³b: one term for each factor
        expected = expected - np.outer(powers[k + 1].T @ w, powers[3 - k] @ problem.b)
    close(ct_values, expected[problem.pattern.rows, problem.pattern.indices])


def test_factors_are_kept_and_turned():
    """`lp.factorize`: the values are put in order once; the transpose is another order of them."""
    problem = Problem(True, False, False)
    operator = lp.SparseLinearOperator(problem.values, problem.pattern)
    factors = lp.factorize(operator)
    assert isinstance(factors.solver, lp.Triangular)
    dense = np.asarray(operator.as_matrix())
    close(factors.solve(problem.b), np.linalg.solve(dense, problem.b))
    close(factors.T.solve(problem.b), np.linalg.solve(dense.T, problem.b))
    close(factors.T.T.solve(problem.b), np.linalg.solve(dense, problem.b))
    close(
        factors.update(2 * problem.values).solve(problem.b), np.linalg.solve(2 * dense, problem.b)
    )


def test_nothing_calls_the_host_S3_20():
    """The programs of value and gradient hold no callback, and are programs for accelerators too."""
    problem = Problem(True, False, False)
    quiet = lambda v, b: (
        lp.linear_solve(
            lp.SparseLinearOperator(v, problem.pattern), b, lp.Triangular(), throw=False
        ).value
    )
    for f in (quiet, jax.grad(lambda v, b: jnp.sum(quiet(v, b) ** 2), (0, 1))):
        assert "callback" not in jax.jit(f).lower(problem.values, problem.b).compile().as_text()
        exported = jax.export.export(jax.jit(f), platforms=("cuda", "tpu"))
        assert exported(problem.values, problem.b).nr_devices == 1  # with a callback it would raise


# ---- Zeros, and what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize("turn", [False, True], ids=["A", "transposed"])
@pytest.mark.parametrize("how", ["number", "pattern"])
def test_zero_on_the_diagonal_is_singular_S3_20(how, turn):
    """A zero that is stored, or an entry that is not: never a success; other lanes are unharmed."""
    matrix = make_matrix("lower", DTYPE, N).tolil()
    matrix[4, 4] = 0
    operator = operator_of(matrix.tocsr() if how == "pattern" else make_matrix("lower", DTYPE, N))
    values = operator.values
    if how == "number":
        values = values.at[operator.pattern.diagonal_slots()[4]].set(0)
    operator = lp.SparseLinearOperator(values, operator.pattern)
    operator = operator.T if turn else operator
    solve = lambda op, b: lp.linear_solve(op, b, lp.Triangular(), throw=False)
    for run in (solve, jax.jit(solve)):
        assert run(operator, jnp.ones(N, DTYPE)).result == lp.RESULTS.singular
    with pytest.raises(lp.SingularMatrixError):
        lp.linear_solve(operator, jnp.ones(N, DTYPE), lp.Triangular())
    if how == "number":
        good = operator_of(make_matrix("lower", DTYPE, N))
        good = good.T if turn else good
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), operator, good)
        found = jax.vmap(solve, (0, None))(both, jnp.ones(N, DTYPE))
        assert (found.result == lp.RESULTS.successful).tolist() == [False, True]
        close(found.value[1], np.linalg.solve(good.as_matrix(), np.ones(N)))


def test_nan_among_the_values_is_bad_input():
    problem = Problem(True, False, False)
    values = problem.values.at[2].set(jnp.nan)
    operator = lp.SparseLinearOperator(values, problem.pattern)
    solution = lp.linear_solve(operator, problem.b, lp.Triangular(), throw=False)
    assert solution.result == lp.RESULTS.nonfinite_input


def test_infinity_in_one_unknown_leaves_others_alone():
    """Padding of the tables never meets an infinity: zero times that would be NaN."""
    matrix = sp.csr_array(np.tril(np.ones((6, 6))).astype(DTYPE))
    problem = operator_of(matrix)
    b = jnp.asarray([1, 1, 1, 1, 1, jnp.inf], DTYPE)
    x = lp.linear_solve(problem, b, lp.Triangular(), throw=False).value
    assert x[:5].tolist() == [1, 0, 0, 0, 0]
    assert x[5] == jnp.inf


@pytest.mark.parametrize("scale", [1e-200, 1e200] if X64 else [1e-30, 1e30])
@pytest.mark.parametrize("unit", [False, True])
def test_any_size_of_b(unit, scale):
    problem = Problem(True, unit, False)
    operator = lp.SparseLinearOperator(problem.values, problem.pattern)
    solution = lp.linear_solve(operator, problem.b * scale, problem.solver)
    assert solution.result == lp.RESULTS.successful
    close(solution.value / scale, np.linalg.solve(problem.dense(problem.values), problem.b))
    assert float(solution.stats["relative_residual"]) < 1e-5


@pytest.mark.parametrize("solver", [lp.Triangular, lp.SpSolveTriangular])
def test_stored_diagonal_is_refused_in_the_forward_pass_S3_20(solver):
    """Both solvers say the same, when the solve is traced and not in its gradient."""
    stored = operator_of(make_matrix("lower", DTYPE, N))
    for run in (lambda f: f(stored.values), lambda f: jax.eval_shape(f, stored.values)):
        with pytest.raises(ValueError, match="stores diagonal entries, but `unit_diagonal=True`"):
            run(
                lambda v: (
                    lp.linear_solve(
                        lp.SparseLinearOperator(v, stored.pattern),
                        jnp.ones(N, DTYPE),
                        solver(unit_diagonal=True),
                    ).value
                )
            )


@pytest.mark.parametrize(
    ("make", "settings", "match"),
    [
        (
            lambda: operator_of(make_matrix("general", DTYPE, N)),
            {},
            "neither the pattern nor the tags",
        ),
        (
            lambda: operator_of(make_matrix("general", DTYPE, N), LOWER),
            {},
            "has entries above the diagonal",
        ),
        (
            lambda: operator_of(make_matrix("lower", DTYPE, N)),
            {"lower": False},
            "has entries below the diagonal",
        ),
        (
            lambda: operator_of(make_matrix("unit lower", DTYPE, N), (LOWER, lp.unit_diagonal_tag)),
            {},
            r"Triangular\(unit_diagonal=True\)",
        ),
        (lambda: lp.MatrixLinearOperator(jnp.eye(N, dtype=DTYPE)), {}, "does not promise"),
        (
            lambda: lp.MatrixLinearOperator(jnp.eye(N, dtype=DTYPE), lp.lower_triangular_tag),
            {"unit_diagonal": True},
            "is for sparse operators",
        ),
        (lambda: operator_of(np.eye(3, 4, dtype=DTYPE)), {}, "solves square systems only"),
    ],
)
def test_what_is_refused(make, settings, match):
    with pytest.raises(ValueError, match=match):
        lp.linear_solve(make(), jnp.ones(make().out_size(), DTYPE), lp.Triangular(**settings))


@pytest.mark.parametrize("lower", [True, False])
def test_dense_matrix_with_the_triangle_as_a_setting(lower):
    a = np.asarray(make_matrix("lower" if lower else "upper", DTYPE, 5).toarray())
    solver = lp.Triangular(lower=lower)
    x = lp.linear_solve(lp.MatrixLinearOperator(jnp.asarray(a)), jnp.ones(5, DTYPE), solver).value
    close(x, np.linalg.solve(a, np.ones(5)))


# ---- On two devices, in a process of its own -------------------------------------------------------


def test_shard_map_gradient_S1_07():
    """Replicated operands get the sum of their cotangents."""
    done = run_on_devices(__file__)
    assert done.returncode == 0, done.stderr[-4000:]


def main():
    from jax.sharding import PartitionSpec as P

    assert jax.device_count() == 2
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    problem = Problem(True, False, False)
    for batched in (0, 1):
        args = [problem.values, problem.b]
        args[batched] = jnp.stack([args[batched], -3 * args[batched]])
        axes = tuple(0 if i == batched else None for i in range(2))
        specs = tuple(P("d") if axis == 0 else P() for axis in axes)
        energy = lambda v, b, axes=axes: jnp.sum(jnp.sin(jax.vmap(problem.solve, axes)(v, b)))
        total = jax.shard_map(
            lambda v, b, energy=energy: jax.lax.psum(energy(v, b), "d"),
            mesh=mesh,
            in_specs=specs,
            out_specs=P(),
        )
        ours, theirs = (jax.jit(jax.grad(f, (0, 1)))(*args) for f in (total, energy))
        for x, y in zip(ours, theirs):
            close(x, y)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", X64)
    main()
