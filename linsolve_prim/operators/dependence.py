"""How the variables of a jaxpr depend on its unknowns: not at all, linearly, affinely, otherwise.

An abstract interpretation. The value of a variable is one of

    zero  ⊑  constant  ⊑  affine  ⊑  nonlinear
    zero  ⊑  linear    ⊑  affine

represented by two bits (does it depend on the unknowns? may it be nonzero where they are zero?)
and the name of the primitive that broke linearity. Rules are looked up by a primitive's name; one
without a rule is judged by its derivative (`derivative.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from .derivative import affine_by_derivative


@dataclasses.dataclass(frozen=True)
class Dependence:
    """Of one variable on the unknowns."""

    varies: bool = False
    offset: bool = False
    culprit: str | None = None

    def join(self, other: Dependence) -> Dependence:
        """The least value above both: what a sum of the two is."""
        return Dependence(
            self.varies or other.varies,
            self.offset or other.offset,
            self.culprit or other.culprit,
        )


ZERO, CONSTANT = Dependence(), Dependence(offset=True)
LINEAR, AFFINE = Dependence(varies=True), Dependence(varies=True, offset=True)

Deps = list[Dependence]
Rule = Callable[[Any, Deps, "Notes"], Deps]


@dataclasses.dataclass
class Notes:
    """What was met on the way."""

    hides_derivative: bool = False  # `jax.jvp` of the function is not its linear part


def join(deps: Iterable[Dependence]) -> Dependence:
    out = ZERO
    for dep in deps:
        out = out.join(dep)
    return out


def interpret(jaxpr: Any, deps: Sequence[Dependence], notes: Notes) -> Deps:
    """The dependence of each output of a jaxpr (open or closed), given that of its inputs."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    env: dict[Any, Dependence] = {var: CONSTANT for var in jaxpr.constvars}
    env.update(zip(jaxpr.invars, deps))

    def read(atom: Any) -> Dependence:
        if isinstance(atom, jex.Literal):
            return ZERO if np.all(np.asarray(atom.val) == 0) else CONSTANT
        return env[atom]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _apply(eqn, [read(atom) for atom in eqn.invars], notes)))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    name = eqn.primitive.name
    if name in _STRUCTURED:
        return _STRUCTURED[name](eqn, deps, notes)
    if any(dep.culprit for dep in deps):
        return [join(deps)] * len(eqn.outvars)
    if name in _RULES:
        return _RULES[name](eqn, deps, notes)
    return _by_derivative(eqn, deps, notes)


def _nonlinear(eqn: Any) -> Deps:
    return [Dependence(True, True, eqn.primitive.name)] * len(eqn.outvars)


# ---- Rules ---------------------------------------------------------------------------------------


def _linear_in(*positions: int) -> Rule:
    """Jointly linear in the operands at `positions` (default: all), for constant others."""

    def rule(eqn: Any, deps: Deps, notes: Notes) -> Deps:
        linear = set(positions or range(len(deps)))
        if any(dep.varies for i, dep in enumerate(deps) if i not in linear):
            return _nonlinear(eqn)
        return [join(deps[i] for i in linear)] * len(eqn.outvars)

    return rule


def _each(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    """Linear in each operand on its own, output for operand."""
    return list(deps)


def _bilinear(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    one, two = deps
    if one.varies and two.varies:
        return _nonlinear(eqn)
    if ZERO in deps:
        return [ZERO]
    return [two if two.varies else one]


def _convert(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    """Rounding to another precision counts as linear; rounding to an integer does not."""
    if deps[0].varies and not jnp.issubdtype(eqn.params["new_dtype"], jnp.inexact):
        return _nonlinear(eqn)
    return deps


def _select(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    return _nonlinear(eqn) if deps[0].varies else [join(deps[1:])]


def _gather(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    (out,) = _linear_in(0)(eqn, deps, notes)
    fill = eqn.params.get("fill_value")
    fills = (
        fill is not None and fill != 0 and not np.isnan(fill)
    )  # NaN marks an index out of bounds
    return [out.join(CONSTANT)] if fills else [out]


def _scatter(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    """`x.at[i].set(y)`. (`x.at[i].apply(f)` is the same primitive, with f as a jaxpr.)"""
    update = eqn.params.get("update_jaxpr")
    if update is not None and update.eqns:
        return _by_derivative(eqn, deps, notes)
    return _linear_in(0, 2)(eqn, deps, notes)


def adds_up(eqn: Any) -> bool:
    """Whether a reduction by a function of the user's is a sum of one array: its function is `add`."""
    body = eqn.params["jaxpr"]
    body = getattr(body, "jaxpr", body)
    if len(eqn.outvars) != 1 or len(body.eqns) != 1:
        return False
    (inner,) = body.eqns
    both = set(inner.invars) == set(body.invars) if _no_literals(inner) else False
    return inner.primitive.name == "add" and both and inner.outvars == body.outvars


def _no_literals(eqn: Any) -> bool:
    return not any(isinstance(atom, jex.Literal) for atom in eqn.invars)


def _reduction(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    return _linear_in()(eqn, deps, notes) if adds_up(eqn) else _by_derivative(eqn, deps, notes)


def _stop_gradient(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    notes.hides_derivative |= deps[0].varies
    return deps


def _piecewise(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    """The derivative does not show that these are not linear: it is constant on pieces."""
    return _nonlinear(eqn) if any(dep.varies for dep in deps) else [CONSTANT] * len(eqn.outvars)


def _by_derivative(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    varying = [i for i, dep in enumerate(deps) if dep.varies]
    if not varying:
        return [CONSTANT] * len(eqn.outvars)
    (bad, *_) = _nonlinear(eqn)
    return [AFFINE if affine else bad for affine in affine_by_derivative(eqn, varying)]


def _solve(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    """Linear in the right-hand side: in as many operands, the last ones, as there are outputs."""
    first = len(deps) - len(eqn.outvars)
    return _linear_in(*range(first, len(deps)))(eqn, deps, notes)


_RULES: dict[str, Rule] = {
    "convert_element_type": _convert,
    "select_n": _select,
    "gather": _gather,
    "scatter": _scatter,
    "scatter-add": _linear_in(0, 2),
    "scatter-sub": _linear_in(0, 2),
    "dynamic_slice": _linear_in(0),
    "dynamic_update_slice": _linear_in(0, 1),
    "div": _linear_in(0),
    "triangular_solve": _linear_in(1),
    "stop_gradient": _stop_gradient,
    "rem": _piecewise,
    "reduce": _reduction,
    "reduce_window": _reduction,
}
_RULES |= dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _bilinear)
_RULES |= dict.fromkeys(
    (
        "add", "sub", "add_any", "neg", "real", "imag", "conj", "complex", "copy", "copy_p",
        "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose", "rev", "concatenate",
        "pad", "slice", "split", "stack", "unstack", "tile", "reduce_sum", "cumsum", "fft",
        "reduce_window_sum", "reduce_precision", "ppermute", "all_gather", "all_to_all",
        "reduce_scatter", "pvary", "pcast", "mesh_cast", "reshard", "sharding_constraint",
    ),
    _linear_in(),
)  # fmt: skip
_RULES |= dict.fromkeys(
    ("psum", "psum2", "psum_invariant", "device_put", "optimization_barrier"), _each
)
_RULES |= dict.fromkeys(("custom_linear_solve", "tridiagonal_solve"), _solve)


# ---- Calls and control flow ----------------------------------------------------------------------


def called(eqn: Any) -> Any:
    """The jaxpr of an equation that calls one."""
    return next(eqn.params[name] for name in ("call_jaxpr", "jaxpr", "call") if name in eqn.params)


def _call(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    return interpret(called(eqn), deps, notes)


def _custom_vjp(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    notes.hides_derivative |= any(dep.varies for dep in deps)
    return _call(eqn, deps, notes)


def _cond(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    index, *operands = deps
    outs = [interpret(branch, operands, notes) for branch in eqn.params["branches"]]
    if index.varies:
        return [index.join(_nonlinear(eqn)[0])] * len(eqn.outvars)
    return [join(out) for out in zip(*outs)]


def _scan(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    jaxpr = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    # what is scanned over has one axis more outside than inside; this tells the groups apart
    num_xs, num_ys = (
        _count_longer(eqn.invars, jaxpr.invars),
        _count_longer(eqn.outvars, jaxpr.outvars),
    )
    stop = len(deps) - num_xs
    start = stop - (len(eqn.outvars) - num_ys)
    consts, carry, xs = deps[:start], deps[start:stop], deps[stop:]

    def body(carry: Deps) -> Deps:
        return interpret(jaxpr, [*consts, *carry, *xs], notes)

    carry = _fixpoint(lambda carry: body(carry)[: len(carry)], carry)
    return [*carry, *body(carry)[len(carry) :]]


def _count_longer(outer: Sequence[Any], inner: Sequence[Any]) -> int:
    return sum(x.aval.ndim > y.aval.ndim for x, y in zip(outer, inner))


def _while(eqn: Any, deps: Deps, notes: Notes) -> Deps:
    cond_end = eqn.params["cond_nconsts"]
    body_end = cond_end + eqn.params["body_nconsts"]
    cond_consts, body_consts = deps[:cond_end], deps[cond_end:body_end]
    carry = _fixpoint(
        lambda carry: interpret(eqn.params["body_jaxpr"], [*body_consts, *carry], notes),
        deps[body_end:],
    )
    (goes_on,) = interpret(eqn.params["cond_jaxpr"], [*cond_consts, *carry], notes)
    if goes_on.varies:
        return [goes_on.join(_nonlinear(eqn)[0])] * len(eqn.outvars)
    return carry


def _fixpoint(step: Callable[[Deps], Deps], carry: Deps) -> Deps:
    """The least carry that a loop's body does not change. It is found, as values only rise."""
    while True:
        after = [one.join(two) for one, two in zip(carry, step(carry))]
        if after == carry:
            return carry
        carry = after


_STRUCTURED: dict[str, Rule] = {"cond": _cond, "scan": _scan, "while": _while}
_STRUCTURED |= dict.fromkeys(
    (
        "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "shard_map",
        "custom_jvp_call", "custom_vmap_call",
    ),
    _call,
)  # fmt: skip
_STRUCTURED |= dict.fromkeys(("custom_vjp_call", "custom_vjp_call_jaxpr"), _custom_vjp)
