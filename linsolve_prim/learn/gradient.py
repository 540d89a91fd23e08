"""Gradients by the names of arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..errors import WrongTypeError

_Which = int | str


def gradient(
    f: Callable[..., Any],
    wrt: _Which | Sequence[_Which] = 0,
    get_output: bool = True,
) -> Callable[..., Any]:
    """The gradient of f's result, or of its first result, by arguments that are named or numbered.

    ```python
    loss, db = lp.gradient(loss_fn, "b")(A, b)  # loss_fn(A, b) is a scalar
    loss, x, dA, db = lp.gradient(with_solution, ["A", "b"])(A, b)  # it returns (loss, x)
    db = lp.gradient(loss_fn, "b", get_output=False)(A, b)
    ```

    It is `jax.value_and_grad(f, argnums, has_aux=…)` with its results in one flat tuple.

    - `f`: returns a real scalar, or a tuple of one and whatever else is to be returned.
    - `wrt`: a name or position of an argument, or a list of those.
    - `get_output`: whether the results of f come first: (loss, …, gradient, …). If not, a single `wrt`
      gives its gradient, and a list of them a tuple.

    **Raises** `WrongTypeError` for an argument that f does not have.

        >>> import jax.numpy as jnp, linsolve_prim as lp
        >>> loss = lambda A, b: jnp.sum(lp.solve(A, b))
        >>> value, db = lp.gradient(loss, "b")(jnp.diag(jnp.array([2.0, 4.0])), jnp.ones(2))
        >>> print(value, db)
        0.75 [0.5  0.25]
    """
    several = not isinstance(wrt, (int, str))
    chosen = list(wrt) if isinstance(wrt, Sequence) and several else [wrt]
    signature = inspect.signature(f)
    names = [_name(signature, which) for which in chosen]
    if not names or len(set(names)) < len(names):
        raise WrongTypeError(f"wrt: must name each argument once, and at least one; got {wrt!r}.")

    @functools.wraps(f)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()

        def flat(*values: Any) -> tuple[Any, Any]:
            given = inspect.BoundArguments(signature, bound.arguments.copy())
            given.arguments.update(zip(names, values))
            out = f(*given.args, **given.kwargs)
            return (out[0], out[1:]) if isinstance(out, tuple) else (out, ())

        moving = [bound.arguments[name] for name in names]
        everything = tuple(range(len(moving)))
        (value, more), gradients = jax.value_and_grad(flat, everything, has_aux=True)(*moving)
        if get_output:
            return (value, *more, *gradients)
        return tuple(gradients) if several else gradients[0]

    return differentiated


def _name(signature: inspect.Signature, which: Any) -> str:
    names = list(signature.parameters)
    if isinstance(which, str) and which in names:
        return which
    if isinstance(which, int) and 0 <= which < len(names):
        return names[which]
    raise WrongTypeError(
        f"wrt: must name arguments of f, {', '.join(names)}, or number them from 0; got {which!r}."
    )
