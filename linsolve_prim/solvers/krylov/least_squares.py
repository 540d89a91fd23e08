"""What LSQR, LSMR and CGLS share: damping, Golub–Kahan bidiagonalisation, and when to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import tree_add, tree_axpy, tree_sub, tree_zeros
from ..._types import Options
from ...operators import AbstractLinearOperator, FunctionLinearOperator
from ...operators.damped import DampedLinearOperator, TransposedDampedOperator
from ...results import RESULTS
from ..base import AbstractLinearSolver
from .base import AbstractKrylovSolver, KrylovState, inexact_vector
from .cycles import CLAIMED, RUNNING, End, Method, Start, close
from .stopping import Tolerance, check_tolerance
from .system import System
from .vectors import normalise, safe_norm, tree_zeros_like


class AbstractLeastSquaresSolver(AbstractKrylovSolver):
    """A Krylov method for x = A†b, for operators of any shape and rank.

    Finds the least-squares solution of minimum norm (with an initial guess: the one nearest to it).

    It stops when, of the true residual r = b − Ax, either of these is true (`stats["reason"]` says
    which):

    - ‖r‖ ≤ max(rtol·‖b‖, atol);
    - ‖Aᴴr‖ ≤ max(rtol, 10ε)·‖A‖·‖r‖, the least-squares solution. ‖A‖ is estimated from below, so
      that the test is stricter than that of SciPy; if A is not tall, it is rtol ≤ ε^⅔ that
      counts, because then ‖r‖ is what most likely becomes small. (What rounding errors of r alone
      make of Aᴴr, 8ε‖A‖(‖A‖‖x‖ + ‖b‖), is as good, if a second start from r did not help.)

    - `preconditioner`: an operator M that approximates A†. It stands on the right of A, where A is
      tall or square, and on the left where it is wide, so that it changes neither the residual that
      is minimised nor the norm of x (hence the `side` cannot be chosen). A is then taken to be of
      full rank, and AM stands for A in the second test; A itself passes it too, with √rtol.
    - `damp`: minimise ‖b − Ax‖² + damp²‖x‖² instead, by solving [A; damp·I]x = (b, 0) in the sense
      of least squares: all that is said of A, b and r here holds for that system, in particular
      `stats["residual_norm"]` is the root of what is minimised. It may be an array, and be
      differentiated.
    """

    damp: Tolerance = dataclasses.field(default=0.0, kw_only=True)

    is_square: ClassVar[bool] = False
    sides: ClassVar[tuple[str, ...]] = ("right if tall", "left if wide")

    def __check_init__(self) -> None:
        check_tolerance("damp", self.damp)
        if self.side == "left":
            raise ValueError(
                f"side: `{type(self).__name__}` preconditions tall operators on the right and wide "
                "ones on the left, so that x stays A†b; got 'left'. Leave it out."
            )
        if is_damped(self.damp) and self.nullspace is not None:
            raise ValueError(
                f"nullspace: must be None with damp={self.damp!r}; got {self.nullspace!r}. What "
                "is damped has a unique solution: leave one of the two out."
            )

    def init(self, operator: AbstractLinearOperator, options: Options) -> KrylovState:
        if is_damped(self.damp):
            operator = DampedLinearOperator(operator, _real(self.damp))
        return super().init(operator, options)

    def regularise(
        self, operator: AbstractLinearOperator, vector: PyTree[Array], options: Options
    ) -> tuple[AbstractLinearOperator, PyTree[Array], AbstractLinearSolver[Any]]:
        if not is_damped(self.damp):
            return operator, vector, self
        zeros = tree_zeros(operator.in_structure())
        damped = DampedLinearOperator(operator, _real(self.damp))
        return damped, (vector, zeros), dataclasses.replace(self, damp=0.0)

    def compute(
        self, state: KrylovState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator = state.operator
        if not isinstance(operator, (DampedLinearOperator, TransposedDampedOperator)):
            return super().compute(state, vector, options)
        preconditioner = options.get("preconditioner", state.preconditioner)
        if isinstance(preconditioner, AbstractLinearOperator):
            options = {key: value for key, value in options.items() if key != "preconditioner"}
            state = state._replace(preconditioner=_padded(preconditioner, operator))
        if not is_damped(self.damp):  # `regularise` made system and right-hand side
            return super().compute(state, vector, options)
        if isinstance(operator, TransposedDampedOperator):  # (Aᴴ(AAᴴ + δ²)⁻¹)ᵀ is that of Aᵀ
            pair, result, stats = super().compute(state, vector, options)
            return pair[0], result, stats
        vector = inexact_vector(vector)
        return super().compute(state, (vector, tree_zeros(operator.in_structure())), options)

    def assume_full_rank(self) -> bool:
        return False


def is_damped(damp: Any) -> bool:
    """Whether there is any damping. (An array that holds zero counts as one.)"""
    return not (isinstance(damp, (int, float, np.number)) and damp == 0)


def _real(damp: Any) -> Any:
    """As an array, so that another number is not another program."""
    return jnp.asarray(damp, None if hasattr(damp, "dtype") else float)


def _padded(m: AbstractLinearOperator, operator: AbstractLinearOperator) -> AbstractLinearOperator:
    """M ≈ A⁻¹ as [M, 0], for the damped system, or its transpose."""
    if isinstance(operator, DampedLinearOperator):
        rows, columns = operator.operator.out_size(), operator.operator.in_size()
        if rows < columns:
            raise ValueError(
                f"preconditioner: must be None for a damped operator that is wide; got one for "
                f"{rows}×{columns} unknowns, which reaches {rows} directions only. Leave it out."
            )
        return m @ FunctionLinearOperator(lambda pair: pair[0], operator.out_structure())
    first = FunctionLinearOperator(lambda pair: pair[0], operator.in_structure())
    return first.transpose() @ m


# ---- bidiagonalisation ---------------------------------------------------------------------------


class Bidiagonal(NamedTuple):
    """The last vectors and numbers of AV = UB (Golub and Kahan, 1965, doi:10.1137/0702016)."""

    u: PyTree[Array]
    v: PyTree[Array]
    a: Array  # alpha: b was the one before it
    b: Array  # beta


def begin(system: System, residual: PyTree[Array]) -> Bidiagonal:
    """βu = r and αv = Aᴴu."""
    u, b = normalise(residual)
    v, a = normalise(system.adjoint_product(u))
    return Bidiagonal(u, v, a.astype(system.real_dtype), b.astype(system.real_dtype))


def extend(system: System, c: Bidiagonal) -> Bidiagonal:
    """βu = Av − αu, then αv = Aᴴu − βv."""
    u, b = normalise(tree_axpy(-c.a, c.u, system.product(c.v)))
    v, a = normalise(tree_axpy(-b, c.v, system.adjoint_product(u)))
    return Bidiagonal(u, v, a.astype(c.a.dtype), b.astype(c.b.dtype))


def take_side(system: System, left: bool) -> None:
    """Put the preconditioner, if there is one, on this side."""
    system.on_left = system.preconditioner is not None and left
    system.on_right = system.preconditioner is not None and not left


def ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0: directions in which nothing is left to correct."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def rotation(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """`(c, s, r)` with c·a + s·b = r = √(a² + b²) and c·b = s·a; the identity for zero."""
    r = jnp.hypot(a, b)
    safe = jnp.where(r > 0, r, 1)
    return jnp.where(r > 0, a / safe, 1), b / safe, r


# ---- when to stop --------------------------------------------------------------------------------


class Memory(NamedTuple):
    """What is known of the operator, and of the residual."""

    a_norm: Array  # the largest ‖A vₖ‖ so far: a lower bound of ‖A‖₂
    cond: Array  # estimate of cond(A)
    normal: Array  # estimate of ‖Aᴴr‖
    x_norm: Array  # at the end of the last cycle
    cycles: Array


def least_squares_method(
    system: System,
    first: Callable[[Bidiagonal, PyTree[Array], Memory], Any],
    step: Callable[[Any], Any],
    knows_condition: bool = True,
) -> Method:
    """The method whose loop starts with `first(bidiagonal, zeros, memory)` and goes on by `step`.

    The carry has d, norm, steps, outcome and memory.
    """
    problem, operator = system.problem, system.operator
    dtype, eps = system.real_dtype, system.eps
    exact = system.norm is two_norm
    take_side(system, left=operator.out_size() < operator.in_size())
    ls_rtol = jnp.maximum(problem.rtol, 10 * eps)
    if operator.out_size() <= operator.in_size():
        # Most likely consistent: then Aᴴr is small before r is, by the condition number.
        ls_rtol = jnp.minimum(ls_rtol, eps ** (2 / 3))

    def cycle(start: Start) -> End:
        r, _, target = system.begin(start, euclidean=True)
        pair = begin(system, r)

        def claims(c: Any) -> Array:
            if system.on_left:  # only for systems that have a solution
                return c.norm <= target
            normal = c.memory.normal <= start.caution * ls_rtol * c.memory.a_norm * c.norm
            return (c.norm <= target) | (normal & jnp.isfinite(c.memory.normal))

        def going(c: Any) -> Array:
            return (c.outcome == RUNNING) & ~claims(c) & (c.steps < start.budget)

        old = start.memory
        known = old._replace(
            a_norm=jnp.maximum(old.a_norm, pair.a),
            cond=jnp.maximum(old.cond, 1),
            normal=pair.a * pair.b,
        )
        carry = first(pair, tree_zeros_like(pair.v), known)
        ran = system.run(step, carry, start, target, going=going, exact=exact)
        c = ran.carry
        outcome = jnp.where(claims(c), CLAIMED, close(c.outcome, c.norm, target))
        d = system.finish(c.d)
        x_norm = two_norm(tree_add(start.x, d)).astype(dtype)
        memory = c.memory._replace(x_norm=x_norm, cycles=old.cycles + 1)
        return ran.end(d, memory=memory, outcome=outcome.astype(jnp.int32))

    def least_squares(residual: PyTree[Array], memory: Memory) -> Array:
        gradient = system.apply_adjoint(residual)
        small = jnp.array(True)
        if system.on_right:
            small = is_small(gradient, residual, memory)
            gradient = system.precondition_adjoint(gradient)
        normal = safe_norm(gradient).astype(dtype)
        size = problem.vector_norm.astype(dtype)
        if system.preconditioner is None:
            size = size + memory.a_norm * memory.x_norm
        noise = jnp.where(memory.cycles > 1, 8 * eps * size, 0)
        bound = memory.a_norm * jnp.maximum(ls_rtol * two_norm(residual).astype(dtype), noise)
        return (normal <= bound) & jnp.isfinite(normal) & small

    def is_small(gradient: PyTree[Array], residual: PyTree[Array], memory: Memory) -> Array:
        """Whether Aᴴr is small without M as well: one of the wrong size makes any MᴴAᴴr small.

        To half of the digits only, as M may be badly conditioned because A is; ‖Ax‖/‖x‖ ≤ ‖A‖. (Where
        x is zero, because M is, nothing but Aᴴr = 0 will do.)
        """
        image = two_norm(tree_sub(problem.vector, residual)).astype(dtype)
        bound = jnp.sqrt(ls_rtol) * ratio(image, memory.x_norm) * two_norm(residual).astype(dtype)
        return safe_norm(gradient).astype(dtype) <= bound

    def statistics(memory: Memory, x: PyTree[Array]) -> dict[str, Any]:
        # (of what the method iterates on: with the preconditioner)
        stats = {"norm_Ar": memory.normal * problem.unit, "norm_A": memory.a_norm}
        condition = {"cond_A": memory.cond} if knows_condition else {}
        return stats | condition | {"norm_x": two_norm(x)}

    zero = jnp.zeros((), dtype)
    return Method(
        cycle,
        memory=Memory(zero, zero, zero, zero, jnp.zeros((), jnp.int32)),
        monotone=False,
        least_squares=None if system.on_left else least_squares,
        per_trip=(1, 1),
        per_cycle=(0, 1 if system.on_left else 2),
        statistics=statistics,
    )
