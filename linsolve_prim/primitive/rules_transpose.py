"""The transpose of a solve: b ↦ A†b is linear, and its transpose is c ↦ (Aᵀ)†c.

The same solver solves with Aᵀ, from `solver.transpose(state)`: for a factorization the same factor
with another flag. Only the vector can be transposed; a solve is not linear in anything else.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.interpreters import ad

from .call import ADJOINT, SolveCall
from .definition import bind
from .states import adjoint_settings, transpose_state


def _transposed_solve(call: SolveCall, known: list[Any], ct_leaves: list[Any]) -> list[Any]:
    """The cotangents of all vector leaves, given those of all solution leaves."""
    if call.levels:
        level, inner = call.levels[-1], call.inner()
        known_axes = [axis for axis in level.in_axes[: len(known)]]
        batched = jax.vmap(
            lambda known, cts: _transposed_solve(inner, known, cts),
            in_axes=(known_axes, 0),
            axis_size=level.size,
            axis_name=level.axis_name,
            spmd_axis_name=level.spmd_axis_name,
        )(known, ct_leaves)
        vector_axes = level.in_axes[len(known) :]
        # an unbatched vector meets every lane: its cotangent is the sum
        return [ct if axis == 0 else ct.sum(0) for ct, axis in zip(batched, vector_axes)]
    # the vector's leaves are placeholders: only its structure is asked for
    problem = call.problem([*known, *[None] * call.vector.num_arrays])
    in_structure = problem.operator.in_structure()
    ct = jax.tree.unflatten(jax.tree.structure(in_structure), ct_leaves)
    transposed = transpose_state(adjoint_settings(problem))
    if problem.adjoint is not None and problem.adjoint.x0 is not None:
        options = {**transposed.options, "y0": problem.adjoint.x0}
        transposed = dataclasses.replace(transposed, options=options, adjoint=None)
    adjoint_call, operands = SolveCall.make(
        dataclasses.replace(transposed, vector=ct), throw=call.throw, kind=ADJOINT, name=call.name
    )
    return jax.tree.leaves(bind(adjoint_call, operands)[0])


def transpose_rule(cts: list[Any], *operands: Any, call: SolveCall, program: Any) -> list[Any]:
    op_arrays, rest_arrays, vec_arrays = call.groups(operands)
    if any(ad.is_undefined_primal(x) for x in (*op_arrays, *rest_arrays)):
        raise NotImplementedError(
            "A linear solve is linear in its right-hand side only: it cannot be transposed with "
            "respect to the operator. Differentiate it with `jax.vjp` instead."
        )
    known = [*op_arrays, *rest_arrays]
    num_value = _num_value_leaves(call, known)
    value_cts = cts[:num_value]
    if all(type(ct) is ad.Zero for ct in value_cts):
        return [None] * len(operands)
    value_cts = [ad.instantiate_zeros(ct) for ct in value_cts]
    vec_cts = _transposed_solve(call, known, value_cts)
    return [None] * len(known) + [
        ct if ad.is_undefined_primal(x) else None for ct, x in zip(vec_cts, vec_arrays)
    ]


def _num_value_leaves(call: SolveCall, known: list[Any]) -> int:
    operator = call.operator.fill(known[: call.operator.num_arrays])
    return len(jax.tree.leaves(operator.in_structure()))
