"""Every preconditioner makes an operator that keeps the laws of operators, and the promises of its tags."""

import jax.numpy as jnp
import numpy as np
from krylov_tools import EPS, normal, quick_jit
from preconditioner_problems import SMALL, cases, operator

import linsolve_prim as lp
from linsolve_prim.testing import check_operator


def made(row, kind):
    a = operator(SMALL[kind][1], SMALL[kind][0])
    return a, row.make().init(a)


@cases("complex", slow=("definite", "hermitian", "general", "negative"))
def test_made_operators_keep_the_laws(row, kind):
    """Linear; with the right transpose and conjugate; `jit`; tags that the matrix keeps."""
    check_operator(made(row, kind)[1])


@quick_jit
def matrices(m):
    """M, Mᵀ and conj(M), dense."""
    return m.as_matrix(), m.T.as_matrix(), lp.conj(m).as_matrix()


@cases("definite", slow=("hermitian",))
def test_what_is_made_of_definite_operators_S1_14(row, kind):
    """It is definite where `keeps_definite` says so, which CG asks; and the tags say it too."""
    a, m = made(row, kind)
    matrix, transpose, conjugate = map(np.asarray, matrices(m))
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(transpose, matrix.T, rtol=0, atol=1000 * EPS * scale)
    np.testing.assert_allclose(conjugate, matrix.conj(), rtol=0, atol=1000 * EPS * scale)
    assert row.make().keeps_definite(a) == row.definite
    if row.definite:
        assert lp.is_positive_semidefinite(m)
        assert lp.is_symmetric(m) >= lp.is_symmetric(a)
        np.testing.assert_allclose(matrix, matrix.conj().T, rtol=0, atol=100 * EPS * scale)
        assert np.linalg.eigvalsh(matrix).min() > 0


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
