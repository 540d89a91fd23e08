"""S4-01, S4-10: the support matrix in the documentation is what running it finds."""

import jax
import numpy as np
import pytest
import scipy.sparse
from public_names import ROOT

import linsolve_prim as lp
from linsolve_prim import support_matrix
from linsolve_prim.testing import support

PAGE = (ROOT / "docs" / "support_matrix.md").read_text()
ROWS = {line.split("`")[1]: line.strip() for line in PAGE.splitlines() if line.startswith("| `")}
TABLE = lp.list_solvers()


def compared(text):
    """The cells of a row that do not depend on the machine: all but the devices."""
    return text.strip(" |").split(" | ")[: -len(support_matrix.DEVICES)]


def run(name):
    with jax.numpy_dtype_promotion("standard"):
        return support_matrix.line(TABLE[name])


@pytest.mark.parametrize("name", ["Diagonal", "Cholesky"])
def test_row_S4_01(name):
    """Two rows are run with every test run, the others with the slow ones."""
    assert compared(ROWS[name]) == compared(run(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [row.name for row in TABLE if row.name not in ("Diagonal", "Cholesky")]
)
def test_every_row_S4_01(name):
    """If this fails, `python -m linsolve_prim.support_matrix --out docs/support_matrix.md`."""
    if compared(ROWS[name])[1] == support_matrix.NOT_RUN:
        pytest.skip(
            "the page says that this was not run: make it again where the library is installed"
        )
    assert compared(ROWS[name]) == compared(run(name))


def test_the_page_has_every_solver_and_column():
    """S4-10: where each runs, on the device or on the host, is a column."""
    assert set(ROWS) == {row.name for row in TABLE} | set(TABLE.missing)
    (head,) = [line for line in PAGE.splitlines() if line.startswith("| solver")]
    names = head.strip("| ").split(" | ")
    assert names == ["solver", "assumes", *support.COLUMNS, "runs", "CPU", "GPU", "TPU"]
    assert {len(row.strip("| ").split(" | ")) for row in ROWS.values()} == {len(names)}
    assert {name for name, row in ROWS.items() if "on the host" in row} >= {
        "SuperLU",
        "SciPyIterative",
    }
    assert PAGE.startswith(support_matrix.EXPLANATION)


def test_explain_names_the_implementation_S4_10():
    """S4-10: what runs, own code or which library in which version."""
    assert "runs: in JAX, on the device" in lp.explain(np.eye(2), np.ones(2))
    sparse = scipy.sparse.eye_array(2).tocsr()
    text = lp.explain(sparse, np.ones(2), lp.SuperLU())
    assert f"runs: on the host, by scipy {scipy.__version__}" in text
    with lp.SolveTape() as tape:
        lp.solve(sparse, np.ones(2), lp.SuperLU())
    assert tape[0].solver.startswith("SuperLU")


def test_solutions_name_the_implementation_S4_10():
    """S4-10: also from `jit` and `vmap`, of what was chosen, and of the solver inside of another."""
    sparse = lp.SparseLinearOperator.from_scipy(4 * scipy.sparse.eye_array(3).tocsr())
    host = f"on the host, by scipy {scipy.__version__}"
    named = lambda solver, **settings: lp.linear_solve(
        sparse, np.ones(3), solver, **settings
    ).stats["implementation"]
    assert named(lp.SuperLU()).startswith(host)
    assert named(lp.IterativeRefinement(lp.SuperLU())).startswith(host)
    assert named(lp.AutoLinearSolver(well_posed=True)).startswith(("on the host", "in JAX"))
    assert named(lp.GMRES(), adjoint=lp.UnrolledAdjoint(2)) == "in JAX, on the device of the arrays"
    solve = lambda b: lp.linear_solve(sparse, b, lp.SuperLU())
    for solution in (jax.jit(solve)(np.ones(3)), jax.vmap(solve)(np.ones((2, 3)))):
        assert str(solution.stats["implementation"]).startswith(host)
    assert jax.tree.leaves(solution.stats["implementation"]) == []


class Wrong(lp.AbstractLinearSolver):
    """Solves with Aᵀ, and says that it went well."""

    def init(self, operator, options):
        return operator.as_matrix()

    def compute(self, state, vector, options):
        x = jax.numpy.linalg.solve(state.T, vector)
        return x, lp.RESULTS.successful, {}

    def tolerance(self, norm):
        return jax.numpy.inf

    def assume_full_rank(self):
        return True


def test_what_is_wrong_is_not_supported():
    """A wrong solution is "no", and one of a singular system that is called a success is "untrue"."""
    wrong = support.Subject(Wrong(), "nothing")
    with jax.numpy_dtype_promotion("standard"):
        assert [support.run_cell(c, wrong) for c in ("jit", "vmap", "vjp", "complex")] == ["no"] * 4
        assert support.run_cell("rectangular", wrong) == "no"
        assert support.run_cell("preconditioner", wrong) == "no"


def test_what_is_missing_is_not_run(monkeypatch):
    """A library that is not installed, and a device that is not there."""
    monkeypatch.setattr(
        support_matrix, "list_solvers", lambda: type(TABLE)([], {"KLU": "pip install"})
    )
    (row,) = [line for line in support_matrix.page().splitlines() if line.startswith("| `")]
    cells = row.strip("| ").split(" | ")
    assert cells[0] == "`KLU`"
    assert cells.count("not run") == len(support.COLUMNS) + 4
    assert support_matrix.cells(TABLE["Normal"], ["preconditioner"]) == {
        "preconditioner": "inner (not run)"
    }


def test_command_line(tmp_path, capsys):
    path = tmp_path / "page.md"
    with jax.numpy_dtype_promotion("standard"):
        assert support_matrix.main(["--solver", "Diagonal", "--out", str(path)]) == 0
    assert path.read_text().count("| `Diagonal` | diagonal | yes") == 1
    assert "Diagonal" in capsys.readouterr().err
