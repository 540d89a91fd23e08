"""`SparsityPattern`: canonical, static, compared by content (rows S3-01, S3-03, S3-17)."""

import copy
import gc
import pickle
import threading
import time
import tracemalloc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import linsolve_prim as lp
from linsolve_prim import SparsityPattern, StructureError

RNG = np.random.default_rng(3)


def poisson(n):
    second = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n))
    return sp.csr_matrix(sp.kron(sp.identity(n), second) + sp.kron(second, sp.identity(n)))


def random_mask(m, n, density=0.3):
    return RNG.random((m, n)) < density


MASKS = [random_mask(*shape) for shape in ((6, 6), (4, 9), (9, 4), (1, 1), (0, 3), (3, 0))]
MASKS += [np.zeros((3, 5), bool), np.ones((4, 4), bool), np.eye(5, dtype=bool)]


def mask_of(pattern):
    mask = np.zeros(pattern.shape, bool)
    mask[pattern.rows, pattern.indices] = True
    return mask


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_constructors_agree(mask):
    """S3-01, S3-03: every way in gives the same canonical pattern."""
    rows, cols = np.nonzero(mask)
    order = RNG.permutation(len(rows))
    csr, csc = sp.csr_array(mask), sp.csc_array(mask)
    first, slots = SparsityPattern.from_coo(rows[order], cols[order], mask.shape)
    for pattern in (
        first,
        SparsityPattern.from_csr(csr.indptr, csr.indices, mask.shape),
        SparsityPattern.from_csc(csc.indptr, csc.indices, mask.shape),
        SparsityPattern.from_dense(mask),
        SparsityPattern.from_dense(np.where(mask, -2.0, 0.01), tol=0.1),
        SparsityPattern.from_scipy(sp.coo_array(mask)),
        SparsityPattern.from_scipy(sp.csc_matrix(mask)),
        SparsityPattern(first.indptr, first.indices, mask.shape),
        pickle.loads(pickle.dumps(first)),
    ):
        assert pattern == first
        assert hash(pattern) == hash(first)
        assert pattern.digest == first.digest
        assert len(pattern.digest) == 16
        np.testing.assert_array_equal(mask_of(pattern), mask)
        assert pattern.indices.dtype == pattern.indptr.dtype == np.int32
    np.testing.assert_array_equal(first.rows[slots], rows[order])
    np.testing.assert_array_equal(first.indices[slots], cols[order])
    assert copy.deepcopy(first) is first


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_transposition(mask):
    """S3-17: one order of values for the transpose, and back."""
    pattern = SparsityPattern.from_dense(mask)
    transposed = pattern.T
    assert transposed.T is pattern
    assert pattern.transpose() is transposed
    np.testing.assert_array_equal(mask_of(transposed), mask.T)
    values = np.arange(pattern.nnz)
    there = values[pattern.transpose_order]
    np.testing.assert_array_equal(transposed.indices, pattern.rows[pattern.transpose_order])
    np.testing.assert_array_equal(there[transposed.transpose_order], values)
    square = mask.shape[0] == mask.shape[1]
    assert pattern.is_symmetric() == (square and np.array_equal(mask, mask.T))


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_structure(mask):
    """S3-17: diagonals and bandwidths."""
    pattern = SparsityPattern.from_dense(mask)
    rows, cols = np.nonzero(mask)
    offsets = sorted(set((cols - rows).tolist()))
    assert pattern.diagonals() == tuple(offsets)
    assert pattern.bandwidth() == (max([0, *(-k for k in offsets)]), max([0, *offsets]))
    assert pattern.has_full_diagonal() == bool(np.all(np.diagonal(mask)))
    m, n = mask.shape
    for offset in range(-m + 1, n):
        slots = pattern.diagonal_slots(offset)
        want = np.diagonal(mask, offset)
        np.testing.assert_array_equal(slots < pattern.nnz, want)
        found = slots[slots < pattern.nnz]
        np.testing.assert_array_equal(pattern.indices[found] - pattern.rows[found], offset)
        np.testing.assert_array_equal(pattern.rows[found], np.flatnonzero(want) - min(offset, 0))


def test_unsorted_and_repeated_input_is_merged():
    """S3-03: repeated positions share a slot."""
    pattern, slots = SparsityPattern.from_coo([1, 0, 1, 1], [2, 0, 0, 2], (2, 3))
    assert pattern.nnz == 3
    np.testing.assert_array_equal(slots, [2, 0, 1, 2])
    csr = SparsityPattern.from_csr([0, 1, 4], [0, 2, 0, 2], (2, 3))
    csc = SparsityPattern.from_csc([0, 2, 2, 4], [1, 0, 1, 1], (2, 3))
    assert pattern == csr == csc


def test_immutable_and_static():
    """S3-01: a pattern is part of a program; equal ones share it."""
    one, two = (SparsityPattern.from_dense(np.eye(3)) for _ in range(2))
    assert one is not two
    traces = []

    @jax.jit
    def product(operator, x):
        traces.append(1)
        return operator.mv(x)

    for pattern in (one, two):
        product(lp.SparseLinearOperator(jnp.ones(3), pattern), jnp.ones(3))
    assert len(traces) == 1
    assert jax.tree.leaves(one) == [one]  # not a pytree
    assert one != SparsityPattern.from_dense(np.eye(4))
    assert one != "pattern"
    with pytest.raises(ValueError, match="read-only"):
        one.indices[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        one.T.indptr[0] = 1
    with pytest.raises(AttributeError, match="immutable"):
        one.shape = (1, 1)
    given = np.array([0, 1, 2])
    kept = SparsityPattern.from_coo(given, given, (3, 3))[0]
    given[:] = 0
    assert kept == one


def test_cached_is_made_once_by_many_threads():
    """S3-17: what follows from a pattern is computed once."""
    pattern = SparsityPattern.from_scipy(poisson(20))
    calls, found = [], []

    def make():
        calls.append(1)
        time.sleep(0.02)
        return pattern.cached("inner", object), pattern.T.cached("inner", object)

    threads = [
        threading.Thread(target=lambda: found.append(pattern.cached("outer", make)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(calls) == 1
    assert len(found) == 8
    assert all(x is found[0] for x in found)


def test_patterns_are_collected():
    """B-06: what is cached on a pattern goes with it."""
    pattern = SparsityPattern.from_dense(np.eye(4))
    other = SparsityPattern.from_dense(np.ones((4, 4)))
    a, b = (lp.SparseLinearOperator(jnp.ones(p.nnz), p) for p in (pattern, other))
    assert (a + b).pattern is (a + b).pattern  # the plan is kept
    alive = weakref.ref(other)
    del b, other
    gc.collect()
    assert alive() is None
    assert pattern.T.T is pattern


def test_picture():
    """S0-34: a pattern can be looked at."""
    pattern = SparsityPattern.from_dense(np.array([[1, 0, 0], [0, 1, 1]]))
    assert "\n" not in repr(pattern)
    assert repr(pattern).startswith("SparsityPattern(shape=(2, 3), nnz=3, digest=")
    assert str(pattern).splitlines()[1:] == ["█··", "·██"]
    lines = str(SparsityPattern.from_scipy(poisson(30))).splitlines()[1:]
    assert len(lines) == 24
    assert {len(line) for line in lines} == {24}
    assert str(SparsityPattern.from_dense(np.zeros((0, 4)))).endswith("(empty)")


def test_a_million_rows_take_memory_in_proportion():
    """S3-17: 5·10⁶ entries, and nothing that would be larger than a few times their indices."""
    matrix = poisson(1000)
    tracemalloc.start()
    pattern = SparsityPattern.from_scipy(matrix)
    assert pattern.is_symmetric()
    assert pattern.has_full_diagonal()
    assert pattern.diagonals() == (-1000, -1, 0, 1, 1000)
    str(pattern)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * matrix.nnz  # (39, when this was written)


BAD = {
    r"rows: must not be negative; got -1 at position 1": ([0, -1], [0, 0], (2, 2)),
    r"cols: must be less than 2, the size of that axis; got 5": ([0, 1], [0, 5], (2, 2)),
    r"rows: must hold integers; got float64": ([0.5, 1.0], [0, 1], (2, 2)),
    r"rows, cols: must have one length; got 2 and 1": ([0, 1], [0], (2, 2)),
    r"rows: must have one axis; got shape \(1, 1\)": ([[0]], [0], (2, 2)),
    r"shape: must be two integers, \(rows, columns\); got 3": ([0], [0], 3),
    r"shape: must not be negative; got \(-1, 2\)": ([], [], (-1, 2)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_triplets(message):
    """S0-34: what is wrong, where, and the rule."""
    rows, cols, shape = BAD[message]
    with pytest.raises(ValueError, match=message):
        SparsityPattern.from_coo(np.asarray(rows), np.asarray(cols), shape)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1], [0], r"indptr: must have 3 entries, .* got 2\. Check `shape`"),
        ([1, 1, 1], [0], r"indptr: must begin with 0 and end with .* 1; got 1 and 1"),
        ([0, 1, 3], [0], r"indptr: must begin with 0 and end with .* 1; got 0 and 3"),
        ([0, 2, 1], [0], r"indptr: must not decrease; got 2 and then 1 at position 1"),
        ([0, 1, 1], [2], r"indices: must be less than 2"),
    ],
)
def test_bad_compressed_rows(indptr, indices, message):
    """S0-34."""
    with pytest.raises(StructureError, match=message):
        SparsityPattern.from_csr(indptr, indices, (2, 2))


def test_bad_input_of_the_others():
    """S0-34: traced, dense, not canonical, not sparse."""
    with pytest.raises(StructureError, match=r"rows: must be known when tracing.*outside of"):
        jax.jit(lambda i: SparsityPattern.from_coo(i, i, (2, 2))[1])(jnp.arange(2))
    with pytest.raises(StructureError, match="matrix: must be known when tracing"):
        jax.jit(lambda a: SparsityPattern.from_dense(a).rows)(jnp.ones((2, 2)))
    with pytest.raises(StructureError, match=r"indices: must increase within each row.*from_csr"):
        SparsityPattern([0, 2], [1, 0], (1, 2))
    with pytest.raises(StructureError, match="matrix: must have two axes"):
        SparsityPattern.from_dense(np.ones(3))
    with pytest.raises(TypeError, match=r"must be a `scipy.sparse` matrix.*from_dense"):
        SparsityPattern.from_scipy(np.eye(3))
    with pytest.raises(StructureError, match="tol: must be finite and not negative"):
        SparsityPattern.from_dense(np.eye(3), tol=-1)
