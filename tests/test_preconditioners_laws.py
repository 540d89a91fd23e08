"""Every preconditioner makes an operator that keeps the laws of operators, and the promises of its tags."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov_tools import EPS, normal
from preconditioner_problems import SMALL, cases, operator

import linsolve_prim as lp
from linsolve_prim.testing import check_operator


def made(row, kind):
    a = operator(SMALL[kind][1], SMALL[kind][0])
    return a, row.make().init(a)


@cases("definite", "complex", slow=("hermitian", "general", "negative"))
def test_made_operators_keep_the_laws(row, kind):
    """Linear; with the right transpose and conjugate; `jit`; tags that the matrix keeps."""
    a, m = made(row, kind)
    check_operator(m)
    definite = SMALL[kind][0] in ("definite", "negative") and row.definite
    assert row.make().keeps_definite(a) == (definite or "absolute" in row.name)
    if definite and "absolute" not in row.name:
        same = lp.is_positive_semidefinite, lp.is_negative_semidefinite, lp.is_symmetric
        assert all(has(m) >= has(a) for has in same)
        values = np.linalg.eigvalsh(np.asarray(m.as_matrix()))
        assert np.all(values > 0) or np.all(values < 0)


@cases("negative")
def test_negative_definite_operators_S0_23(row, kind):
    """What is made of −A is the negative of what is made of A, and tagged so."""
    a, m = made(row, "definite")
    other = row.make().init(-a)
    x = jnp.asarray(normal(a.in_size(), a.values.dtype))
    sign = 1 if "absolute" in row.name else -1
    np.testing.assert_allclose(other.mv(x), sign * m.mv(x), rtol=0, atol=1000 * EPS)
    if row.definite and sign == -1:
        assert lp.is_negative_semidefinite(other)
        assert not lp.is_positive_semidefinite(other)


@cases("complex", slow=("definite",))
def test_built_from_traced_values_batched_and_differentiated(row, kind):
    """Under `jit` and `vmap` over values M is what it is eagerly, and its derivatives are zero."""
    a, m = made(row, kind)
    x = jnp.asarray(normal(a.in_size(), a.values.dtype))
    preconditioner = row.make()

    def apply(values):
        return preconditioner.init(lp.SparseLinearOperator(values, a.pattern, a.tags)).mv(x)

    batch = jnp.stack([a.values, 2 * a.values])
    got = jax.jit(jax.vmap(apply))(batch)
    for i in range(2):
        np.testing.assert_allclose(got[i], m.mv(x) / (i + 1), rtol=0, atol=1000 * EPS)
    moved = jax.jvp(apply, (a.values,), (a.values,))[1]
    np.testing.assert_array_equal(moved, 0)


@cases("general")
def test_other_operators_or_a_message(row, kind):
    """Dense operators, and functions of pytrees, are taken up to a size; what is not square is refused."""
    a = operator(SMALL[kind][1])
    dense = lp.MatrixLinearOperator(a.as_matrix())
    want = row.make().init(a)
    x = jnp.asarray(normal(36, a.values.dtype))
    like = {"u": jax.ShapeDtypeStruct((6, 4), x.dtype), "v": jax.ShapeDtypeStruct((12,), x.dtype)}
    join = lambda tree: jnp.concatenate([tree["u"].ravel(), tree["v"]])
    cut = lambda v: {"u": v[:24].reshape(6, 4), "v": v[24:]}
    function = lp.FunctionLinearOperator(lambda t: cut(a.mv(join(t))), like)
    if row.name.startswith(("ILU", "IC")):  # all entries: exact factors
        exact = np.linalg.solve(dense.matrix, x)
        if "sweeps" not in row.name:
            full = type(row.make())(sweeps="exact").init(dense)
            np.testing.assert_allclose(full.mv(x), exact, rtol=0, atol=1e4 * EPS)
        want = row.make().init(dense)
    for operator_, to, back in ((dense, lambda v: v, lambda v: v), (function, cut, join)):
        m = row.make().init(operator_)
        np.testing.assert_allclose(back(m.mv(to(x))), want.mv(x), rtol=0, atol=1e3 * EPS)
        assert m.in_structure() == operator_.out_structure()
    with pytest.raises(ValueError, match=r"operator: `\w+` needs one structure for input and out"):
        row.make().init(lp.MatrixLinearOperator(jnp.ones((3, 2))))
