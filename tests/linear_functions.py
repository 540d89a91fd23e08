"""Linear functions of many kinds, for the tests of `materialise_sparse`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import sparse
from jax.flatten_util import ravel_pytree

from linsolve_prim import SparseLinearOperator

X64 = jax.config.jax_enable_x64
REAL = np.dtype("float64" if X64 else "float32")
COMPLEX = np.dtype("complex128" if X64 else "complex64")
TOL = 1e-12 if X64 else 1e-5
RNG = np.random.default_rng(0)

N = 6
GRID = jax.ShapeDtypeStruct((N, N), REAL)
LINE = jax.ShapeDtypeStruct((N,), REAL)
MASK = RNG.random((N, N)) < 0.4
KAPPA = jnp.asarray(RNG.random((N, N)) + 0.5, REAL)
KERNEL = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], REAL)
W = jnp.asarray(RNG.normal(size=N), REAL)


def five_points(mode):
    """The five-point Laplacian, with a boundary that `jnp.pad` knows."""

    def laplace(u):
        p = jnp.pad(u, 1, mode=mode)
        return p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u

    return laplace


def rolled(u):
    return sum(jnp.roll(u, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4 * u


def convolved(u):
    return lax.conv(u[None, None], KERNEL.astype(u.dtype)[None, None], (1, 1), "SAME")[0, 0]


def fluxes(u):
    """div(κ grad u), with κ between the points."""
    p = jnp.pad(u, ((1, 1), (0, 0)))
    k = jnp.pad(KAPPA, ((1, 1), (0, 0)), mode="edge")
    flux = (k[1:] + k[:-1]) / 2 * (p[1:] - p[:-1])
    return flux[1:] - flux[:-1]


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@jax.custom_jvp
def tripled(x):
    return 3 * x


tripled.defjvp(lambda p, t: (3 * p[0], 3 * t[0]))


def _recurrence(x):
    return lax.scan(lambda c, a: (c / 2 + a, c), jnp.zeros((), REAL), x)[1]


def _grouped(x):
    image = x.reshape(1, 4, 3, 3)
    kernel = jnp.asarray(np.arange(1, 17), REAL).reshape(4, 2, 2, 1)
    return lax.conv_general_dilated(
        image, kernel, (2, 1), [(1, 0), (0, 2)], (1, 2), (1, 1), feature_group_count=2
    )


def _batch_groups(x):
    image = x.reshape(4, 1, 3, 3)
    kernel = jnp.asarray(np.arange(1, 9), REAL).reshape(2, 1, 2, 2)
    return lax.conv_general_dilated(image, kernel, (1, 1), "VALID", batch_group_count=2)


def _channels_last(x):
    return lax.conv_general_dilated(
        x.reshape(1, N, N, 1),
        KERNEL[:, :, None, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        rhs_dilation=(2, 1),
    )


def _scattered(x):
    out = jnp.zeros((N, N), REAL).at[np.array([0, 2, 2, 9]), 1:3].add(x[:4, :2], mode="drop")
    return out.at[1].set(x[3]).at[::2, 0].multiply(3)


def _windows(x):
    return lax.reduce_window(
        x, np.zeros((), REAL), lax.add, (2, 3), (2, 1), [(1, 0), (0, 1)], (1, 2), (2, 1)
    )


@jax.custom_batching.custom_vmap
def quadrupled(x):
    return 4 * x


@quadrupled.def_vmap
def _(axis_size, in_batched, x):
    return 4 * x, in_batched[0]


def _conv_to_nothing(x):
    """A window that is wider than the image."""
    kernel = jnp.ones((2, 2, 4, 2), REAL)
    return lax.conv_general_dilated(
        x.reshape(1, 4, 3, 3), kernel, (1, 1), "VALID", rhs_dilation=(2, 1), feature_group_count=2
    )


def _added(a, b):
    """Not `lax.add`, so that JAX does not know it."""
    return b + a


BIDIAGONAL = np.eye(N, dtype=REAL) + np.diag(np.arange(1, N), 1).astype(REAL)
BCOO = sparse.BCOO.fromdense(BIDIAGONAL, nse=2 * N)  # padded with indices out of bounds
BCSR = sparse.BCSR.fromdense(BIDIAGONAL)
OWN = SparseLinearOperator.from_dense(BIDIAGONAL)
SPREAD = np.argwhere(BIDIAGONAL)[:N]


#: name: (function, structure of x). The pattern of each is what no smaller one would be.
TIGHT = {
    "laplace_zero": (five_points("constant"), GRID),
    "laplace_periodic": (five_points("wrap"), GRID),
    "laplace_zero_gradient": (five_points("edge"), GRID),
    "laplace_reflect": (five_points("reflect"), GRID),
    "laplace_symmetric": (five_points("symmetric"), GRID),
    "laplace_linear_ramp": (lambda u: jnp.pad(u, 1, mode="linear_ramp"), GRID),
    "roll": (rolled, GRID),
    "conv": (convolved, GRID),
    "conv_groups": (_grouped, jax.ShapeDtypeStruct((36,), REAL)),
    "conv_batch_groups": (_batch_groups, jax.ShapeDtypeStruct((36,), REAL)),
    "conv_to_nothing": (_conv_to_nothing, jax.ShapeDtypeStruct((36,), REAL)),
    "conv_channels_last": (_channels_last, GRID),
    "conv_kernel": (lambda k: lax.conv(KAPPA[None, None], k, (1, 1), "SAME"),
                    jax.ShapeDtypeStruct((1, 1, 3, 3), REAL)),
    "fluxes": (fluxes, GRID),
    "convolve": (lambda x: jnp.convolve(x, W), LINE),
    "masked": (lambda u: jnp.where(MASK, 2 * rolled(u), u), GRID),
    "mask_times": (lambda u: MASK.astype(REAL) * rolled(u) + jnp.where(MASK, 0, u), GRID),
    "gather": (lambda x: x[np.array([5, 0, 0, -1])], LINE),
    "gather_rows": (lambda u: u[np.array([5, 0]), 1:3], GRID),
    "take_out_of_bounds": (lambda x: jnp.take(x, np.array([7, 1]), mode="fill", fill_value=0), LINE),
    "take_clipped": (lambda x: jnp.take(x, np.array([7, 1]), mode="clip"), LINE),
    "scatter": (_scattered, GRID),
    "cumsum": (lambda u: jnp.cumsum(u, 1), GRID),
    "cumsum_reverse": (lambda u: lax.cumsum(u, 0, reverse=True), GRID),
    "sum": (lambda u: u.sum(0), GRID),
    "mean": (lambda u: u - u.mean(1, keepdims=True), GRID),
    "windows": (_windows, GRID),
    "windows_by_a_function": (lambda u: lax.reduce_window(
        u, np.zeros((), REAL), _added, (2, 2), (2, 1), "SAME"), GRID),
    "reduced_by_a_function": (lambda u: lax.reduce(u, np.zeros((), REAL), _added, (1,)), GRID),
    "first_power": (lambda x: x**1 * W, LINE),
    "dynamic_slice": (lambda u: lax.dynamic_slice(u, (4, 1), (3, 3)), GRID),
    "dynamic_update": (lambda u: lax.dynamic_update_slice(u, u[:2, :2], (5, -9)), GRID),
    "transpose": (lambda u: u.T[::-1].reshape(4, 9)[:, ::2], GRID),
    "concatenate": (lambda x: jnp.concatenate([x[:2], jnp.zeros(3, REAL), x]), LINE),
    "stack_split": (lambda x: jnp.stack(jnp.split(x, 3))[1:], LINE),
    "pad_inside": (lambda x: lax.pad(x, np.zeros((), REAL), [(-1, 2, 2)]), LINE),
    "sparse_dot": (lambda u: jnp.diag(W) @ u @ np.eye(N, k=1, dtype=REAL), GRID),
    "einsum_batch": (lambda u: jnp.einsum("bij,bj->bi", np.tile(np.eye(N, dtype=REAL), (N, 1, 1)), u), GRID),
    "broadcast": (lambda x: x[:, None] * jnp.where(MASK, 1, 0).astype(REAL), LINE),
    "upwind": (lambda x: jnp.where(W > 0, x - jnp.roll(x, 1), jnp.roll(x, -1) - x), LINE),
    "scan_over_x": (_recurrence, LINE),
    "scan_reverse": (lambda x: lax.scan(lambda c, a: (a, c), W[0] * 0, x, reverse=True)[1], LINE),
    "scan_coefficients": (lambda x: lax.scan(lambda c, w: (c * w, c[0]), x, W)[0], LINE),
    "scan_empty": (lambda x: lax.scan(lambda c, a: (c * 2, a), x, x[:0])[0], LINE),
    "fori": (lambda x: lax.fori_loop(0, 2, lambda i, c: c.at[i].add(x[i + 1]), x), LINE),
    "while": (lambda x: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.roll(c[1], 1)),
                                       (0, x))[1], LINE),
    "cond": (lambda x: lax.cond(np.array(True), lambda x: x[::-1], lambda x: 2 * x, x), LINE),
    "switch": (lambda x: lax.switch(7, [lambda x: x, lambda x: jnp.roll(x, 1)], x), LINE),
    "jit": (lambda x: jax.jit(lambda y: y[::-1] * W)(x), LINE),
    "custom_jvp": (lambda x: tripled(x)[::-1], LINE),
    "custom_vjp": (lambda x: doubled(x)[1:], LINE),
    "checkpoint": (jax.checkpoint(lambda x: jnp.roll(x, 1) * W), LINE),
    "stop_gradient": (lambda x: lax.stop_gradient(x) + jnp.roll(x, 1), LINE),
    "vmap": (jax.vmap(lambda row: jnp.roll(row, 1) - row), GRID),
    "jvp": (lambda x: jax.jvp(lambda y: jnp.sin(y) * jnp.roll(y, 1), (W,), (x,))[1], LINE),
    "gradient": (jax.grad(lambda x: jnp.sum((x[1:] - x[:-1]) ** 2) / 2), LINE),
    "linear_transpose": (lambda u: jax.linear_transpose(five_points("edge"), GRID)(u)[0], GRID),
    "resize": (lambda x: jax.image.resize(x, (2 * N,), "linear"), LINE),
    "fft_rows": (lambda u: jnp.fft.fft(u, axis=1), GRID),
    "complex": (lambda x: lax.complex(x, 2 * jnp.roll(x, 1)), LINE),
    "imaginary": (lambda x: (x.astype(COMPLEX) * (1 + 2j)).imag * MASK[0].astype(REAL), LINE),
    "zero": (lambda x: 0 * x, LINE),
    "unused": (lambda x: jnp.zeros(3, REAL), LINE),
    "sparse_operator": (lambda x: OWN.mv(x) + OWN.T.mv(2 * x), LINE),
    "sparse_operator_vmap": (lambda u: jax.vmap(OWN.mv, 1, 1)(u), GRID),
    "sparse_operator_values": (lambda x: lax.optimization_barrier(
        SparseLinearOperator.from_coo(SPREAD[:, 0], SPREAD[:, 1], x, (N, N)).mv(W)), LINE),
    "bcoo": (lambda u: BCOO @ u + u @ BCOO, GRID),
    "bcoo_values": (lambda x: sparse.BCOO((x, jnp.asarray(SPREAD)), shape=(N, N)) @ W, LINE),
    "bcsr": (lambda u: BCSR @ u, GRID),
    "custom_vmap": (lambda x: quadrupled(x)[::-1], LINE),
    "scalar": (lambda x: 3 * x, jax.ShapeDtypeStruct((), REAL)),
    "twice": (lambda x: x * 2, LINE),
    "tall": (lambda x: jnp.concatenate([x, x]), LINE),
    "wide": (lambda x: x[:2] + x[2:4], LINE),
    "nothing": (lambda x: x, jax.ShapeDtypeStruct((0,), REAL)),
}  # fmt: skip

#: Their patterns are larger than need be, or full.
LOOSE = {
    "fft": (lambda x: jnp.fft.ifft(jnp.fft.fft(x)).real, LINE),
    "rfft": (lambda x: jnp.fft.irfft(jnp.fft.rfft(x)), LINE),
    "triangular": (lambda u: jax.scipy.linalg.solve_triangular(np.tril(np.ones((N, N), REAL)), u), GRID),
    "solve": (lambda x: jnp.linalg.solve(np.diag(np.arange(1, N + 1)).astype(REAL), x), LINE),
    "cancelling": (lambda x: jnp.roll(x, 1) - jnp.roll(x, 1) + x, LINE),
    "tridiagonal": (lambda x: lax.linalg.tridiagonal_solve(0 * W, W, 0 * W, x[:, None])[:, 0], LINE),
    "long_scan": (lambda x: lax.fori_loop(0, 40_000, lambda i, c: c[::-1], x), LINE),
    "long_scan_over_x": (lambda x: lax.scan(lambda c, a: (c, c + a), x[0], jnp.tile(x, 30_000))[1]
                         [:: 30_000], LINE),
    "sort_like": (lambda x: x[jnp.argsort(W)], LINE),
}  # fmt: skip

FUNCTIONS = TIGHT | LOOSE


def dense(f, structure):
    """The Jacobian as a matrix, and f(0)."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), structure)
    flat, unravel = ravel_pytree(zeros)
    g = lambda v: ravel_pytree(f(unravel(v)))[0]
    columns = jax.jit(jax.vmap(lambda e: g(e) - g(flat), out_axes=1))
    return columns(jnp.eye(flat.size, dtype=flat.dtype)), g(flat)
