"""Preconditioners of traced, batched, dense and matrix-free operators; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from krylov_tools import EPS, REAL, normal
from preconditioner_problems import BY_NAME, SMALL, cases, operator

import linsolve_prim as lp
from linsolve_prim import preconditioners as pc


def made(row, kind):
    a = operator(SMALL[kind][1], SMALL[kind][0])
    return a, row.make().init(a)


@cases("complex", slow=("definite",))
def test_built_from_traced_values_batched_and_differentiated(row, kind):
    """Under `jit` and `vmap` over values M is what it is eagerly, and its derivatives are zero."""
    a, m = made(row, kind)
    x = jnp.asarray(normal(a.in_size(), a.values.dtype))
    preconditioner = row.make()

    def apply(values):
        return preconditioner.init(lp.SparseLinearOperator(values, a.pattern, a.tags)).mv(x)

    batch = jnp.stack([a.values, 2 * a.values])
    got = jax.jit(jax.vmap(apply))(batch)
    for i in range(2):
        np.testing.assert_allclose(got[i], m.mv(x) / (i + 1), rtol=0, atol=1000 * EPS)
    moved = jax.jvp(apply, (a.values,), (a.values,))[1]
    np.testing.assert_array_equal(moved, 0)


@cases("general")
def test_other_operators_or_a_message(row, kind):
    """Dense operators and functions of pytrees are taken up to a size; what is not square is refused."""
    a = operator(SMALL[kind][1])
    dense = lp.MatrixLinearOperator(a.as_matrix())
    m = row.make().init(dense)
    x = jnp.asarray(normal(36, a.values.dtype))
    want = m.mv(x)
    if row.name in ("ILU", "IC"):  # all entries: exact factors
        full = type(row.make())(sweeps="exact").init(dense)
        np.testing.assert_allclose(full.mv(x), np.linalg.solve(dense.matrix, x), atol=1e4 * EPS)
    like = {"u": jax.ShapeDtypeStruct((6, 4), x.dtype), "v": jax.ShapeDtypeStruct((12,), x.dtype)}
    join = lambda tree: jnp.concatenate([tree["u"].ravel(), tree["v"]])
    cut = lambda v: {"u": v[:24].reshape(6, 4), "v": v[24:]}
    function = lp.FunctionLinearOperator(lambda t: cut(a.mv(join(t))), like)
    m = row.make().init(function)
    assert m.in_structure() == m.out_structure() == function.out_structure()
    got = join(m.mv(cut(x)))
    if row.free:  # made of products alone, it is another
        assert np.isfinite(got).all()
    else:
        np.testing.assert_allclose(got, want, rtol=0, atol=1e3 * EPS)
    with pytest.raises(ValueError, match=r"operator: `\w+` needs one structure for input and out"):
        row.make().init(lp.MatrixLinearOperator(jnp.ones((3, 2))))


def count_equations(jaxpr):
    inner = (j for eqn in jaxpr.eqns for j in jaxprs_in_params(eqn.params))
    return len(jaxpr.eqns) + sum(map(count_equations, inner))


@pytest.mark.parametrize("name", ["ILU", "CoarseGrid"])
def test_of_constants_it_is_made_while_tracing_S0_28(name):
    """Then the program is the solve alone; of traced values it holds what makes M."""
    a, m = operator(SMALL["general"][1]), BY_NAME[name].make()
    solver = lp.GMRES(preconditioner=m)

    def equations(values, argument):
        own = lambda v: lp.SparseLinearOperator(values if v is None else v, a.pattern)
        solve = lambda v: lp.linear_solve(own(v), jnp.ones(36, REAL), solver, throw=False).value
        return count_equations(jax.make_jaxpr(solve)(argument).jaxpr)

    assert equations(a.values, None) <= 2 < 50 < equations(None, a.values)


ENTRIES = ["Jacobi", "BlockJacobi(5)", "SSOR", "ILU", "ILU(host)", "SPAI", "Schwarz", "FieldSplit"]


@pytest.mark.parametrize("name", ENTRIES)
def test_large_operators_without_entries_are_refused(name):
    """With a message that says why, and what to do instead."""
    like = jax.ShapeDtypeStruct((5000,), REAL)
    function = lp.FunctionLinearOperator(lambda x: 2 * x + jnp.roll(x, 1), like)
    with pytest.raises(
        ValueError, match=r"operator: `\w+` (reads entries|is made for sparse).*5000"
    ):
        BY_NAME[name].make().init(function)


@pytest.mark.parametrize("name", ["SSOR", "ILU", "SPAI", "Schwarz"])
def test_traced_indices_are_refused(name):
    a = operator(SMALL["general"][1])
    triplets = lp.TripletLinearOperator(
        a.values, *map(jnp.asarray, (a.pattern.rows, a.pattern.indices)), (36, 36)
    )
    with pytest.raises(ValueError, match=r"needs to know where the entries are when it is traced"):
        BY_NAME[name].make().init(triplets)
    assert lp.preconditioners.Jacobi().init(triplets).mv(jnp.ones(36, REAL)).shape == (36,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.ILU(-1), r"fill: must be a level, an int ≥ 0; got -1"),
        (lambda: pc.ILU(sweeps="all"), r"sweeps: must be None, 'exact' or a number"),
        (lambda: pc.IC(solves=0), r"solves: must be 'exact' or a number of Jacobi sweeps"),
        (lambda: pc.ILU(device="gpu"), r"device: must be 'device' or 'host'; got 'gpu'"),
        (
            lambda: pc.ILU(2, device="host"),
            r"fill, sweeps, .* are settings of `ILU\(device='device'\)",
        ),
        (
            lambda: pc.ILU(drop_tol=0.1),
            r"drop_tol and fill_factor: are settings of `ILU\(device='host'",
        ),
        (lambda: pc.SSOR(2.5), r"omega: must be in 0 < ω < 2; got 2.5"),
        (lambda: pc.GaussSeidel("down"), r"direction: must be 'forward', 'backward' or"),
        (lambda: pc.BlockJacobi(0), r"blocks: must be a number of unknowns, an int ≥ 1, or labels"),
        (lambda: pc.Schwarz(4, overlap=-1), r"overlap: must be a number of layers"),
        (lambda: pc.CoarseGrid(0), r"clusters: must be a number, an int ≥ 1, or labels; got 0"),
        (lambda: pc.Chebyshev(-1), r"degree: must be an int ≥ 0; got -1"),
        (lambda: pc.Nystrom(0), r"rank: must be an int ≥ 1; got 0"),
        (lambda: pc.SPAI(0), r"power: must be an int ≥ 1; got 0"),
        (lambda: pc.Compose(), r"parts: must be at least one preconditioner; got none"),
        (lambda: pc.Compose(abs), r"parts: must be preconditioners, or operators .* got builtin"),
        (
            lambda: pc.Compose(pc.Jacobi(), how="both"),
            r"how: must be 'multiplicative' or 'additive'",
        ),
        (
            lambda: pc.FieldSplit(kind="middle"),
            r"kind: must be one of diagonal, lower, upper, full",
        ),
        (lambda: pc.FieldSplit(first=3), r"first: must be a preconditioner, as `ILU\(\)`; got int"),
        (
            lambda: pc.Host("ilut"),
            r"preconditioner: must be None, a function or one of jacobi, ilu, amg",
        ),
        (lambda: pc.Custom(3), r"function: must be a function of the operator, or of a vector"),
    ],
)
def test_wrong_settings_are_refused_when_made(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("name", ["IC", "Nystrom", "PivotedCholesky"])
def test_operators_that_promise_nothing_are_refused(name):
    with pytest.raises(
        ValueError, match=f"`{name}` needs a positive or negative definite operator"
    ):
        BY_NAME[name].make().init(operator(SMALL["general"][1]))


def test_labels_are_checked():
    a = operator(SMALL["general"][1])
    for make in (pc.BlockJacobi, pc.CoarseGrid, pc.Schwarz, pc.FieldSplit):
        with pytest.raises(
            lp.StructureError, match=r"must hold one label for each of the 36 unknowns"
        ):
            make(np.arange(5)).init(a)
        with pytest.raises(
            lp.StructureError, match=r"must be known when tracing; got traced labels"
        ):
            jax.jit(lambda labels: make(labels).init(a).mv(jnp.ones(36, REAL)))(np.arange(36))
    with pytest.raises(ValueError, match=r"clusters: must be at most 4096"):
        pc.CoarseGrid(np.arange(5000)).init(lp.DiagonalLinearOperator(jnp.ones(5000, REAL)))
    with pytest.raises(
        lp.StructureError, match=r"fields: must be given for operators on one array"
    ):
        pc.FieldSplit().init(a)
