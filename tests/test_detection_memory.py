"""What is remembered of a pattern: the decisions of values, and not the values."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import linsolve_prim as lp

REAL = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
TOL = 1e-9 if jax.config.jax_enable_x64 else 1e-4
RNG = np.random.default_rng(0)
N = 600  # more than what is solved as a dense matrix
B = jnp.asarray(RNG.normal(size=N), REAL)
C = jnp.asarray(RNG.random(N) + 3, REAL)


@pytest.fixture(autouse=True)
def _forget():
    lp.detection.clear()
    lp.detection.reset_stats()


def detections():
    return lp.detection.stats()["detections"]


def three(x, c):
    return c * x - jnp.roll(x, 1) - 0.5 * jnp.roll(x, -1)


@jax.jit
def jitted(x, c):
    return 0.5 * (2 * c * x) - jnp.roll(x, 1) - 0.5 * jnp.roll(x, -1)


decorated = lp.linear_function(three)

ARRAY = lambda k: C + k
NUMBER = lambda k: 3.0 + k
SOLVES = {
    "closure of an array": (lambda c: lp.solve(lambda x: three(x, c), B), ARRAY),
    "closure of a number": (lambda c: lp.solve(lambda x: three(x, c), B), NUMBER),
    "argument": (lambda c: lp.solve(three, B, args=(c,)), ARRAY),
    "number as argument": (lambda c: lp.solve(three, B, args=(c,)), NUMBER),
    "linear_function": (lambda c: lp.solve(decorated, B, args=(c,)), ARRAY),
    "linear_function of a number": (lambda c: lp.solve(decorated, B, args=(c,)), NUMBER),
    "jitted function": (lambda c: lp.solve(lambda x: jitted(x, c), B), NUMBER),
    "SuperLU": (lambda c: lp.solve(lambda x: three(x, c), B, lp.SuperLU()), NUMBER),
}


@pytest.mark.parametrize("name", SOLVES)
def test_ten_solves_detect_once(name):
    """S0-19: whatever the coefficients are, and however they come into the function."""
    solve, coefficient = SOLVES[name]
    for k in range(10):
        c = coefficient(k)
        x = solve(c)
        np.testing.assert_allclose(three(x, c), B, rtol=TOL, atol=TOL)
    assert lp.detection.stats()["detections"] == 1
    assert lp.detection.stats()["hits"] == 9


def test_numbers_do_not_compile_again():
    """S0-19: ten numbers, and one program that computes the entries of the matrix."""
    of = lambda c: lp.materialise_sparse(lambda x: c * x - jnp.roll(x, 1), B)[0]
    of(1.5)
    compiled = _compiled()
    for k in range(9):
        of(2.5 + k)
    assert _compiled() == compiled


def _compiled():
    from linsolve_prim.detection import affine

    return affine._compiled._cache_size()


@pytest.mark.parametrize(
    "make", [lambda c: c, lambda c: jnp.asarray(c, REAL)], ids=["float", "0-d"]
)
@pytest.mark.parametrize("order", [(0.0, 2.0, 0.0), (2.0, 0.0, 3.0)], ids=["zero first", "last"])
def test_zeros_are_decisions(make, order):
    """S0-19: a coefficient that is zero at one time and not at another: never a stale pattern."""
    for c in order:
        f = lambda x, c=make(c): x + c * jnp.roll(x, 1)
        A, _ = lp.materialise_sparse(f, B[:9])
        expected = np.eye(9) + c * np.eye(9)[np.arange(9) - 1]
        np.testing.assert_allclose(A.as_matrix(), expected)
        assert A.pattern.nnz == (9 if c == 0 else 18)
    assert detections() == 2  # the third is remembered


def test_a_mask_of_floats():
    """S0-18: its zeros are left out; where they are the same, the pattern is, whatever the others."""
    mask = jnp.asarray(RNG.random(30) > 0.4, REAL)
    f = lambda m: lambda x: x + m * jnp.roll(x, 1)
    for k in range(6):
        A, _ = lp.materialise_sparse(f((k + 1) * mask), B[:30])
        assert A.pattern.nnz == 30 + int(mask.sum())
    assert detections() == 1
    for k in range(12):  # until it is no longer asked: then the pattern holds for every mask
        moved = jnp.roll(mask, k) * (k + 1)
        A, _ = lp.materialise_sparse(f(moved), B[:30])
        np.testing.assert_allclose(A.as_matrix(), jax.jacfwd(f(moved))(B[:30]))
    assert detections() <= 1 + 5
    assert A.pattern.nnz == 60


INDEX = jnp.asarray([2, 0, 3, 1])
SQUARE = jnp.arange(16.0, dtype=REAL).reshape(4, 4) + 1

DECIDING = {
    # function of x and a, and three values of a: the second decides as the first, the third does not
    "where": (
        lambda x, a: jnp.where(a > 0, x, x[::-1]),
        [[1, -1, 2, -2], [3, -5, 1, -1], [1, -1, -2, 1]],
    ),
    "index": (
        lambda x, a: x[jnp.floor(a).astype(int)],
        [[2, 0, 3, 1], [2.5, 0, 3, 1.5], [1, 1, 3, 1]],
    ),
    "product of two": (
        lambda x, a: (a - 1) * (a - 2) * jnp.roll(x, 1) + x,
        [[0, 1, 2, 3], [4, 1, 2, 5], [1, 1, 3, 4]],
    ),
    "loop": (
        lambda x, a: lax.fori_loop(0, 4, lambda k, c: x + a[k] * jnp.roll(c, 1), x),
        [[1, 0, 2, 3], [4, 0, 2, 1], [4, 1, 2, 1]],
    ),
    "scan": (
        lambda x, a: lax.scan(lambda c, s: (x + s * jnp.roll(c, 1), s * c), x, a)[1].sum(0),
        [[1, 0, 2, 3], [4, 0, 2, 1], [4, 1, 2, 1]],
    ),
    "while": (
        lambda x, a: lax.while_loop(
            lambda c: c[0] < a[0], lambda c: (c[0] + 1, c[1] + jnp.roll(c[1], 1)), (0, x)
        )[1],
        [[0.5, 0, 0, 0], [0.75, 1, 2, 3], [1.5, 0, 0, 0]],
    ),
    "cond": (
        lambda x, a: lax.cond(a.sum() > 0, lambda x: jnp.roll(x, 1), lambda x: x[::-1], x),
        [[1, 2, 3, -4], [1, 1, 1, 1], [-1, -1, 1, 0]],
    ),
    "matrix": (
        lambda x, a: (SQUARE * (a[:, None] > 0).astype(REAL) * a) @ x,
        [[1, 2, 0, -4], [5, 1, 0, -1], [1, 1, 1, 0]],
    ),
    "convolution": (
        lambda x, a: jnp.convolve(x, a, mode="same"),
        [[1, 0, 2, 0], [2, 0, 1, 0], [1, 1, 1, 0]],
    ),
}


@pytest.mark.parametrize("name", DECIDING)
def test_decisions_are_asked_again(name):
    """S0-18, S0-19: other values that decide the same share the pattern, and no others do."""
    f, values = DECIDING[name]
    x = B[:4]
    counts = []
    for value in [*values, values[0]]:
        a = jnp.asarray(value, REAL)
        A, _ = lp.materialise_sparse(lambda x, a=a: f(x, a), x)
        expected = np.asarray(jax.jacfwd(lambda x, a=a: f(x, a))(x))
        np.testing.assert_allclose(A.as_matrix(), expected, atol=TOL)
        counts.append(detections())
    assert counts == [1, 1, 2, 2]


def test_long_loops_are_not_asked_again():
    """S0-19: where to ask again would cost as much, equal arrays are remembered, and others are not."""
    a = jnp.asarray(np.arange(1, 6001) % 2, REAL)
    f = lambda a: lambda x: lax.scan(lambda c, s: (c + s * x, None), x, a)[0]  # (6000 values of a)
    for k, expected in [(1, 1), (1, 1), (2, 2)]:
        A, _ = lp.materialise_sparse(f(k * a), B[:3])
        np.testing.assert_allclose(A.as_matrix(), (1 + 3000 * k) * np.eye(3))
        assert detections() == expected


def test_arrays_are_not_kept():
    """S0-19: what is remembered holds no array of the user's."""
    c = jnp.asarray(np.asarray(C[:5]))
    alive = weakref.ref(c)
    lp.materialise_sparse(lambda x: (2 * c) * x, B[:5])
    assert detections() == 1
    del c
    gc.collect()
    assert alive() is None


def test_a_random_key_is_captured():
    """S0-18: keys have no numbers of their own, but what is drawn with them decides."""
    f = lambda key: (
        lambda x: x + jax.random.bernoulli(key, 0.5, x.shape).astype(REAL) * jnp.roll(x, 1)
    )
    for seed, expected in [(0, 1), (0, 1), (1, 2)]:
        key = jax.random.key(seed)
        A, _ = lp.materialise_sparse(f(key), B[:30])
        np.testing.assert_allclose(A.as_matrix(), jax.jacfwd(f(key))(B[:30]))
        assert A.pattern.nnz < 60
        assert detections() == expected


def test_numbers_in_integers_and_complex():
    """S0-19: integers are a part of the program; complex numbers are coefficients like others."""
    for k in range(3):
        A, _ = lp.materialise_sparse(lambda x, k=k: (1.5 + 1j * k) * x, lax.complex(B[:3], B[:3]))
        np.testing.assert_allclose(A.as_matrix(), (1.5 + 1j * k) * np.eye(3))
        A, _ = lp.materialise_sparse(lambda x, k=k: jnp.roll(x, k + 1), B[:7])
        np.testing.assert_allclose(A.as_matrix(), np.eye(7)[(np.arange(7) - k - 1) % 7])


def test_numbers_inside_of_transformations():
    """S0-19: derivatives by captured arrays pass, and nothing depends on numbers being captured."""
    loss = lambda c: lp.solve(lambda x: 2.5 * c * x - 0.5 * jnp.roll(x, 1), B).sum()
    h = 1e-6 if REAL == np.float64 else 1e-2
    numeric = (loss(1 + h) - loss(1 - h)) / (2 * h)
    np.testing.assert_allclose(
        jax.grad(loss)(jnp.ones((), REAL)), numeric, rtol=1e-5 if h < 1e-4 else 0.1
    )
    many = jax.vmap(loss)(jnp.asarray([1, 2.0], REAL))
    np.testing.assert_allclose(many, [loss(1.0), loss(2.0)], rtol=1e-4)
    np.testing.assert_allclose(jax.jit(loss)(jnp.ones((), REAL)), loss(1.0), rtol=1e-4)
