"""All gradient modes beside each other: error, time and memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._norms import two_norm
from .._static import is_concrete, split
from .._tree import ravel, tree_sub, unravel
from .._types import inexact_asarray, is_inexact, structure_of, structure_str
from ..adjoint import ImplicitAdjoint, OneStepAdjoint, StochasticAdjoint, UnrolledAdjoint
from ..api import linear_solve
from ..errors import StructureError, WrongTypeError
from ..operators import (
    AbstractLinearOperator,
    is_negative_semidefinite,
    is_positive_semidefinite,
)
from ..simple import as_operator
from ..solvers import CG, GMRES
from ..solvers.base import AbstractLinearSolver
from ..solvers.krylov.base import AbstractKrylovSolver
from .admissible import Admissible

_DIRECTIONS = 4  # along which finite differences are taken
_RUNS = 5  # of which the quickest is shown


@dataclasses.dataclass(frozen=True)
class GradientRow:
    """One way to find the gradient.

    - `error`: ‖g − g*‖/‖g*‖, with g* by LAPACK's dense solve; of finite differences, that of the
      derivatives along four directions. Of operators that are promised to be symmetric or Hermitian,
      only what a perturbation that keeps them so would see.
    - `seconds`: the quickest of five runs of the compiled gradient (one difference, of the first).
    - `memory`: bytes that the compiled program allocates beside input and output.
    """

    mode: str
    error: float
    seconds: float
    memory: int


class GradientTable:
    """What `compare_gradients` returns: a row for each mode; `table["implicit"].error`.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> table = lp.learn.compare_gradients(lambda x: x.sum(), 4 * jnp.eye(2), jnp.ones(2), show=False)
        >>> [row.mode for row in table]
        ['finite differences', 'implicit', 'unrolled', 'truncated', 'one-step', 'stochastic']
    """

    def __init__(self, rows: list[GradientRow]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[GradientRow]:
        return iter(self.rows)

    def __getitem__(self, mode: str) -> GradientRow:
        for row in self.rows:
            if row.mode == mode:
                return row
        modes = ", ".join(row.mode for row in self.rows)
        raise KeyError(f"no mode is called {mode!r}; there are {modes}")

    def __repr__(self) -> str:
        lines = [f"{'gradient by':20} {'error':>9} {'time (ms)':>10} {'memory (kB)':>12}"]
        for row in self.rows:
            numbers = f"{row.error:9.1e} {row.seconds * 1e3:10.3f} {row.memory / 1e3:12.1f}"
            lines.append(f"{row.mode:20} {numbers}")
        return "\n".join(lines)


def compare_gradients(
    loss: Callable[[PyTree[Array]], Array],
    A: Any,
    b: PyTree[Any],
    solver: AbstractLinearSolver[Any] | None = None,
    *,
    num_steps: int | None = None,
    num_samples: int = 10,
    key: Array | None = None,
    show: bool = True,
) -> GradientTable:
    """The gradient of `loss(x)` with Ax = b by the arrays of A and by b, in six ways.

    - `loss`: a function of the solution that returns a real scalar.
    - `A`: a matrix, sparse matrix or operator; it is made dense once, for the reference.
    - `solver`: an iterative method; default `CG` for operators tagged definite, else `GMRES` without
      restart.
    - `num_steps`: steps of the unrolled solve; by default as many as the solver takes. The truncated
      one differentiates the last quarter of them.
    - `num_samples`, `key`: of the stochastic estimate.
    - `show`: whether to print the table, which is returned as well.

    **Returns** rows "finite differences", "implicit", "unrolled", "truncated", "one-step", "stochastic".
    **Raises** `StructureError` if `loss` returns something else, `WrongTypeError` for a solver without
    steps and inside of `jit`.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> table = lp.learn.compare_gradients(lambda x: x.sum(), 4 * jnp.eye(2), jnp.ones(2), show=False)
        >>> bool(table["implicit"].error < 1e-2)
        True
    """
    b = jax.tree.map(inexact_asarray, b)
    operator = as_operator(A, structure_of(b))
    if solver is None:
        definite = is_positive_semidefinite(operator) or is_negative_semidefinite(operator)
        solver = CG() if definite else GMRES(restart=operator.in_size())
    _check(loss, operator, b, solver)
    problem = _Problem(loss, operator, b, solver)
    if num_steps is None:
        num_steps = max(int(linear_solve(operator, b, solver).stats["num_steps"]), 1)
    last = max(num_steps // 4, 1)
    key = jax.random.key(0) if key is None else key
    reference = problem.reference()
    modes = {
        "implicit": ImplicitAdjoint(),
        "unrolled": UnrolledAdjoint(num_steps),
        "truncated": UnrolledAdjoint(last, warmup=num_steps - last),
        "one-step": OneStepAdjoint(),
        "stochastic": StochasticAdjoint(key, num_samples),
    }
    rows = [problem.differences(reference)]
    rows += [problem.row(mode, adjoint, reference) for mode, adjoint in modes.items()]
    table = GradientTable(rows)
    if show:
        print(table)
    return table


def _check(loss: Any, operator: AbstractLinearOperator, b: Any, solver: Any) -> None:
    if not is_concrete((operator, b)):
        raise WrongTypeError(
            "A, b: must be known values, since time and memory are measured; got traced ones. Call "
            "`compare_gradients` outside of `jax.jit`, `jax.vmap` and `jax.grad`."
        )
    if not isinstance(solver, AbstractKrylovSolver):
        raise WrongTypeError(
            "solver: must be an iterative method, such as `lp.CG()`, whose steps can be differentiated; "
            f"got {solver!r}."
        )
    out = jax.eval_shape(lambda x: jax.tree.map(jnp.asarray, loss(x)), operator.in_structure())
    scalar = isinstance(out, jax.ShapeDtypeStruct) and out.shape == ()
    if not (scalar and jnp.issubdtype(out.dtype, jnp.floating)):
        raise StructureError(f"loss: must return one real number; got {structure_str(out)}.")


class _Problem:
    """loss(A⁻¹b) as a function of the arrays of A and b, which are one flat list."""

    def __init__(self, loss: Any, operator: AbstractLinearOperator, b: Any, solver: Any):
        self.loss, self.solver = loss, solver
        arrays, self.skeleton = split((operator, b))
        self.arrays = [jnp.asarray(a) for a in arrays]
        self.moving = [i for i, a in enumerate(self.arrays) if is_inexact(a)]
        self.args = [self.arrays[i] for i in self.moving]
        self.admissible = Admissible(lambda args: self.fill(args)[0], self.args)

    def fill(self, args: list[Array]) -> tuple[AbstractLinearOperator, Any]:
        arrays = list(self.arrays)
        for i, a in zip(self.moving, args):
            arrays[i] = a
        return self.skeleton.fill(arrays)

    def value(self, adjoint: Any, args: list[Array]) -> Array:
        operator, b = self.fill(args)
        return jnp.asarray(self.loss(linear_solve(operator, b, self.solver, adjoint=adjoint).value))

    def dense(self, args: list[Array]) -> Array:
        operator, b = self.fill(args)
        x = jnp.linalg.solve(operator.as_matrix(), ravel(b))
        return jnp.asarray(self.loss(unravel(x, operator.in_structure())))

    def reference(self) -> list[Array]:
        return self.admissible.gradient(jax.jit(jax.grad(self.dense))(self.args))

    def row(self, mode: str, adjoint: Any, reference: list[Array]) -> GradientRow:
        compiled = jax.jit(lambda args: jax.grad(lambda a: self.value(adjoint, a))(args))
        program = compiled.lower(self.args).compile()
        gradient = self.admissible.gradient(program(self.args))
        size = two_norm(reference)
        error = two_norm(tree_sub(gradient, reference)) / jnp.where(size > 0, size, 1)
        return GradientRow(mode, float(error), _seconds(program, self.args), _memory(program))

    def differences(self, reference: list[Array]) -> GradientRow:
        """Central differences of the solve itself, in steps of ε^⅓."""
        random = np.random.default_rng(0)
        eps = float(jnp.finfo(self.args[0].dtype).eps)

        def along(args: list[Array], direction: list[Array], h: Array) -> Array:
            moved = lambda t: [a + t.astype(a.dtype) * d for a, d in zip(args, direction)]
            plus, minus = self.value(None, moved(h)), self.value(None, moved(-h))
            return (plus - minus) / (2 * h.astype(plus.dtype))

        compiled, errors, program, given = jax.jit(along), [], None, None
        for _ in range(_DIRECTIONS):
            d = [_random_like(a, random) for a in self.args]
            d = self.admissible.direction(d)
            ratio = two_norm(self.args) / two_norm(d)
            d = [x * ratio.astype(x.dtype) for x in d]
            given = (self.args, d, jnp.asarray(eps ** (1 / 3), ratio.dtype))
            program = compiled.lower(*given).compile() if program is None else program
            want = sum(jnp.sum(g * x).real for g, x in zip(reference, d))
            size = jnp.abs(want)
            errors.append(float(jnp.abs(program(*given) - want) / jnp.where(size > 0, size, 1)))
        seconds, memory = _seconds(program, *given), _memory(program)
        return GradientRow("finite differences", max(errors), seconds, memory)


def _random_like(a: Array, random: np.random.Generator) -> Array:
    d = random.normal(size=a.shape)
    if jnp.iscomplexobj(a):
        d = d + 1j * random.normal(size=a.shape)
    return jnp.asarray(d, a.dtype)


def _seconds(program: Any, *args: Any) -> float:
    best = float("inf")
    for _ in range(_RUNS):
        begin = time.perf_counter()
        jax.block_until_ready(program(*args))
        best = min(best, time.perf_counter() - begin)
    return best


def _memory(program: Any) -> int:
    analysis = program.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)
