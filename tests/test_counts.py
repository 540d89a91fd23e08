"""What a derivative or a batch costs: factorizations, traces, compilations, equations."""

import collections
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex
from solver_table import BY_ID, REAL, X64
from through_lu import ThroughLU

import linsolve_prim as lp
from linsolve_prim import api

LU, CHOLESKY = BY_ID["lu"], BY_ID["cholesky-psd"]
N, K = 4, 7


def _custom_calls(f, *args):
    """What the compiled program calls (LAPACK's routines without prefix), and its text."""
    text = jax.jit(f).lower(*args).compile().as_text()
    names = re.findall(r'custom_call_target="(?:lapack_[sdcz])?(\w+?)(?:_ffi)?"', text)
    return collections.Counter(names), text


def _callbacks(calls):
    return [name for name in calls if "callback" in name]


def _primitives(jaxpr):
    """Every primitive of a jaxpr and of those inside of it."""
    names = collections.Counter()
    for eqn in jaxpr.eqns:
        names[eqn.primitive.name] += 1
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                names += _primitives(getattr(value, "jaxpr", value))
    return names


def _is_jaxpr(x):
    return isinstance(x, (jex.Jaxpr, jex.ClosedJaxpr))


def _functions(case):
    """Transformed solves of parameters and a vector (or a batch of vectors)."""
    solve = lambda p, v: case.solve(p, v, throw=False)
    loss = lambda p, v: jnp.sum(solve(p, v) ** 2)
    return {
        "forward": solve,
        "grad": jax.grad(loss, argnums=(0, 1)),
        "grad-b": jax.grad(loss, argnums=1),
        "jvp": lambda p, v: jax.jvp(solve, (p, v), (p, v)),
        "hessian": jax.hessian(loss, argnums=(0, 1)),
        "hvp": lambda p, v: jax.jvp(jax.grad(loss), (p, v), (p, v))[1],
        "vmap": jax.vmap(solve, in_axes=(None, 0)),
        "vmap-grad": jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, 0)),
        "grad-vmap": jax.grad(
            lambda p, v: jnp.sum(jax.vmap(loss, (None, 0))(p, v)), argnums=(0, 1)
        ),
    }


@pytest.mark.parametrize("name", list(_functions(LU)))
@pytest.mark.parametrize(
    ("case", "routine"), [(LU, "getrf"), (CHOLESKY, "potrf")], ids=["lu", "chol"]
)
def test_one_factorization_S1_20(case, routine, name):
    """Rows S1-20 and S2-13: whatever is asked for, the matrix is factorized once; no callback."""
    b = case.vector(REAL)
    b = jnp.stack([(i + 1) * b for i in range(K)]) if "vmap" in name else b
    f = _functions(case)[name]
    calls, _ = _custom_calls(f, case.params(REAL), b)
    assert calls[routine] == 1
    assert not _callbacks(calls)
    primitives = _primitives(jax.make_jaxpr(f)(case.params(REAL), b).jaxpr)
    assert primitives["lu" if case is LU else "cholesky"] == 1


def test_batch_of_vectors_is_one_matrix_solve_S1_20():
    """Triangular solves with an n×k matrix, never with k copies of the factor."""
    b = jnp.stack([LU.vector(REAL, i) for i in range(K)])
    _, text = _custom_calls(jax.vmap(lambda v: LU.solve(LU.params(REAL), v, throw=False)), b)
    solves = [line for line in text.splitlines() if "trsm" in line and "custom-call(" in line]
    assert len(solves) == 2
    for line in solves:
        shape = re.search(r"= \(?[fc]\d+\[([\d,]+)\]", line)
        assert shape is not None
        assert sorted(map(int, shape.group(1).split(","))) == [N, K]
    assert f"[{K},{N},{N}]" not in text


def test_throw_is_what_costs_a_callback():
    """`throw=True` has one, in a branch that only a failure takes; `throw=False` has none."""
    args = LU.params(REAL), LU.vector(REAL)
    loud, _ = _custom_calls(LU.solve, *args)
    quiet, text = _custom_calls(lambda p, v: LU.solve(p, v, throw=False), *args)
    assert len(_callbacks(loud)) == 1
    assert not _callbacks(quiet)
    assert "custom_call" in text


def test_gradient_in_b_forms_no_matrix_S1_04():
    """Only the transpose of A is new among what has n×n entries; in A, there is −λxᵀ."""
    args = LU.params(REAL), LU.vector(REAL)
    loss = lambda p, v: jnp.sum(LU.solve(p, v, throw=False) ** 2)

    def matrices(f):
        jaxpr = jax.make_jaxpr(f)(*args).jaxpr
        large = [e for e in jaxpr.eqns if any(v.aval.shape == (N, N) for v in e.outvars)]
        return collections.Counter(e.primitive.name for e in large)

    extra = matrices(jax.grad(loss, argnums=1)) - matrices(loss)
    assert set(extra) <= {"transpose", "stop_gradient"}
    extra = matrices(jax.grad(loss, argnums=0)) - matrices(loss)
    assert set(extra) & {"dot_general", "mul"}


def test_gradient_in_b_differentiates_no_product_S1_04():
    """Of a matrix-free operator: no product outside of the solves, and no derivative of one."""
    case = BY_ID["gmres-function"]
    args = case.params(REAL), case.vector(REAL)
    loss = lambda p, v: jnp.sum(case.solve(p, v, throw=False) ** 2)
    count = lambda i: _primitives(jax.make_jaxpr(jax.grad(loss, argnums=i))(*args).jaxpr)
    forward = _primitives(jax.make_jaxpr(loss)(*args).jaxpr)
    assert count(1)["cumsum"] == forward["cumsum"]
    assert count(0)["cumsum"] > forward["cumsum"]
    assert count(1)["linear_solve"] == count(0)["linear_solve"] == 2


# ---- traces --------------------------------------------------------------------------------------

TRACES = collections.Counter()


class Counting(ThroughLU):
    """LU that counts the traces of its methods; `tag` makes it new to every cache."""

    tag: object = eqx.field(static=True)

    def init(self, operator, options):
        TRACES["init"] += 1
        return super().init(operator, options)

    def compute(self, state, vector, options):
        TRACES["compute"] += 1
        return super().compute(state, vector, options)


@pytest.mark.parametrize(
    ("name", "traces"),
    [("forward", 1), ("jvp", 1), ("grad", 2), ("grad-b", 2), ("hvp", 2), ("hessian", None)],
)
def test_compute_is_traced_once_and_once_for_its_transpose(name, traces):
    """Jitted; whatever the order of differentiation. (A Hessian adds its `vmap`s of the two.)"""
    params, b, solver = LU.params(REAL), LU.vector(REAL), Counting(object())
    solve = lambda p, v: lp.linear_solve(LU.build(p), v, solver, throw=False).value
    loss = lambda p, v: jnp.sum(solve(p, v) ** 2)
    f = {
        "forward": solve,
        "jvp": lambda p, v: jax.jvp(solve, (p, v), (p, v)),
        "grad": jax.grad(loss, argnums=(0, 1)),
        "grad-b": jax.grad(loss, argnums=1),
        "hvp": lambda p, v: jax.jvp(jax.grad(loss), (p, v), (p, v))[1],
        "hessian": jax.hessian(loss),
    }[name]
    TRACES.clear()
    jax.jit(f).lower(params, b).compile()
    assert TRACES["init"] == 1
    assert TRACES["compute"] == traces if traces else TRACES["compute"] <= 6


def test_eager_solve_traces_once():
    params, solver = LU.params(REAL), Counting(object())
    TRACES.clear()
    for seed in range(3):
        lp.linear_solve(LU.build(params), LU.vector(REAL, seed), solver)
    assert TRACES == {"init": 1, "compute": 1}


def test_eager_gradient_traces_twice():
    params, b, solver = LU.params(REAL), LU.vector(REAL), Counting(object())
    loss = lambda p: jnp.sum(lp.linear_solve(LU.build(p), b, solver).value ** 2)
    TRACES.clear()
    jax.grad(loss)(params)
    assert TRACES["compute"] == 2
    jax.grad(loss)(params)
    assert TRACES["compute"] == 2


# ---- compilations --------------------------------------------------------------------------------


def _compilations():
    return api._programs.checked._cache_size()


def test_fresh_functions_compile_once_S0_52():
    """300 lambdas, all equal but for what they capture: one program, whatever the numbers."""
    b = jnp.arange(1.0, 4, dtype=REAL)
    scale = lambda i: jnp.asarray(float(i + 1), REAL)
    s = scale(0)
    lp.solve(lambda x, s=s: s * x, b)
    before = _compilations()
    for i in range(300):
        s = scale(i)
        x = lp.solve(lambda x, s=s: s * x, b)
        np.testing.assert_allclose(x, b / s, rtol=1e-6)
    assert _compilations() == before


def test_fresh_operators_and_solvers_compile_once_S0_52():
    params, b = CHOLESKY.params(REAL), CHOLESKY.vector(REAL)
    run = lambda: lp.linear_solve(CHOLESKY.build(params), b, lp.CG(rtol=1e-5 if X64 else 1e-3))
    run()
    before = _compilations()
    for _ in range(20):
        run()
    assert _compilations() == before


def test_other_functions_compile_anew():
    """Equal content shares a program; other content does not."""
    b = jnp.arange(1.0, 4, dtype=REAL)
    np.testing.assert_allclose(lp.solve(lambda x: 2 * x, b), b / 2)
    before = _compilations()
    np.testing.assert_allclose(lp.solve(lambda x: 4 * x, b), b / 4)
    assert _compilations() == before + 1


def test_who_asks_for_the_solution_alone_gets_that_alone():
    """No verdict is lowered; where it is asked for, or raises, it is the same verdict."""
    a = jnp.diag(jnp.arange(1.0, 41.0, dtype=REAL))
    b = jnp.ones(40, REAL)

    def solve(a, b, throw=False):
        return lp.linear_solve(lp.MatrixLinearOperator(a), b, lp.LU(), throw=throw)

    def lowered(f):
        return jax.jit(f).lower(a, b).as_text()

    value = lowered(lambda a, b: solve(a, b).value)
    assert "stablehlo.case" not in value  # neither pivots nor the residual are looked at
    assert "dot_general" not in value
    assert "dot_general" in lowered(lambda a, b: solve(a, b).stats["residual_norm"])
    assert "dot_general" in lowered(lambda a, b: solve(a, b, throw=True).value)
    both = jax.jit(lambda a, b: (solve(a, b).value, solve(0 * a, b).result))(a, b)
    np.testing.assert_allclose(both[0], 1 / jnp.arange(1.0, 41.0), rtol=1e-5)
    assert both[1] == lp.RESULTS.singular
    inner = jax.jit(lambda a, b: solve(a, b))  # the outer program uses a part of it
    assert "dot_general" not in lowered(lambda a, b: inner(a, b).value)
