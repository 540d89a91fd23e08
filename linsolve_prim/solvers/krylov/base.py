"""What the Krylov solvers share: settings, states, options, how they compute and print."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..._recording import recording
from ..._types import (
    Options,
    inexact_asarray,
    structure_equal,
    structure_str,
)
from ...errors import StructureError
from ...operators import (
    AbstractLinearOperator,
    conj,
    is_negative_semidefinite,
    is_positive_semidefinite,
    linearise,
)
from ...preconditioners.auto import Auto
from ...preconditioners.base import AbstractPreconditioner
from ...preconditioners.names import by_name
from ...preconditioners.parts import is_nonsymmetric
from ...results import RESULTS
from ...sparse.packed_operator import with_products_ahead
from ..base import AbstractLinearSolver
from ..inner import inverse_by
from ..structures import require_square
from .cycles import Method, iterate
from .history import History, check_history, new_trail
from .nullspace import Projector, check_nullspace, projector
from .progress import Progress, check_progress, every, shown
from .stopping import Tolerance, check_settings, pose, report, step_limit
from .system import System
from .vectors import mesh_axes


class KrylovState(NamedTuple):
    """The operator, the preconditioner that is the solver's field, and the known null spaces."""

    operator: AbstractLinearOperator
    preconditioner: AbstractLinearOperator | None = None
    projector: Projector | None = None


# The checks of these fields say more than a run-time type checker would.
if TYPE_CHECKING:
    Preconditioner = (
        AbstractLinearOperator | AbstractPreconditioner | AbstractLinearSolver[Any] | None
    )
    Side = Literal["left", "right"]
else:
    Preconditioner = Side = Any

_GUESSES = ("y0", "x0")
_QUIET = ("preconditioner", "side", "history", "progress", "nullspace", "damp")
_WRAP = (
    "Wrap a matrix as `MatrixLinearOperator(matrix)` and a function as "
    "`FunctionLinearOperator(fn, structure)`."
)


class AbstractKrylovSolver(AbstractLinearSolver[KrylovState]):
    """A method that needs nothing of A but products, and judges by ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).

    A concrete method is a final class with the fields `norm` and `max_steps` (and its own), and a
    `method(system)` that returns its cycle; `is_square` and `needs_definite` say what it takes.

    All of them take these settings:

    - `rtol`, `atol`: ‖b − Ax‖ ≤ max(rtol·‖b‖, atol), without preconditioner. `rtol=None` stands for
      1e-5 in float32 and 1e-10 in float64.
    - `preconditioner`: an operator that approximates A⁻¹, or one of `preconditioners`, which makes it;
      "auto", "ilu", "amg", … (`preconditioners.NAMES`), or a function: see `preconditioners.Custom`.
    - `side`: "right" iterates on A·M, and sees the residual that is judged; "left" on M·A. Methods
      for symmetric systems ignore it: there the preconditioner stands in the middle.
    - `history`: `True` keeps the residual norm after each step, in `stats["history"]` (an array of
      length `max_steps + 1`, of which `stats["history_length"]` entries are filled); "x" the
      iterates as well, in `stats["iterates"]`.
    - `progress`: a line to stderr after every `progress` steps (`True`: every 10).
    - `nullspace`: "constant", "auto", vectors or a `NullSpace`: x and b are projected; a b that
      is out of A's range ends in `RESULTS.incompatible`, with the projected solution.

    and these options:

    - `"preconditioner"`: goes before the solver's own, and is transposed and conjugated with A.
    - `"y0"` (or `"x0"`): where to start. An initial guess within the tolerance takes no step.

    A is `(n, n)` (for least squares `(m, n)`) on vectors or pytrees, in float32, float64, complex64 or
    complex128, in which everything is computed.

    **Raises** `StructureError` for an operator that is not square, or a guess or preconditioner of
    another structure; `ValueError` for an operator that does not promise what the method needs, a
    preconditioner that it cannot take, and settings out of range.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.array([1.0, 10.0, 100.0])), lp.positive_semidefinite_tag)
        >>> solver = lp.CG(rtol=1e-4, preconditioner="jacobi", history=True)
        >>> solution = lp.linear_solve(A, jnp.ones(3), solver, options={"y0": jnp.ones(3)})
        >>> int(solution.stats["num_steps"]), solution.stats["history"].shape
        (1, (31,))
    """

    rtol: Tolerance = None
    atol: Tolerance = 0.0
    preconditioner: Preconditioner = eqx.field(default=None, kw_only=True, converter=by_name)
    side: Side = dataclasses.field(default="right", kw_only=True)
    history: History = dataclasses.field(default=False, kw_only=True)
    progress: Progress = dataclasses.field(default=False, kw_only=True)
    nullspace: Any = dataclasses.field(default=None, kw_only=True)

    is_square: ClassVar[bool] = True
    needs_definite: ClassVar[bool] = False
    #: On which sides of A a preconditioner may stand. (Symmetric methods have it in the middle.)
    sides: ClassVar[tuple[str, ...]] = ("left", "right")
    #: Whether the preconditioner may change from step to step, so that it may be another solver.
    flexible: ClassVar[bool] = False
    #: Whether the preconditioner must be symmetric positive definite: it defines an inner product.
    in_the_middle: ClassVar[bool] = False

    if TYPE_CHECKING:  # fields of every concrete class, in the order of each method's tradition
        norm: Any = None
        max_steps: Any = None

    def __check_init__(self) -> None:
        check_settings(self.rtol, self.atol, self.norm, self.max_steps)
        check_preconditioner_field(self.preconditioner, self.flexible)
        check_history(self.history, self.max_steps)
        check_progress(self.progress)
        check_nullspace(self.nullspace)
        if self.side not in ("left", "right"):
            raise ValueError(
                f"side: must be 'left' or 'right'; got {self.side!r}. Leave it out for 'right', "
                "which minimises the residual that is judged."
            )
        if self.side == "left" and not self.is_square:
            raise ValueError(
                f"side: `{type(self).__name__}` takes a preconditioner on the right only: on the left "
                "it would change what is minimised. Leave it out."
            )

    @abc.abstractmethod
    def method(self, system: System) -> Method:
        """The cycle of the method for one system, and what the loop around it has to know."""

    def init(self, operator: AbstractLinearOperator, options: Options) -> KrylovState:
        del options
        name = type(self).__name__
        if self.is_square:
            check_square(operator, name)
        if self.needs_definite:
            check_definite(operator, name)
        operator = linearise(operator)
        m = self.preconditioner
        if isinstance(m, AbstractLinearSolver):
            m = inverse_by(m, operator)
        elif isinstance(m, AbstractPreconditioner):
            m = self.make_preconditioner(m, operator)
        m = None if m is None else linearise(m)
        return KrylovState(operator, m, projector(self.nullspace, operator))

    def suited(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> AbstractPreconditioner | None:
        if isinstance(preconditioner, Auto):
            return preconditioner.choose(operator, self.in_the_middle).preconditioner
        return preconditioner

    def check_preconditioner(
        self, preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator
    ) -> None:
        if self.in_the_middle:
            check_keeps_definite(preconditioner, operator, type(self).__name__)

    def compute(
        self, state: KrylovState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        _, _, projection = state
        operator = with_products_ahead(state.operator)
        vector = inexact_vector(vector)
        preconditioner = read_preconditioner(state, options)
        if self.in_the_middle and preconditioner is not None:
            refuse_nonsymmetric(preconditioner, type(self).__name__)
        x0 = read_guess(operator, options)
        problem = pose(operator, vector, x0, self.rtol, self.atol, self.norm, projection)
        axes = mesh_axes(operator, preconditioner, projection, problem)
        max_steps = step_limit(self.max_steps, min(operator.in_size(), operator.out_size()))
        system = System(
            operator, preconditioner, projection, problem, self.norm, self.side, max_steps, axes
        )
        system.options = options
        if self.progress:
            system.watch = shown(type(self).__name__, every(self.progress), problem)
        method = self.method(system)
        taped = recording().path  # a tape that wants the whole path goes before the own setting
        history, length = ("x", min(taped, max_steps)) if taped else (self.history, max_steps)
        trail = new_trail(history, length, problem.norm, problem.x)
        ending, memory = iterate(method, operator, problem, self.norm, max_steps, axes, trail)
        if projection is not None:
            ending = ending._replace(x=projection.of_solution(ending.x))
        x, result, stats = report(problem, ending, max_steps, self.norm)
        if method.statistics is not None:
            stats |= method.statistics(memory, x)
        return x, result, stats

    def transpose(self, state: KrylovState, options: Options) -> tuple[KrylovState, Options]:
        return _turn("transpose", lambda operator: operator.transpose(), state, options)

    def conj(self, state: KrylovState, options: Options) -> tuple[KrylovState, Options]:
        return _turn("conj", conj, state, options)

    def lenient(self, state: KrylovState) -> KrylovState:
        if state.projector is None:
            return state
        return state._replace(projector=state.projector.lenient())

    def assume_full_rank(self) -> bool:
        return True

    def checks_residual(self) -> bool:
        return True

    def __repr__(self) -> str:
        """As one would write it. Functions and operators are shown only if they were given."""
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            quiet = callable(field.default) or field.name in _QUIET
            if not (quiet and value is field.default):
                shown.append(f"{field.name}={_show(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _show(value: Any) -> str:
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        concrete = not isinstance(value, jax.core.Tracer) and np.ndim(value) == 0
        return repr(value.item()) if concrete else eqx.tree_pformat(value)
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return repr(value)


def _turn(
    name: str,
    turn: Callable[[AbstractLinearOperator], AbstractLinearOperator],
    state: KrylovState,
    options: Options,
) -> tuple[KrylovState, Options]:
    operator, preconditioner, projection = state
    options = {key: value for key, value in options.items() if key not in _GUESSES}
    if options.get("preconditioner") is not None:
        options["preconditioner"] = turn(options["preconditioner"])
    if preconditioner is not None:
        preconditioner = turn(preconditioner)
    if projection is not None:
        projection = getattr(projection, name)()
    return KrylovState(turn(operator), preconditioner, projection), options


def check_preconditioner_field(preconditioner: Any, flexible: bool = False) -> None:
    """Refuse, when a solver is made, what is no operator (nor, for flexible methods, a solver)."""
    made = AbstractLinearOperator, AbstractPreconditioner
    if preconditioner is None or isinstance(preconditioner, made):
        return
    if isinstance(preconditioner, AbstractLinearSolver):
        if flexible:
            return
        raise ValueError(
            "preconditioner: must be an AbstractLinearOperator that approximates A⁻¹, or None; got "
            f"the solver {preconditioner!r}. Pass `lp.invert(operator, solver)` if it is accurate "
            "(a factorization, say), else use `FGMRES`, which takes iterations too."
        )
    raise ValueError(
        "preconditioner: must be an AbstractLinearOperator that approximates A⁻¹, one of "
        f"`preconditioners`, or None; got {type(preconditioner).__name__}. {_WRAP}"
    )


def refuse_nonsymmetric(preconditioner: AbstractLinearOperator, solver: str) -> None:
    """Refuse a preconditioner that is known not to be symmetric, for a method that would not converge."""
    if is_nonsymmetric(preconditioner):
        raise ValueError(
            f"preconditioner: `{solver}` needs one that is symmetric positive definite, and this "
            f"{type(preconditioner).__name__} is not symmetric. Make one that is "
            "(`LowRankPlusDiagonal.spd(d, U)`, D + UUᴴ, in the place of D + UVᵀ; `IC` in the place of "
            "`ILU`), or use `GMRES`, `BiCGStab` or `IDR`, which take this one."
        )


def check_square(operator: AbstractLinearOperator, solver: str) -> None:
    """Refuse what does not map a structure to itself."""
    require_square(operator, solver)
    in_structure, out_structure = operator.in_structure(), operator.out_structure()
    if not structure_equal(in_structure, out_structure):
        raise StructureError(
            f"operator: `{solver}` needs one structure for input and output; got input "
            f"{structure_str(in_structure)} and output {structure_str(out_structure)}. Ravel "
            "both into vectors, or use a direct solver such as `LU()`."
        )


def check_definite(operator: AbstractLinearOperator, solver: str) -> None:
    """Refuse operators without the tag of a definite one."""
    if not (is_positive_semidefinite(operator) or is_negative_semidefinite(operator)):
        raise ValueError(
            f"operator: `{solver}` needs a positive or negative definite operator, and this "
            f"{type(operator).__name__} does not promise that. Tag it with "
            "`positive_semidefinite_tag` if it is, or use `GMRES()`."
        )


def inexact_vector(vector: PyTree[Any]) -> PyTree[Array]:
    """A right-hand side with its integers promoted to the default float."""
    return jax.tree.map(inexact_asarray, vector)


def read_guess(operator: AbstractLinearOperator, options: Options) -> PyTree[Array] | None:
    """The option `y0` (or `x0`), checked."""
    given = [key for key in _GUESSES if options.get(key) is not None]
    if not given:
        return None
    if len(given) == 2:
        raise ValueError("options: 'y0' and 'x0' mean the same; got both. Pass one of them.")
    structure = operator.in_structure()
    guess = jax.tree.map(inexact_asarray, options[given[0]])
    if not structure_equal(guess, structure):
        raise StructureError(
            f"options[{given[0]!r}]: must have the structure of the solution, "
            f"{structure_str(structure)}; got {structure_str(guess)}. Reshape or cast it."
        )
    return guess


def check_keeps_definite(
    preconditioner: AbstractPreconditioner, operator: AbstractLinearOperator, name: str
) -> None:
    """Refuse, by a `ValueError`, what a method for definite preconditioners cannot use."""
    if not preconditioner.keeps_definite(operator):
        raise ValueError(
            f"preconditioner: `{name}` needs one that is symmetric positive definite, which what "
            f"`{preconditioner!r}` makes of this operator is not. Use `GMRES` or `BiCGStab` with it, "
            "or another preconditioner (`AMG`, `IC`, … of a definite operator, tagged "
            "`positive_semidefinite_tag`; `Jacobi(absolute=True)` of any)."
        )


def read_preconditioner(state: KrylovState, options: Options) -> AbstractLinearOperator | None:
    """The option `preconditioner`, else the solver's own, checked against the operator."""
    operator, preconditioner = state[:2]
    if options.get("preconditioner") is not None:
        preconditioner = options["preconditioner"]
        if not isinstance(preconditioner, AbstractLinearOperator):
            raise ValueError(
                "options['preconditioner']: must be an AbstractLinearOperator that approximates "
                f"A⁻¹, or one of `preconditioners`; got {type(preconditioner).__name__}. {_WRAP}"
            )
        preconditioner = linearise(preconditioner)
    if preconditioner is None:
        return None
    wanted = operator.out_structure(), operator.in_structure()
    got = preconditioner.in_structure(), preconditioner.out_structure()
    if not structure_equal(wanted, got):
        raise StructureError(
            f"preconditioner: approximates A⁻¹, so it must map {structure_str(wanted[0])} to "
            f"{structure_str(wanted[1])}; got one that maps {structure_str(got[0])} to "
            f"{structure_str(got[1])}. Build it for this operator (not for its transpose)."
        )
    return preconditioner
