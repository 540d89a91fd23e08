"""Preconditioners in solvers: derivatives and batches; names and what is chosen; who refuses what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import REAL, X64, assert_gradients, normal, quick_jit
from preconditioner_problems import (
    BY_NAME,
    advection,
    operator,
    poisson,
    solve,
    steps,
)

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc

pytestmark = pytest.mark.skipif(not X64, reason="counts of iterations are those of float64")

# ---- Derivatives, jit, vmap ----------------------------------------------------------------------


def test_adjoint_takes_the_transposed_preconditioner_B_02():
    """B-02: the adjoint of an advection–diffusion solve takes at most 1.5 times the forward's steps."""
    a = operator(advection(32, 0.9))
    b = jnp.asarray(normal(a.out_size()))
    for m in (pc.ILU(), pc.ILU(device="host")):
        for solver in (lp.GMRES(preconditioner=m), lp.BiCGStab(preconditioner=m)):
            with lp.SolveTape() as tape:
                jax.grad(lambda b, s=solver: jnp.sum(lp.linear_solve(a, b, s).value ** 2))(b)
            taken = {entry.kind: int(entry.stats["num_steps"]) for entry in tape}
            assert taken["adjoint"] <= 1.5 * taken["forward"]


GRADIENTS = {
    "ILU": (pc.ILU(), lp.GMRES),
    "ILU(host)": (pc.ILU(device="host"), lp.BiCGStab),
    "IC": (pc.IC(), lp.CG),
    "CoarseGrid": (pc.CoarseGrid(4), lp.CG),
    "Compose": (pc.Compose(pc.SSOR(), pc.CoarseGrid(4)), lp.CG),
}
slow = lambda name: [] if name in ("ILU", "ILU(host)") else [pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow(n)) for n in GRADIENTS])
def test_gradients_batches_and_jit_S0_23_S0_30(name):
    """Through a preconditioner that is made from the differentiated values; against dense solves."""
    m, make = GRADIENTS[name]
    definite = make is lp.CG
    a = operator(poisson(5) if definite else advection(5), "definite" if definite else "general")
    b = jnp.asarray(normal(25))
    solver = make(1e-12)
    build = lambda values: lp.SparseLinearOperator(values, a.pattern, a.tags)

    def by(options):
        mine = lambda values, b: lp.linear_solve(build(values), b, solver, options=options).value
        return mine

    mine = by({"preconditioner": m})
    own = lambda values, b: lp.linear_solve(build(values), b, make(1e-12, preconditioner=m)).value
    dense = lambda values, b: jnp.linalg.solve(build(values).as_matrix(), b)
    assert_gradients(mine, dense, a.values, b, 1e-8)
    np.testing.assert_allclose(jax.jit(mine)(a.values, b), mine(a.values, b), rtol=0, atol=1e-14)
    batch = jnp.stack([a.values, a.values * 1.5])
    got = jax.jit(jax.vmap(mine, (0, None)))(batch, b)
    np.testing.assert_allclose(got, jax.vmap(dense, (0, None))(batch, b), rtol=0, atol=1e-9)
    tangent = lambda f: quick_jit(lambda v: jax.jvp(f, (v, b), (jnp.cos(v), b))[1])(a.values)
    np.testing.assert_allclose(tangent(own), tangent(dense), rtol=0, atol=1e-8)


# ---- Names, and what is chosen -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jacobi", "ILU", "ic", "Gauss-Seidel", "auto", "spai", "cluster"])
def test_names(name):
    """S0-23, S0-25: as a setting of a solver, in its options, and in `lp.solve`."""
    a = operator(poisson(6), "definite")
    b = jnp.asarray(normal(36))
    want = np.linalg.solve(a.as_matrix(), b)
    close = lambda x: np.testing.assert_allclose(x, want, rtol=0, atol=1e-8)
    close(lp.linear_solve(a, b, lp.CG(preconditioner=name)).value)
    close(lp.linear_solve(a, b, lp.CG(), options={"preconditioner": name}).value)
    close(lp.solve(a, b, preconditioner=name))


def test_unknown_names_and_classes_are_refused():
    for wrong, message in (("ilut", r"as a name, must be one of .*; got 'ilut'"),
                           (pc.ILU, r"got the class ILU. Did you mean `ILU\(\)`")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lp.GMRES(preconditioner=wrong)
        with pytest.raises(ValueError, match=message):
            lp.solve(jnp.eye(3), jnp.ones(3), lp.GMRES(), preconditioner=wrong)


def test_explain_shows_what_auto_chose_S0_25():
    shown = lambda a, **settings: lp.explain(a, preconditioner="auto", **settings)
    small, general = operator(poisson(6), "definite"), operator(advection(6))
    symmetric = operator(poisson(6), "symmetric")
    assert "preconditioner: IC(" in shown(small)
    assert "because: sparse and tagged definite" in shown(small)
    assert "solver: CG" in shown(small)
    assert "preconditioner: ILU(" in shown(general)
    assert "preconditioner: Jacobi(" in shown(jnp.eye(5))
    assert "absolute=True" in shown(symmetric, solver=lp.MINRES())
    function = lp.FunctionLinearOperator(lambda x: 2 * x, jax.ShapeDtypeStruct((5000,), REAL))
    assert "preconditioner: none, because: the operator is known by its" in shown(function)
    assert "IC()" in lp.explain(small, solver=lp.CG(preconditioner="ic")) or "IC(" in lp.explain(
        small, solver=lp.CG(preconditioner="ic")
    )
    assert "preconditioner" not in lp.explain(small)


def test_auto_takes_multigrid_for_large_systems_S0_25():
    pytest.importorskip("pyamg")
    a = operator(poisson(101), "definite")
    assert isinstance(pc.Auto().choose(a).preconditioner, pc.AMG)
    assert steps(poisson(101), "definite", lp.CG(), "auto") < 40


def test_auto_solves_what_it_finds_no_preconditioner_for():
    like = jax.ShapeDtypeStruct((5000,), REAL)
    function = lp.FunctionLinearOperator(lambda x: 2 * x + 0.5 * jnp.roll(x, 1), like)
    b = jnp.asarray(normal(5000))
    for sol in (
        lp.linear_solve(function, b, lp.GMRES(preconditioner="auto")),
        lp.linear_solve(function, b, lp.GMRES(), options={"preconditioner": "auto"}),
    ):
        np.testing.assert_allclose(function.mv(sol.value), b, rtol=0, atol=1e-8)


def test_functions_as_preconditioners():
    """A linear function of a vector, or a function of the operator that returns M or a function."""
    a = operator(advection(8))
    b = jnp.asarray(normal(64))
    d = lp.diagonal(a)
    makers = [
        lambda r: r / d,
        lambda op: lp.DiagonalLinearOperator(1 / lp.diagonal(op)),
        lambda op: lambda r, d=lp.diagonal(op): r / d,
        lambda op: pc.Jacobi(),
    ]
    want = lp.solve(a, b, lp.GMRES(), preconditioner="jacobi")
    for maker in makers:
        np.testing.assert_array_equal(lp.solve(a, b, lp.GMRES(), preconditioner=maker), want)
        own = lp.linear_solve(a, b, lp.GMRES(preconditioner=maker)).value
        np.testing.assert_allclose(own, want, rtol=0, atol=1e-12)
    with pytest.raises(
        TypeError, match=r"preconditioner: a function must map vectors .* returns int"
    ):
        lp.solve(a, b, lp.GMRES(), preconditioner=lambda op: 3)


# ---- Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ILU(host)", "GaussSeidel(forward)", "Schwarz(restricted)"])
@pytest.mark.parametrize("make", [lp.CG, lp.MINRES], ids=lambda m: m.__name__)
def test_unsymmetric_preconditioners_are_refused_where_they_must_not_be(name, make):
    """As a setting and as an option; the message names methods that take them."""
    a, b = operator(poisson(4), "definite"), jnp.ones(16, REAL)
    m = BY_NAME[name].make()
    message = rf"preconditioner: `{make.__name__}` needs one that is symmetric .*Use `GMRES`"
    with pytest.raises(ValueError, match=message):
        lp.linear_solve(a, b, make(preconditioner=m))
    with pytest.raises(ValueError, match=message):
        lp.linear_solve(a, b, make(), options={"preconditioner": m})


def test_known_unsymmetric_operators_are_refused_by_cg_S1_14():
    """S1-14: D + UVᵀ in CG is refused, with a remedy; U⁻¹L⁻¹ too. FGMRES takes them."""
    a, b = operator(poisson(4), "definite"), jnp.ones(16, REAL)
    low = pc.LowRankPlusDiagonal(jnp.ones(16), normal((16, 2)) / 9, normal((16, 2), seed=1) / 9)
    factors = pc.ILU().init(operator(poisson(4)))
    for m in (low, low.inv(), factors, -factors):
        with pytest.raises(
            ValueError, match=r"`CG` needs .*not symmetric.*LowRankPlusDiagonal.spd"
        ):
            lp.linear_solve(a, b, lp.CG(preconditioner=m))
        with pytest.raises(
            ValueError, match=r"`CG` needs .*not symmetric.*LowRankPlusDiagonal.spd"
        ):
            lp.solve(a, b, lp.CG(), preconditioner=m)
        x = lp.solve(a, b, lp.FGMRES(), preconditioner=m)
        np.testing.assert_allclose(a.mv(x), b, rtol=0, atol=1e-8)


def test_a_preconditioner_does_not_change_the_solution():
    """And none is left out silently: the number of steps shows that it was used (S0-30)."""
    a = advection(16)
    want, stats = solve(a, "general", lp.GMRES(1e-12))
    for m in ("ilu", pc.Chebyshev(2, ratio=5.0), pc.SPAI()):
        got, other = solve(a, "general", lp.GMRES(1e-12), m)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)
        assert int(other["num_steps"]) != int(stats["num_steps"])
