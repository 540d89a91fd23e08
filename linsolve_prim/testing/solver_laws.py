"""The laws of `AbstractLinearSolver`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._static import split
from .._tree import tree_add, tree_scale, tree_sub, tree_zeros
from ..api import linear_solve
from ..operators import AbstractLinearOperator, conj
from ..results import RESULTS
from ..solvers.base import AbstractLinearSolver
from .compare import assert_close, assert_true, default_rtol
from .random import random_like, structured_direction


def check_solver(
    solver: AbstractLinearSolver[Any],
    operator: AbstractLinearOperator,
    *,
    options: dict[str, Any] | None = None,
    vector: PyTree[Array] | None = None,
    rtol: float | None = None,
    seed: int = 0,
) -> None:
    """Check the laws of a solver on one operator that it can solve with.

    Solution, linearity, transpose, conj and both, jit, vmap (over the right-hand side, the operator
    and both), jvp against finite differences, vjp against jvp, zero and non-finite right-hand side.

    - `vector`: right-hand side; default random. (For a singular operator give one in its range.)
    - `rtol`: allowed relative error of solutions; default √ε. Iterative solvers should be given
      tolerances well below it.

    Raises `AssertionError` naming the first law that does not hold.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.DiagonalLinearOperator(jnp.array([2.0, 4.0]))
        >>> lp.testing.check_solver(lp.Diagonal(well_posed=True), A)  # raises if a law is broken
    """
    options = {} if options is None else options
    b = random_like(operator.out_structure(), seed) if vector is None else vector
    rtol = default_rtol(b) if rtol is None else rtol
    solve = lambda op, v: linear_solve(op, v, solver, options=options, throw=False)
    x = _check_solution(solve, operator, b)
    _check_linear(solve, operator, b, x, rtol)
    _check_states(solver, operator, options, b, rtol)
    _check_transformations(solve, operator, b, x, rtol)
    _check_derivatives(solve, operator, b, rtol)
    _check_edge_cases(solve, operator, b)


def _value(solution: Any) -> PyTree[Array]:
    return solution.value


def _succeeded(solution: Any) -> bool:
    return bool(solution.result == RESULTS.successful)


def _check_solution(solve: Any, operator: AbstractLinearOperator, b: PyTree[Array]) -> Any:
    solution = solve(operator, b)
    assert_true("a fitting system is solved", _succeeded(solution), RESULTS[solution.result])
    r_norm = float(solution.stats["residual_norm"])
    residual = tree_sub(b, operator.mv(solution.value))
    actual = float(jnp.sqrt(sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(residual))))
    size = float(jnp.sqrt(sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(b))))
    honest = abs(r_norm - actual) <= 0.01 * actual + default_rtol(b) * size
    assert_true("stats['residual_norm'] is ‖b − Ax‖", honest, f"{r_norm} against {actual}.")
    return solution.value


def _check_linear(solve: Any, operator: Any, b: Any, x: Any, rtol: float) -> None:
    other = random_like(operator.out_structure(), 17)
    combined = solve(operator, tree_add(tree_scale(0.37, b), other)).value
    parts = tree_add(tree_scale(0.37, x), solve(operator, other).value)
    assert_close("linearity: solve(αb + c) = α solve(b) + solve(c)", combined, parts, rtol)


def _check_states(solver: Any, operator: Any, options: Any, b: Any, rtol: float) -> None:
    """The turned state solves the turned system, and turning twice leads back."""
    state = solver.init(operator, options)
    c = random_like(operator.in_structure(), 23)
    transpose = lambda s: solver.transpose(*s)
    conjugate = lambda s: solver.conj(*s)
    compute = lambda s, v: solver.compute(s[0], v, s[1])[0]
    fresh = lambda op, v: _value(linear_solve(op, v, solver, throw=False))
    start = (state, options)
    turns = [
        ("transpose(state) solves with Aᵀ", transpose, operator.transpose(), c),
        ("conj(state) solves with conj(A)", conjugate, conj(operator), b),
        (
            "conj(transpose(state)) solves with Aᴴ",
            lambda s: conjugate(transpose(s)),
            conj(operator.transpose()),
            c,
        ),
        (
            "transpose(conj(state)) solves with Aᴴ",
            lambda s: transpose(conjugate(s)),
            conj(operator).transpose(),
            c,
        ),
        ("transposing twice leads back", lambda s: transpose(transpose(s)), operator, b),
        ("conjugating twice leads back", lambda s: conjugate(conjugate(s)), operator, b),
    ]
    for law, turn, turned_operator, v in turns:
        assert_close(law, compute(turn(start), v), fresh(turned_operator, v), rtol)


def _check_transformations(solve: Any, operator: Any, b: Any, x: Any, rtol: float) -> None:
    arrays, skeleton = split(operator)
    jitted = jax.jit(lambda arrays, v: solve(skeleton.fill(arrays), v).value)
    assert_close("jit", jitted(arrays, b), x, rtol)
    scales = jnp.asarray([1.0, 0.5, -2.0])
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf * s.astype(leaf.dtype) for s in scales]), b)
    at = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)
    moved = jax.vmap(lambda v: solve(operator, v).value)(batch)
    loop = [solve(operator, at(batch, i)).value for i in range(3)]
    for i in range(3):
        assert_close(f"vmap over b equals a loop (lane {i})", at(moved, i), loop[i], rtol)
    inexact = [jnp.issubdtype(a.dtype, jnp.inexact) for a in arrays]
    steps = iter(structured_direction(operator))
    direction = [next(steps) if flag else jnp.zeros_like(a) for a, flag in zip(arrays, inexact)]
    lanes = [
        [a + t * d if f else a for a, d, f in zip(arrays, direction, inexact)] for t in (0, 0.1)
    ]
    stacked = [jnp.stack(pair) for pair in zip(*lanes)]
    if not stacked:
        return
    over_a = jax.vmap(lambda arrays: solve(skeleton.fill(arrays), b).value)(stacked)
    both = jax.vmap(lambda arrays, v: solve(skeleton.fill(arrays), v).value)(
        stacked, at(batch, slice(2))
    )
    for i in range(2):
        lane = skeleton.fill(lanes[i])
        assert_close(
            f"vmap over A equals a loop (lane {i})", at(over_a, i), solve(lane, b).value, rtol
        )
        want = solve(lane, at(batch, i)).value
        assert_close(f"vmap over A and b equals a loop (lane {i})", at(both, i), want, rtol)


def _check_derivatives(solve: Any, operator: Any, b: Any, rtol: float) -> None:
    arrays, skeleton = split(operator)
    moving = [i for i, a in enumerate(arrays) if jnp.issubdtype(a.dtype, jnp.inexact)]

    def f(moved: list[Array], v: PyTree[Array]) -> PyTree[Array]:
        full = list(arrays)
        for i, a in zip(moving, moved):
            full[i] = a
        return solve(skeleton.fill(full), v).value

    primals = ([arrays[i] for i in moving], b)
    direction = (structured_direction(operator), random_like(operator.out_structure(), 5))
    _, tangent = jax.jvp(f, primals, direction)
    # central differences: the error is ε/h + h², least at h = ε^⅓, and ε^⅔ there
    eps = float(jnp.finfo(jax.tree.leaves(tangent)[0].dtype).eps)
    h = eps ** (1 / 3)
    shift = lambda p, d, s: p + jnp.asarray(s * h, p.dtype) * d
    at = lambda s: f(*jax.tree.map(lambda p, d: shift(p, d, s), primals, direction))
    ahead, behind = at(1), at(-1)
    difference = tree_scale(1 / (2 * h), tree_sub(ahead, behind))
    fd_rtol = max(rtol, 30 * eps ** (2 / 3), 2 * rtol / h * 1e-3)
    assert_close("jvp equals finite differences", tangent, difference, fd_rtol)
    _, pull = jax.vjp(f, *primals)
    w = random_like(operator.in_structure(), 7)
    cotangent = pull(w)
    real = lambda x, y: sum(
        jnp.sum((p * q).real) for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y))
    )
    left, right = real(w, tangent), real(cotangent, direction)
    scale = jnp.sqrt(
        real(w, jax.tree.map(jnp.conj, w)) * real(tangent, jax.tree.map(jnp.conj, tangent))
    )
    error = float(jnp.abs(left - right) / scale)
    assert_true("vjp is the transpose of jvp", error <= 10 * rtol, f"Relative error {error:.2e}.")


def _check_edge_cases(solve: Any, operator: Any, b: Any) -> None:
    zero = solve(operator, tree_zeros(operator.out_structure()))
    assert_true("b = 0 is solved", _succeeded(zero), RESULTS[zero.result])
    vanishes = all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(zero.value))
    assert_true("b = 0 gives x = 0", vanishes)
    _, pull = jax.vjp(lambda v: solve(operator, v).value, b)
    (ct,) = pull(tree_zeros(operator.in_structure()))
    vanishes = all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(ct))
    assert_true("a zero cotangent gives zero", vanishes)
    spoil = lambda leaf, bad: leaf.reshape(-1).at[0].set(bad).reshape(leaf.shape)
    for bad in (jnp.nan, jnp.inf):
        broken = jax.tree.map(functools.partial(spoil, bad=bad), b)
        result = solve(operator, broken).result
        told = bool(result == RESULTS.nonfinite_input)
        assert_true(f"{bad} in b gives RESULTS.nonfinite_input", told, RESULTS[result])
