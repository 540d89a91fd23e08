"""The exceptions of compiled programs with their class and their solution."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import remembered


@contextlib.contextmanager
def original_errors() -> Iterator[None]:
    """`with lp.original_errors(): jitted(b)` raises `NotConverged` and the like from compiled code.

    JAX delivers an exception from inside `jax.jit` as `jax.errors.JaxRuntimeError` or `ValueError`
    that has ours as text. Here that is exchanged for ours, whose `solution` holds the last estimate
    as NumPy arrays, the result code, and of the statistics `num_steps` and (for iterative methods)
    `relative_residual`. Also a decorator: `@lp.original_errors()`. (The program must have run before
    the block is left: call `jax.block_until_ready` on its results on an accelerator.)

        >>> import jax, jax.numpy as jnp, linsolve_prim as lp
        >>> A = lp.MatrixLinearOperator(jnp.diag(jnp.arange(1.0, 9.0)), lp.positive_semidefinite_tag)
        >>> few = jax.jit(lambda b: lp.linear_solve(A, b, lp.CG(max_steps=2)).value)
        >>> try:
        ...     with lp.original_errors():
        ...         few(jnp.ones(8))
        ... except lp.NotConverged as error:
        ...     print(error.solution.stats["num_steps"])
        2
    """
    try:
        yield
    except Exception as error:
        own = remembered(error)
        if own is None or own is error:
            raise
        raise own from None
