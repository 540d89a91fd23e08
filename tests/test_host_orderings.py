"""Orderings for host libraries: METIS, and who chooses it (row S2-07)."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
from host_table import PSD

import linsolve_prim as lp
from linsolve_prim.host import cholmod, orderings
from linsolve_prim.solvers.host import cholmod_library


def _cube(m):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))
    eye = sp.eye_array(m)
    planes = sp.kron(sp.kron(line, eye), eye) + sp.kron(sp.kron(eye, line), eye)
    return sp.csr_array(planes + sp.kron(sp.kron(eye, eye), line))


def _pattern(matrix):
    return lp.SparsityPattern.from_scipy(sp.csr_array(matrix))


@pytest.mark.parametrize(
    "matrix",
    [
        sp.eye_array(1),
        sp.eye_array(5),  # no edges
        sp.diags_array([1.0], offsets=[2], shape=(6, 6)),  # no diagonal, not symmetric
        sp.block_diag([_cube(3), sp.eye_array(4), np.ones((3, 3))]),  # in parts
        sp.csr_array(np.ones((12, 12))),
        _cube(6),
    ],
    ids=["one", "diagonal", "shift", "parts", "full", "cube"],
)
def test_metis_orders_every_pattern(matrix):
    pytest.importorskip("pymetis")
    pattern = _pattern(matrix)
    order = orderings.metis(pattern)
    assert sorted(order) == list(range(pattern.shape[0]))
    assert orderings.metis(pattern) is order  # made once


def _needs_both():
    pytest.importorskip("pymetis")
    pytest.importorskip("cvxopt")
    if cholmod.library() is None:
        pytest.skip("the library behind this cvxopt has another version")


def _nnz(ordering, pattern):
    solver = lp.CHOLMOD(ordering=ordering)
    return solver.analyze(pattern, np.ones(pattern.nnz)).symbolic.nnz


def test_metis_fills_less_in_three_dimensions():
    _needs_both()
    pattern = _pattern(_cube(14))
    assert _nnz("metis", pattern) < 0.95 * _nnz("amd", pattern)


def test_the_choice_is_by_work_and_by_what_is_installed(monkeypatch):
    _needs_both()
    pattern = _pattern(_cube(14))
    amd, metis = _nnz("amd", pattern), _nnz("metis", pattern)
    assert _nnz("auto", pattern) == amd  # little to do
    monkeypatch.setattr(cholmod_library, "_WORK_FOR_DISSECTION", 1_000)
    assert _nnz("auto", pattern) == metis
    monkeypatch.setattr(orderings, "has_metis", lambda: False)
    assert _nnz("auto", pattern) == amd


@pytest.mark.parametrize("by", ["ByLibrary", "ByCvxopt"])
def test_solutions_in_the_order_of_metis(monkeypatch, by):
    """The same solution, and its gradient, in float64."""
    _needs_both()
    if by == "ByCvxopt":
        monkeypatch.setattr(cholmod_library, "library", lambda: None)
    matrix = _cube(5)
    solver, operator = lp.CHOLMOD("metis"), lp.SparseLinearOperator.from_scipy(matrix, PSD)
    solver = solver.specialize(operator)
    analysis = solver.analyze(operator.pattern, matrix.data)
    assert type(analysis.by).__name__ == by
    factor = solver.factorize_with(analysis, operator.pattern, matrix.data)
    b = np.random.default_rng(0).normal(size=(3, 125))
    want = np.linalg.solve(matrix.toarray(), b.T).T
    np.testing.assert_allclose(solver.solve(factor, b, transpose=True), want, rtol=1e-11)


def test_an_unknown_ordering_is_refused():
    pytest.importorskip("cvxopt")
    with pytest.raises(ValueError, match="ordering: must be one of auto, amd, metis; got 'rcm'"):
        lp.CHOLMOD(ordering="rcm")


def test_missing_metis_names_the_remedy(monkeypatch):
    pytest.importorskip("cvxopt")
    monkeypatch.setitem(sys.modules, "sksparse.cholmod", None)
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(ImportError, match=r"pip install 'linsolve-prim\[metis\]'"):
        lp.CHOLMOD(ordering="metis")
