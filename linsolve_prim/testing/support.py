"""What a solver supports, found by running it: one function for each column of the support matrix.

Each compares with dense linear algebra. They run what a user would write, on small systems that fit
what the solver assumes; a refusal (an error while tracing) is an answer, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..api import linear_solve
from ..operators import AbstractLinearOperator, DiagonalLinearOperator, MatrixLinearOperator
from ..operators.functions import diagonal
from ..results import RESULTS, Solution
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.base import AbstractKrylovSolver
from .random import random_like
from .systems import FITTING, Build, singular

YES, NO = "yes", "no"

#: Unknowns, and systems in a batch.
_N, _BATCH = 4, 2

#: What counts as an answer: errors by which operators and dtypes are refused.
REFUSALS = ValueError, TypeError, NotImplementedError


@dataclasses.dataclass(frozen=True)
class Subject:
    """A solver, and what the systems that fit it assume (a key of `systems.FITTING`)."""

    solver: AbstractLinearSolver[Any]
    assumes: str

    @property
    def build(self) -> Build:
        return FITTING[self.assumes]

    def solve(self, m: Array, b: Array) -> Array:
        return _value(self.build(m), b, self.solver)

    def reference(self, m: Array, b: Array) -> Array:
        return jnp.linalg.solve(self.build(m).as_matrix(), b)


Solve = Callable[[Array, Array], Array]


def _value(operator: AbstractLinearOperator, b: Array, solver: Any, **more: Any) -> Array:
    return linear_solve(operator, b, solver, throw=False, **more).value


def _draw(shape: tuple[int, ...], dtype: Any, seed: int) -> Array:
    return random_like(jax.ShapeDtypeStruct(shape, dtype), seed)


def _compiled(function: Any, *arguments: Any) -> Any:
    """Of a program that runs once, compiled without optimisation."""
    return jax.jit(function, compiler_options=_quick())(*arguments)


def _quick() -> dict[str, Any]:
    quick: dict[str, Any] = {"xla_backend_optimization_level": 0}
    if jax.__version_info__ < (0, 11) and jax.default_backend() == "cpu":
        quick["xla_cpu_use_fusion_emitters"] = False  # they compile three times as long
    return quick


def _close(ours: Any, reference: Any, rtol: float | None = None) -> bool:
    """Up to the square root of the precision, and the same dtype."""
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        tol = 50 * float(jnp.finfo(y.dtype).eps) ** 0.5 if rtol is None else rtol
        scale = max(float(jnp.abs(y).max(initial=0)), 1e-3)
        if x.dtype != y.dtype or not float(jnp.abs(x - y).max(initial=0)) <= tol * scale:
            return False
    return True


def _same(subject: Subject, transform: Callable[[Solve], Any], *arguments: Any) -> str:
    """Whether a transformation of the solve is that of the dense one."""
    ours = _compiled(transform(subject.solve), *arguments)
    return YES if _close(ours, _reference(subject, transform, arguments)) else NO


#: What the dense solves gave: the same for all solvers that assume the same.
_references: dict[Any, Any] = {}


def _reference(subject: Subject, transform: Callable[[Solve], Any], arguments: Any) -> Any:
    dtypes = [leaf.dtype.name for leaf in jax.tree.leaves(arguments)]
    key = (subject.assumes, transform.__code__, *dtypes)
    if key not in _references:
        _references[key] = _compiled(transform(subject.reference), *arguments)
    return _references[key]


def _loss(solve: Solve) -> Callable[[Array, Array], Array]:
    return lambda m, b: jnp.sum(jnp.sin(jnp.abs(solve(m, b)) ** 2))


def _gradients(solve: Solve) -> Any:
    return jax.grad(_loss(solve), argnums=(0, 1))


def _with_gradients(solve: Solve) -> Any:
    """The gradients of a function of the solution, and the solution, from one solve and its adjoint."""

    def loss(m: Array, b: Array) -> tuple[Array, Array]:
        x = solve(m, b)
        return jnp.sum(jnp.sin(jnp.abs(x) ** 2)), x

    return jax.grad(loss, argnums=(0, 1), has_aux=True)


def _system(dtype: Any = float, seed: int = 0) -> tuple[Array, Array]:
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return _draw((_N, _N), dtype, seed), _draw((_N,), dtype, seed + 1)


# ---- The columns ---------------------------------------------------------------------------------


def under_jit(subject: Subject) -> str:
    as_it_is = lambda solve: solve
    return _same(subject, as_it_is, *_system())


def under_vmap(subject: Subject) -> str:
    """Over matrices and right-hand sides at once."""
    batch = _draw((_BATCH, _N, _N), jnp.result_type(float), 0)
    mapped = lambda solve: jax.vmap(solve)
    return _same(subject, mapped, batch, _draw((_BATCH, _N), batch.dtype, 1))


def under_jvp(subject: Subject) -> str:
    """By the matrix and the right-hand side, forward."""
    push = lambda solve: lambda x, dx: jax.jvp(solve, x, dx)[1]
    return _same(subject, push, _system(), _system(seed=2))


def under_vjp(subject: Subject) -> str:
    """By the matrix and the right-hand side, in reverse."""
    return _same(subject, _gradients, *_system())


def second_order(subject: Subject) -> str:
    """A product with the Hessian of a function of the solution, forward over reverse."""
    product = lambda solve: lambda x, dx: jax.jvp(_gradients(solve), x, dx)[1]
    return _same(subject, product, _system(), _system(seed=2))


def in_complex(subject: Subject) -> str:
    """The solution and its gradients."""
    return _same(subject, _with_gradients, *_system(complex))


def in_float32(subject: Subject) -> str:
    """The solution and its gradients, in single precision throughout."""
    return _same(subject, _with_gradients, *_system(np.float32))


def of_rectangular(subject: Subject) -> str:
    """ "tall, wide": x = A†b there; with an asterisk for b in the range of A only."""
    found = (_rectangular(subject, "tall", (6, _N)), _rectangular(subject, "wide", (_N, 6)))
    return ", ".join(filter(None, found)) or NO


def _rectangular(subject: Subject, name: str, shape: tuple[int, int]) -> str:
    dtype = jnp.result_type(float)
    m, b = _draw(shape, dtype, 0), _draw(shape[:1], dtype, 1)
    solve = lambda m, b: _value(MatrixLinearOperator(m), b, subject.solver)
    want = jnp.linalg.pinv(m)
    try:
        if _close(_compiled(solve, m, b), want @ b):
            return name
        within = m @ _draw(shape[1:], dtype, 2)
        return f"{name}*" if _close(_compiled(solve, m, within), want @ within) else ""
    except REFUSALS:
        return ""


def of_singular(subject: Subject) -> str:
    """ "A†b", or (where b is in the range) "solved"; else whether it is told by the result code."""
    m, b = _system()
    operator = singular(subject.assumes, m)
    inverse = jnp.linalg.pinv(operator.as_matrix())
    solution = _solution(operator, b, subject.solver)
    if _succeeded(solution):
        return "A†b" if _close(solution.value, inverse @ b, 1e-4) else "untrue"
    within = operator.mv(b)
    solution = _solution(operator, within, subject.solver)
    if _succeeded(solution):
        solved = _close(operator.mv(solution.value), within, 1e-4)
        return "told, or solved" if solved else "untrue"
    return "told"


def _solution(operator: AbstractLinearOperator, b: Array, solver: Any) -> Solution:
    solve = lambda operator, b: linear_solve(operator, b, solver, throw=False)
    return _compiled(solve, operator, b)


def _succeeded(solution: Solution) -> bool:
    return bool(solution.result == RESULTS.successful)


def preconditioned(subject: Subject) -> str:
    """On which sides a preconditioner may stand, by solving with one there, with gradients."""
    solver = subject.solver
    if not isinstance(solver, AbstractKrylovSolver):
        return NO
    if solver.in_the_middle:
        return _on_side(subject, "middle", {}) or NO
    found = [_on_side(subject, side, {"side": side}) for side in ("left", "right")]
    return ", ".join(filter(None, found)) or NO


def _on_side(subject: Subject, name: str, settings: dict[str, Any]) -> str:
    try:
        solver = dataclasses.replace(subject.solver, **settings)  # type: ignore[type-var]
        other = Subject(solver, subject.assumes)

        def solve(m: Array, b: Array) -> Array:
            operator = other.build(m)
            jacobi = DiagonalLinearOperator(1 / jnp.abs(diagonal(operator)))
            return _value(operator, b, solver, options={"preconditioner": jacobi})

        ours = _compiled(_with_gradients(solve), *_system())
        return name if _close(ours, _reference(other, _with_gradients, _system())) else ""
    except REFUSALS:
        return ""


#: The columns, in their order.
COLUMNS: dict[str, Callable[[Subject], str]] = {
    "jit": under_jit,
    "vmap": under_vmap,
    "jvp": under_jvp,
    "vjp": under_vjp,
    "second order": second_order,
    "complex": in_complex,
    "float32": in_float32,
    "rectangular": of_rectangular,
    "singular": of_singular,
    "preconditioner": preconditioned,
}


def run_cell(column: str, subject: Subject) -> str:
    """One cell: what the run found; "no" where the solver refuses."""
    try:
        return COLUMNS[column](subject)
    except REFUSALS:
        return NO
