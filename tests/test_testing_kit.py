"""`linsolve_prim.testing`: passes what is right, and names what is wrong (rows S2-03, S2-24)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from external_solver import SuperLU
from solver_table import BY_ID, COMPLEX, REAL, X64, over

import linsolve_prim as lp
from linsolve_prim import testing

OPERATORS = ["lu", "lu-pytree", "lu-function", "lu-jacobian", "qr-wide", "cholesky-nsd"]
STRUCTURED = ["triangular-unit", "tridiagonal", "diagonal-zero"]
RTOL = 1e-7 if X64 else 2e-3


@over(OPERATORS + STRUCTURED, (COMPLEX,))
def test_operators_of_the_table_keep_the_laws(case, dtype):
    testing.check_operator(case.build(case.params(dtype)))


@over(["lu-function", "lu-pytree"], (REAL,))
def test_real_operators_keep_the_laws(case, dtype):
    operator = case.build(case.params(dtype))
    testing.check_operator(operator)
    testing.check_operator(operator.transpose())
    testing.check_operator(lp.conj(operator))


QUICK = ["lu", "qr-tall", "cholesky-psd", "triangular-lower", "superlu"]
COSTLY = [
    "svd-wide",
    "tridiagonal",
    "cg",
    "diagonal",
    "normal-cholesky",
    "gmres-pytree",
    "bicgstab",
    "lsmr-tall",
    "normal-cg",
]


def _check(case, dtype):
    testing.check_solver(case.solver, case.build(case.params(dtype)), rtol=RTOL)


@over(QUICK, (REAL,))
def test_solvers_of_the_table_keep_the_laws_S2_03(case, dtype):
    """A solver written by a third party, of 15 lines, passes as ours do."""
    _check(case, dtype)


@over(["lu", "superlu"], (COMPLEX,))
def test_complex_solvers_keep_the_laws_S2_24(case, dtype):
    _check(case, dtype)


@pytest.mark.slow
@over(QUICK + COSTLY, (REAL,))
def test_all_solvers_keep_the_laws(case, dtype):
    _check(case, dtype)


@pytest.mark.slow
@over(QUICK + COSTLY, (COMPLEX,))
def test_all_complex_solvers_keep_the_laws(case, dtype):
    _check(case, dtype)


# ---- operators that break a law ------------------------------------------------------------------


class _Wrapper(lp.AbstractLinearOperator):
    """A dense operator, of which subclasses break one thing."""

    matrix: jax.Array

    def mv(self, vector):
        return self.matrix @ vector

    def transpose(self):
        return lp.MatrixLinearOperator(self.matrix.T)

    def in_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[1:], self.matrix.dtype)

    def out_structure(self):
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)


class _WrongTranspose(_Wrapper):
    def transpose(self):
        return lp.MatrixLinearOperator(self.matrix)


class _AdjointForTranspose(_Wrapper):
    def transpose(self):
        return lp.MatrixLinearOperator(self.matrix.conj().T)


class _Nonlinear(_Wrapper):
    def mv(self, vector):
        return self.matrix @ vector + vector**2


class _Affine(_Wrapper):
    def mv(self, vector):
        return self.matrix @ vector + 1


class _WrongShape(_Wrapper):
    def mv(self, vector):
        return (self.matrix @ vector)[:-1]


class _ConjugateForgotten(_Wrapper):
    """`conj(A)` of it acts as A."""


@lp.conj.register(_ConjugateForgotten)
def _conj(operator):
    return operator


def _matrix(dtype=REAL):
    return BY_ID["lu"].build(BY_ID["lu"].params(dtype)).as_matrix()


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_the_unbroken_wrapper_passes(dtype):
    testing.check_operator(_Wrapper(_matrix(dtype)))


@pytest.mark.parametrize(
    ("operator", "dtype", "law"),
    [
        (_WrongTranspose, REAL, "transpose: "),
        (_AdjointForTranspose, COMPLEX, "transpose: "),
        (_Nonlinear, REAL, "linearity: "),
        (_Affine, REAL, "linearity: "),
        (_WrongShape, REAL, "A.mv.x. has out_structure"),
        (_ConjugateForgotten, COMPLEX, r"conj\(A\)x = conj\(A conj\(x\)\)"),
    ],
)
def test_broken_operators_are_named(operator, dtype, law):
    with pytest.raises(AssertionError, match=law):
        testing.check_operator(operator(_matrix(dtype)))


@pytest.mark.parametrize(
    ("tag", "promise"),
    [
        (lp.symmetric_tag, "transpose: "),
        (lp.lower_triangular_tag, "is_lower_triangular"),
        (lp.upper_triangular_tag, "is_upper_triangular"),
        (lp.positive_semidefinite_tag, "transpose: "),
        (lp.unit_diagonal_tag, "has_unit_diagonal"),
    ],
    ids=str,
)
def test_broken_promises_are_named(tag, promise):
    with pytest.raises(AssertionError, match=promise):
        testing.check_operator(lp.MatrixLinearOperator(_matrix(), tag))


# ---- solvers that break a law --------------------------------------------------------------------


class _Broken(lp.AbstractLinearSolver):
    """LU, but for one thing."""

    fault: str = eqx.field(static=True)

    def init(self, operator, options):
        return lp.LU().init(operator, options)

    def compute(self, state, vector, options):
        x, result, stats = lp.LU().compute(state, vector, options)
        if self.fault == "inexact":
            return x * 1.1, result, stats
        if self.fault == "affine":
            return x + jnp.asarray(3e-7 if X64 else 2e-4, x.dtype), result, stats
        if self.fault == "pessimist":
            return x, lp.RESULTS.singular, stats
        return x, result, stats

    def transpose(self, state, options):
        if self.fault == "transpose":
            return state, options
        state, options = lp.LU().transpose(state, options)
        return lp.LU().conj(state, options) if self.fault == "adjoint" else (state, options)

    def conj(self, state, options):
        if self.fault == "conj":
            return state, options
        state, options = lp.LU().conj(state, options)
        return lp.LU().transpose(state, options) if self.fault == "conj-is-H" else (state, options)

    def assume_full_rank(self):
        return True


def test_the_unbroken_solver_passes():
    testing.check_solver(_Broken("none"), lp.MatrixLinearOperator(_matrix()))


@pytest.mark.parametrize(
    ("fault", "dtype", "law"),
    [
        ("transpose", REAL, r"transpose\(state\) solves with Aᵀ"),
        ("adjoint", COMPLEX, r"transpose\(state\) solves with Aᵀ"),
        ("conj", COMPLEX, r"conj\(state\) solves with conj\(A\)"),
        ("conj-is-H", COMPLEX, r"conj\(state\) solves with conj\(A\)"),
        ("conj-is-H", REAL, r"conj\(state\) solves with conj\(A\)"),
        ("inexact", REAL, "a fitting system is solved"),
        ("pessimist", REAL, "a fitting system is solved"),
    ],
)
def test_broken_solvers_are_named_S2_24(fault, dtype, law):
    with pytest.raises(AssertionError, match=law):
        testing.check_solver(_Broken(fault), lp.MatrixLinearOperator(_matrix(dtype)))


def test_a_solver_that_is_not_linear_is_named():
    rtol = 1e-9 if X64 else 1e-5
    with pytest.raises(AssertionError, match="linearity: "):
        testing.check_solver(_Broken("affine"), lp.MatrixLinearOperator(_matrix()), rtol=rtol)


class _WrongTurn(SuperLU):
    """The host solver with `transpose` returning itself, as in the thread's sample (row S2-24)."""

    def transpose(self, state, options):
        return state, options


def test_host_solver_without_a_transpose_is_named_S2_24():
    with pytest.raises(AssertionError, match="transpose"):
        testing.check_solver(_WrongTurn(), lp.MatrixLinearOperator(_matrix()))


def test_a_singular_system_does_not_pass():
    with pytest.raises(AssertionError, match="a fitting system is solved"):
        testing.check_solver(lp.LU(), lp.MatrixLinearOperator(jnp.ones((3, 3), REAL)))
