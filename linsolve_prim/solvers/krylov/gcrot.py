"""GCROT(m, k): GMRES that keeps the best of what it learned, also from one solve to the next."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._norms import two_norm
from ..._tree import (
    HIGHEST,
    ravel,
    tree_add,
    tree_all_finite,
    tree_conj,
    tree_size,
    tree_sub,
    tree_where,
    unravel,
)
from ..._types import Options, Structure, structure_equal, structure_of, structure_str
from ...errors import StructureError
from ...operators import AbstractLinearOperator
from ..inner import no_counts
from .arnoldi import LOOSE, Arnoldi, arnoldi, combined, minimiser, project, put_last, row
from .base import AbstractKrylovSolver, KrylovState
from .cycles import End, Method, Start
from .fgmres import (
    check_right,
    count_statistics,
    euclidean_target,
    flexible_outcome,
    precondition_counted,
)
from .stopping import NormLike, Steps, check_count
from .system import System
from .vectors import normalise, tree_divide, tree_zeros_like


class RecycledSpace(NamedTuple):
    """What `GCROT` keeps for the next solve, `stats["recycle"]`: a pytree of fixed shapes.

    - `vectors`: directions in which A was inverted, stacked along a new first axis of each leaf.
    - `count`: how many of them are filled; the others are zero.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> space = lp.GCROT(m=5, k=2).empty_space(jnp.zeros(3))
        >>> space.vectors.shape, int(space.count)
        ((2, 3), 0)
    """

    vectors: PyTree[Array]
    count: Array


class _Memory(NamedTuple):
    """C = AU with orthonormal C; unfilled vectors are zero."""

    c: PyTree[Array]
    u: PyTree[Array]
    count: Array
    inner: Array  # what an inner solver counted


class GCROT(AbstractKrylovSolver):
    """GCROT(m, k) (Hicken and Zingg, 2010, doi:10.1137/080726732, simplified and flexible as there;
    after de Sturler, 1999, doi:10.1137/S0036142997315950).

    For square operators of any kind on which `GMRES` is slow once it restarts: k vectors of earlier
    cycles are kept, and the residual stays minimal over them. One product with A and one with M for
    each step, and one with A for each cycle; `m + 3k` vectors (`2m + 4k` with a preconditioner).

    The vectors can be *recycled* for other systems with the same or a slightly different operator:

    ```python
    solver = lp.GCROT(m=20, k=10)

    def step(space, system):
        A, b = system
        solution = lp.linear_solve(A, b, solver, options={"recycle": space})
        return solution.stats["recycle"], solution.value

    space = solver.empty_space(jax.ShapeDtypeStruct((n,), dtype))
    space, xs = jax.lax.scan(step, space, systems)
    ```

    This costs k products more at the start of each solve (AU is made anew, so that the result is right
    for any A). No derivatives flow through the space; transposed solves start without one.

    - `preconditioner`: an operator or a solver, as for `FGMRES`.
    - `m`: the steps of a cycle (a few more, as long as fewer than k vectors are kept).
    - `k`: how many vectors are kept; default `m`.
    - `rtol`, `atol`, `history`, `nullspace`: see `AbstractKrylovSolver`. The side is the right one.
    - `norm`: the norm in ‖b − Ax‖ ≤ max(rtol·‖b‖, atol).
    - `max_steps`: default 10 per unknown.
    - `stagnation_iters`: how many cycles in a row may leave the residual where it is.

    Option `"recycle"`: a `RecycledSpace` of an earlier solve with this m and k, or an empty one.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.FunctionLinearOperator(lambda x: 3 * x - jnp.roll(x, 1), jnp.zeros(5))
        >>> first = lp.linear_solve(A, jnp.arange(5.0), lp.GCROT(m=5, k=5))
        >>> again = {"recycle": first.stats["recycle"]}
        >>> second = lp.linear_solve(A, 2 * jnp.arange(5.0), lp.GCROT(m=5, k=5), options=again)
        >>> int(first.stats["num_steps"]) > int(second.stats["num_steps"])
        True
    """

    norm: NormLike = two_norm
    max_steps: Steps = None
    m: Steps = 20
    k: Steps = None
    stagnation_iters: Steps = 20

    flexible: ClassVar[bool] = True
    sides: ClassVar[tuple[str, ...]] = ("right",)

    def __check_init__(self) -> None:
        check_count("m", self.m, "20")
        check_count("k", self.k, "m", optional=True)
        check_count("stagnation_iters", self.stagnation_iters, "20")
        check_right(self)

    def empty_space(self, structure: PyTree[Any]) -> RecycledSpace:
        """The space to start with, for solutions of this structure (arrays will do)."""
        kept = self._kept(tree_size(structure))
        zeros = lambda s: jnp.zeros((kept, *s.shape), s.dtype)
        vectors = jax.tree.map(zeros, structure_of(structure))
        return RecycledSpace(vectors, jnp.zeros((), jnp.int32))

    def _kept(self, size: int) -> int:
        return min(int(self.m or 1) if self.k is None else int(self.k), max(size, 1))

    def transpose(self, state: KrylovState, options: Options) -> tuple[KrylovState, Options]:
        options = {key: value for key, value in options.items() if key != "recycle"}
        return super().transpose(state, options)

    def conj(self, state: KrylovState, options: Options) -> tuple[KrylovState, Options]:
        state, options = super().conj(state, options)
        if options.get("recycle") is not None:
            options["recycle"] = tree_conj(options["recycle"])
        return state, options

    def method(self, system: System) -> Method:
        size = max(tree_size(system.problem.vector), 1)
        kept = self._kept(size)
        length = min(int(self.m or 1) + kept, size)
        space = self._read_space(system.options, system.operator)
        memory = _orthonormalised(system, space, kept)

        def expand(c: Arnoldi) -> tuple[Any, PyTree[Array], Any]:
            v = row(c.basis, c.trip)
            if system.preconditioner is None:
                return None, system.apply(v), c.extra
            z, counts = precondition_counted(system, v)
            return z, system.apply(z), c.extra + counts

        def cycle(start: Start) -> End:
            old: _Memory = start.memory
            known = project(old.c, start.residual)
            v, beta = normalise(tree_sub(start.residual, combined(old.c, known)))
            like = None if system.preconditioner is None else system.problem.x
            step, first = arnoldi(
                expand, v, beta, length, directions=like, against=old.c, extra=old.inner
            )
            target = euclidean_target(system, start, beta)
            # d = U Cᴴr + (Z − UB)y: what is minimal over U and Z at once
            first_d = combined(old.u, known)

            def minimal(c: Arnoldi) -> tuple[PyTree[Array], Array]:
                y, g = minimiser(c, beta)
                directions = c.basis if c.directions is None else c.directions
                y_all = y if c.directions is not None else jnp.append(y, jnp.zeros((1,), y.dtype))
                shares = jnp.matmul(c.shares, y, precision=HIGHEST)
                return tree_sub(combined(directions, y_all), combined(old.u, shares)), g

            ran = system.run(
                step,
                first,
                start,
                target,
                budget=jnp.minimum(start.budget, self._budget(length, kept, old.count)),
                correction=lambda c: tree_add(first_d, minimal(c)[0]),
                exact=self.norm is two_norm,
                loose=LOOSE,
            )
            c = ran.carry
            u, g = minimal(c)
            hy = jnp.matmul(jnp.conj(c.rotations).T[:, :length], g, precision=HIGHEST)
            new = _with(old, combined(c.basis, hy), u, c.extra)
            outcome = flexible_outcome(c, target)
            return ran.end(tree_add(first_d, u), memory=new, outcome=outcome)

        def statistics(memory: _Memory, x: PyTree[Array]) -> dict[str, Any]:
            x, x_norm = normalise(x)  # it is a good direction for the next right-hand side
            put = x_norm > 0
            vectors = tree_where(put, put_last(memory.u, memory.count, x), memory.u)
            count = jnp.minimum(memory.count + put.astype(jnp.int32), kept)
            recycle = {"recycle": RecycledSpace(vectors, count)}
            return recycle | count_statistics(system, memory.inner)

        return Method(
            cycle,
            memory=memory,
            patience=int(self.stagnation_iters or 1),
            statistics=statistics,
            before=(0 if space is None else kept, 0),
        )

    def _budget(self, length: int, kept: int, count: Array) -> Array:
        """As SciPy: the fewer vectors are kept, the longer is the cycle."""
        return jnp.minimum(int(self.m or 1) + kept - count, length)

    def _read_space(
        self, options: Options, operator: AbstractLinearOperator
    ) -> RecycledSpace | None:
        space = options.get("recycle")
        if space is None:
            return None
        wanted: Structure = jax.eval_shape(lambda: self.empty_space(operator.in_structure()))
        if not isinstance(space, RecycledSpace) or not structure_equal(space, wanted):
            got = structure_str(space) if isinstance(space, RecycledSpace) else type(space).__name__
            raise StructureError(
                f"options['recycle']: must be {structure_str(wanted)}; got {got}. Pass "
                "`solution.stats['recycle']` of a solve by the same solver, or "
                "`solver.empty_space(structure)`."
            )
        return space


def _with(old: _Memory, c: PyTree[Array], u: PyTree[Array], inner: Array) -> _Memory:
    """The memory with one more pair Au = c, if c is not zero."""
    c, c_norm = normalise(c)
    u_norm = two_norm(u)
    useful = (c_norm > 0) & jnp.isfinite(c_norm) & jnp.isfinite(u_norm)
    safe = jnp.where(useful, c_norm, 1)
    u = jax.tree.map(lambda leaf: leaf / safe.astype(leaf.dtype), u)
    size = jax.tree.leaves(old.c)[0].shape[0]
    new_c, new_u = put_last(old.c, old.count, c), put_last(old.u, old.count, u)
    return _Memory(
        c=tree_where(useful, new_c, old.c),
        u=tree_where(useful, new_u, old.u),
        count=jnp.minimum(old.count + useful.astype(jnp.int32), size),
        inner=inner,
    )


def _orthonormalised(system: System, space: RecycledSpace | None, kept: int) -> _Memory:
    """C = AU with orthonormal C, for the vectors of another solve; dependent ones are dropped."""
    x = system.problem.x
    if space is None:
        none = jax.tree.map(lambda leaf: jnp.zeros((kept, *leaf.shape), leaf.dtype), x)
        return _Memory(none, none, jnp.zeros((), jnp.int32), no_counts())
    filled = jnp.arange(kept, dtype=jnp.int32) < space.count
    usable = filled & jax.vmap(tree_all_finite)(space.vectors)
    u = jax.vmap(lambda ok, u: tree_where(ok, u, tree_zeros_like(u)))(usable, space.vectors)
    products, norms = jax.vmap(normalise)(jax.vmap(system.apply)(u))
    ok = (norms > 0) & jnp.isfinite(norms)
    u = jax.vmap(lambda u, norm: tree_divide(u, norm))(u, jnp.where(ok, norms, 1))
    # W = AU = QR = (QP) S Vᴴ: then C = QP, and U becomes U V S⁻¹
    flat = jax.vmap(lambda ok, w: jnp.where(ok, ravel(w), 0))(ok, products)
    q, r = jnp.linalg.qr(flat.T)
    p, sizes, vh = jnp.linalg.svd(r)
    keep = sizes > system.eps**0.5 * sizes[0]
    c = jnp.where(keep[:, None], jnp.matmul(q, p, precision=HIGHEST).T, 0)
    inverse = jnp.where(keep, 1 / jnp.where(keep, sizes, 1), 0).astype(vh.dtype)
    structure = system.operator.out_structure()
    return _Memory(
        c=jax.vmap(lambda row: unravel(row, structure))(c),
        u=jax.vmap(lambda h: combined(u, h))(inverse[:, None] * vh.conj()),
        count=keep.sum(dtype=jnp.int32),
        inner=no_counts(),
    )
