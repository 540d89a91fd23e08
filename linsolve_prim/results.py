"""What a solve gives back: the solution, how it went, and why it stopped."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree


class RESULTS(eqx.Enumeration):
    """How a solve ended. `RESULTS.successful` is never reported against the true residual.

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> solution = lp.linear_solve(lp.MatrixLinearOperator(jnp.zeros((2, 2))), jnp.ones(2), throw=False)
        >>> print(lp.RESULTS[solution.result].splitlines()[0])
        The operator is singular to working precision, or is not what its tags promise.
    """

    successful: Any = ""
    max_steps_reached: Any = (
        "The maximum number of solver steps was reached before the tolerance. Raise `max_steps`, "
        "loosen `rtol`/`atol`, or pass a `preconditioner`."
    )
    singular: Any = (
        "The operator is singular to working precision, or is not what its tags promise.\n"
        "Either (a) the matrix has no inverse: for the least-squares or minimum-norm solution pass "
        "`solver=AutoLinearSolver(well_posed=False)`; (b) it is so badly conditioned or scaled that "
        "no digit of the solution can be trusted: use float64, or rescale; or (c) it carries a tag "
        "(positive definite, triangular, ...) that its entries contradict."
    )
    breakdown: Any = (
        "The iteration broke down: a division by (nearly) zero that the method cannot pass, or an "
        "operator that is not symmetric (Hermitian) in a method that needs it to be, as MINRES does. "
        "The last estimate is returned. Use another method (CG needs a definite operator, GMRES only a "
        "square one), a larger `restart`, or another initial guess."
    )
    stagnation: Any = (
        "The iteration stagnated: the true residual no longer falls. Loosen `rtol`/`atol`, raise "
        "`restart` or `stagnation_iters`, use float64, or pass a `preconditioner`."
    )
    conlim: Any = "The estimated condition number of the operator exceeds `conlim`."
    nonfinite_input: Any = (
        "The operator or the right-hand side holds NaN or infinity, so that there is no solution. "
        "Look upstream of the solve."
    )
    diverged: Any = (
        "The iteration diverged: the residual overflowed. The method does not fit the operator; use "
        "another one, or a `preconditioner`."
    )
    inaccurate: Any = (
        "The solver reported success, but the true residual ‖b − Ax‖ contradicts it: the operator is "
        "too badly conditioned for this solver and dtype, or the solver is wrong. (A custom solver "
        "that is approximate on purpose states its own bound by overriding `tolerance`.)"
    )
    host_failure: Any = (
        "The host library raised an exception, or returned what is no solution. What it said is in "
        "`linsolve_prim.host.registry.last_error`."
    )
    incompatible: Any = (
        "The right-hand side has a part that is not in the range of the operator, whose `nullspace` was "
        "given: no x solves the system. What is returned solves it for the rest. Project the "
        "right-hand side first if that is what is meant (for a constant null space: subtract its mean)."
    )


#: The names of the members of `RESULTS`; a member's position is the integer behind it.
RESULT_NAMES = tuple(vars(RESULTS)["__annotations__"])

#: The integers behind `RESULTS.successful` and `RESULTS.singular`.
SUCCESSFUL = RESULT_NAMES.index("successful")
SINGULAR = RESULT_NAMES.index("singular")


def result_of_code(code: Any) -> RESULTS:
    """The member (or members) of `RESULTS` behind an integer array."""
    return jax.tree.unflatten(jax.tree.structure(RESULTS.successful), [code])


class REASONS(eqx.Enumeration):
    """Which test ended a solve (`solution.stats["reason"]`).

    For example:

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.eye(2), lp.positive_semidefinite_tag)
        >>> solution = lp.linear_solve(A, jnp.ones(2), lp.CG(rtol=1e-3))
        >>> print(lp.REASONS[solution.stats["reason"]])
        ‖b − Ax‖ ≤ rtol·‖b‖.
    """

    rtol: Any = "‖b − Ax‖ ≤ rtol·‖b‖."
    atol: Any = "‖b − Ax‖ ≤ atol."
    direct: Any = "A direct method: solved in one go, and the true residual agrees."
    least_squares: Any = "The normal equations hold: ‖Aᴴ(b − Ax)‖ is small against ‖A‖·‖b − Ax‖."
    steps: Any = (
        "No tolerance was set (rtol = atol = 0), and all steps that were asked for, or all that could "
        "still improve the residual, are done."
    )
    zero_rhs: Any = "The right-hand side is zero, so x = 0."
    failed: Any = "The solve failed; see `solution.result`."
    step: Any = "Of a nonlinear solve: the last step was at most rtol·‖x‖."
    gradient: Any = "Of a minimisation: the gradient is at most max(rtol·‖first gradient‖, atol)."
    rounding: Any = "Of a minimisation: the function no longer falls, up to rounding."
    claimed: Any = "The method's own test, which looks at no gradient."


def member_name(item: Any, members: Any = RESULTS) -> Any:
    """The name of a concrete member of `RESULTS` or `REASONS`; for a batch an array of names."""
    (code,) = jax.tree.leaves(item)
    names = np.array(list(vars(members)["__annotations__"]))[np.asarray(code)]
    return str(names) if names.ndim == 0 else names


@jax.tree_util.register_static
class Implementation(str):
    """What did the work (`solution.stats["implementation"]`): text, and a pytree without leaves.

    So it passes through `jit` and `vmap` beside the numbers.
    """

    __slots__ = ()


#: Of all solvers that call no library.
IN_JAX = Implementation("in JAX, on the device of the arrays")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """What `linsolve_prim.linear_solve` returns; a pytree.

    - `value`: the solution `x`, with the structure of `operator.in_structure()`.
    - `result`: a member of `RESULTS`; `RESULTS[result]` is its message.
    - `stats`: always `"num_steps"` (0 for direct methods), `"residual_norm"` (‖b − Ax‖₂ of the
      returned `x`), `"relative_residual"` (the same over ‖b‖₂) and `"reason"` (a member of
      `REASONS`); of a linear solve `"implementation"` (text: JAX, or which library on the host);
      further entries are the solver's own.
    - `state`: what `solver.init` made of the operator; pass it as `state=` to solve again.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> solution = lp.linear_solve(lp.DiagonalLinearOperator(jnp.array([1.0, 2.0])), jnp.ones(2))
        >>> print(solution.value, solution.stats["num_steps"], solution.stats["residual_norm"])
        [1.  0.5] 0 0.0
    """

    value: PyTree[Array]
    result: RESULTS
    stats: dict[str, Any]
    state: PyTree[Any]

    @classmethod
    def later(
        cls, value: Any, result: RESULTS, rest: Callable[[], tuple[dict[str, Any], Any]]
    ) -> "Solution":
        """A solution whose `(stats, state)` are put together by `rest` once somebody asks for one.

        That takes 5 µs, a seventh of what an eager call of a small system costs
        [measured: benchmarks/dense.py].
        """
        solution = object.__new__(cls)
        solution.__dict__.update(value=value, result=result, _rest=rest)
        return solution

    if not TYPE_CHECKING:  # else every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            rest = self.__dict__.get("_rest") if name in ("stats", "state") else None
            if rest is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            stats, state = rest()
            self.__dict__.update(stats=stats, state=state)
            return self.__dict__[name]

    def __reduce__(self) -> Any:
        return type(self), (self.value, self.result, self.stats, self.state)
