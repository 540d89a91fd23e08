"""Is a function linear? And what are the linear part and the offset of an affine one?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linsolve_prim.errors import NonlinearFunctionError
from linsolve_prim.operators import FunctionLinearOperator, check_linear, split_affine

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
COMPLEX = np.dtype("complex128" if jax.config.jax_enable_x64 else "complex64")
VECTOR = jax.ShapeDtypeStruct((4,), REAL)
X = jnp.asarray([1.0, -2.0, 3.0, 0.5], REAL)
W = jnp.asarray([2.0, 3.0, -1.0, 4.0], REAL)
M = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), REAL)
SPD = M @ M.T + 4 * jnp.eye(4, dtype=REAL)


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@jax.custom_jvp
def tripled(x):
    return 3 * x


tripled.defjvp(lambda p, t: (3 * p[0], 3 * t[0]))

LINEAR = {
    "scale": lambda x: 2 * x * W / 3,
    "matmul": lambda x: M @ x,
    "negative": lambda x: -x + x - 3 * x,
    "stop_gradient": lambda x: jax.lax.stop_gradient(x) + x,
    "where": lambda x: jnp.where(W > 0, x, 0),
    "where_both": lambda x: jnp.where(W > 0, x, 2 * x),
    "roll": lambda x: jnp.roll(x, 1),
    "gather": lambda x: x[jnp.array([3, 0, 0])],
    "take": lambda x: jnp.take(x, jnp.array([3, 0])),
    "convolve": lambda x: jnp.convolve(x, W),
    "cumsum": lambda x: jnp.cumsum(x),
    "fft": lambda x: jnp.fft.ifft(jnp.fft.fft(x)).real,
    "rfft": lambda x: jnp.fft.irfft(jnp.fft.rfft(x)),
    "concatenate": lambda x: jnp.concatenate([x, x[:2], jnp.zeros(2, REAL)]),
    "pad": lambda x: jnp.pad(x, 2),
    "reshape": lambda x: x.reshape(2, 2).T[::-1].sum(0),
    "stack": lambda x: jnp.stack([x, x]).mean(0),
    "split": lambda x: jnp.split(x, 2)[0],
    "scan": lambda x: jax.lax.scan(lambda c, w: (c * w, c[0]), x, W),
    "scan_over_x": lambda x: jax.lax.scan(lambda c, a: (c + a, c), jnp.zeros((), REAL), x)[1],
    "fori": lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c * W + x, x),
    "while": lambda x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * W), (0, x)
    )[1],
    "cond": lambda x: jax.lax.cond(W[0] > 1, lambda: x, lambda: 2 * x),
    "switch": lambda x: jax.lax.switch(1, [lambda y: y, lambda y: -y], x),
    "jit": lambda x: jax.jit(lambda y: y * W)(x),
    "custom_jvp": tripled,
    "custom_vjp": doubled,
    "remat": jax.checkpoint(lambda x: x * W),
    "dynamic_update_slice": lambda x: jax.lax.dynamic_update_slice(x, x[:2], (1,)),
    "dynamic_slice": lambda x: jax.lax.dynamic_slice(x, (1,), (2,)),
    "scatter_add": lambda x: jnp.zeros((3, 4), REAL).at[1].add(x),
    "scatter_set": lambda x: x.at[1].set(0).at[2].set(x[0]),
    "complex": lambda x: jax.lax.complex(x, 2 * x).conj().imag + (x.astype(COMPLEX) * 1j).real,
    "precision": lambda x: x.astype(jnp.float16).astype(REAL),
    "einsum": lambda x: jnp.einsum("ij,j,k->ik", M, x, W),
    "vmap": jax.vmap(lambda a: 2 * a),
    "linear_jvp": lambda x: jax.jvp(jnp.sin, (W,), (x,))[1],
    "gradient": jax.grad(lambda x: 0.5 * x @ SPD @ x),
    "solve": lambda x: jnp.linalg.solve(SPD, x),
    "inverse": lambda x: jnp.linalg.inv(SPD) @ x,
    "triangular": lambda x: jax.scipy.linalg.solve_triangular(SPD, x, lower=True),
    "cholesky": lambda x: jax.scipy.linalg.cho_solve((SPD, True), x),
    "zero": lambda x: jnp.zeros(3, REAL),
    "unused": lambda x: (jnp.sin(x), x * W)[1],
    "resize": lambda x: jax.image.resize(x, (7,), "linear"),
    "reduce_window": lambda x: jax.lax.reduce_window(
        x, np.zeros((), REAL), jax.lax.add, (2,), (1,), "SAME"
    ),
}

AFFINE = {
    "offset": lambda x: M @ x + W,
    "issue": lambda x: x[:2] * jnp.array([2, 1], REAL) + jnp.array([10, 20], REAL),
    "where": lambda x: jnp.where(W > 0, x, 1),
    "pad": lambda x: jnp.pad(x, 2, constant_values=3),
    "set": lambda x: x.at[0].set(7),
    "constant": lambda x: W,
    "concatenate": lambda x: jnp.concatenate([x, W]),
    "scan": lambda x: jax.lax.scan(lambda c, w: (c[::-1] + w, c[0]), x, W),
    "late_offset": lambda x: (
        jax.lax.fori_loop(0, 3, lambda i, c: (c[0] + c[1], c[1] * W, c[2]), (x, x, x))[0]
        + jax.lax.fori_loop(0, 3, lambda i, c: (c[0] + c[1], c[1] + c[2], W), (x, x, W))[0]
    ),
    "stop_gradient": lambda x: jax.lax.stop_gradient(x) * W + 1,
    "custom_vjp": lambda x: doubled(x) + W,
    "cond": lambda x: jax.lax.cond(W[0] > 1, lambda: x, lambda: W),
}

NONLINEAR = {
    "square": (lambda x: x**2, "integer_pow"),
    "sin": (jnp.sin, "sin"),
    "relu": (jax.nn.relu, "max"),
    "floor": (jnp.floor, "floor"),
    "round": (jnp.round, "round"),
    "sign": (lambda x: x * jnp.sign(x), "sign"),
    "argmax": (lambda x: W * jnp.argmax(x).astype(REAL), "argmax"),
    "comparison": (lambda x: jnp.where(x > 0, x, 2 * x), "gt"),
    "to_int": (lambda x: x.astype(int).astype(REAL), "convert_element_type"),
    "product": (lambda x: x * x[0], "mul"),
    "quotient": (lambda x: x / x, "div"),
    "reciprocal": (lambda x: 1 / x, "div"),
    "dot": (lambda x: x @ x * W, "dot_general"),
    "abs": (jnp.abs, "abs"),
    "norm": (lambda x: jnp.linalg.norm(x) * W, None),
    "cond": (lambda x: jax.lax.cond(x[0] > 0, lambda: x, lambda: 2 * x), "gt"),
    "while": (lambda x: jax.lax.while_loop(lambda c: c[0] < 9, lambda c: 2 * c, x), "lt"),
    "loop_body": (lambda x: jax.lax.fori_loop(0, 2, lambda i, c: c * c, x), "mul"),
    "late": (
        lambda x: jax.lax.scan(lambda c, _: ((c[1], c[1] * c[0]), None), (W, x), None, 3)[0][0],
        "mul",
    ),
    "remainder": (lambda x: x % 2, "rem"),
    "clip": (lambda x: jnp.clip(x, 0, 1), None),
    "sort": (jnp.sort, "sort"),
    "apply": (lambda x: x.at[0].apply(jnp.sin), None),
    "index": (lambda x: W[x[0].astype(int)] + x, "convert_element_type"),
    "gather": (lambda x: jnp.exp(x[jnp.array([0, 1])]), "exp"),
    "qr": (lambda x: jnp.linalg.qr(x[:, None])[0], None),
    "solve_matrix": (lambda x: jnp.linalg.solve(SPD + jnp.diag(x), W), None),
    "callback": (lambda x: jax.pure_callback(lambda a: a, VECTOR, x), "pure_callback"),
    "jit": (lambda x: jax.jit(lambda y: jnp.exp(y))(x), "exp"),
    "custom_vjp": (lambda x: doubled(x) ** 2, "integer_pow"),
    "abs_complex": (lambda x: abs(x.astype(COMPLEX) * 1j), "abs"),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear(name):
    """S0-21: linear functions are recognised, whatever they are made of."""
    assert check_linear(LINEAR[name], VECTOR) == "linear"


@pytest.mark.parametrize("name", AFFINE)
def test_affine(name):
    """S0-20: the offset is found and split off."""
    fn = AFFINE[name]
    assert check_linear(fn, VECTOR) == "affine"
    linear, offset = split_affine(fn, VECTOR)
    zeros = jnp.zeros_like(X)
    for part, expected in zip(jax.tree.leaves(offset), jax.tree.leaves(fn(zeros))):
        np.testing.assert_allclose(part, expected)
    want = jax.tree.map(lambda a, b: a - b, fn(X), fn(zeros))
    for part, expected in zip(jax.tree.leaves(linear(X)), jax.tree.leaves(want)):
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-4)
    assert check_linear(linear, VECTOR) in ("linear", "affine")


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear(name):
    """S0-21: a nonlinear function is rejected when tracing, and the primitive is named."""
    fn, primitive = NONLINEAR[name]
    named = f"JAX primitive `{primitive}`" if primitive else "JAX primitive `"
    with pytest.raises(NonlinearFunctionError, match=named):
        check_linear(fn, VECTOR)


def test_nonlinear_message():
    """The message says what, where and what to do instead."""
    with pytest.raises(
        NonlinearFunctionError, match=r"fn: must be .*`sin`.*JacobianLinearOperator"
    ):
        split_affine(lambda x: jnp.sin(x) + W, VECTOR)


def test_linear_part_of_a_linear_function():
    """A linear function comes back without an offset, and traced only once."""
    calls = []

    def fn(x):
        calls.append(1)
        return W * x

    linear, offset = split_affine(fn, VECTOR)
    assert offset is None
    operator = FunctionLinearOperator(linear, VECTOR)
    np.testing.assert_allclose(operator.mv(X), W * X)
    assert len(calls) == 1


@pytest.mark.parametrize("tail", [lambda x: x, doubled, jax.lax.stop_gradient])
def test_both_parts_are_differentiable(tail):
    """S0-20: gradients reach what the function captured; the linear part can be transposed."""

    def parts(w, c):
        linear, offset = split_affine(lambda x: w * tail(x) + c, VECTOR)
        operator = FunctionLinearOperator(linear, VECTOR)
        return (operator.mv(X) + 2 * operator.T.mv(X) + 5 * offset).sum()

    dw, dc = jax.jit(jax.grad(parts, argnums=(0, 1)))(W, W)
    factor = 2 if tail is doubled else 1
    np.testing.assert_allclose(dw, 3 * factor * X, rtol=1e-5)
    np.testing.assert_allclose(dc, np.full(4, 5.0), rtol=1e-5)


def test_pytrees():
    """B-13: arguments and results are pytrees; each leaf counts."""
    structure = {"u": VECTOR, "p": jax.ShapeDtypeStruct((), REAL)}
    fn = lambda x: {"a": W * x["p"] + x["u"], "b": x["u"].sum()}
    assert check_linear(fn, structure) == "linear"
    shifted = lambda x: {**fn(x), "b": x["u"].sum() + 1}
    linear, offset = split_affine(shifted, structure)
    np.testing.assert_allclose(offset["b"], 1)
    np.testing.assert_allclose(linear({"u": X, "p": jnp.asarray(2.0, REAL)})["b"], X.sum())
    with pytest.raises(NonlinearFunctionError, match="`mul`"):
        check_linear(lambda x: x["u"] * x["p"], structure)


def test_complex():
    structure = jax.ShapeDtypeStruct((3,), COMPLEX)
    assert check_linear(lambda x: x.conj() * 2j + x.real.astype(COMPLEX), structure) == "linear"
    assert check_linear(lambda x: x * 1j + 2, structure) == "affine"
    with pytest.raises(NonlinearFunctionError, match="`mul`"):
        check_linear(lambda x: (x * x.conj()).real, structure)
