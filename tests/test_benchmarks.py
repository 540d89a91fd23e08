"""What stands behind the tables of `python -m benchmarks`: checks before timing, counting, drawing."""

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="it stands beside the sources, and is not installed")

from benchmarks import timing
from benchmarks.report import Table


def test_who_is_wrong_is_not_timed(capsys):
    right = lambda: np.ones(3)
    found = timing.wrong(
        {"a": right, "b": right, "c": lambda: 2 * np.ones(3), "d": lambda: np.full(3, np.nan)}
    )
    assert set(found) == {"c", "d"}
    assert "c: WRONG, relative error 1.0e+00" in capsys.readouterr().err
    with pytest.raises(AssertionError, match=r"wrong by more than.*'c'"):
        timing.agree({"a": right, "c": lambda: 2 * np.ones(3)})


def test_contestants_take_turns():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    results = timing.time_together(calls, seconds=1e-9, rounds=3)
    assert order == list("aabb") + list("ab") * 3  # twice each to begin with
    assert all(median > 0 <= iqr for median, iqr in results.values())


def test_failures_are_counted():
    """B-17: one that lies tells none of its failures, one that cries wolf is found out as well."""
    honesty = pytest.importorskip("benchmarks.honesty")
    cases = [honesty._Case(np.eye(2), np.ones(2)), honesty._Case(np.ones((2, 2)), np.arange(2.0))]
    lies = lambda a, b: (b, True)
    wolf = lambda a, b: (b, False)
    assert honesty._count(lies, cases, 1e-6) == "0 of 1"
    assert honesty._count(wolf, cases, 1e-6) == "1 of 1 (1 false)"


def test_tables(tmp_path):
    pytest.importorskip("matplotlib")
    table = Table(
        "A title, x²", ["what", "base, ms", "ours, ×"], [["r", "2.0", "0.5"], ["s", "1", "wrong"]]
    )
    assert "| r | 2.0 | 0.5 |" in str(table)
    assert "<svg" in table.draw(tmp_path).read_text()
    assert table.draw(tmp_path).name == "a-title-x.svg"
    assert Table("words", ["a", "b"], [["c", "d"]]).draw(tmp_path) is None
