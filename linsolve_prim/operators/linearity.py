"""Is a Python function linear? And if it is affine, what are its linear part and its offset?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from .._tree import tree_sub, tree_zeros
from ..errors import NonlinearFunctionError
from .closure import ClosedFunction, close
from .dependence import CONSTANT, LINEAR, Notes, interpret, join
from .function import _inexact
from .structures import inexact_structure

Function = Callable[[PyTree[Array]], PyTree[Array]]


def check_linear(fn: Function, structure: PyTree) -> str:
    """`"linear"` if fn(x) = Ax is seen from its trace, `"affine"` if fn(x) = Ax + c.

    **Arguments**: `fn`, a function of one pytree, and the `structure` of that pytree. Nothing is
    evaluated. An offset that happens to be zero is not noticed, and counts as affine.

    **Raises** `NonlinearFunctionError`, naming the JAX primitive that is not linear.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> f = lambda x: jnp.roll(x, 1) - x
        >>> g = lambda x: f(x) + 1
        >>> lp.operators.check_linear(f, jnp.zeros(3)), lp.operators.check_linear(g, jnp.zeros(3))
        ('linear', 'affine')
    """
    return _analyse(close(_inexact(fn), inexact_structure(structure)))[0]


def split_affine(fn: Function, structure: PyTree) -> tuple[Function, PyTree[Array] | None]:
    """`(linear, offset)` with fn(x) = linear(x) + offset; the offset is `None` if it is zero.

    Both are differentiable in what `fn` captures. A linear `fn` comes back as it is, traced.

    **Raises** `NonlinearFunctionError` as `check_linear` does.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> linear, offset = lp.operators.split_affine(lambda x: 2 * x + 1, jnp.zeros(2))
        >>> print(linear(jnp.ones(2)), offset)
        [2. 2.] [1. 1.]
    """
    structure = inexact_structure(structure)
    closed = close(_inexact(fn), structure)
    kind, notes = _analyse(closed)
    if kind == "linear":
        return closed, None
    zeros = tree_zeros(structure)
    if notes.hides_derivative:  # by `stop_gradient`, or because there is only a `custom_vjp`
        offset = closed(zeros)
        return lambda x: tree_sub(closed(x), offset), offset
    offset, linear = jax.linearize(closed, zeros)
    return linear, offset


def _analyse(closed: ClosedFunction) -> tuple[str, Notes]:
    notes = Notes()
    arguments = [LINEAR] * len(closed.signature.structures)
    constants: list[Any] = [CONSTANT] * len(closed.consts)
    out = join(interpret(closed.program.jaxpr, [*constants, *arguments], notes))
    if out.culprit is not None:
        raise NonlinearFunctionError(
            f"fn: must be linear or affine in its argument, but the JAX primitive `{out.culprit}` "
            "is applied to a value that depends on it, and is not linear there. Pass "
            "`JacobianLinearOperator(fn, x)` for the derivative of a nonlinear function, or use a "
            "nonlinear solver to find a root of it."
        )
    return ("affine" if out.offset else "linear"), notes
