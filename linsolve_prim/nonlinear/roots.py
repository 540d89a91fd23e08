"""`root_solve`, `solve_nonlinear`, `fixed_point`: nonlinear equations with implicit derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from .._tree import tree_sub
from .._types import (
    check_args,
    inexact_asarray,
    same_shapes,
    structure_equal,
    structure_of,
    structure_str,
)
from ..errors import StructureError
from ..primitive import failures
from ..results import Solution
from .anderson import Anderson, minus
from .equation import as_unknown, check_function, make_equation
from .implicit import solve_implicitly
from .newton import Newton, check_finder


def root_solve(
    f: Callable[..., PyTree[Any]],
    x0: PyTree[Any],
    solver: Any = None,
    *,
    args: tuple[Any, ...] = (),
    jacobian: Callable[..., Any] | None = None,
    tags: Any = (),
    adjoint: Any = None,
    throw: bool = True,
    suppress: Any = (),
    name: str | None = None,
) -> Solution:
    """Solve f(x, *args) = 0.

    **Arguments**

    - `f`: a function of a pytree that returns as many numbers as that holds.
    - `x0`: where to start: a pytree of arrays or numbers. (No derivative flows into it.)
    - `solver`: `lp.nonlinear.Newton(...)` (the default), `lp.nonlinear.newton_krylov(...)`, or any
      linear solver, which then makes Newton's steps.
    - `jacobian`: x, *args ↦ ∂f/∂x as an operator, such as a `SparseLinearOperator`. By default a
      `JacobianLinearOperator`, of which matrix-free solvers take products and others make the matrix.
    - `tags`: what is promised about the Jacobian, such as `lp.positive_semidefinite_tag`.
    - `adjoint`: what solves for derivatives: a linear solver or an `ImplicitAdjoint`; by default the
      solver of Newton's steps.
    - `throw`, `suppress`, `name`: as for `linear_solve`; they govern derivatives as well.

    **Returns** a `Solution`; of its `stats`, `"residual_norm"` is ‖f(x)‖₂, `"relative_residual"` the
    same over ‖f(x0)‖₂, and there are `"evaluations"`, `"linear_steps"` (of Krylov methods, summed)
    and `"factorizations"` (how many Jacobians were factorized or set up).

    **Raises** `NotConverged` (too many steps, or no step makes ‖f‖ smaller: a local minimum of it,
    perhaps), `SingularMatrixError` (of the Jacobian), `Diverged`, `NonFiniteInputError` (of f(x0)).

    Derivatives by everything that `f` captures and by `args` are those of the implicit function
    theorem, forward and reverse, to any order; they cost one linear solve each, and no memory for the
    iteration.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> root = lambda a: lp.root_solve(lambda x: x**2 - a, jnp.ones(2)).value
        >>> print(root(jnp.array([1.0, 4.0])).round(3))
        [1. 2.]
        >>> print(jax.jacobian(root)(jnp.array([1.0, 4.0])).round(3) + 0.0)  # 1/(2x)
        [[0.5  0.  ]
         [0.   0.25]]
    """
    check_function(f, "f")
    check_args(args)
    x0 = as_unknown(x0)
    of_x = None if jacobian is None else lambda x: jacobian(x, *args)
    equation = make_equation(lambda x: f(x, *args), x0, of_x, tags)
    finder = check_finder(solver, Newton())
    return solve_implicitly(
        equation,
        finder,
        x0,
        finder.derivative_solver(),
        adjoint,
        failures(throw, suppress),
        name,
    )


def solve_nonlinear(
    f: Callable[..., PyTree[Any]],
    y: PyTree[Any],
    x0: PyTree[Any],
    solver: Any = None,
    *,
    args: tuple[Any, ...] = (),
    **settings: Any,
) -> PyTree[Array]:
    """The x with f(x, *args) = y: `root_solve` of f(x) − y, and only its value.

    ```python
    x = lp.solve_nonlinear(lambda x: x**3, jnp.array([8.0, 27.0]), x0=jnp.ones(2))  # (2, 3)
    ```

    - `y`: a pytree of the structure of f(x), which derivatives flow into.
    - `f`, `x0`, `solver`, `args` and all further settings: as for `root_solve`.

    **Raises** `StructureError` if y does not have the structure of f(x); else as `root_solve` does.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> print(lp.solve_nonlinear(lambda x: x**3, jnp.array([1.0, 8.0]), jnp.ones(2)).round(3))
        [1. 2.]
    """
    check_function(f, "f")
    check_args(args)
    y = jax.tree.map(inexact_asarray, y)

    def difference(x: PyTree[Array]) -> PyTree[Array]:
        out = jax.tree.map(inexact_asarray, f(x, *args))
        if not same_shapes(out, y):
            raise StructureError(
                f"y: must have the structure of f(x), {structure_str(structure_of(out))}; got "
                f"{structure_str(structure_of(y))}."
            )
        return tree_sub(out, jax.tree.map(lambda a, b: a.astype(b.dtype), y, out))

    if settings.get("jacobian") is not None:
        given = settings["jacobian"]
        settings["jacobian"] = lambda x: given(x, *args)
    return root_solve(difference, x0, solver, **settings).value


def fixed_point(
    g: Callable[..., PyTree[Any]],
    x0: PyTree[Any],
    solver: Any = None,
    *,
    args: tuple[Any, ...] = (),
    adjoint: Any = None,
    throw: bool = True,
    suppress: Any = (),
    name: str | None = None,
) -> Solution:
    """Solve x = g(x, *args).

    - `g`: a function of a pytree that returns one of the same structure.
    - `x0`: where to start. (No derivative flows into it.)
    - `solver`: `lp.nonlinear.Anderson(...)` (the default), or Newton's method for x − g(x).
    - `args`, `adjoint`, `throw`, `suppress`, `name`: as for `root_solve`.

    **Returns** a `Solution`, whose `"residual_norm"` is ‖g(x) − x‖₂. Derivatives are those of the
    implicit function theorem, x′ = (I − ∂g/∂x)⁻¹ g′, to any order: the backward pass of a
    deep-equilibrium model (Bai, Kolter and Koltun, 2019, arXiv:1909.01377) is one linear solve.

    **Raises** as `root_solve` does.

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> sqrt = lambda a: lp.fixed_point(lambda x: (x + a / x) / 2, jnp.ones(2)).value
        >>> print(sqrt(jnp.array([1.0, 4.0])).round(3))
        [1. 2.]
        >>> print(jax.jacobian(sqrt)(jnp.array([1.0, 4.0])).round(3) + 0.0)
        [[0.5  0.  ]
         [0.   0.25]]
    """
    check_function(g, "g")
    check_args(args)
    x0 = as_unknown(x0)
    of_x = lambda x: jax.tree.map(inexact_asarray, g(x, *args))
    out = structure_of(jax.eval_shape(of_x, structure_of(x0)))
    if not structure_equal(out, x0):
        raise StructureError(
            f"g: must return the structure of x0, {structure_str(structure_of(x0))}; got "
            f"{structure_str(out)}."
        )
    equation = make_equation(minus(of_x), x0)
    finder = check_finder(solver, Anderson())
    return solve_implicitly(
        equation,
        finder,
        x0,
        finder.derivative_solver(),
        adjoint,
        failures(throw, suppress),
        name,
    )
