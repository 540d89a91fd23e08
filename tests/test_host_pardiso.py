"""PARDISO's own function, called by `ctypes` (rows S2-07, S2-16, S2-17)."""

import concurrent.futures
import gc
import threading

import numpy as np
import pytest
import scipy.sparse as sp

from linsolve_prim.host import pardiso, pardiso_handle
from linsolve_prim.host.registry import registry

pytest.importorskip("pymklpardiso")
if pardiso_handle.library() is None:
    pytest.skip("this wheel does not show the library's function", allow_module_level=True)

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def _grid(m, structure="general", dtype=np.float64, seed=0):
    """A matrix on a grid of m × m points that is what `structure` says, and no more."""
    rng = np.random.default_rng(seed)
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))
    out = sp.csr_array(sp.kron(line, sp.eye_array(m)) + sp.kron(sp.eye_array(m), line))
    is_complex = np.issubdtype(dtype, np.complexfloating)
    upper = sp.csr_array(sp.triu(out, 1))
    if is_complex:
        upper = upper * np.exp(1j * rng.normal())
    lower = upper.conj().T if structure in ("definite", "hermitian") else upper.T
    if structure == "general":
        lower = 0.5 * lower
    shift = 0.0 if structure == "definite" else -0.9
    if is_complex and structure in ("symmetric", "general"):
        shift = 0.5j
    out = sp.csr_array(upper + lower + sp.diags_array(out.diagonal() + shift)).astype(dtype)
    out.sort_indices()
    return out


def _symbolic(matrix, structure="general"):
    return pardiso.Symbolic(matrix.indptr, matrix.indices, structure, matrix.dtype)


def _draw(rng, shape, dtype):
    out = rng.normal(size=shape)
    return (out + 1j * rng.normal(size=shape) if dtype().dtype.kind == "c" else out).astype(dtype)


@pytest.mark.parametrize("structure", pardiso.STRUCTURES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_one_factor_solves_with_the_matrix_and_with_its_transpose(structure, dtype):
    """For one right-hand side and for several, which stay as they are; factors of other values live on."""
    matrix, rng = _grid(9, structure, dtype), np.random.default_rng(1)
    symbolic = _symbolic(matrix, structure)
    scales = [dtype(s) for s in (1, 3, 2)]
    factors = [symbolic.factorize(matrix.data * s) for s in scales]
    eps = np.finfo(dtype).eps
    for scale, factor in zip(scales, factors, strict=True):
        assert not factor.is_matched
        for k, transpose in [(1, False), (1, True), (5, False), (5, True)]:
            b = _draw(rng, (k, 81), dtype)
            kept = b.copy()
            dense = scale * (matrix.T if transpose else matrix).toarray()
            x = factor.solve(b, transpose=transpose)
            assert x.dtype == dtype
            np.testing.assert_array_equal(b, kept)
            size = np.abs(x).max() * np.linalg.norm(dense, 2)
            np.testing.assert_allclose(dense @ x.T, b.T, rtol=0, atol=30 * eps * size)


@pytest.mark.parametrize("structure", ["definite", "hermitian", "symmetric"])
def test_what_lies_left_of_the_diagonal_is_not_read(structure):
    matrix = _grid(5, structure, complex)
    rows = np.repeat(np.arange(25), np.diff(matrix.indptr))
    spoilt = np.where(matrix.indices < rows, np.nan, matrix.data)
    symbolic, b = _symbolic(matrix, structure), np.ones((1, 25), complex)
    got, want = (symbolic.factorize(values).solve(b) for values in (spoilt, matrix.data))
    np.testing.assert_array_equal(got, want)


def test_what_is_not_definite_is_refused_and_leaves_no_trace():
    matrix = _grid(6, "definite")
    symbolic = _symbolic(matrix, "definite")
    for data in (-matrix.data, 0 * matrix.data):
        with pytest.raises(pardiso.NotFactorizableError, match="not positive"):
            symbolic.factorize(data)
    x = symbolic.factorize(matrix.data).solve(np.ones((1, 36)))
    np.testing.assert_allclose(matrix @ x[0], 1, rtol=1e-12)


@pytest.mark.parametrize("structure", ["general", "symmetric"])
def test_pivots_that_are_too_small_are_found_by_a_matching(structure):
    """A permutation matrix, and a saddle point whose diagonal block of zeros has no entries."""
    n = 12
    swap = sp.csr_array(np.eye(n)[:, np.arange(n) ^ 1]) * 2.0
    block = np.eye(3, n - 3) + 1.0
    saddle = np.block([[np.zeros((n - 3, n - 3)), block.T], [block, np.zeros((3, 3))]])
    saddle[: n - 3, : n - 3][np.arange(9), (np.arange(9) + 1) % 9] = 1.0
    saddle[: n - 3, : n - 3][(np.arange(9) + 1) % 9, np.arange(9)] = 1.0
    for dense in (swap.toarray(), saddle):
        matrix = sp.csr_array(dense)
        b = np.random.default_rng(0).normal(size=(2, n))
        symbolic = _symbolic(matrix, structure)
        for scale in (1.0, 2.0):
            factor = symbolic.match(matrix.data * scale)
            assert factor.is_matched
            for transpose in (False, True):
                whole = scale * (dense.T if transpose else dense)
                x = factor.solve(b, transpose=transpose)
                np.testing.assert_allclose(x, np.linalg.solve(whole, b.T).T, rtol=1e-9, atol=1e-12)


def test_a_pattern_that_needed_a_matching_gets_one_at_once(monkeypatch):
    """Then a matrix is factorized once again; an analysis of its values is counted."""
    cycle = sp.csr_array(np.roll(np.eye(30), 1, axis=1))
    symbolic = _symbolic(cycle)
    filled = []
    fill = pardiso_handle.Handle.fill
    monkeypatch.setattr(
        pardiso_handle.Handle,
        "fill",
        lambda self, *args: filled.append(self.matched) or fill(self, *args),
    )
    registry.reset_stats()
    held = [symbolic.factorize(cycle.data * k) for k in (1, 2)]
    assert filled == [False, True, True]
    assert registry.stats()["analyses"] == 2
    b = np.arange(30.0)[None]
    for k, factor in zip((1, 2), held, strict=True):
        np.testing.assert_allclose(k * (cycle @ factor.solve(b)[0]), b[0], atol=1e-12)
    del held, factor
    gc.collect()
    assert symbolic.factorize(cycle.data * 3).is_matched
    assert (
        registry.stats()["analyses"] == 2
    )  # in the memory, and with the matching, of one that ended


def test_places_go_round_S2_17(monkeypatch):
    """A factor that ended leaves its place; where all are taken there is a copy of the analysis, whose bytes
    are counted."""
    monkeypatch.setattr(pardiso_handle, "_PLACES", 3)
    monkeypatch.setattr(pardiso, "_PATIENCE", 1)
    matrix = _grid(8)
    symbolic = _symbolic(matrix)
    registry.reset_stats()
    b = np.ones((1, 64))

    def check(factors, scales):
        for factor, scale in zip(factors, scales, strict=True):
            np.testing.assert_allclose(scale * (matrix @ factor.solve(b)[0]), 1, rtol=1e-11)

    held = [symbolic.factorize(matrix.data * k) for k in range(1, 4)]
    assert registry.stats()["analyses"] == 0
    held.append(symbolic.factorize(matrix.data * 4))
    assert len(symbolic._plain._all) == 2
    assert held[3].nbytes > 2 * held[0].nbytes > 0
    check(held, range(1, 5))
    del held[1]
    held.append(symbolic.factorize(matrix.data * 5))
    check(held, [1, 3, 4, 5])
    del held
    gc.collect()
    held = [symbolic.factorize(matrix.data * k) for k in range(1, 4)]
    check(held, range(1, 4))
    assert len(symbolic._plain._all) == 1
    assert registry.stats()["analyses"] == 0
    del symbolic
    check(held, range(1, 4))


def test_a_factor_that_ends_while_its_handle_works_is_tidied_later():
    matrix = _grid(8)
    symbolic = _symbolic(matrix)
    one, two = (symbolic.factorize(matrix.data * k) for k in (1, 2))
    handle = one.handle
    with handle._lock:
        del one, two
        gc.collect()
        assert len(handle._ended) == 2
        assert handle.is_idle
    x = symbolic.factorize(matrix.data).solve(np.ones((1, 64)))
    assert not handle._ended
    np.testing.assert_allclose(matrix @ x[0], 1, rtol=1e-11)


@pytest.mark.parametrize("structure", pardiso.STRUCTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_of_an_analysis_has_its_ordering(structure, dtype):
    """Which is what takes long; the copy has a memory of its own."""
    matrix = _grid(9, structure, dtype)
    first = _symbolic(matrix, structure)._plain._all[0]
    copy, tol = first.copy(), 1e-4 if dtype in (np.float32, np.complex64) else 1e-11
    np.testing.assert_array_equal(np.sort(first._order), np.arange(81))
    np.testing.assert_array_equal(copy._order, first._order)
    assert copy.entries_of_factor == first.entries_of_factor > 0
    places = {handle: handle.take() for handle in (first, copy)}
    b = np.ones((1, 81), dtype)
    for k, (handle, place) in enumerate(places.items()):
        handle.fill(place, matrix.data * dtype(k + 1))
    for k, (handle, place) in enumerate(places.items()):
        x = np.empty_like(b)
        handle.solve(place, b, x, transpose=False)
        np.testing.assert_allclose((k + 1) * (matrix @ x[0]), b[0], rtol=tol, atol=tol)


def test_threads_that_factorize_at_once_have_handles_of_their_own(monkeypatch):
    """As many as there are cores; later a single thread gives the others back."""
    monkeypatch.setattr(pardiso, "cores", lambda: 2)
    matrix = _grid(8)
    symbolic = _symbolic(matrix)
    both, fill = threading.Barrier(2), pardiso_handle.Handle.fill

    def together(self, *args):
        both.wait(20)  # breaks if one waits for the other
        return fill(self, *args)

    registry.reset_stats()
    with monkeypatch.context() as patch, concurrent.futures.ThreadPoolExecutor(2) as pool:
        patch.setattr(pardiso_handle.Handle, "fill", together)
        factors = list(pool.map(lambda k: symbolic.factorize(matrix.data * k), range(1, 21)))
    first, second = symbolic._plain._all
    assert {id(factor.handle) for factor in factors} == {id(first), id(second)}
    assert registry.stats()["analyses"] == 0
    # the analysis counts the bytes of one of them, and a factor those of the other
    assert sum(factor.nbytes > factors[0].handle.factor_nbytes for factor in factors) == 1
    for k, factor in enumerate(factors, 1):
        np.testing.assert_allclose(k * (matrix @ factor.solve(np.ones((1, 64)))[0]), 1, rtol=1e-11)
    del factors, factor
    monkeypatch.setattr(pardiso, "_PATIENCE", 3)
    for k in range(1, 10):
        assert symbolic.factorize(matrix.data * k).nbytes > 0
    assert len(symbolic._plain._all) == 1


@pytest.mark.parametrize("structure", ["definite", "general"])
def test_six_threads_share_an_analysis_and_a_factor_S2_16(structure):
    matrix = _grid(15, structure)
    symbolic = _symbolic(matrix, structure)
    shared, b = symbolic.factorize(matrix.data), np.random.default_rng(0).normal(size=(2, 225))

    def work(k):
        own = symbolic.factorize(matrix.data * k)
        transpose = bool(k % 2)
        return np.abs(k * own.solve(b, transpose=transpose) - shared.solve(b, transpose=transpose))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert max(x.max() for x in pool.map(work, range(1, 121))) < 1e-11


@pytest.mark.parametrize(
    ("indptr", "indices", "match"),
    [
        ([0, 1, 3], [0, 0], "indptr"),
        ([1, 1, 2], [0, 1], "indptr"),
        ([0, 2, 1, 3], [0, 1, 2], "indptr"),
        ([0, 1, 2], [0, 2], r"0, …, 1"),
        ([0, 1, 2], [-1, 1], r"0, …, 1"),
        ([0, 2, 2], [1, 0], "rise in each row"),
        ([0, 2, 3], [0, 0, 1], "rise in each row"),
    ],
)
def test_what_is_no_pattern_never_reaches_the_library(indptr, indices, match):
    with pytest.raises(ValueError, match=match):
        pardiso.Symbolic(np.array(indptr), np.array(indices), "general", float)


def test_arrays_of_other_sizes_and_kinds_never_reach_the_library():
    matrix = _grid(4)
    symbolic = _symbolic(matrix)
    for values in (matrix.data[1:], matrix.data.astype(np.float32), matrix.data[None]):
        with pytest.raises(ValueError, match="values: must be 64 of float64"):
            symbolic.factorize(values)
    factor = symbolic.factorize(matrix.data)
    for b in (np.ones(16), np.ones((1, 15))):
        with pytest.raises(ValueError, match=r"\(k, 16\)"):
            factor.solve(b)
    with pytest.raises(TypeError, match="real factor"):
        factor.solve(np.ones((1, 16)) * 1j)
    assert factor.solve(np.ones((0, 16))).shape == (0, 16)
    x = factor.solve(np.asfortranarray(np.ones((3, 32))[:, ::2]))  # by rows, whatever it was
    np.testing.assert_allclose(x @ matrix.T.toarray(), 1, rtol=1e-12)


def test_entries_of_the_diagonal_that_are_missing_are_zeros():
    dense = np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 1.0], [0.0, 1.0, 4.0]])
    matrix = sp.csr_array(dense)
    entries = pardiso_handle.Entries.of(matrix.indptr, matrix.indices, upper=False)
    assert entries.indptr.tolist() == [0, 2, 5, 7]
    assert entries.indices.tolist() == [0, 1, 0, 1, 2, 1, 2]
    assert entries.slots.tolist() == [-1, 0, 1, -1, 2, 3, 4]
    b = np.array([[1.0, 2.0, 3.0]])
    x = _symbolic(matrix).factorize(matrix.data).solve(b)
    np.testing.assert_allclose(x[0], np.linalg.solve(dense, b[0]), rtol=1e-12)


@pytest.mark.parametrize("place", [12, 14], ids=["settings", "result"])
def test_a_library_that_counts_in_another_way_is_left_alone(monkeypatch, place):
    """Then it is the module's turn."""
    found = pardiso_handle.library()

    def other(*arguments):
        found(*arguments)
        if place == 12:
            arguments[-1]._obj.value = -1  # as for arguments of another width
        elif arguments[4]._obj.value == 33:
            np.frombuffer((pardiso_handle.ctypes.c_double * 2).from_address(arguments[14].value))[
                :
            ] = 7

    assert pardiso_handle._fits(found)
    assert not pardiso_handle._fits(other)
    library = type("Library", (), {"pardiso_64": staticmethod(other)})
    monkeypatch.setattr(pardiso_handle.ctypes, "CDLL", lambda path: library)
    assert pardiso_handle.library.__wrapped__() is None
