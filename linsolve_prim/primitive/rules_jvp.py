"""The derivative of a solve.

A solve returns x = A†b, with the Moore–Penrose inverse A† (= A⁻¹ for square A of full rank).
Write ′ for tangents and ᴴ for the conjugate transpose. For matrices of constant rank

    A†′ = −A†A′A† + A†A†ᴴA′ᴴ(I − AA†) + (I − A†A)A′ᴴA†ᴴA†

(Golub & Pereyra 1973, SIAM J. Numer. Anal. 10(2), eq. 4.12, doi:10.1137/0710036). Applied to b,
with r = b − Ax and y = A′ᴴA†ᴴx, and with one solve for everything that begins with A†,

    x′ = A†( b′ − A′x  +  A†ᴴA′ᴴr  −  Ay ) + y.
                          ───────     ──────────
                            (1)          (2)

(1) vanishes if the rows of A are independent (then r = 0), and (2) if its columns are (then
A†A = I); with both, x′ = A⁻¹(b′ − A′x).

A′x is the derivative of `operator.mv(x)` with respect to the operator's arrays, so that cotangents
fall on those arrays and nowhere else: on a sparsity pattern, on what a function closes over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import ad

from .._tree import tree_add, tree_neg, tree_sub
from ..operators import conj
from .call import TANGENT, Problem, SolveCall
from .definition import bind
from .states import adjoint_settings, conj_state, transpose_state


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _tangent_solve(call: SolveCall, problem: Problem) -> Callable[[Any], Any]:
    """v ↦ A†v with the settings for derivatives."""
    problem = adjoint_settings(problem)

    def solve(v: Any) -> Any:
        tangent_call, operands = SolveCall.make(
            dataclasses.replace(problem, vector=v), throw=call.throw, kind=TANGENT, name=call.name
        )
        return bind(tangent_call, operands)[0]

    return solve


def _derivative(call: SolveCall, operands: list[Any], tangents: list[Any], value: Any) -> Any:
    """x′, where at least one tangent is not zero."""
    op_arrays, _, _ = call.groups(operands)
    op_tangents, _, vec_tangents = call.groups(tangents)
    problem = call.problem(operands)
    operator = problem.operator
    solve = _tangent_solve(call, problem)

    rhs = None
    if not all(_is_zero(t) for t in vec_tangents):
        rhs = call.vector.fill([ad.instantiate_zeros(t) for t in vec_tangents])
    perturbed = [i for i, t in enumerate(op_tangents) if not _is_zero(t)]
    if not perturbed:
        return solve(rhs)

    def derivative_of(f: Callable[[Any], Any]) -> Any:
        """The derivative of f(operator) along the operator's tangent."""

        def of_arrays(*arrays: Any) -> Any:
            full = list(op_arrays)
            for i, array in zip(perturbed, arrays):
                full[i] = array
            return f(call.operator.fill(full))

        primals = [op_arrays[i] for i in perturbed]
        return jax.jvp(of_arrays, primals, [op_tangents[i] for i in perturbed])[1]

    da_x = derivative_of(lambda a: a.mv(value))
    if problem.adjoint is not None and problem.adjoint.sketch is not None:
        da_x = problem.adjoint.sketch(da_x)
    rhs = tree_neg(da_x) if rhs is None else tree_sub(rhs, da_x)
    dependent_rows = problem.solver.allow_dependent_rows(operator)
    dependent_columns = problem.solver.allow_dependent_columns(operator)
    if not (dependent_rows or dependent_columns):
        return solve(rhs)

    hermitian = transpose_state(conj_state(problem))
    solve_hermitian = _tangent_solve(call, hermitian)
    y = None
    if dependent_rows:  # (1)
        residual = tree_sub(problem.vector, operator.mv(value))
        da_r = derivative_of(lambda a: conj(a).transpose().mv(residual))
        rhs = tree_add(rhs, solve_hermitian(da_r))
    if dependent_columns:  # (2)
        z = solve_hermitian(value)
        y = derivative_of(lambda a: conj(a).transpose().mv(z))
        rhs = tree_sub(rhs, operator.mv(y))
    x = solve(rhs)
    return x if y is None else tree_add(x, y)


def jvp_rule(
    primals: Any, tangents: Any, *, call: SolveCall, program: Any
) -> tuple[list[Any], list[Any]]:
    """Values and tangents of a solve. State, options, solver and statistics have no tangents."""
    operands = list(primals)
    op_tangents, rest_tangents, vec_tangents = call.groups(list(tangents))
    used = [i for i, t in enumerate(op_tangents) if not _is_zero(t)]
    offset = len(op_tangents) + len(rest_tangents)
    used += [offset + i for i, t in enumerate(vec_tangents) if not _is_zero(t)]

    value, result, stats = bind(call, operands, unwrap=False, lane=program.lane)
    flat = [*jax.tree.leaves(value), *jax.tree.leaves((result, stats))]
    zeros = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in flat]
    if not used:
        return flat, zeros
    if call.levels:
        dx = _batched_derivative(call, operands, tangents, used)
    else:
        dx = _derivative(call, operands, list(tangents), value)
    dx_leaves = jax.tree.leaves(dx)
    return flat, [*dx_leaves, *zeros[len(dx_leaves) :]]


def _batched_derivative(call: SolveCall, operands: Any, tangents: Any, used: list[int]) -> Any:
    """The derivative of a `vmap` is the `vmap` of the derivative."""
    level, inner = call.levels[-1], call.inner()

    def one(operands: list[Any], used_tangents: list[Any]) -> Any:
        def solve(*used_operands: Any) -> Any:
            full = list(operands)
            for i, operand in zip(used, used_operands):
                full[i] = operand
            return bind(inner, full)[0]

        return jax.jvp(solve, [operands[i] for i in used], used_tangents)[1]

    return jax.vmap(
        one,
        in_axes=(list(level.in_axes), [level.in_axes[i] for i in used]),
        axis_size=level.size,
        axis_name=level.axis_name,
        spmd_axis_name=level.spmd_axis_name,
    )(operands, [ad.instantiate_zeros(tangents[i]) for i in used])
