"""Under `jax.jit`: the same numbers as without, and as dense linear algebra (rows S0-29, S2-09)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_table import BY_ID, COMPLEX, REAL, X64, assert_close, flat, over

import linsolve_prim as lp

TOL = 1e-10 if X64 else 1e-4
DIRECT = ["lu", "svd-deficient", "cholesky-psd", "triangular-unit", "diagonal-zero"]


@over(both=())
def test_compiled_equals_eager_equals_dense_S0_29(case, dtype):
    """Operator and right-hand side are both traced."""
    params, b = case.params(dtype, 3), case.vector(dtype, 4)
    eager = lp.linear_solve(case.build(params), b, case.solver)
    compiled = jax.jit(case.solve)(params, b)
    assert_close(flat(eager.value), case.reference(params, b), case.tol())
    assert_close(compiled, flat(eager.value), case.tol())
    assert jax.tree.structure(eager.value) == jax.tree.structure(case.build(params).in_structure())
    assert bool(eager.result == lp.RESULTS.successful)


@over(["lu", "cg", "superlu"], (REAL,))
@pytest.mark.parametrize("constant", ["operator", "vector", "both"])
def test_constants_of_the_program_S0_29(case, dtype, constant):
    """What is not an argument of the jitted function is compiled in."""
    params, b = case.params(dtype), case.vector(dtype)
    want = case.reference(params, b)
    if constant == "operator":
        got = jax.jit(lambda b: case.solve(params, b))(b)
    elif constant == "vector":
        got = jax.jit(lambda p: case.solve(p, b))(params)
    else:
        got = jax.jit(lambda: case.solve(params, b))()
    assert_close(got, want, case.tol())


@over(DIRECT, (COMPLEX,))
def test_operators_and_solutions_pass_through_jit(case, dtype):
    """An operator is a pytree: it can be an argument and a result."""
    operator, b = case.build(case.params(dtype)), case.vector(dtype)
    solve = jax.jit(lambda operator, b: (operator, lp.linear_solve(operator, b, case.solver).value))
    returned, x = solve(operator, b)
    assert type(returned) is type(operator)
    assert_close(flat(x), case.reference(case.params(dtype), b), case.tol())


@over(["lu", "qr-tall", "cholesky-psd"], (REAL,))
def test_state_passes_through_jit_S2_14(case, dtype):
    """Factorized in one program, used in another, where no factorization is left."""
    operator, b = case.build(case.params(dtype)), case.vector(dtype)
    first = lp.linear_solve(operator, b, case.solver)

    @jax.jit
    def again(operator, b, state):
        return lp.linear_solve(operator, b, case.solver, state=state, throw=False).value

    assert_close(again(operator, b, first.state), first.value, case.tol())
    program = again.lower(operator, b, first.state).compile().as_text()
    assert not any(name in program for name in ("getrf", "geqrf", "potrf"))


def test_statistics_are_those_of_the_eager_solve():
    case = BY_ID["cg"]
    params, b = case.params(REAL), case.vector(REAL)

    def everything(params, b):
        solution = lp.linear_solve(case.build(params), b, case.solver)
        return solution.result, solution.stats

    eager, compiled = everything(params, b), jax.jit(everything)(params, b)
    assert jax.tree.structure(eager) == jax.tree.structure(compiled)
    assert int(eager[1]["num_steps"]) == int(compiled[1]["num_steps"])
    assert bool(compiled[0] == lp.RESULTS.successful)


def test_traced_once_for_each_signature():
    case = BY_ID["lu"]
    traces = []

    @jax.jit
    def solve(params, b):
        traces.append(b.dtype)
        return case.solve(params, b)

    for seed in range(4):
        solve(case.params(REAL, seed), case.vector(REAL, seed))
    assert len(traces) == 1
    solve(case.params(COMPLEX), case.vector(COMPLEX))
    assert len(traces) == 2


def test_grad_of_jit_equals_jit_of_grad():
    case = BY_ID["lu"]
    args = case.params(REAL), case.vector(REAL)
    loss = lambda *args: jnp.sum(jnp.sin(case.solve(*args)))
    inside = jax.grad(jax.jit(loss), argnums=(0, 1))(*args)
    outside = jax.jit(jax.grad(loss, argnums=(0, 1)))(*args)
    reference = jax.grad(lambda *args: jnp.sum(jnp.sin(case.reference(*args))), argnums=(0, 1))
    assert_close(inside, outside, TOL)
    assert_close(inside, reference(*args), TOL)


@pytest.mark.parametrize("solver", [lp.LU(), lp.CG()], ids=["lu", "cg"])
def test_failure_raises_from_compiled_code_B_04(solver):
    """A jitted program neither swallows a failure nor returns its numbers (rows S0-36, B-04)."""
    singular = jnp.zeros((3, 3), REAL)
    b = jnp.ones(3, REAL)
    build = lambda a: lp.MatrixLinearOperator(a, lp.positive_semidefinite_tag)
    solve = jax.jit(lambda a, b: lp.linear_solve(build(a), b, solver).value)
    name = "SingularMatrixError" if isinstance(solver, lp.LU) else "Diverged"
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=name):
        jax.block_until_ready(solve(singular, b))
    np.testing.assert_allclose(solve(jnp.eye(3, dtype=REAL), b), b)


def test_no_exception_where_none_is_asked_for():
    singular, b = jnp.zeros((3, 3), REAL), jnp.ones(3, REAL)

    @jax.jit
    def code(a, b):
        return lp.linear_solve(lp.MatrixLinearOperator(a), b, lp.LU(), throw=False).result

    assert bool(code(singular, b) == lp.RESULTS.singular)


def test_donated_arguments():
    """The solution may take the place of the right-hand side."""
    case = BY_ID["lu"]
    params, b = case.params(REAL), case.vector(REAL)
    want = np.asarray(case.reference(params, b))
    got = jax.jit(lambda p, v: case.solve(p, v), donate_argnums=1)(params, jnp.array(b))
    assert_close(got, want, case.tol())
