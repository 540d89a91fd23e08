"""What callbacks do beside the work of a library (rows S2-13, S2-16)."""

import concurrent.futures
import threading
import time
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp
from linsolve_prim.host import matrices, tasks, threads

registry = lp.host.registry
DTYPE = jnp.result_type(float)


class Kept(lp.AbstractHostSolver):
    """Holds on to the values that it gets, and tells which they were."""

    got: ClassVar[list] = []

    def factorize(self, pattern, values):
        self.got.append(values)
        return values

    def solve(self, factor, b, *, transpose):
        return b / factor


class Forgotten(Kept):
    got: ClassVar[list] = []
    keeps_values: ClassVar[bool] = False


@pytest.mark.parametrize(("solver", "owned"), [(Kept(), True), (Forgotten(), False)])
def test_values_are_copied_for_libraries_that_keep_them(solver, owned):
    """JAX's buffers die when a callback returns."""
    registry.clear()
    solver.got.clear()
    pattern = lp.SparsityPattern.from_dense(np.eye(3))
    f = jax.jit(lambda v, b: lp.linear_solve(lp.SparseLinearOperator(v, pattern), b, solver).value)
    x = f(jnp.array([1.0, 2.0, 4.0], DTYPE), jnp.ones(3, DTYPE))
    np.testing.assert_array_equal(x, [1, 0.5, 0.25])
    assert solver.got[0].flags.owndata == owned


class NoAnalysis(lp.AbstractHostSolver):
    """Finds nothing to remember of a pattern."""

    calls: ClassVar[list] = []

    def separates_analysis(self):
        return True

    def analyze(self, pattern, values):
        self.calls.append(pattern)

    def factorize(self, pattern, values):
        return values

    def factorize_with(self, analysis, pattern, values):
        assert analysis is None
        return np.array(values)

    def solve(self, factor, b, *, transpose):
        return b / factor


def test_an_analysis_may_be_none():
    registry.clear()
    NoAnalysis.calls.clear()
    pattern = lp.SparsityPattern.from_dense(np.eye(3))
    for scale in (1.0, 2.0):
        operator = lp.SparseLinearOperator(jnp.full(3, scale), pattern)
        x = lp.linear_solve(operator, jnp.ones(3), NoAnalysis()).value
        np.testing.assert_allclose(x, 1 / scale)
    assert len(NoAnalysis.calls) == 1


def test_equal_tasks_of_threads_are_one_object():
    """Or there were two factorizations of one matrix."""

    class Slow:
        def __hash__(self):
            time.sleep(0.02)
            return 7

        def __eq__(self, other):
            return isinstance(other, Slow)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: tasks.task_of(Slow(), "pattern"), range(4)))
    assert len({id(task) for task in found}) == 1
    assert tasks.task_of(Slow(), "another").number != found[0].number


def test_a_batch_is_shared_out_among_threads(monkeypatch):
    """Each matrix once, whatever the number of workers; this thread works, too."""
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 3)
    for parallel in (True, False):
        done, seen = [], set()

        def work(i, done=done, seen=seen):
            seen.add(threading.get_ident())
            time.sleep(0.005)
            done.append(i)

        threads.for_each(work, 7, parallel)
        assert sorted(done) == list(range(7))
        assert threading.get_ident() in seen
        assert (len(seen) > 1) == parallel


def test_numbers_of_any_size_are_finite():
    """The quick look at a norm, which overflows, does not decide alone."""
    for dtype in (np.float32, np.float64, np.complex64, np.complex128):
        large = np.full((2, 3), np.finfo(dtype).max, dtype)
        assert matrices.all_finite(large)
        for bad in (np.nan, np.inf, -np.inf):
            for place in np.ndindex(large.shape):
                spoilt = large.copy()
                spoilt[place] = bad
                assert not matrices.all_finite(spoilt)
                spoilt = np.zeros_like(large)
                spoilt[place] = bad
                assert not matrices.all_finite(spoilt)
        assert matrices.all_finite(np.zeros((0, 3), dtype))
