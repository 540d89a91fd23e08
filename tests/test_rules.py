"""The rules of the derivative, literally: inverses, outer products, adjoints, and what is skipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linsolve_prim as lp

DTYPE = jnp.result_type(float)
COMPLEX = jnp.result_type(complex)
TOL = 1e-9 if DTYPE == jnp.float64 else 1e-3


def draw(*shape, seed=0, dtype=DTYPE):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if dtype == COMPLEX:
        x = x + 1j * rng.normal(size=shape)
    return jnp.asarray(x, dtype)


def matrix(n=6, seed=0, dtype=DTYPE):
    return draw(n, n, seed=seed, dtype=dtype) + jnp.asarray(3 * np.eye(n), dtype)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=TOL, atol=TOL)


def test_jacobian_by_the_right_hand_side_is_the_inverse():
    """S1-01: ∂x/∂b = A⁻¹, forward and reverse."""
    a, b = matrix(), draw(6, seed=1)
    close(jax.jacfwd(lambda b: lp.solve(a, b))(b), np.linalg.inv(a))
    close(jax.jacrev(lambda b: lp.solve(a, b))(b), np.linalg.inv(a))


def test_matrix_cotangent_is_an_outer_product():
    """S1-02: Ā = −λxᵀ with λ = A⁻ᵀx̄."""
    a, b, w = matrix(), draw(6, seed=1), draw(6, seed=2)
    got = jax.grad(lambda a: w @ lp.solve(a, b))(a)
    close(got, -np.outer(np.linalg.solve(a.T, w), np.linalg.solve(a, b)))


@pytest.mark.parametrize("hermitian", [True, False])
def test_complex_adjoints(hermitian):
    """S2-18, B-11: cotangents of complex systems, Hermitian and not, from the same factor."""
    a, b, w = matrix(dtype=COMPLEX), draw(6, seed=1, dtype=COMPLEX), draw(6, seed=2, dtype=COMPLEX)
    tags = ()
    if hermitian:
        a, tags = a @ a.conj().T, lp.positive_semidefinite_tag
    solver = lp.Cholesky() if hermitian else lp.LU()

    def solve(b):
        return lp.linear_solve(lp.MatrixLinearOperator(a, tags), b, solver).value

    _, pull = jax.vjp(solve, b)
    close(pull(w)[0], np.linalg.solve(a.T, w))  # JAX's convention: no conjugation
    conjugated = lp.linear_solve(lp.conj(lp.MatrixLinearOperator(a, tags)), b, solver)
    close(conjugated.value, np.linalg.solve(a.conj(), b))


def test_the_adjoint_is_one_more_solve():
    """S1-03: no unrolling; the adjoint takes about as many steps as the solve, each one product."""
    n = 30
    a = jnp.asarray(np.diag(np.linspace(1, 10, n)) + 0.05 * np.ones((n, n)), DTYPE)
    b = draw(n, seed=1)
    products = []

    @jax.custom_jvp
    def counted(v):
        jax.debug.callback(lambda _: products.append(1), v[0])
        return v

    counted.defjvp(lambda primals, tangents: (counted(*primals), tangents[0]))

    class Counted(lp.AbstractLinearOperator):
        tags = frozenset([lp.positive_semidefinite_tag])

        def mv(self, vector):
            return a @ counted(vector)

        def transpose(self):
            return self

        def in_structure(self):
            return jax.ShapeDtypeStruct((n,), DTYPE)

        def out_structure(self):
            return self.in_structure()

    rtol = 1e-8 if DTYPE == jnp.float64 else 1e-5
    solve = lambda b: lp.linear_solve(Counted(), b, lp.CG(rtol=rtol)).value
    jax.block_until_ready(solve(b))
    jax.effects_barrier()
    forward = len(products)
    products.clear()
    jax.block_until_ready(jax.grad(lambda b: jnp.sum(solve(b) ** 2))(b))
    jax.effects_barrier()
    assert forward < len(products) <= 3 * forward + 4


def _shapes(jaxpr):
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                if hasattr(inner, "jaxpr") and hasattr(inner, "consts"):
                    yield from _shapes(inner.jaxpr)
        yield eqn.primitive.name, [v.aval.shape for v in eqn.outvars]


def test_nothing_of_the_size_of_the_matrix_is_made_for_b_alone():
    """S1-04, S0-33: symbolic zeros skip the operator's part of the derivative."""
    a, b = matrix(), draw(6, seed=1)
    state = lp.LU().init(lp.MatrixLinearOperator(a), {})

    def loss(a, b):
        operator = lp.MatrixLinearOperator(a)
        return jnp.sum(lp.linear_solve(operator, b, lp.LU(), state=state, throw=False).value ** 2)

    of_b = list(_shapes(jax.make_jaxpr(jax.grad(loss, 1))(a, b).jaxpr))
    made = {name for name, shapes in of_b if (6, 6) in shapes}
    assert made <= {"transpose", "stop_gradient", "copy"}, made
    of_a = list(_shapes(jax.make_jaxpr(jax.grad(loss, 0))(a, b).jaxpr))
    assert {name for name, shapes in of_a if (6, 6) in shapes} > made


def test_dependent_rows_and_columns():
    """S2-12: what a solver allows, by shape, and by saying so itself."""
    tall = lp.MatrixLinearOperator(draw(5, 3))
    square = lp.MatrixLinearOperator(matrix())
    assert lp.QR().allow_dependent_rows(tall)
    assert not lp.QR().allow_dependent_columns(tall)
    assert lp.SVD().allow_dependent_columns(tall)
    assert not lp.LU().allow_dependent_columns(square)
    assert not lp.LU().allow_dependent_rows(square)


def test_a_callback_alone_has_no_transpose_but_a_solver_has():
    """S2-02: a host function inside a solver is differentiated in reverse, and again."""

    class Host(lp.AbstractLinearSolver):
        def init(self, operator, options):
            return operator.as_matrix()

        def compute(self, state, vector, options):
            like = jax.ShapeDtypeStruct(vector.shape, vector.dtype)
            call = lambda a, b: np.linalg.solve(np.asarray(a), np.asarray(b)[..., None])[..., 0]
            x = jax.pure_callback(call, like, state, vector, vmap_method="broadcast_all")
            return x, lp.RESULTS.successful, {}

        def transpose(self, state, options):
            return state.T, options

        def conj(self, state, options):
            return state.conj(), options

        def assume_full_rank(self):
            return True

    a, b = matrix(3), draw(3, seed=1)
    loss = lambda f: lambda a, b: jnp.sum(jnp.sin(f(a, b)))
    ours = loss(lambda a, b: lp.solve(a, b, Host()))
    theirs = loss(jnp.linalg.solve)
    for transform in (jax.grad, jax.hessian):
        got, want = (transform(f, (0, 1))(a, b) for f in (ours, theirs))
        jax.tree.map(close, got, want)


def test_more_entries_than_int32_can_count():
    """B-05: a matrix-free operator with n² > 2³¹ entries is solved, and differentiated."""
    side = 256
    n = side * side
    assert n * n > 2**31

    def stencil(u):
        u = u.reshape(side, side)
        return (5 * u - jnp.roll(u, 1, 0) - jnp.roll(u, -1, 1)).reshape(-1)

    b = draw(n, seed=1)
    solver = lp.GMRES(rtol=1e-5)
    x = lp.solve(stencil, b, solver)
    assert float(jnp.linalg.norm(stencil(x) - b) / jnp.linalg.norm(b)) <= 1.1e-5
    g = jax.grad(lambda b: jnp.sum(lp.solve(stencil, b, solver)))(b)
    np.testing.assert_allclose(g, np.full(n, 1 / 3), rtol=1e-3)
