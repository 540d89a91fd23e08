"""Every public name of Lineax 0.1.1, with its signature; and Lineax itself as a peer."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lx = pytest.importorskip("lineax")

NAMES = [n for n in dir(lx) if not n.startswith("_") and n != "importlib"]
INTERNAL = [n for n in dir(lx.internal) if not n.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_name_exists(name):
    assert hasattr(lp, name)


@pytest.mark.parametrize("name", INTERNAL)
def test_internal_name_exists(name):
    assert hasattr(lp.internal, name)


def _parameters(obj):
    try:
        parameters = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):
        return None
    return [(p.name, p.kind) for p in parameters]


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_a_superset(name):
    """What Lineax takes, by position or by name, is taken; anything more is optional."""
    theirs, ours = _parameters(getattr(lx, name)), _parameters(getattr(lp, name))
    if theirs is None or name == "RESULTS":
        return
    positional = [n for n, kind in theirs if kind == inspect.Parameter.POSITIONAL_OR_KEYWORD]
    our_positional = [n for n, kind in ours if kind == inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert our_positional[: len(positional)] == positional
    assert {n for n, _ in theirs} <= {n for n, _ in ours}
    required = [
        p.name
        for p in inspect.signature(getattr(lp, name)).parameters.values()
        if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    assert set(required) <= set(positional)


def test_results_have_the_same_members():
    for member in ("successful", "max_steps_reached", "singular", "breakdown", "stagnation"):
        assert hasattr(lp.RESULTS, member)
    assert hasattr(lp.RESULTS, "conlim")
    assert hasattr(lp.RESULTS, "nonfinite_input")


def _program(m, matrix, vector):
    """A program as one writes it for Lineax, with the package as an argument."""
    operator = m.MatrixLinearOperator(matrix)
    shifted = operator + 2.0 * m.IdentityLinearOperator(operator.in_structure())
    normal = m.TaggedLinearOperator(shifted.T @ shifted, m.positive_semidefinite_tag)
    state = m.LU().init(shifted, options={})
    x = m.linear_solve(shifted, vector, m.LU(), state=state).value
    y = m.linear_solve(normal, x, m.CG(rtol=1e-6, atol=1e-6)).value
    z = m.linear_solve(m.linearise(m.JacobianLinearOperator(lambda v, _: matrix @ v + v**3, y)), x)
    w = m.linear_solve(operator, vector, m.AutoLinearSolver(well_posed=False), throw=False)
    return x, y, z.value, w.value, m.diagonal(m.materialise(normal))


def test_a_program_for_lineax_runs_with_its_import_changed():
    rng = np.random.default_rng(0)
    dtype = jnp.result_type(float)
    matrix = jnp.asarray(rng.normal(size=(5, 5)) + 4 * np.eye(5), dtype)
    vector = jnp.asarray(rng.normal(size=5), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = _program(lx, matrix, vector)
        loss = lambda m: lambda a, b: sum(jnp.sum(jnp.sin(v)) for v in _program(m, a, b))
        want_grad = jax.jit(jax.grad(loss(lx), (0, 1)))(matrix, vector)
    got = _program(lp, matrix, vector)
    got_grad = jax.jit(jax.grad(loss(lp), (0, 1)))(matrix, vector)
    tol = 1e-4 if dtype == jnp.float64 else 5e-3  # CG's tolerances above
    for ours, theirs in zip((*got, *got_grad), (*want, *want_grad)):
        np.testing.assert_allclose(ours, theirs, rtol=tol, atol=tol)
