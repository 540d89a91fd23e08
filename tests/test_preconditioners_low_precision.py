"""`LowPrecision`: another preconditioner, made and applied in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import REAL, X64, run, succeeded
from preconditioner_problems import SMALL, advection, operator, poisson, steps

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc
from linsolve_prim.errors import WrongTypeError

RTOL = 1e-9 if X64 else 1e-5


def inexact(made):
    """The dtypes of the arrays that M is made of, but for numbers."""
    return {x.dtype.name for x in jax.tree.leaves(made) if x.ndim and x.dtype.kind == "f"}


@pytest.mark.parametrize("make", [pc.IC, lambda: pc.AMG(max_coarse=20)], ids=["IC", "AMG"])
def test_half_the_memory_and_as_many_steps_S0_22(make):
    if not isinstance(make, type):
        pytest.importorskip("pyamg")
    solver, matrix = lp.CG(RTOL), poisson(24)
    single = pc.LowPrecision(make())
    assert inexact(single.init(operator(matrix, "definite"))) == {"float32"}
    alone, low = (steps(matrix, "definite", solver, m) for m in (make(), single))
    assert abs(low - alone) <= 1


@pytest.mark.parametrize("kind", ["hermitian", pytest.param("complex", marks=pytest.mark.slow)])
def test_transpose_and_conjugate_are_those_of_its_matrix(kind):
    """To the lower precision: it is a linear operator for vectors of the own one."""
    tag, matrix = SMALL[kind]
    m = pc.LowPrecision(pc.ILU()).init(operator(matrix, tag))
    assert m.in_structure() == m.out_structure() == operator(matrix).in_structure()
    dense, turned = np.asarray(m.as_matrix()), np.asarray(m.transpose().as_matrix())
    np.testing.assert_allclose(turned, dense.T, atol=1e-5 * abs(dense).max())
    np.testing.assert_allclose(lp.conj(m).as_matrix(), dense.conj(), atol=1e-5 * abs(dense).max())
    x = jnp.linspace(1, 2, 36).astype(dense.dtype)
    np.testing.assert_allclose(m.mv(x), dense @ x, atol=1e-4 * abs(dense).max())


@pytest.mark.parametrize("size", [1e-200, 1e200] if X64 else [1e-25, 1e25])
def test_entries_and_vectors_of_any_size(size):
    """Beyond the range of the lower precision: A, b, and both."""
    found = []
    for a_size, b_size in ((1.0, 1.0), (size, 1.0), (1.0, size)):
        a = operator(poisson(8) * a_size, "definite")
        b = jnp.linspace(1, 2, 64, dtype=REAL) * b_size
        _, result, stats = run(lp.CG(RTOL, preconditioner=pc.LowPrecision(pc.IC())), a, b)
        assert succeeded(result)
        found.append(int(stats["num_steps"]))
    assert len(set(found)) == 1


def test_transposed_for_adjoints_and_batched_B_02():
    """Gradients through GMRES take Mᵀ, under `vmap` over coefficients, in `jit`."""
    pattern = operator(advection(5)).pattern
    values = jnp.asarray(np.stack([operator(advection(5, s)).values for s in (0.2, 0.6)]), REAL)
    b = jnp.linspace(1, 2, 25, dtype=REAL)
    solver = lp.GMRES(RTOL, preconditioner=pc.LowPrecision(pc.ILU()))

    def loss(values, solver):
        a = lp.SparseLinearOperator(values, pattern)
        a = a if solver is not None else lp.MatrixLinearOperator(a.as_matrix())
        return jnp.sum(jnp.cos(lp.linear_solve(a, b, solver or lp.LU()).value))

    gradient = lambda solver: jax.jit(jax.vmap(jax.grad(lambda v: loss(v, solver))))(values)
    np.testing.assert_allclose(gradient(solver), gradient(None), rtol=1e-6 if X64 else 1e-2)


def test_refreshed_inside_of_a_program():
    pytest.importorskip("pyamg")
    a = operator(poisson(16), "definite")
    prepared = pc.LowPrecision(pc.AMG(max_coarse=20)).prepare(a)
    solver = lp.CG(RTOL, preconditioner=prepared)

    @jax.jit
    def solve(values):
        own = lp.SparseLinearOperator(values, a.pattern, lp.positive_semidefinite_tag)
        found = lp.linear_solve(own, jnp.ones(256, REAL), solver)
        return found.value, found.stats["num_steps"]

    x, count = solve(a.values)
    y, again = solve(4 * a.values)
    np.testing.assert_allclose(x, 4 * y, rtol=1e-4)
    assert int(count) == int(again) <= 15


def test_bad_input_is_refused_by_name():
    with pytest.raises(WrongTypeError, match="preconditioner: must be one of `preconditioners`"):
        pc.LowPrecision(lp.IdentityLinearOperator(jnp.zeros(3)))
    with pytest.raises(ValueError, match="precision: must be one of float32, bfloat16, float16"):
        pc.LowPrecision(pc.Jacobi(), "float8")
    a, restricted = operator(poisson(4), "definite"), pc.Schwarz(5, restricted=True)
    solver = lp.CG(preconditioner=pc.LowPrecision(restricted))
    with pytest.raises(ValueError, match="preconditioner: `CG` needs one that is symmetric"):
        lp.linear_solve(a, jnp.ones(16), solver)
