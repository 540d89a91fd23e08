"""Dead-code elimination inside of a solve: who asks for the solution alone gets that alone.

XLA would remove the rest as well, after it was lowered, which takes longer than tracing all of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax


def dce_rule(used: list[bool], *live_and_eqn: Any) -> tuple[list[bool], Any]:
    """What is used of the operands if only some results are; and the equation for those.

    (JAX 0.12 says between the two which operands are alive, which matters to references only.)
    """
    eqn = live_and_eqn[-1]
    if not any(used):
        return [False] * len(eqn.invars), None
    call, program = eqn.params["call"], eqn.params["program"]
    _, *facts = program.unflatten(used)
    if call.facts and not any(jax.tree.leaves(facts)):
        call = dataclasses.replace(call, facts=False)
        eqn = eqn.replace(params=eqn.params | {"call": call})
    return [True] * len(eqn.invars), eqn
