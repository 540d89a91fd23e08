"""The generalised minimal residual method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import HIGHEST, tree_dtype, tree_size, tree_sub
from ..._types import Options
from ...operators import AbstractLinearOperator
from ...results import RESULTS
from .base import (
    AbstractKrylovSolver,
    KrylovState,
    Preconditioner,
    check_preconditioner_field,
    inexact_vector,
    read_guess,
    read_preconditioner,
    square_state,
)
from .cycles import OVERFLOW, RUNNING, SINGULAR, End, Start, close, iterate, outcome_of
from .stopping import (
    NormLike,
    Steps,
    Tolerance,
    check_count,
    check_settings,
    pose,
    report,
    step_limit,
)
from .vectors import mesh_axes, normalise, while_loop

if TYPE_CHECKING:
    Side = Literal["left", "right"]
else:
    Side = Any  # checked by `GMRES` itself


class _Arnoldi(NamedTuple):
    """After j steps: A V[:j] = V[:j+1] H, and QH = R is upper triangular."""

    basis: PyTree[Array]  # V, stacked along the first axis of each leaf
    rotations: Array  # Q, the product of the Givens rotations
    triangle: Array  # R, with ones on the diagonal of the columns to come
    norm: Array  # of the residual, two_norm
    top: Array  # the largest ‖A vᵢ‖
    steps: Array
    outcome: Array


class GMRES(AbstractKrylovSolver):
    """Restarted GMRES (Saad and Schultz, 1986, doi:10.1137/0907058), preconditioned.

    For square operators of any kind. One product with A and one with M for each step, and one with
    A for each restart; a basis of `restart + 1` vectors. Gram–Schmidt is done twice, in matrix
    form: twice is enough (Giraud, Langou and Rozložník, 2005, doi:10.1016/j.camwa.2005.08.009).
    Options: `"preconditioner"`, `"y0"`.

    - `rtol`, `atol`: ‖b − Ax‖ ≤ max(rtol·‖b‖, atol), without preconditioner. `rtol=None` stands for
      1e-5 in float32 and 1e-10 in float64.
    - `norm`: the norm in this rule. (What is minimised is the Euclidean norm.)
    - `max_steps`: default 10 per unknown. Steps inside of restarts count.
    - `restart`: the length of a cycle.
    - `stagnation_iters`: how many cycles in a row may leave the residual where it is.
    - `preconditioner`: used where the options name none.
    - `side`: `"right"` minimises ‖b − Ax‖, `"left"` ‖M(b − Ax)‖.
    """

    rtol: Tolerance = None
    atol: Tolerance = 0.0
    norm: NormLike = two_norm
    max_steps: Steps = None
    restart: Steps = 20
    stagnation_iters: Steps = 20
    preconditioner: Preconditioner = None
    side: Side = "right"

    def __check_init__(self) -> None:
        check_settings(self.rtol, self.atol, self.norm, self.max_steps)
        check_count("restart", self.restart, "20")
        check_count("stagnation_iters", self.stagnation_iters, "20")
        check_preconditioner_field(self.preconditioner)
        if self.side not in ("left", "right"):
            raise ValueError(
                f"side: must be 'left' or 'right'; got {self.side!r}. Leave it out for 'right', "
                "which minimises the residual that is judged."
            )

    def init(self, operator: AbstractLinearOperator, options: Options) -> KrylovState:
        del options
        return square_state(operator, self.preconditioner, "GMRES")

    def compute(
        self, state: KrylovState, vector: PyTree[Array], options: Options
    ) -> tuple[PyTree[Array], RESULTS, dict[str, Any]]:
        operator, _ = state
        vector = inexact_vector(vector)
        preconditioner, x0 = read_preconditioner(state, options), read_guess(operator, options)
        same = lambda x: x
        left = right = same
        if preconditioner is not None and self.side == "left":
            left = preconditioner.mv
        elif preconditioner is not None:
            right = preconditioner.mv
        problem = pose(operator, vector, x0, self.rtol, self.atol, self.norm)
        size = tree_size(vector)
        max_steps, length = (
            step_limit(self.max_steps, size),
            min(int(self.restart or 1), max(size, 1)),
        )
        axes = mesh_axes(operator, preconditioner, problem)

        def cycle(start: Start) -> End:
            target = start.target
            v, beta = normalise(left(start.residual))
            if left is not same or self.norm is not two_norm:
                # Aim at the target by what one norm is worth in the other; a miss is made up for.
                target = target * beta / jnp.where(start.norm > 0, start.norm, 1)
            product = lambda v: left(operator.mv(right(v)))
            budget = jnp.minimum(start.budget, length)
            c = _arnoldi(product, v, beta, target, budget, length, axes)
            correction = right(_combine(c, beta))
            return End(correction, c.steps, close(c.outcome, c.norm, target), start.memory)

        ending, _ = iterate(
            cycle,
            operator,
            problem,
            self.norm,
            max_steps,
            axes,
            patience=int(self.stagnation_iters or 1),
        )
        return report(problem, ending, max_steps)

    def assume_full_rank(self) -> bool:
        return True


def _arnoldi(
    product: Any,
    v: PyTree[Array],
    beta: Array,
    target: Array,
    budget: Array,
    length: int,
    axes: frozenset,
) -> _Arnoldi:
    """Extend an orthonormal basis from v until the residual of norm `beta` has come to `target`."""
    dtype = tree_dtype(v)
    eps = float(jnp.finfo(dtype).eps)
    index = jnp.arange(length + 1, dtype=jnp.int32)

    def step(c: _Arnoldi) -> _Arnoldi:
        j = c.steps
        w, w_norm = normalise(product(jax.tree.map(lambda leaf: _row(leaf, j), c.basis)))
        h = _project(c.basis, w)
        w = tree_sub(w, _expand(c.basis, h))
        again = _project(c.basis, w)
        w, rest = normalise(tree_sub(w, _expand(c.basis, again)))
        rest = jnp.where(rest > 10 * eps, rest, 0)  # else the space is invariant: a happy end
        # The new column of H in units of ‖w‖, turned by the rotations that were; then the next one.
        column = h + again + jnp.where(index == j + 1, rest, 0).astype(dtype)
        column = jnp.matmul(c.rotations, column, precision=HIGHEST)
        hypot = jnp.sqrt(jnp.abs(column[j]) ** 2 + rest**2)
        top = jnp.maximum(c.top, w_norm)
        singular = hypot * w_norm <= eps * top
        overflow = ~jnp.isfinite(w_norm)
        ok = ~(singular | overflow)
        safe = jnp.where(ok, hypot, 1)
        cos, sin = column[j] / safe.astype(dtype), (rest / safe).astype(dtype)
        q, q_next = c.rotations[j], c.rotations[j + 1]
        rotations = c.rotations.at[j].set(jnp.conj(cos) * q + sin * q_next)
        rotations = rotations.at[j + 1].set(cos * q_next - sin * q)
        rotations = jnp.where(ok, rotations, c.rotations)
        rows = index[:length]
        new = jnp.where(rows == j, hypot.astype(dtype), jnp.where(rows < j, column[:length], 0))
        new = jnp.where(ok, new * w_norm.astype(dtype), c.triangle[:, j])
        keep_row = lambda leaf, row: leaf.at[j + 1].set(jnp.where(ok & (rest > 0), row, 0))
        return _Arnoldi(
            basis=jax.tree.map(keep_row, c.basis, w),
            rotations=rotations,
            triangle=c.triangle.at[:, j].set(new),
            norm=jnp.where(ok, beta * jnp.abs(rotations[j + 1, 0]), c.norm),
            top=top,
            steps=j + ok.astype(jnp.int32),
            outcome=outcome_of((SINGULAR, singular), (OVERFLOW, overflow)),
        )

    empty = lambda leaf: jnp.zeros((length + 1, *leaf.shape), leaf.dtype).at[0].set(leaf)
    zero = jnp.zeros((), jnp.int32)
    first = _Arnoldi(
        basis=jax.tree.map(empty, v),
        rotations=jnp.eye(length + 1, dtype=dtype),
        triangle=jnp.eye(length, dtype=dtype),
        norm=beta,
        top=jnp.zeros_like(beta),
        steps=zero,
        outcome=zero,
    )
    going = lambda c: (c.outcome == RUNNING) & (c.norm > target) & (c.steps < budget)
    return while_loop(going, step, first, axes)


def _combine(c: _Arnoldi, beta: Array) -> PyTree[Array]:
    """V y with the y that minimises ‖βe₁ − Hy‖, that is Ry = Qβe₁."""
    length = c.triangle.shape[0]
    rhs = c.rotations[:length, 0] * beta.astype(c.triangle.dtype)
    rhs = jnp.where(jnp.arange(length, dtype=jnp.int32) < c.steps, rhs, 0)
    y = jsp.linalg.solve_triangular(c.triangle, rhs)
    return _expand(c.basis, jnp.append(y, jnp.zeros((1,), y.dtype)))


def _row(leaf: Array, j: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(leaf, j, keepdims=False)


def _project(basis: PyTree[Array], w: PyTree[Array]) -> Array:
    """Vᴴw."""
    dtype = tree_dtype(w)

    def one(v: Array, w: Array) -> Array:
        flat = v.reshape(v.shape[0], -1)
        h = jnp.matmul(flat, jnp.conj(w).reshape(-1), precision=HIGHEST)
        return jnp.conj(h).astype(dtype)

    return sum(jax.tree.leaves(jax.tree.map(one, basis, w)))


def _expand(basis: PyTree[Array], h: Array) -> PyTree[Array]:
    """V h."""

    def one(v: Array) -> Array:
        h_leaf = h if jnp.iscomplexobj(v) else h.real
        flat = v.reshape(v.shape[0], -1)
        x = jnp.matmul(h_leaf.astype(v.dtype), flat, precision=HIGHEST)
        return x.reshape(v.shape[1:])

    return jax.tree.map(one, basis)
