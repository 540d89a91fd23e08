"""What XLA has to compile of a Krylov solve: on CPU each *different* kernel costs about as much."""

import itertools
import re

import jax
import jax.numpy as jnp
import pytest

import linsolve_prim as lp

M = 64


def kernels(f, *args):
    """The different kernels of a compiled program, as text. Sums and maxima come from a library."""
    text = jax.jit(f).lower(*args).compile().as_text()
    library = set(re.findall(r"kind=kCustom, calls=%?([\w.\-]+)", text))
    called = set(re.findall(r" fusion\(.*?calls=%?([\w.\-]+)", text)) - library
    blocks = re.findall(r"(?m)^%?([\w.\-]+) \([^\n]*\{\n(.*?)\n\}", text, re.DOTALL)
    return {_without_names(body) for name, body in blocks if name in called}


def _without_names(body):
    body = re.sub(r", (?:metadata|backend_config|frontend_attributes)=\{.*", "", body)
    number = itertools.count()
    names = {}
    return re.sub(r"%[\w.\-]+", lambda m: names.setdefault(m[0], f"%{next(number)}"), body)


def stencil(c, x):
    padded = jnp.pad(x, 1)
    y = (4 + c) * x
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        y = y - jax.lax.slice(padded, (row, column), (row + M, column + M))
    return y


def solve(solver, tags=lp.positive_semidefinite_tag, throw=False):
    def fn(c, b):
        operator = lp.FunctionLinearOperator(lambda x: stencil(c, x), b, tags)
        return lp.linear_solve(operator, b, solver, throw=throw).value

    return fn


def gradient(fn):
    return jax.grad(lambda c, b: jnp.sum(fn(c, b) ** 2), argnums=(0, 1))


ARGS = jnp.ones(()), jnp.ones((M, M))
SOLVERS = [lp.CG(rtol=1e-4), lp.BiCGStab(rtol=1e-4)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_the_true_residual_and_the_adjoint_compile_no_other_product(solver):
    found = [kernel for kernel in kernels(gradient(solve(solver)), *ARGS) if "slice(" in kernel]
    products = [kernel for kernel in found if f"[{M + 2},{M + 2}]" in kernel]
    assert len(products) == 1


@pytest.mark.parametrize(("throw", "most"), [(False, 16), (True, 23)])
def test_kernels_of_the_gradient_of_cg(throw, most):
    solver = lp.CG(rtol=1e-4)
    forward = kernels(solve(solver, throw=throw), *ARGS)
    both = kernels(gradient(solve(solver, throw=throw)), *ARGS)
    assert len(both) <= most
    assert len(both - forward) <= 4  # the adjoint solve runs the kernels of the forward one
