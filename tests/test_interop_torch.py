"""PyTorch: the bridge, and drop-ins for torchsparsegradutils (rows S0-03, S3-01 to S3-21)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

X64 = jax.config.jax_enable_x64


torch = pytest.importorskip("torch")
lt = lp.interop.torch

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]
COO, CSR = torch.sparse_coo, torch.sparse_csr
F64, C128 = torch.float64, torch.complex128


def draw(*shape, dtype=F64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense_of(n=6, m=None, dtype=F64, seed=0):
    """Not symmetric, and sparse."""
    m = n if m is None else m
    a = draw(m, n, dtype=dtype, seed=seed)
    far = (torch.arange(m)[:, None] - torch.arange(n)).abs() > 2
    return a.masked_fill(far, 0) + 4 * torch.eye(m, n, dtype=dtype)


def as_layout(a, layout):
    return a.to_sparse_coo() if layout == COO else a.to_sparse_csr()


def both_ways(sparse_fn, dense_fn, a, b, layout, rtol=1e-8):
    """Values, gradients and the layout of the sparse one, against dense autograd."""
    As, Bs = as_layout(a, layout).requires_grad_(), b.clone().requires_grad_()
    Ad, Bd = a.clone().requires_grad_(), b.clone().requires_grad_()
    x, want = sparse_fn(As, Bs), dense_fn(Ad, Bd)
    assert x.shape == want.shape
    weights = draw(*want.shape, dtype=want.dtype, seed=7)
    for out in (x, want):
        (out * weights).abs().square().sum().backward()
    np.testing.assert_allclose(x.detach(), want.detach(), rtol=rtol, atol=1e-10)
    assert As.grad.layout == layout
    entries = As.grad.values() if layout == CSR else As.grad.coalesce().values()
    assert entries.numel() == (a != 0).sum()  # S3-03: on the pattern, and nowhere else
    got = As.grad.to_dense()
    np.testing.assert_allclose(got[a != 0], Ad.grad[a != 0], rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(Bs.grad, Bd.grad, rtol=rtol, atol=1e-9)


# ---- The bridge ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "complex64", "complex128", "int32", "bool"]
)
def test_tensors_and_arrays_share_memory(dtype):
    tensor = torch.ones(3, 4).to(getattr(torch, dtype))
    with jax.enable_x64(True):
        array = lt.to_jax(tensor)
        assert str(array.dtype) == dtype
        assert array.unsafe_buffer_pointer() == tensor.data_ptr()
        back = lt.to_torch(array)
    assert back.data_ptr() == tensor.data_ptr()
    assert back.dtype == tensor.dtype


def test_views_of_tensors_and_what_is_refused():
    tensor = torch.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(lt.to_jax(tensor.T), tensor.numpy().T)
    np.testing.assert_array_equal(lt.to_jax((1j * tensor).conj()), -1j * tensor.numpy())
    assert lt.to_jax(tensor[:0]).shape == (0, 3)
    with pytest.raises(TypeError, match=r"tensor: must be a dense `torch.Tensor`; got ndarray"):
        lt.to_jax(np.ones(3))
    with pytest.raises(
        TypeError, match=r"array: must be a concrete `jax.Array`.*outside of `jax.jit`"
    ):
        jax.jit(lt.to_torch)(jnp.ones(3))


def test_solve_takes_tensors_and_rounds_nothing_silently():
    """S0-03: by DLPack; double precision is refused while JAX would round it."""
    a, b = dense_of(), draw(6)
    for scoped in (True, False):
        with jax.enable_x64(scoped):
            if not scoped:
                with pytest.raises(ValueError, match=r"A: has dtype float64.*x64` is off"):
                    lp.solve(a, b)
                a, b = a.float(), b.float()
            x = lp.solve(a, b)
            assert isinstance(x, jax.Array)
            np.testing.assert_allclose(x, torch.linalg.solve(a, b), rtol=1e-4)
    with pytest.raises(ValueError, match=r"A: this Tensor cannot be handed over.*interop.torch"):
        lp.solve(a.requires_grad_(), b)


def test_any_function_of_arrays_is_one_of_tensors():
    """Pytrees and integers too; in double precision, whatever `jax_enable_x64` is."""

    def fn(x, index):
        return {"y": jnp.sin(x["a"])[index] * x["b"], "i": index + 1}

    x = {
        "a": draw(4, dtype=C128).requires_grad_(),
        "b": draw(2, dtype=C128, seed=1).requires_grad_(),
    }
    index = torch.tensor([0, 2], dtype=torch.int32)
    with jax.enable_x64(False):
        out = lt.as_torch(fn)(x, index)
        assert out["i"].tolist() == [1, 3]
        assert out["y"].dtype == C128
        one = lambda a, b: lt.as_torch(fn)({"a": a, "b": b}, index)["y"]
        torch.autograd.gradcheck(one, (x["a"], x["b"]))
        torch.autograd.gradgradcheck(one, (x["a"], x["b"]))


def test_memory_that_was_written_to_is_no_silent_error():
    b = draw(6).requires_grad_()
    x = lt.solve(dense_of(), b)
    with torch.no_grad():
        b.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


# ---- sparse_generic_solve ------------------------------------------------------------------------


def plain(A, B, **_):
    """A user's solver, in PyTorch, and without derivatives."""
    return torch.linalg.solve(A.to_dense(), B)


@pytest.mark.parametrize("layout", [COO, CSR], ids=["COO", "CSR"])
@pytest.mark.parametrize(
    "solver",
    [None, plain, pytest.param(lp.GMRES(1e-12), marks=pytest.mark.slow)],
    ids=["default", "function", "GMRES"],
)
def test_generic_solve(solver, layout):
    """S3-02, S3-07: A is not symmetric, and nobody says how to solve with its transpose."""
    dtype = C128 if solver is plain or layout == CSR else F64
    shape = (6, 3) if solver is None else (6,)
    run = lambda A, B: lt.sparse_generic_solve(A, B, solver)
    with jax.enable_x64(layout == COO):  # S3: theirs are double precision as often as not
        both_ways(run, torch.linalg.solve, dense_of(dtype=dtype), draw(*shape, dtype=dtype), layout)


def test_value_and_gradient_share_a_factorization_and_settings_reach_functions():
    A, B = as_layout(dense_of(9), CSR).requires_grad_(), draw(9)
    lp.host.registry.clear()
    lp.host.registry.reset_stats()
    lt.sparse_generic_solve(A, B, lp.SuperLU()).sum().backward()
    assert lp.host.registry.stats()["factorizations"] == 1
    seen = []

    def solve(A, B, *, tol):
        seen.append(("solve", tol))
        return plain(A, B)

    def transpose_solve(A, G, *, tol):
        seen.append(("transpose", tol))
        return torch.linalg.solve(A.to_dense().T, G)

    lt.sparse_generic_solve(A, B, solve, transpose_solve, tol=3).sum().backward()
    lt.sparse_generic_solve(A, B, None, transpose_solve, tol=4).sum().backward()
    assert seen == [("solve", 3), ("transpose", 3), ("transpose", 4)]
    with pytest.raises(TypeError, match=r"tol: keyword arguments are passed to `solve`"):
        lt.sparse_generic_solve(A, B, tol=1e-3)


@pytest.mark.parametrize("layout", [COO, CSR], ids=["COO", "CSR"])
@pytest.mark.parametrize("solver", [None, plain], ids=["default", "function"])
def test_second_order(layout, solver):
    """S3-19: through values of a matrix that is not symmetric, in PyTorch's own check."""
    a, b = dense_of(4), draw(4, 2)
    rows, cols = a.nonzero().T

    def run(values, B):
        A = torch.sparse_coo_tensor(torch.stack([rows, cols]), values, a.shape, is_coalesced=True)
        A = A.to_sparse_csr() if layout == CSR else A
        return lt.sparse_generic_solve(A, B, solver)

    inputs = a[rows, cols].requires_grad_(), b.requires_grad_()
    torch.autograd.gradgradcheck(run, inputs)


def test_uncoalesced_entries_are_summed():
    """S3-17."""
    index = torch.tensor([[0, 1, 1, 0, 1], [0, 1, 0, 0, 1]])
    A = torch.sparse_coo_tensor(index, torch.tensor([1.0, 2, 1, 3, 1]).double(), (2, 2))
    A, B = A.requires_grad_(), draw(2)
    x = lt.sparse_generic_solve(A, B)
    x.sum().backward()
    dense = A.detach().to_dense().requires_grad_()
    want = torch.linalg.solve(dense, B)
    want.sum().backward()
    np.testing.assert_allclose(x.detach(), want.detach())
    np.testing.assert_allclose(A.grad.to_dense()[dense != 0], dense.grad[dense != 0])


def test_messages():
    """S3-13 to S3-15."""
    A, B = as_layout(dense_of(3), COO), draw(3)
    solve = lt.sparse_generic_solve
    with pytest.raises(ValueError, match=r"A: must be a `torch.Tensor`; got ndarray"):
        solve(np.eye(3), B)
    with pytest.raises(TypeError, match=r"unsupported sparse layout torch.sparse_csc"):
        solve(A.to_sparse_csc(), B)
    with pytest.raises(TypeError, match=r"B: must be a dense \(strided\) tensor"):
        solve(A, A)
    with pytest.raises(ValueError, match=r"A: must be a 2D tensor; got shape \(1, 3, 3\)"):
        solve(torch.stack([A]), B)
    with pytest.raises(ValueError, match=r"A: must be square.*sparse_generic_lstsq"):
        solve(as_layout(dense_of(2, 3), COO), B)
    with pytest.raises(ValueError, match=r"B: must have shape \(3,\) or \(3, k\).*got \(4,\)"):
        solve(A, draw(4))
    with pytest.warns(UserWarning, match=r"A and B have different dtypes"):
        assert solve(A, B.float()).dtype == F64
    singular = torch.sparse_coo_tensor([[0, 1], [0, 0]], [1.0, 1.0], (2, 2), dtype=F64)
    with pytest.raises(lp.SingularMatrixError):
        solve(singular, draw(2))


# ---- Triangles and least squares -----------------------------------------------------------------


@pytest.mark.parametrize("layout", [COO, CSR], ids=["COO", "CSR"])
@pytest.mark.parametrize("upper", [True, False], ids=["upper", "lower"])
@pytest.mark.parametrize("unit", [True, False], ids=["unit", "stored"])
def test_triangular_solve(layout, upper, unit):
    """S3-20, with Aᵀ where that is another case."""
    a = dense_of().triu(int(unit)) if upper else dense_of().tril(-int(unit))
    transpose = upper == unit
    turn = lambda A: A.mT if transpose else A

    def dense(A, B):
        A = A + torch.eye(6, dtype=F64) if unit else A
        return torch.linalg.solve(turn(A), B)

    run = lambda A, B: lt.sparse_triangular_solve(A, B, upper, unit, transpose)
    both_ways(run, dense, a, draw(6, 2), layout)


@pytest.mark.parametrize("layout", [COO, CSR], ids=["COO", "CSR"])
def test_batches_of_triangles(layout):
    first, second = dense_of().triu(), dense_of(seed=1).triu()
    if layout == COO:
        second[0, 1] = 0  # patterns of a batch may differ there
    a, b = torch.stack([first, second]), draw(2, 6, 3)
    both_ways(lt.sparse_triangular_solve, torch.linalg.solve, a, b, layout)


def test_triangles_that_are_none():
    a = dense_of(3)
    with pytest.raises(ValueError, match=r"has entries below the diagonal"):
        lt.sparse_triangular_solve(as_layout(a, CSR), draw(3, 1))
    with pytest.raises(ValueError, match=r"stores diagonal entries, but `unit_diagonal=True`"):
        lt.sparse_triangular_solve(as_layout(a.triu(), CSR), draw(3, 1), unitriangular=True)
    with pytest.raises(ValueError, match=r"A, B: must have shapes.*got \(3, 3\) and \(3,\)"):
        lt.sparse_triangular_solve(as_layout(a, CSR), draw(3))
    with pytest.raises(TypeError, match=r"A, B: must be sparse"):
        lt.sparse_triangular_solve(a, draw(3, 1))


def pinv(A, B):
    return torch.linalg.lstsq(A, B.reshape(A.shape[0], -1)).solution.reshape(
        A.shape[1], *B.shape[1:]
    )


@pytest.mark.parametrize(
    ("shape", "solver"),
    [
        ((4, 7), None),
        ((4, 7), lambda A, B: pinv(A.to_dense(), B)),
        pytest.param((4, 7), lp.LSMR(1e-13, 0), marks=pytest.mark.slow),
        ((7, 4), None),
    ],
    ids=["default", "function", "LSMR", "wide"],
)
def test_least_squares(shape, solver):
    """S3-21: tall ones by default, by a function and by LSMR; and a wide one, of minimum norm."""
    n, m = shape
    dense = lambda A, B: torch.linalg.pinv(A) @ B
    run = lambda A, B: lt.sparse_generic_lstsq(A, B, solver)
    both_ways(run, dense, dense_of(n, m), draw(m, 2), CSR if m > n else COO, rtol=1e-6)


def test_a_wide_matrix_is_refused_by_functions_when_differentiated():
    A = as_layout(dense_of(5, 3), COO).requires_grad_()
    x = lt.sparse_generic_lstsq(A, draw(3), lambda A, B: pinv(A.to_dense(), B))
    with pytest.raises(ValueError, match=r"A: must be tall and of full rank.*got shape \(3, 5\)"):
        x.sum().backward()
