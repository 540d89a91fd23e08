"""`lp.IterativeRefinement`: one factorization in low precision, residuals in the operator's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from krylov_tools import (
    COMPLEX,
    REAL,
    X64,
    assert_gradients,
    counts,
    general,
    normal,
    quick_jit,
    relative,
    run,
    succeeded,
    with_spectrum,
)

import linsolve_prim as lp
from linsolve_prim import RESULTS
from linsolve_prim.operators.cast import cast
from linsolve_prim.solvers.krylov import default_rtol

pytestmark = pytest.mark.skipif(not X64, reason="two precisions are needed")
N = 40
INNER = {
    "LU": lp.LU(),
    "QR": lp.QR(),
    "GMRES": lp.GMRES(rtol=1e-3),
    "auto": lp.AutoLinearSolver(),
    "SuperLU": lp.SuperLU(),
}
SLOW = ("QR", "auto")
each = pytest.mark.parametrize(
    "inner",
    [
        pytest.param(inner, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, inner in INNER.items()
    ],
)


def matrix(a, *tags):
    return lp.MatrixLinearOperator(jnp.asarray(a), tags)


def definite(a):
    return lp.MatrixLinearOperator(
        a @ a.T.conj() + 4 * jnp.eye(len(a), dtype=a.dtype), lp.positive_semidefinite_tag
    )


def primitives(jaxpr, inside_loop=False):
    """`(name, dtype, in a loop?)` of all equations, those of inner programs too."""
    for eqn in jaxpr.eqns:
        dtype = eqn.outvars[0].aval.dtype if hasattr(eqn.outvars[0].aval, "dtype") else None
        yield eqn.primitive.name, dtype, inside_loop
        loops = inside_loop or eqn.primitive.name in ("while", "scan")
        for value in jax.tree.leaves(
            eqn.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner, loops)


@each
@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_reaches_double_precision(inner, dtype):
    """S3-10: 1e-12 by factors in float32, in a few steps."""
    a, b = general(N, dtype), normal(N, dtype, 1)
    x, result, stats = run(lp.IterativeRefinement(inner, rtol=1e-13), a, b)
    assert x.dtype == dtype
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01e-13 + 1e-15
    assert int(stats["num_steps"]) <= 8
    assert int(stats["matvecs"]) == int(stats["num_steps"])
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=0, atol=1e-12)


def test_one_factorization():
    """It is of float32, and stands before the loop; the transposed solves have it too."""
    solver = lp.IterativeRefinement(lp.LU(), rtol=1e-12)

    def solve(a, b):
        return lp.linear_solve(lp.MatrixLinearOperator(a), b, solver).value

    a, b = jnp.asarray(general(N)), jnp.asarray(normal(N))
    for f in (solve, lambda a, b: jax.vjp(solve, a, b)[1](b)):
        found = [p for p in primitives(jax.make_jaxpr(f)(a, b).jaxpr) if p[0] == "lu"]
        assert found == [("lu", np.float32, False)]


def test_one_factorization_on_the_host():
    """The same on a sparse matrix with SuperLU, forward and backward."""
    s = sp.random(200, 200, density=0.02, random_state=0) + 4 * sp.eye(200)
    operator, b = lp.SparseLinearOperator.from_scipy(s), jnp.asarray(normal(200))
    solver = lp.IterativeRefinement(lp.SuperLU(), rtol=1e-13)
    lp.host.registry.clear()
    lp.host.registry.reset_stats()
    loss = lambda values: jnp.sum(
        lp.linear_solve(dataclasses.replace(operator, values=values), b, solver).value ** 2
    )
    value, grad = quick_jit(jax.value_and_grad(loss))(operator.values)
    assert lp.host.registry.stats()["factorizations"] == 1
    x = np.linalg.solve(s.toarray(), b)
    np.testing.assert_allclose(value, np.sum(x**2), rtol=1e-12)
    y = np.linalg.solve(s.toarray().T, 2 * x)
    pattern = operator.pattern
    np.testing.assert_allclose(grad, -y[pattern.rows] * x[pattern.indices], atol=1e-11)


def test_ill_conditioned():
    """B-17: success up to a condition number of about 1/ε of float32; beyond, the truth."""
    solver = lp.IterativeRefinement(lp.LU(), rtol=1e-13)
    for decades in (2, 4, 6, 8, 10, 12):
        a = with_spectrum(np.geomspace(1, 10.0**-decades, N), (N, N))
        b = a @ np.ones(N)
        x, result, stats = run(solver, a, b)
        assert np.isfinite(x).all()
        np.testing.assert_allclose(
            stats["relative_residual"], relative(a, x, b), rtol=0.01, atol=1e-15
        )
        if decades <= 6:
            assert succeeded(result)
        if succeeded(result):
            assert relative(a, x, b) <= 1.01e-13 + 1e-15
        else:
            assert bool(result == RESULTS.stagnation)
            assert stats["reason"] == lp.REASONS.failed


@each
def test_singular_and_bad(inner):
    """B-04: matrices without an inverse, NaN and infinity; x stays finite."""
    b = np.array([1.0, 2, 3, 4])
    solver = lp.IterativeRefinement(inner)
    for a in (np.zeros((4, 4)), np.ones((4, 4)), np.diag([1.0, 0, 1, 1])):
        x, result, _ = run(solver, a, b, {"y0": 0 * b})
        assert not succeeded(result)
        assert np.isfinite(x).all()
    a = np.diag([1.0, np.nan, 1, 1])
    solution = quick_jit(
        lambda a, b: lp.linear_solve(lp.MatrixLinearOperator(a), b, solver, throw=False)
    )(a, b)
    assert bool(solution.result == RESULTS.nonfinite_input)
    a = np.diag([1.0, 2, 3, 4])
    for rhs, steps in ((0 * b, 0), (a @ b, 0)):  # b = 0, and an exact guess
        _, result, stats = run(solver, a, rhs, {"y0": b})
        assert succeeded(result)
        assert int(stats["num_steps"]) == steps


def test_definite():
    """Tags reach the inner solver; so do the transpose and the conjugate."""
    a = jnp.asarray(normal((8, 8), COMPLEX))
    b = jnp.asarray(normal(8, COMPLEX, 1))
    for inner in (lp.Cholesky(), lp.CG(rtol=1e-2)):
        solver = lp.IterativeRefinement(inner, rtol=1e-12)
        mine = lambda a, b, s=solver: lp.linear_solve(definite(a), b, s).value
        dense = lambda a, b: jnp.linalg.solve(definite(a).as_matrix(), b)
        assert_gradients(mine, dense, a, b, 1e-8)


def test_functions_and_pytrees():
    """An operator that cannot be cast is multiplied in its own precision."""
    m = jnp.asarray(general(6))
    structure = {"u": jax.ShapeDtypeStruct((4,), REAL), "v": jax.ShapeDtypeStruct((2,), REAL)}

    def f(x):
        y = m @ jnp.concatenate([x["u"], x["v"]])
        return {"u": y[:4], "v": y[4:]}

    operator = lp.FunctionLinearOperator(f, structure)
    b = {"u": jnp.asarray(normal(4)), "v": jnp.asarray(normal(2, seed=1))}
    for inner in (lp.LU(), lp.BiCGStab(rtol=1e-2)):
        solver = lp.IterativeRefinement(inner, rtol=1e-13)
        x = quick_jit(lambda b, s=solver: lp.linear_solve(operator, b, s).value)(b)
        want = np.linalg.solve(m, np.concatenate([b["u"], b["v"]]))
        np.testing.assert_allclose(np.concatenate([x["u"], x["v"]]), want, atol=1e-12)


@pytest.mark.parametrize("kind", ["matrix", "function", "sparse", "tagged", "diagonal"])
def test_cast(kind):
    """An operator in another precision is the same map, with the same promises."""
    a = jnp.asarray(normal((3, 3), COMPLEX))
    a = a + a.T
    operator = {
        "matrix": lp.MatrixLinearOperator(a, lp.symmetric_tag),
        "function": lp.FunctionLinearOperator(
            lambda x: a @ x, jax.ShapeDtypeStruct((3,), COMPLEX), lp.symmetric_tag
        ),
        "sparse": lp.SparseLinearOperator.from_scipy(sp.csr_matrix(np.asarray(a))),
        "tagged": lp.TaggedLinearOperator(lp.MatrixLinearOperator(a), lp.symmetric_tag),
        "diagonal": lp.DiagonalLinearOperator(a[0]),
    }[kind]
    low = cast(operator, "float32")
    assert low.in_structure().dtype == np.complex64
    assert lp.is_symmetric(low) == lp.is_symmetric(operator)
    lp.testing.check_operator(low)
    for f in (lambda op: op, lp.conj, lambda op: op.T, lp.materialise, lp.linearise):
        np.testing.assert_allclose(
            f(low).as_matrix(), f(operator).as_matrix(), rtol=1e-6, atol=1e-7
        )


def test_lanes_of_matrices():
    """A batch of matrices, one of them singular: the others are solved as if alone."""
    mats = np.stack([general(8, seed=1), np.zeros((8, 8)), general(8, seed=2)])
    solver = lp.IterativeRefinement(lp.LU())
    f = lambda a, b: solver.compute(solver.init(lp.MatrixLinearOperator(a), {}), b, {})
    xs, results, stats = quick_jit(jax.vmap(f, in_axes=(0, None)))(mats, normal(8))
    assert (results == RESULTS.successful).tolist() == [True, False, True]
    for i in (0, 2):
        x, _, one = run(solver, mats[i], normal(8))
        assert int(one["num_steps"]) == int(stats["num_steps"][i])
        np.testing.assert_allclose(xs[i], x, rtol=0, atol=1e-13)


def test_products_and_history():
    """B-18: products of the operator itself; those of an inner iteration are counted apart."""
    solver = lp.IterativeRefinement(lp.GMRES(rtol=1e-2), history=True)
    result, stats, log = counts(solver, general(N), normal(N))
    assert succeeded(result)
    assert log.matvecs == int(stats["matvecs"]) + int(stats["inner_matvecs"])
    assert int(stats["inner_steps"]) > int(stats["num_steps"])
    norms = np.asarray(stats["history"])[: int(stats["history_length"])]
    assert len(norms) == int(stats["num_steps"]) + 1
    assert (norms[1:] <= 0.02 * norms[:-1]).all()
    np.testing.assert_allclose(norms[-1], stats["residual_norm"], rtol=0.01)


def test_float32_systems():
    """In one precision it still takes back what the factorization lost."""
    a, b = general(N, np.float32), normal(N, np.float32)
    x, result, _ = run(lp.IterativeRefinement(lp.LU()), a, b)
    assert succeeded(result)
    assert relative(a, x, b) <= 1.01 * default_rtol(np.float32)


def test_settings():
    """S3-10: what is refused, and how it prints."""
    with pytest.raises(ValueError, match="inner: must be a solver; got 3"):
        lp.IterativeRefinement(3)
    with pytest.raises(ValueError, match="precision: must be a real floating-point dtype; got"):
        lp.IterativeRefinement(lp.LU(), "int32")
    with pytest.raises(ValueError, match="preconditioner, side: are settings of the inner solver"):
        lp.IterativeRefinement(lp.GMRES(), side="left")
    solver = lp.IterativeRefinement(lp.LU(), np.float32, 1e-12)
    assert repr(solver) == (
        "IterativeRefinement(rtol=1e-12, atol=0.0, inner=LU(), precision='float32', max_steps=100)"
    )
    assert solver == dataclasses.replace(solver)
    options = {"preconditioner": matrix(np.eye(3))}
    with pytest.raises(ValueError, match="must not be given to `IterativeRefinement`"):
        solver.init(matrix(np.eye(3)), options)
    with pytest.raises(ValueError, match=r"IterativeRefinement.*3×2"):
        solver.init(matrix(np.ones((3, 2))), {})


@pytest.mark.slow
def test_laws():
    """S2-11: as for every solver."""
    solver = lp.IterativeRefinement(lp.LU(), rtol=1e-13)
    lp.testing.check_solver(solver, matrix(general(6, COMPLEX)))
