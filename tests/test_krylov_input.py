"""CG, GMRES, BiCGStab, LSMR and Normal: preconditioners, guesses, settings, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from krylov_four import SOLVERS, matrix, run, vector
from krylov_tools import REAL, X64, relative, succeeded

from linsolve_prim._norms import max_norm
from linsolve_prim.operators import (
    DiagonalLinearOperator,
    MatrixLinearOperator,
    positive_semidefinite_tag,
)
from linsolve_prim.solvers.cholesky import Cholesky
from linsolve_prim.solvers.krylov import CG, GMRES, LSMR, BiCGStab
from linsolve_prim.solvers.normal import Normal, NormalCG

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
